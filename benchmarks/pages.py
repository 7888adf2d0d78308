"""Write the tables of docs/benchmarks.md and README.md from the committed results.

python -m benchmarks.pages            # docs/benchmarks.md
python -m benchmarks.pages --readme   # and the short table of README.md, which needs its two markers there
python -m benchmarks.pages --check    # only say whether a page is not what the results give
"""

import argparse
import sys
from collections.abc import Callable
from types import ModuleType

from benchmarks.core.page import replace_between_markers, table
from benchmarks.core.places import PAGE, README
from benchmarks.core.program import Results, read_results
from benchmarks.core.rounds import say
from benchmarks.tables import data, generate, quality, train, xl

BENCHMARKS: dict[str, ModuleType] = {
    "train": train,
    "xl": xl,
    "generate": generate,
    "data": data,
    "quality": quality,
    "train-gpu": train,
    "xl-gpu": xl,
    "generate-gpu": generate,
}


def page_text(text: str, *, read: Callable[[str], Results | None] = read_results) -> str:
    """docs/benchmarks.md with the parts of all benchmarks that have results written anew."""
    for name, module in BENCHMARKS.items():
        if (results := read(name)) is not None:
            for part, content in module.tables(results).items():
                text = replace_between_markers(text, part, content)
    return text


def readme_text(text: str, *, read: Callable[[str], Results | None] = read_results) -> str:
    """README.md with its short table written anew.

    Raises:
        ValueError: README.md has no place for it (`<!-- benchmark summary -->`, `<!-- end of benchmark summary -->`).
    """
    found = {name: results for name in BENCHMARKS if (results := read(name)) is not None}
    rows = [row for name, results in found.items() for row in BENCHMARKS[name].readme_rows(results)]
    header = ["what", "gpt2kit", "the other", "times", "peak memory"]
    return replace_between_markers(text, "summary", table(header, rows))


def show(name: str, results: Results, *, write: bool) -> None:
    """Print a benchmark's tables; with `write`, bring the page up to date with all committed results."""
    for content in BENCHMARKS[name].tables(results).values():
        print(f"\n{content}")
    if write:
        PAGE.write_text(page_text(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        say(f"written: {PAGE}")


def main() -> None:
    """Write or check the pages."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--readme", action="store_true", help="write README.md's table too")
    made.add_argument("--check", action="store_true", help="change nothing; fail when a page is out of date")
    arguments = made.parse_args()
    texts = [(PAGE, page_text)] + ([(README, readme_text)] if arguments.readme else [])
    for path, renew in texts:
        before = path.read_text(encoding="utf-8")
        after = renew(before)
        if arguments.check and after != before:
            sys.exit(f"{path}: is not what the results give; run python -m benchmarks.pages")
        path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
