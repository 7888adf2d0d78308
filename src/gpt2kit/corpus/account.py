"""The running account of a collection: what was skipped, what was changed, and what makes it fail."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from gpt2kit import console
from gpt2kit.errors import DataError

_PROBLEMS_SHOWN = 5
_EXAMPLES_KEPT = 3
SKIP_REMEDY = "--skip_bad_files leaves such files and rows out and counts them"


class BadFileError(DataError):
    """A file that cannot be read as what it should be.

    Args:
        reason: a few words that are the same for all such files, to be counted by.
        detail: what is wrong with this one, and what to do.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class Account:
    """What has been counted so far.

    Attributes:
        skip_bad_files: leave bad files and rows out and count them, instead of failing.
        encodings: text files by encoding.
        text_fields: files by the fields that their text was taken from.
        skipped_files: names of files left out, by reason.
        skipped_rows: rows and documents left out, by reason.
        examples: the first few places for each of these reasons.
        problems: what makes the collection fail, a line each.
    """

    skip_bad_files: bool
    encodings: Counter[str] = field(default_factory=Counter)
    text_fields: Counter[str] = field(default_factory=Counter)
    skipped_files: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    skipped_rows: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    problems: list[str] = field(default_factory=list)

    def skip_file(self, shown: str, reason: str) -> None:
        """Count a file that is left out for good reason."""
        self.skipped_files[reason].append(shown)

    def skip_row(self, where: str, reason: str) -> None:
        """Count a row or document that is left out for good reason, such as being empty."""
        self.skipped_rows[reason] += 1
        if len(self.examples[reason]) < _EXAMPLES_KEPT:
            self.examples[reason].append(where)

    def bad_file(self, shown: str, problem: BadFileError) -> None:
        """Count a file that cannot be read, or note it as a problem."""
        if self.skip_bad_files:
            self.skip_file(shown, problem.reason)
        else:
            self._note(f"{shown}: {problem.detail}")

    def bad_row(self, where: str, reason: str, *, remedy: str = "") -> None:
        """Count a row that cannot be read, or note it as a problem.

        Args:
            where: file and line.
            reason: what is wrong with it, without the row's own words.
            remedy: what to do.

        Raises:
            DataError: too many problems to go on.
        """
        if self.skip_bad_files:
            self.skip_row(where, reason)
        else:
            self._note(f"{where}: {reason}" + (f"; {remedy}" if remedy else ""))
            if len(self.problems) >= _PROBLEMS_SHOWN:
                self.check()

    def _note(self, problem: str) -> None:
        self.problems.append(problem)

    def check(self) -> None:
        """Fail if there are problems.

        Raises:
            DataError: naming the first few.
        """
        if not self.problems:
            return
        shown = " | ".join(self.problems[:_PROBLEMS_SHOWN])
        if (more := len(self.problems) - _PROBLEMS_SHOWN) > 0:
            shown += f" | and {more:,} more"
        raise DataError(f"{shown} ({SKIP_REMEDY})")

    def warn_of_skipped_files(self) -> None:
        """Tell the user which files were left out, a line for each reason."""
        for reason, names in sorted(self.skipped_files.items()):
            console.warn(f"left out, {reason}: {listed(names)}")


def listed(names: Iterable[str], *, limit: int = 3) -> str:
    """The first few of some names, and how many more there are."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit:,} more"
