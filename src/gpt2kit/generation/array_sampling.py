"""`sampling` and the penalties of `decoding` once more, in numpy, for one row at a time: what the native engine uses.

The steps, their order and the noise are the same, so that the same scores, rules and key give the same token. The
kernel gives the same scores for a row whatever is beside it, so nothing here has to allow for rounding.

Shapes: V vocabulary, N tokens that may still be chosen.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpt2kit.generation.rules import CutoffRules, PenaltyRules

Scores = NDArray[np.float32]
Ids = NDArray[np.int64]

_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNIFORM_BITS = 52  # one fewer than the type holds, or u would round to 1 and the noise be infinite
_MINUS_INFINITY = np.float32(-np.inf)


def penalised(logits_V: Scores, rules: PenaltyRules, *, prompt: Sequence[int], text: Sequence[int]) -> Scores:
    """The scores with `rules` applied, given the tokens of the prompt and of the text so far; a new array.

    Where everything is forbidden, the text has to end: end-of-text gets the only score.
    """
    scores_V = logits_V.copy()
    if rules.repetition != 1.0:
        seen_N = np.unique(np.array([*prompt, *text], dtype=np.int64))
        seen = scores_V[seen_N]
        scores_V[seen_N] = np.where(seen > 0, seen / rules.repetition, seen * rules.repetition)
    if rules.frequency or rules.presence:
        held_N, counts_N = np.unique(np.array(text, dtype=np.int64), return_counts=True)
        scores_V[held_N] -= (counts_N * np.float32(rules.frequency)).astype(np.float32)
        scores_V[held_N] -= np.float32(rules.presence)
    if rules.no_repeat_ngram_size:
        scores_V[_ends_of_repeated_ngrams([*prompt, *text], size=rules.no_repeat_ngram_size)] = _MINUS_INFINITY
    scores_V[list(rules.forbidden_after(len(text)))] = _MINUS_INFINITY
    if rules.no_repeat_ngram_size and scores_V.max() == _MINUS_INFINITY:
        scores_V[rules.end_of_text] = 0.0
    return scores_V


def _ends_of_repeated_ngrams(history: Sequence[int], *, size: int) -> Ids:
    """The tokens that would complete a run of `size` tokens that is there already."""
    history_N = np.array(history, dtype=np.int64)
    if len(history_N) < size:
        return history_N[:0]
    windows: Ids = np.lib.stride_tricks.sliding_window_view(history_N, size)
    repeats_N = (windows[:, :-1] == history_N[len(history_N) - size + 1 :]).all(axis=1)
    ends_N: Ids = windows[repeats_N, -1]
    return ends_N


def choose(scores_V: Scores, rules: CutoffRules | None, *, key: int) -> int:
    """Choose a token.

    Args:
        scores_V: scores after penalties.
        rules: how to draw; None takes the greatest score.
        key: what the draw is a function of.
    """
    if rules is None:
        return int(scores_V.argmax())
    ids_N, kept_N = cut_off(scores_V, rules)
    return int(ids_N[(kept_N + gumbel_noise(key, ids_N)).argmax()])


def cut_off(scores_V: Scores, rules: CutoffRules) -> tuple[Ids, Scores]:
    """The tokens that may be chosen, and their scores divided by the temperature."""
    # The greatest score is made 0 first, or the smallest temperatures would give infinities.
    heated_V = (scores_V - scores_V.max()) / np.float32(rules.temperature)
    ids_N, kept_N = np.arange(len(heated_V)), heated_V
    if rules.typical_p < 1:
        ids_N, kept_N = _only(_typical(kept_N, rules.typical_p), ids_N, kept_N)
    if 0 < rules.top_k < len(kept_N):
        least = np.partition(kept_N, len(kept_N) - rules.top_k)[len(kept_N) - rules.top_k]
        ids_N, kept_N = _only(kept_N >= least, ids_N, kept_N)
    if rules.top_p < 1:
        ids_N, kept_N = _only(kept_N >= _nucleus_cutoff(kept_N, rules.top_p), ids_N, kept_N)
    if rules.min_p > 0:
        # Typical may have taken away all that min-p would leave; then the most probable of its tokens stays.
        least = min(np.log(np.float32(rules.min_p)), np.float32(0), kept_N.max())
        ids_N, kept_N = _only(kept_N >= least, ids_N, kept_N)
    is_possible_N = kept_N > _MINUS_INFINITY
    return (ids_N, kept_N) if is_possible_N.all() else _only(is_possible_N, ids_N, kept_N)


def _only(is_kept_N: NDArray[np.bool_], ids_N: Ids, scores_N: Scores) -> tuple[Ids, Scores]:
    places = np.flatnonzero(is_kept_N)
    return ids_N[places], scores_N[places]


def log_sum_exp(scores_V: Scores) -> np.float32:
    """Log Σ e^score."""
    greatest = scores_V.max()
    return np.float32(greatest + np.log(np.exp(scores_V - greatest).sum()))


def _typical(scores_N: Scores, mass: float) -> NDArray[np.bool_]:
    log_p_N = scores_N - log_sum_exp(scores_N)
    p_N = np.exp(log_p_N)
    entropy = -np.sum(p_N * np.where(p_N > 0, log_p_N, 0), dtype=np.float32)
    distance_N = np.abs(-log_p_N - entropy)
    order_N = np.argsort(distance_N)
    num_kept = _num_until(p_N[order_N], mass)
    is_kept_N: NDArray[np.bool_] = distance_N <= distance_N[order_N[num_kept - 1]]
    return is_kept_N


def _nucleus_cutoff(scores_N: Scores, p: float) -> np.float32:
    """The least score to keep."""
    log_total = log_sum_exp(scores_N)
    # All tokens less probable than (1 - p) / N hold less than 1 - p together, so none of them is kept; the half leaves
    # room for rounding.
    candidates_N = scores_N[scores_N > log_total + np.float32(np.log(0.5 * (1 - p) / len(scores_N)))]
    descending_N = -np.sort(-candidates_N)
    return np.float32(descending_N[_num_until(np.exp(descending_N - log_total), p) - 1])


def _num_until(p_N: Scores, mass: float) -> int:
    """How many of the first tokens have less than `mass` of the probability before them; at least one."""
    before_N = p_N.astype(np.float64).cumsum().astype(np.float32) - p_N
    return max(int(np.count_nonzero(before_N < np.float32(mass))), 1)


def gumbel_noise(key: int, ids_N: Ids) -> Scores:
    """-log(-log u) with u uniform in (0, 1), a pure function of key and id; see `sampling.gumbel_noise`."""
    # In place, for fresh memory would take longer than the arithmetic.
    bits_N = ids_N.astype(np.uint64)
    bits_N += np.uint64(1)
    bits_N *= _GOLDEN
    bits_N += np.uint64(key % (1 << 64))
    shifted_N = np.empty_like(bits_N)
    for places, factor in ((30, _MIX_1), (27, _MIX_2), (31, np.uint64(1))):
        np.right_shift(bits_N, np.uint64(places), out=shifted_N)
        bits_N ^= shifted_N
        bits_N *= factor
    bits_N >>= np.uint64(64 - _UNIFORM_BITS)
    noise_N = bits_N.astype(np.float64)
    noise_N += 0.5
    noise_N /= 1 << _UNIFORM_BITS
    for _ in range(2):
        np.log(noise_N, out=noise_N)
        np.negative(noise_N, out=noise_N)
    return noise_N.astype(np.float32)
