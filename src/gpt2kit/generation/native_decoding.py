"""Greedy search and sampling on the native engine.

A text is a function of the model, its prompt, its settings and its seed: the kernel's scores for a text do not depend
on the others, bit for bit. Texts of different lengths stand side by side without padding, and leave when they end.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from gpt2kit.generation.array_sampling import Scores, choose, log_sum_exp, penalised
from gpt2kit.generation.rules import CutoffRules, PenaltyRules
from gpt2kit.generation.writing import Writing
from gpt2kit.native.engine import NativeEngine, TextCache
from gpt2kit.runtime import derive_seed


def decode(
    engine: NativeEngine,
    writings: Sequence[Writing],
    *,
    penalties: PenaltyRules,
    cutoffs: CutoffRules | None,
    keep: float,
) -> Iterator[tuple[Writing, str]]:
    """Write texts, one token of each at a time.

    Args:
        engine: the model.
        writings: the texts, not begun.
        penalties: what is done to the scores.
        cutoffs: how to draw; None for greedy search.
        keep: share of the context that stays when it is full.

    Yields:
        Each text with its new characters, for each token; it is finished when its `finish_reason` is set.
    """
    readers = {id(writing): _Window(engine, writing, keep=keep) for writing in writings}
    rows = list(writings)
    logits_BV = _read_prompts(engine, rows, readers)
    while rows:
        going_on: list[tuple[_Window, int]] = []
        for writing, logits_V in zip(rows, logits_BV, strict=True):
            identifier, logprob = _next_token(logits_V, writing, penalties, cutoffs)
            yield writing, writing.push(identifier, logprob)
            if writing.finish_reason is None:
                going_on.append((readers[id(writing)], identifier))
            else:
                del readers[id(writing)]
        rows = [writing for writing in rows if writing.finish_reason is None]
        if rows:
            tokens = [window.after(identifier) for window, identifier in going_on]
            logits_BV = engine.read([window.cache for window, _ in going_on], tokens)


def _next_token(
    logits_V: Scores, writing: Writing, penalties: PenaltyRules, cutoffs: CutoffRules | None
) -> tuple[int, float]:
    """The next token and its log-probability in the model's own distribution."""
    scores_V = penalised(logits_V, penalties, prompt=writing.job.prompt_ids, text=writing.ids)
    key = derive_seed(writing.job.key, len(writing.ids)) if cutoffs else 0
    identifier = choose(scores_V, cutoffs, key=key)
    return identifier, float(logits_V[identifier] - log_sum_exp(logits_V))


def _read_prompts(engine: NativeEngine, rows: Sequence[Writing], windows: dict[int, "_Window"]) -> Scores:
    """The scores behind each prompt; equal prompts are read once."""
    readers: dict[tuple[int, ...], int] = {}
    for writing in rows:
        readers.setdefault(writing.job.prompt_ids, len(readers))
    first = {writing.job.prompt_ids: windows[id(writing)].cache for writing in reversed(rows)}
    logits = engine.read([first[prompt] for prompt in readers], list(readers))
    for writing in rows:
        source, cache = first[writing.job.prompt_ids], windows[id(writing)].cache
        if cache is not source:
            cache.copy_from(source)
    return np.take(logits, [readers[writing.job.prompt_ids] for writing in rows], axis=0)


class _Window:
    """The tokens of a text that are in its cache.

    When they fill the context and another one comes, only the last share of them stays, and is read again from
    position 0 on.
    """

    def __init__(self, engine: NativeEngine, writing: Writing, *, keep: float) -> None:
        self._n_positions = engine.shape.n_positions
        self._num_kept = min(max(int(self._n_positions * keep), 1), max(self._n_positions - 1, 1))
        self._tokens = list(writing.job.prompt_ids)
        self.cache = TextCache(engine, min(len(self._tokens) + writing.max_new_tokens, self._n_positions))

    def after(self, identifier: int) -> list[int]:
        """What has to be read when a token is added."""
        self._tokens.append(identifier)
        if len(self._tokens) <= self._n_positions:
            return [identifier]
        del self._tokens[: -self._num_kept]
        self.cache.length = 0
        return self._tokens
