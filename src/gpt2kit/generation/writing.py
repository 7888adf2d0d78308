"""A text while it is written: its tokens, its characters, and when it ends."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from gpt2kit.generation.sample import FinishReason, Sample
from gpt2kit.tokens import Tokenizer


@dataclass(frozen=True)
class Job:
    """A text to be written.

    Attributes:
        prompt: what it continues.
        prompt_ids: the tokens of that, at least one and no more than the context.
        num_dropped: tokens of the prompt that did not fit, from its front.
        prompt_index: the prompt's place among the prompts.
        sample_index: its place among the texts of its prompt.
        key: what its draws are a function of, together with the position.
    """

    prompt: str
    prompt_ids: tuple[int, ...]
    num_dropped: int
    prompt_index: int
    sample_index: int
    key: int


@dataclass(frozen=True)
class Ending:
    """When a text ends: at `max_new_tokens`, at one of the stop strings, or at end-of-text.

    With `strip_start`, white space at its start is left out. It may begin a stop string (an answer that is nothing but
    the next line of another role), but not hold a whole one.
    """

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    strip_start: bool = False

    def has_come(self, text: str) -> bool:
        """Whether a stop string is in a text, which is given with its white space."""
        num_left_out = len(text) - len(text.lstrip()) if self.strip_start else 0
        return find_stop(text, self.stop, known=num_left_out) is not None


class Writing:
    """A text while it is written, one token at a time.

    Characters are given out as soon as they are certain: never half of one, and nothing that may turn out to be the
    beginning of a stop string.

    Args:
        job: what is to be written.
        tokenizer: the model's.
        ending: when it ends; `strip_start` leaves out white space at the start of the text.
    """

    def __init__(self, job: Job, tokenizer: Tokenizer, ending: Ending) -> None:
        self.job = job
        self.ids: list[int] = []
        self.logprob = 0.0
        self.text = ""
        self.finish_reason: FinishReason | None = None
        self.score: float | None = None
        self.max_new_tokens = ending.max_new_tokens
        self._ending = ending
        self._end_of_text = tokenizer.end_of_text
        self._decoder = tokenizer.stream_decoder()
        self._kept: list[int] = []  # tokens whose characters have not been looked at
        self._num_shown = 0
        self._left_out = ""  # the white space at the start
        self._longest_stop = max(map(len, ending.stop), default=0)

    def push(self, identifier: int, logprob: float) -> str:
        """Add a token, whose log-probability is in nats; returns the characters that have become certain."""
        self.ids.append(identifier)
        self.logprob += logprob
        if identifier == self._end_of_text:
            self._extend(self._decoder.flush())
            self.finish_reason = self.finish_reason or "end_of_text"
            return self._show()
        self._extend(self._decoder.push(identifier))
        if self.finish_reason is None and len(self.ids) >= self._ending.max_new_tokens:
            self._extend(self._decoder.flush())
            self.finish_reason = self.finish_reason or "length"
        return self._show()

    @property
    def has_stops(self) -> bool:
        """Whether it may end at a string."""
        return bool(self._ending.stop)

    def keep(self, identifier: int, logprob: float) -> bool:
        """Add a token without looking at its characters; whether the text, which has no stop strings, ends with it."""
        self.ids.append(identifier)
        self.logprob += logprob
        self._kept.append(identifier)
        return identifier == self._end_of_text or len(self.ids) >= self._ending.max_new_tokens

    def push_kept(self) -> str:
        """Look at the characters of the tokens that were kept, as `push` would have; the text ends with them."""
        *before, last = self._kept
        self._kept = []
        pieces = [self._decoder.push(identifier) for identifier in before]
        pieces += [] if last == self._end_of_text else [self._decoder.push(last)]
        self._extend("".join([*pieces, self._decoder.flush()]))
        self.finish_reason = "end_of_text" if last == self._end_of_text else "length"
        return self._show()

    def _extend(self, piece: str) -> None:
        if self._ending.strip_start and not self.text:
            stripped = piece.lstrip()
            self._left_out += piece[: len(piece) - len(stripped)]
            piece = stripped
        before = self._before(len(self.text))
        known = len(before) + len(self.text)
        self.text += piece
        place = find_stop(before + self.text, self._ending.stop, known=known)
        if place is not None:
            self.text = self.text[: max(place - len(before), 0)]
            self.finish_reason = "stop"

    def _before(self, length: int) -> str:
        """What was left out before the text, if a stop string that goes on behind `length` characters can begin in it.

        Looking at no more than is needed keeps long texts from being copied for each token.
        """
        return self._left_out if length < self._longest_stop else ""

    def _show(self) -> str:
        certain = len(self.text)
        if self.finish_reason is None:
            doubtful = _num_in_doubt(self._before(certain) + self.text, self._ending.stop)
            certain = max(certain - doubtful, 0)
        shown = self.text[self._num_shown : certain]
        self._num_shown = max(certain, self._num_shown)
        return shown

    def copy_for(self, job: Job) -> "Writing":
        """The same finished text as that of another job."""
        twin = copy.copy(self)
        twin.job = job
        return twin

    def sample(self, *, seed: int | None, logprobs: bool) -> Sample:
        """The finished text, with the seed of its draws if there were any, and its log-probability if it is wanted."""
        assert self.finish_reason is not None
        return Sample(
            prompt=self.job.prompt,
            text=self.text,
            ids=tuple(self.ids),
            finish_reason=self.finish_reason,
            logprob=self.logprob if logprobs else None,
            seed=seed,
            prompt_index=self.job.prompt_index,
            sample_index=self.job.sample_index,
            num_prompt_tokens=len(self.job.prompt_ids) + self.job.num_dropped,
            num_prompt_tokens_dropped=self.job.num_dropped,
            score=self.score,
        )


def find_stop(text: str, stop: Sequence[str], *, known: int = 0) -> int | None:
    """Where the first of the stop strings begins in `text`, of those that end behind `known` characters; else None."""
    places = [place for string in stop if (place := text.find(string, max(known - len(string) + 1, 0))) >= 0]
    return min(places, default=None)


def _num_in_doubt(text: str, stop: Sequence[str]) -> int:
    """How many characters at the end may be the beginning of a stop string."""
    longest = max((len(string) - 1 for string in stop), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(string.startswith(text[-length:]) for string in stop):
            return length
    return 0
