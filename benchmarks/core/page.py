"""Tables in Markdown, written between markers from results; numbers are never typed."""

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.core.statistics import Spread


def replace_between_markers(text: str, name: str, content: str) -> str:
    """A page with the part called `name` replaced.

    The part stands between `<!-- benchmark NAME -->` and `<!-- end of benchmark NAME -->`.

    Raises:
        ValueError: the page has no such part, or has it twice.
    """
    begin, end = f"<!-- benchmark {name} -->", f"<!-- end of benchmark {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise ValueError(f"the page needs exactly one part between {begin} and {end}")
    return pattern.sub(lambda _: f"{begin}\n{content.strip()}\n{end}", text)


def write_part(page: Path, name: str, content: str) -> None:
    """Replace a part of a page on the disk."""
    page.write_text(replace_between_markers(page.read_text(encoding="utf-8"), name, content), encoding="utf-8")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column is text, the others are figures."""
    lines = [header, ["---", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def figure(value: float) -> str:
    """A number with three digits that count: 0.123, 4.56, 78.9, 1,230."""
    if value == 0:
        return "0"
    magnitude = abs(value)
    digits = 0 if magnitude >= 99.95 else 1 if magnitude >= 9.995 else 2 if magnitude >= 0.9995 else 3
    return f"{value:,.{digits}f}"


def with_range(values: Spread, *, scale: float = 1.0) -> str:
    """A median, and the smallest and largest where there are several: "12.3 (11.9-12.8)"."""
    middle = figure(values.median * scale)
    if values.count == 1:
        return middle
    return f"{middle} ({figure(values.low * scale)}\u2013{figure(values.high * scale)})"
