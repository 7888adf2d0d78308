"""What a person sees: results go to stdout, everything said on the way goes to stderr."""

import sys
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

_BAR_DELAY_SECONDS = 2.0
_PLAIN_LINE_SECONDS = 10.0

Item = TypeVar("Item")


def say(message: str) -> None:
    """Tell the user something on stderr, above a progress bar if there is one."""
    if sys.stderr.isatty() and "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(message, file=sys.stderr)
    else:
        sys.stderr.write(message + "\n")
        sys.stderr.flush()


def warn(message: str) -> None:
    """Tell the user about something that may not be what they want."""
    say(f"warning: {message}")


def output(text: str, *, end: str = "\n") -> None:
    """Write a result to stdout."""
    sys.stdout.write(text + end)
    sys.stdout.flush()


def text_table(
    rows: Sequence[Sequence[Any]],
    headers: Sequence[str],
    *,
    markdown: bool = False,
    right_align: Sequence[int] = (),
) -> str:
    """Lay rows out as a table for the terminal, or as a Markdown table.

    Args:
        rows: one sequence of cells a row; numbers should be formatted already.
        headers: one title a column.
        markdown: write a Markdown table.
        right_align: the columns to align to the right, counted from 0.
    """
    from tabulate import tabulate  # 65 ms, which a command that shows no table need not wait for

    alignment = tuple("right" if column in right_align else "left" for column in range(len(headers)))
    return str(
        tabulate(
            [[str(cell) for cell in row] for row in rows],
            headers=list(headers),
            tablefmt="pipe" if markdown else "simple",
            colalign=alignment if rows else None,
            disable_numparse=True,
        )
    )


class Progress:
    """A progress bar with rate and time left on a terminal; a plain line every ten seconds anywhere else.

    Nothing is shown for work that ends within two seconds.

    Args:
        what: what is being done, e.g. "reading".
        total: the amount of work, in `unit`; None when unknown.
        unit: what is counted, e.g. "tokens" or "B" for bytes.
        initial: work done already, for a run that is resumed.
    """

    def __init__(self, what: str, *, total: float | None, unit: str, initial: float = 0) -> None:
        self.what = what
        self.unit = unit
        self.total = total
        self.initial = initial
        self.done = initial
        self._start = self._last_line = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from tqdm import tqdm  # a megabyte, for which a command without a bar has no use

            self._bar = tqdm(
                total=total,
                initial=initial,
                desc=what,
                unit=unit,
                unit_scale=True,
                delay=_BAR_DELAY_SECONDS,
                file=sys.stderr,
                leave=False,
                dynamic_ncols=True,
            )

    def advance(self, amount: float = 1, *, note: str = "") -> None:
        """Count `amount` more units as done; `note` is shown behind the bar (e.g. the current loss)."""
        self.done += amount
        if self._bar is not None:
            if note:
                self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(amount)
            return
        now = time.monotonic()
        if now - self._last_line >= _PLAIN_LINE_SECONDS:
            self._last_line = now
            from tqdm import tqdm

            line = tqdm.format_meter(
                self.done,
                self.total,
                now - self._start,
                prefix=self.what,
                unit=self.unit,
                unit_scale=True,
                initial=self.initial,
                bar_format="{desc}: {percentage:.0f}% {n_fmt}/{total_fmt} {rate_fmt}, {remaining} left"
                if self.total
                else "{desc}: {n_fmt} {rate_fmt}, {elapsed} so far",
            )
            say(line + (f", {note}" if note else ""))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


def tracked(items: Iterable[Item], what: str, *, total: int | None, unit: str) -> Iterable[Item]:
    """Yield `items`, showing progress."""
    with Progress(what, total=total, unit=unit) as progress:
        for item in items:
            yield item
            progress.advance()
