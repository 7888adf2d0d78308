"""A review as people go through it, whatever shows it to them."""

import unicodedata

from gpt2kit.errors import UsageError
from gpt2kit.review.pairs import Turn, turns_of
from gpt2kit.review.store import Choice, JudgementStore

LONGEST_NAME = 60
_LONGEST_SECONDS = 86_400.0


class Session:
    """Who is asked what next.

    Args:
        store: where judgements are kept.
        seed: of orders and sides.
        num_pairs: the most that a person is asked; 0 for all.
    """

    def __init__(self, store: JudgementStore, *, seed: int, num_pairs: int) -> None:
        self.store = store
        self._seed = seed
        self._num_pairs = num_pairs
        self._pairs = store.pairs()
        self._turns: dict[str, list[Turn]] = {}

    def turns(self, rater: str) -> list[Turn]:
        """What a person is asked, in order."""
        if rater not in self._turns:
            self._turns[rater] = turns_of(self._pairs, rater, seed=self._seed, limit=self._num_pairs)
        return self._turns[rater]

    def next_turn(self, rater: str) -> Turn | None:
        """The first pair that the person has not answered; None at the end."""
        if self.store.has_finished(rater):
            return None
        judged = self.store.judged(rater)
        return next((turn for turn in self.turns(rater) if turn.pair.number not in judged), None)

    def progress(self, rater: str) -> tuple[int, int]:
        """Pairs answered, and pairs in all."""
        judged = self.store.judged(rater)
        return sum(turn.pair.number in judged for turn in self.turns(rater)), len(self.turns(rater))

    def judge(self, rater: str, position: int, choice: Choice, *, seconds: float | None) -> bool:
        """Keep an answer; False when it came too late: answered already, or the person has seen the results.

        Raises:
            UsageError: there is no such pair.
        """
        turns = self.turns(rater)
        if not 0 <= position < len(turns):
            raise UsageError(f"there is no pair {position + 1}; there are {len(turns)}")
        if self.store.has_finished(rater):
            return False
        usable = seconds is not None and 0 <= seconds <= _LONGEST_SECONDS
        return self.store.judge(rater, turns[position], choice, seconds=seconds if usable else None)

    def undo(self, rater: str) -> bool:
        """Take the last answer back; False when there is none, or the person has seen the results."""
        return not self.store.has_finished(rater) and self.store.undo(rater)


def rater_name(text: str) -> str:
    """A person's name as it is kept.

    Raises:
        UsageError: it is empty, too long, or holds characters that cannot be seen.
    """
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name:
        raise UsageError("give a name, so that your judgements are told from those of others")
    if len(name) > LONGEST_NAME:
        raise UsageError(f"the name has {len(name)} characters; give one of at most {LONGEST_NAME}")
    if any(unicodedata.category(character).startswith("C") for character in name):
        raise UsageError("the name holds characters that cannot be seen; give a plain one")
    return name
