"""Where the benchmarks keep things."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BENCHMARKS = ROOT / "benchmarks"
VENV = BENCHMARKS / ".venv"
WORK = BENCHMARKS / "work"  # models, prepared data, logs; may be deleted at any time
RESULTS = BENCHMARKS / "results"  # one JSON a benchmark, committed: the tables are made from it
PAGE = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
