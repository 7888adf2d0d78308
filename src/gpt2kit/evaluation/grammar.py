"""Grammar errors, found by Harper (extra `grammar`): rules for English, in process, no network and no Java.

Of what it reports, spelling is left out (names and old words; `unseen_words` says more), and style, length,
capitals and word choice, where it corrects what is merely old or bold. What is left still has false alarms, above all
in old prose and dialogue: the figure is read beside the human one.
"""

from collections.abc import Sequence
from typing import Any

from gpt2kit.evaluation.statistics import Figure, ratio_figure
from gpt2kit.runtime import require_extra

# Harper's kinds. "Miscellaneous" holds "a" and "an"; "Punctuation" holds "its" for "it's".
GRAMMAR_KINDS = frozenset(
    "Agreement BoundaryError Grammar Malapropism Miscellaneous Nonstandard Punctuation Redundancy Repetition "
    "Usage".split()
)


class GrammarChecker:
    """Harper's rules for English; made once, for they take a second to load.

    Raises:
        MissingExtraError: harper-py is not installed.
    """

    def __init__(self) -> None:
        harper = require_extra("harper", extra="grammar", purpose="counting grammar errors")
        self._linter: Any = harper.Linter()

    def count(self, text: str) -> int:
        """Errors in a text."""
        found = self._linter.lint(text, language="plaintext")
        return sum(error.lint_kind in GRAMMAR_KINDS for error in found)


def grammar_figure(
    texts: Sequence[str], num_words: Sequence[int], checker: GrammarChecker, *, seed: int
) -> Figure | None:
    """Grammar errors per 1,000 words of all texts; None without a word.

    Args:
        texts: the texts.
        num_words: words of each.
        checker: counts the errors.
        seed: of the interval.
    """
    return ratio_figure([1000.0 * checker.count(text) for text in texts], list(num_words), seed=seed)
