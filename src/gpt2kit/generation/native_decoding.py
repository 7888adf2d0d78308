"""Greedy search and sampling on the native engine.

A text is a function of the model, its prompt, its settings and its seed: the kernel's scores for a text do not depend
on the others, bit for bit. Texts of different lengths stand side by side without padding, and leave when they end.

With `lookup`, tokens that are guessed from the text itself are read along, so that a reading may give several tokens
(see `lookup`). They are chosen from the same scores as without.

Where nothing else is asked of the scores than which token they choose, the kernel picks it by itself, the same one, and
is spared most of them (pick.h).
"""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate

from gpt2kit.generation.array_sampling import Scores, choose, log_sum_exp, penalised
from gpt2kit.generation.lookup import Lookup
from gpt2kit.generation.rules import CutoffRules, PenaltyRules
from gpt2kit.generation.writing import Writing
from gpt2kit.native.engine import Draw, DrawingRules, NativeEngine, TextCache, check_scores
from gpt2kit.runtime import derive_seed

_GUESSED_TOGETHER = 12  # tokens that the kernel computes together; more than that take their own time


def decode(
    engine: NativeEngine,
    writings: Sequence[Writing],
    *,
    penalties: PenaltyRules,
    cutoffs: CutoffRules | None,
    keep: float,
    lookup: bool = True,
    logprobs: bool = False,
) -> Iterator[tuple[Writing, str]]:
    """Write texts, one or more tokens of each at a time.

    Args:
        engine: the model.
        writings: the texts, not begun.
        penalties: what is done to the scores.
        cutoffs: how to draw; None for greedy search.
        keep: share of the context that stays when it is full.
        lookup: whether to guess tokens from what the texts hold already, which changes nothing but the speed.
        logprobs: whether the texts are to know their log-probabilities; else these are no numbers.

    Yields:
        Each text with its new characters, for each token; it is finished when its `finish_reason` is set.
    """
    windows = [_Window(engine, writing, keep=keep, lookup=lookup) for writing in writings]
    reading = _Reading(engine, penalties, cutoffs, most=max(len(windows), _GUESSED_TOGETHER), logprobs=logprobs)
    places = reading.read_prompts(windows)
    while windows:
        waiting = list(zip(windows, places, strict=True))
        while waiting:  # those whose next token can be chosen already
            chosen = reading.next_tokens([(window.writing, place) for window, place in waiting])
            going_on = []
            for (window, place), (identifier, logprob) in zip(waiting, chosen, strict=True):
                writing = window.writing
                yield writing, writing.push(identifier, logprob)
                if writing.finish_reason is None and window.take(identifier):
                    going_on.append((window, place + 1))
            waiting = going_on
        windows = [window for window in windows if window.writing.finish_reason is None]
        if windows:
            places = reading.read(windows)


