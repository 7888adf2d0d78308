"""Measure what importing each dependency costs and how large it is, and write the table into docs/dependencies.md.

Processor time is measured, which other programs on the machine disturb less than they do the clock.
"""

import re
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "dependencies.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
# Distribution -> what gpt2kit imports of it.
IMPORTS = {
    "charset-normalizer": "charset_normalizer",
    "click": "click",
    "filelock": "filelock",
    "ftfy": "ftfy",
    "huggingface-hub": "huggingface_hub.hf_api",
    "jinja2": "jinja2",
    "numpy": "numpy",
    "psutil": "psutil",
    "pydantic": "pydantic.main",
    "safetensors": "safetensors",
    "tabulate": "tabulate",
    "tokenizers": "tokenizers",
    "torch": "torch",
    "tqdm": "tqdm",
    "zstandard": "zstandard",
    "pyarrow": "pyarrow.parquet",
    "tiktoken": "tiktoken",
    "tensorboard": "torch.utils.tensorboard",
    "matplotlib": "matplotlib.figure",
    "scikit-learn": "sklearn.decomposition",
    "mauve-text": "mauve",
    "harper-py": "harper",
    "optuna": "optuna",
    "starlette": "starlette.applications",
    "uvicorn": "uvicorn",
}
_TRIALS = 5


def _seconds(code: str) -> float:
    """Processor time of a fresh interpreter, the best of a few."""
    trials = []
    for _ in range(_TRIALS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-I", "-c", code], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        trials.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return min(trials)


def _megabytes(distribution: str) -> float:
    files = (Path(str(file.locate())) for file in metadata.files(distribution) or ())
    return sum(file.stat().st_size for file in files if file.exists()) / 1e6


def main() -> None:
    """Measure and write."""
    empty = _seconds("pass")
    rows = ["| package | version | import | ms | MB on disk |", "|---|---|---|--:|--:|"]
    for distribution, module in IMPORTS.items():
        milliseconds = 1000 * (_seconds(f"import {module}") - empty)
        rows.append(
            f"| {distribution} | {metadata.version(distribution)} | `{module}` | {max(milliseconds, 0):.0f} | "
            f"{_megabytes(distribution):.1f} |"
        )
    page = PAGE.read_text(encoding="utf-8")
    table = "\n".join([BEGIN, *rows, END])
    PAGE.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: table, page, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main()
