"""Set up the benchmarks' environment: gpt2kit first, then each peer by itself.

    benchmarks/.venv/bin/python benchmarks/install.py

A peer that does not install is noted with the last line of what pip said, which the tables then show; the others are
installed all the same. What is installed already is left as it is.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
FAILURES = Path(sys.prefix) / "failures"


def main() -> None:
    """Install all requirement files; fail only when gpt2kit itself does not install."""
    FAILURES.mkdir(exist_ok=True)
    for requirements in [HERE / "requirements.txt", *sorted(HERE.glob("requirements-*.txt"))]:
        peer = requirements.stem.removeprefix("requirements").removeprefix("-")
        print(f"installing {peer or 'gpt2kit'}", file=sys.stderr, flush=True)
        reason = install(requirements)
        note = FAILURES / f"{peer}.txt"
        note.unlink(missing_ok=True)
        if reason is None:
            continue
        if not peer:
            sys.exit(reason)
        print(f"{peer} cannot be installed: {reason}", file=sys.stderr, flush=True)
        note.write_text(reason + "\n", encoding="utf-8")


def install(requirements: Path) -> str | None:
    """Install one file under the project's own pins; returns why it failed, or None."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("".join(f"{line}\n" for line in pins()))
        constraints.flush()
        # The constraints hold torch and numpy where the project has them: a peer that wants others does not install.
        command = [sys.executable, "-m", "pip", "install", "--quiet", "-r", str(requirements), "-c", constraints.name]
        done = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, check=False)
    return None if done.returncode == 0 else last_error(done.stderr)


def pins() -> list[str]:
    """The exact versions of the project's own requirements."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if re.match(r"[\w.-]+==", line)]


def last_error(text: str) -> str:
    """The last line of pip's errors that says something."""
    lines = [line.strip() for line in text.splitlines() if line.startswith("ERROR:")] or text.splitlines() or ["?"]
    return lines[-1].removeprefix("ERROR:").strip()


if __name__ == "__main__":
    main()