class _Reading:
    """Reads what texts have come to, and chooses what comes next.

    Args:
        engine: the model.
        penalties, cutoffs: of `decode`.
        most: tokens that are scored together.
        logprobs: whether log-probabilities are wanted; without them the kernel may pick tokens by itself.
    """

    def __init__(
        self,
        engine: NativeEngine,
        penalties: PenaltyRules,
        cutoffs: CutoffRules | None,
        *,
        most: int,
        logprobs: bool,
    ) -> None:
        self._engine, self._penalties, self._cutoffs = engine, penalties, cutoffs
        self._rules = cutoffs or DrawingRules()
        self._is_typical = cutoffs is not None and cutoffs.typical_p < 1  # which the kernel cannot do
        self._can_pick = not (logprobs or penalties.look_back or self._is_typical)
        self._memory = engine.new_bounds(most) if self._can_pick else engine.new_scores(most)
        self._picked: list[int] | None = None  # of each place
        self._logits_NV: Scores | None = None  # of each place, where they were not picked

    def read_prompts(self, windows: Sequence["_Window"]) -> list[int]:
        """Read the prompts of texts, each text's place in what was read; equal prompts are read and kept once."""
        first: dict[tuple[int, ...], _Window] = {}
        for window in windows:
            first.setdefault(window.writing.job.prompt_ids, window)
        logits_NV = self._engine.read([window.cache for window in first.values()], list(first))
        for window in windows:
            window.go_on_from(first[window.writing.job.prompt_ids])
        place = {prompt: number for number, prompt in enumerate(first)}
        places = [place[window.writing.job.prompt_ids] for window in windows]
        if len(first) < len(windows) and self._penalties.forbidden_after(0):
            # The kernel's threads blot out what is forbidden, for a while, in scores that texts would share.
            logits_NV, places = logits_NV[places], list(range(len(places)))
        self._logits_NV = logits_NV
        return places

    def read(self, windows: Sequence["_Window"]) -> list[int]:
        """Read what was chosen for texts, with guesses; the places of their next tokens, those of guesses behind."""
        room = _GUESSED_TOGETHER // len(windows) - 1
        tokens = [window.to_read(most_guesses=room) for window in windows]
        caches = [window.cache for window in windows]
        scored = [1 + len(window.guesses) for window in windows]
        if self._can_pick:
            draws = [
                self._draw(window.writing, num_ahead)
                for window, count in zip(windows, scored, strict=True)
                for num_ahead in range(count)
            ]
            self._picked = self._engine.pick(
                caches, tokens, draws, rules=self._rules, num_scored=scored, into=self._memory
            )
        else:
            self._logits_NV = self._engine.read(caches, tokens, num_scored=scored, into=self._memory)
        return list(accumulate(scored, initial=0))[:-1]

    def _draw(self, writing: Writing, num_ahead: int) -> Draw:
        """How the token is chosen that comes so many behind the text's next one."""
        length = len(writing.ids) + num_ahead
        key = 0 if self._cutoffs is None else derive_seed(writing.job.key, length)
        return Draw(key, self._penalties.forbidden_after(length))

    def next_tokens(self, texts: Sequence[tuple[Writing, int]]) -> list[tuple[int, float]]:
        """Of texts and their places the next tokens and, where they are wanted, their log-probabilities."""
        if self._picked is not None:
            return [(self._picked[place], math.nan) for _, place in texts]
        assert self._logits_NV is not None
        logits = scores = [self._logits_NV[place] for _, place in texts]
        draws = [self._draw(writing, 0) for writing, _ in texts]
        if self._penalties.look_back or (self._is_typical and any(draw.forbidden for draw in draws)):
            scores = [
                penalised(logits_V, self._penalties, prompt=writing.job.prompt_ids, text=writing.ids)
                for logits_V, (writing, _) in zip(logits, texts, strict=True)
            ]
        if not self._is_typical:
            # `penalised` has left out already what is forbidden.
            forbidden = [draw.forbidden for draw in draws] if scores is logits else None
            keys = [draw.key for draw in draws]
            return self._engine.choose(logits, scores, keys=keys, rules=self._rules, forbidden=forbidden)
        chosen = []
        for logits_V, scores_V, draw in zip(logits, scores, draws, strict=True):
            log_total = log_sum_exp(logits_V)
            check_scores(float(log_total))
            identifier = choose(scores_V, self._cutoffs, key=draw.key)
            chosen.append((identifier, float(logits_V[identifier] - log_total)))
        return chosen


class _Window:
    """The tokens of a text that are in its cache.

    When they fill the context and another one comes, only the last share of them stays, and is read again from
    position 0 on.

    Attributes:
        writing: the text.
        guesses: tokens that were read along, and may turn out to be the next ones.
    """

    def __init__(self, engine: NativeEngine, writing: Writing, *, keep: float, lookup: bool) -> None:
        self.writing = writing
        self._n_positions = engine.shape.n_positions
        self._num_kept = min(max(int(self._n_positions * keep), 1), max(self._n_positions - 1, 1))
        self._tokens = list(writing.job.prompt_ids)
        self._lookup = Lookup(self._tokens) if lookup else None
        self._num_right = 0
        self._next: int | None = None  # chosen and not read
        self.guesses: list[int] = []
        self._engine = engine
        self._capacity = min(len(self._tokens) + writing.max_new_tokens, self._n_positions)

    @cached_property
    def cache(self) -> TextCache:
        """Of the tokens, and of guesses behind them."""
        return TextCache(self._engine, self._capacity)

    def go_on_from(self, other: "_Window") -> None:
        """Share what is in the cache of a text that begins with the same prompt, which has been read there."""
        if other is not self:
            self.cache = TextCache(self._engine, self._capacity, source=other.cache)

    def take(self, identifier: int) -> bool:
        """Take the token that was chosen; whether it was guessed, so that the scores behind it are known already."""
        if self._lookup is not None:
            self._lookup.push(identifier)
        if self._num_right < len(self.guesses) and identifier == self.guesses[self._num_right]:
            self._tokens.append(identifier)
            self._num_right += 1
            return True
        self._next = identifier
        return False

    def to_read(self, *, most_guesses: int) -> list[int]:
        """The tokens to be read next: the one chosen last, with guesses at what follows it."""
        assert self._next is not None
        self.cache.length = len(self._tokens)  # forgets wrong guesses
        if self._lookup is not None:
            self._lookup.learn(num_guessed=len(self.guesses), num_right=self._num_right)
        self.guesses, self._num_right = [], 0
        self._tokens.append(self._next)
        if len(self._tokens) > self._n_positions:
            del self._tokens[: -self._num_kept]
            self.cache = TextCache(self._engine, self._n_positions)  # others may still read the old one
            return self._tokens
        if self._lookup is not None:
            # The last token of a text is not read, nor what would lie behind the context.
            still = self.writing.max_new_tokens - len(self.writing.ids) - 1
            self.guesses = self._lookup.guess(min(most_guesses, still, self._n_positions - len(self._tokens)))
        return [self._next, *self.guesses]
