"""Greedy search and sampling on the native engine.

A text is a function of the model, its prompt, its settings and its seed: the kernel's scores for a text do not depend
on the others, bit for bit. Texts of different lengths stand side by side without padding, and leave when they end.

With `lookup`, tokens that are guessed from the text itself are read along, so that a reading may give several tokens
(see `lookup`). They are chosen from the same scores as without.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import accumulate

from gpt2kit.generation.array_sampling import Scores, choose, log_sum_exp, penalised
from gpt2kit.generation.lookup import Lookup
from gpt2kit.generation.rules import CutoffRules, PenaltyRules
from gpt2kit.generation.writing import Writing
from gpt2kit.native.engine import NativeEngine, TextCache, check_scores
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
) -> Iterator[tuple[Writing, str]]:
    """Write texts, one or more tokens of each at a time.

    Args:
        engine: the model.
        writings: the texts, not begun.
        penalties: what is done to the scores.
        cutoffs: how to draw; None for greedy search.
        keep: share of the context that stays when it is full.
        lookup: whether to guess tokens from what the texts hold already, which changes nothing but the speed.

    Yields:
        Each text with its new characters, for each token; it is finished when its `finish_reason` is set.
    """
    windows = [_Window(engine, writing, keep=keep, lookup=lookup) for writing in writings]
    logits_NV, places = _read_prompts(engine, windows)
    if len(set(places)) < len(places) and penalties.forbidden_after(0):
        # Texts of one prompt share its scores, in which the kernel's threads blot out, for a while, what is forbidden.
        logits_NV, places = logits_NV[places], list(range(len(places)))
    memory = engine.new_scores(max(len(windows), _GUESSED_TOGETHER))
    while windows:
        waiting = list(zip(windows, places, strict=True))
        while waiting:  # those whose next scores are there already
            rows = [(logits_NV[row], window.writing) for window, row in waiting]
            chosen = _next_tokens(engine, rows, penalties, cutoffs)
            going_on = []
            for (window, row), (identifier, logprob) in zip(waiting, chosen, strict=True):
                writing = window.writing
                yield writing, writing.push(identifier, logprob)
                if writing.finish_reason is None and window.take(identifier):
                    going_on.append((window, row + 1))
            waiting = going_on
        windows = [window for window in windows if window.writing.finish_reason is None]
        if windows:
            room = _GUESSED_TOGETHER // len(windows) - 1
            tokens = [window.to_read(most_guesses=room) for window in windows]
            scored = [1 + len(window.guesses) for window in windows]
            logits_NV = engine.read([window.cache for window in windows], tokens, num_scored=scored, into=memory)
            places = list(accumulate(scored, initial=0))[:-1]


def _next_tokens(
    engine: NativeEngine, rows: Sequence[tuple[Scores, Writing]], penalties: PenaltyRules, cutoffs: CutoffRules | None
) -> list[tuple[int, float]]:
    """For the scores behind each text the next token and its log-probability in the model's own distribution."""
    in_kernel = cutoffs is None or not cutoffs.cuts_off
    forbidden = [penalties.forbidden_after(len(writing.ids)) for _, writing in rows]
    logits = scores = [logits_V for logits_V, _ in rows]
    if penalties.look_back or (any(forbidden) and not in_kernel):
        scores = [
            penalised(logits_V, penalties, prompt=writing.job.prompt_ids, text=writing.ids)
            for logits_V, writing in rows
        ]
    keys = [0] * len(rows)
    if cutoffs is not None:
        keys = [derive_seed(writing.job.key, len(writing.ids)) for _, writing in rows]
    if in_kernel:
        temperature = 0 if cutoffs is None else cutoffs.temperature
        still = forbidden if scores is logits else None  # `penalised` has left them out already
        return engine.choose(logits, scores, keys=keys, temperature=temperature, forbidden=still)
    chosen = []
    for logits_V, scores_V, key in zip(logits, scores, keys, strict=True):
        log_total = log_sum_exp(logits_V)
        check_scores(float(log_total))
        identifier = choose(scores_V, cutoffs, key=key)
        chosen.append((identifier, float(logits_V[identifier] - log_total)))
    return chosen


def _read_prompts(engine: NativeEngine, windows: Sequence["_Window"]) -> tuple[Scores, list[int]]:
    """The scores behind the prompts, and each text's place in them; equal prompts are read and kept once."""
    first: dict[tuple[int, ...], _Window] = {}
    for window in windows:
        first.setdefault(window.writing.job.prompt_ids, window)
    logits_NV = engine.read([window.cache for window in first.values()], list(first))
    for window in windows:
        window.go_on_from(first[window.writing.job.prompt_ids])
    place = {prompt: number for number, prompt in enumerate(first)}
    return logits_NV, [place[window.writing.job.prompt_ids] for window in windows]


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
