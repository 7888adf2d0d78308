"""Make nano from the corpora: tokenizer, data, pre-training, and the folder that ships.

    .venv/bin/python recipes/nano/build.py --corpora PATH

Every step is an ordinary gpt2kit command, shown before it runs. What is done already is not done again: the same
command goes on with a training that was stopped.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

RECIPE = Path(__file__).parent / "nano.toml"
WORK = Path("data/nano")
MODEL = Path("models/nano")


def main() -> None:
    """Run the steps in order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", required=True, type=Path, help="folder with prose_train-*.jsonl.zst")
    corpora = parser.parse_args().corpora.resolve()
    raw = WORK / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    books = sorted(corpora.glob("prose_train-*.jsonl.zst"))
    if not books:
        sys.exit(f"--corpora {corpora}: holds no prose_train-*.jsonl.zst")
    for source in books:
        if not (raw / source.name).exists():
            (raw / source.name).symlink_to(source)
    gpt2kit("tokenizer", "train", "--config", RECIPE, "--input", raw, "--output_dir", WORK / "tokenizer")
    gpt2kit("prepare", "--config", RECIPE, "--input", raw, "--base", WORK / "tokenizer", "--data_dir", WORK / "data")
    gpt2kit("train", "--config", RECIPE, "--data_dir", WORK / "data", "--model_output_dir", MODEL)
    run(sys.executable, Path(__file__).parent / "ship.py", "--model_dir", MODEL, "--corpora", corpora)


def gpt2kit(*words: str | Path) -> None:
    """Run a gpt2kit command."""
    run(sys.executable, "-m", "gpt2kit", *words)


def run(*words: str | Path) -> None:
    """Show a command and run it; end with its status when it fails."""
    command = [str(word) for word in words]
    print(f"$ {shlex.join(command)}", flush=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main()
