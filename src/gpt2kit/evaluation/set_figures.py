"""Figures of a whole set of texts with jackknife intervals: what is shared among texts has no interval by resampling.

Words are numbered, and n-grams with them, so that leaving any group of texts out costs one pass over the n-grams.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gpt2kit.evaluation.diversity import Words, self_bleu_and_losses
from gpt2kit.evaluation.jackknife import Ints, deal, jackknife_figure
from gpt2kit.evaluation.lexical import plain_words, zipf_exponents, zipf_slopes
from gpt2kit.evaluation.readability import Reading, grade_level, reading_ease
from gpt2kit.evaluation.statistics import Figure, Floats, share_figure

_ALIKE_BLEU = 0.8


@dataclass(frozen=True, slots=True)
class Grams:
    """The n-grams of a set of texts by group of texts.

    Attributes:
        total_G: n-grams of each group.
        of_P, group_P, count_P: for each pair of an n-gram and a group that has it: which, and how often.
        num_different: different n-grams of all texts.
    """

    total_G: Ints
    of_P: Ints
    group_P: Ints
    count_P: Ints
    num_different: int


def count_grams(texts: Sequence[Words], n: int, groups_N: Ints) -> Grams:
    """Count n-grams, none of them across two texts.

    Args:
        texts: as words.
        n: words of an n-gram.
        groups_N: the group of each text.
    """
    numbers: dict[str, int] = {}
    ids_W = np.array([numbers.setdefault(word, len(numbers)) for words in texts for word in words], dtype=np.int64)
    lengths_N = np.array([len(words) for words in texts], dtype=np.int64)
    num_grams_N = np.maximum(lengths_N - n + 1, 0)
    # The place of each n-gram's first word: its text's beginning, and its number within the text.
    offsets_N = np.cumsum(lengths_N) - lengths_N
    before_N = np.cumsum(num_grams_N) - num_grams_N
    start_M = np.arange(num_grams_N.sum()) + np.repeat(offsets_N - before_N, num_grams_N)
    key_M = ids_W[start_M]
    for step in range(1, n):
        # Renumbered at every step, so that no product leaves 64 bits.
        key_M = np.unique(key_M, return_inverse=True)[1] * np.int64(len(numbers)) + ids_W[start_M + step]
    gram_M = np.unique(key_M, return_inverse=True)[1].astype(np.int64)
    G = int(groups_N.max(initial=-1)) + 1
    group_M = np.repeat(groups_N, num_grams_N)
    pair_P, count_P = np.unique(gram_M * max(G, 1) + group_M, return_counts=True)
    return Grams(
        total_G=np.bincount(group_M, minlength=G),
        of_P=pair_P // max(G, 1),
        group_P=pair_P % max(G, 1),
        count_P=count_P.astype(np.int64),
        num_different=int(gram_M.max(initial=-1)) + 1,
    )


def distinct_figure(texts: Sequence[Words], n: int, *, seed: int) -> Figure | None:
    """`diversity.distinct` with its interval; None when no text has n words."""
    grams = count_grams(texts, n, deal(len(texts), seed=seed))
    total = int(grams.total_G.sum())
    if not total:
        return None
    groups_of_gram = np.bincount(grams.of_P, minlength=grams.num_different)
    # Without a group, the n-grams that only it has are gone.
    alone_P = groups_of_gram[grams.of_P] == 1
    lost_G = np.bincount(grams.group_P[alone_P], minlength=len(grams.total_G))
    return _ratio(grams.num_different - lost_G, total - grams.total_G, grams.num_different / total)


def said_once_figure(texts: Sequence[Words], *, seed: int) -> Figure | None:
    """The share of all words that come only once in all texts together (hapax legomena); None without a word."""
    grams = count_grams([plain_words(words) for words in texts], 1, deal(len(texts), seed=seed))
    total = int(grams.total_G.sum())
    if not total:
        return None
    uses = np.bincount(grams.of_P, weights=grams.count_P, minlength=grams.num_different)
    left_P = uses[grams.of_P] - grams.count_P
    G = len(grams.total_G)
    # Without a group, its own words said once are gone, and those that it says all but once become such.
    gone_G = np.bincount(grams.group_P[uses[grams.of_P] == 1], minlength=G)
    new_G = np.bincount(grams.group_P[left_P == 1], minlength=G)
    once = int((uses == 1).sum())
    return _ratio(once - gone_G + new_G, total - grams.total_G, once / total)


def _ratio(counts_G: Ints, totals_G: Ints, value: float) -> Figure:
    without_G = np.divide(counts_G, totals_G, out=np.full(len(totals_G), np.nan), where=totals_G > 0)
    return jackknife_figure(value, without_G, within=(0.0, 1.0))


def zipf_figures(texts: Sequence[Words], *, seed: int) -> dict[str, Figure | None]:
    """Zipf's exponent of all texts together, by maximum likelihood ("zipf") and as a slope ("zipf_slope")."""
    grams = count_grams([plain_words(words) for words in texts], 1, deal(len(texts), seed=seed))
    counts_GV = np.zeros((len(grams.total_G), grams.num_different), dtype=np.int64)
    counts_GV[grams.group_P, grams.of_P] = grams.count_P
    all_1V = counts_GV.sum(axis=0, keepdims=True)
    measures: dict[str, Callable[[Ints], Floats]] = {"zipf": zipf_exponents, "zipf_slope": zipf_slopes}
    found: dict[str, Figure | None] = {}
    for name, measure in measures.items():
        value = float(measure(all_1V)[0])
        found[name] = None if np.isnan(value) else jackknife_figure(value, measure(all_1V - counts_GV))
    return found


def self_bleu_figures(texts: Sequence[Words], *, seed: int) -> dict[str, Figure | None]:
    """self-BLEU ("self_bleu"), and the share of texts that are another one or nearly ("alike_texts").

    Such a text has 0.8 or more against all others: of thirty words, at most two are other ones. Both are None for fewer
    than two texts.
    """
    scores, losses = self_bleu_and_losses(texts)
    alike = [score >= _ALIKE_BLEU for score in scores]
    return {"self_bleu": _mean_bleu(scores, losses, seed=seed), "alike_texts": share_figure(alike)}


def _mean_bleu(scores: Sequence[float], losses: Sequence[float], *, seed: int) -> Figure | None:
    """The mean of `diversity.self_bleu`, with its interval.

    A text counts as a hypothesis and as a reference of all others. The mean's own interval would see only the first,
    and would be far too narrow.
    """
    if not scores:
        return None
    value, N = float(np.mean(scores)), len(scores)
    if N < 3:
        return Figure(value)
    groups_N = deal(N, seed=seed)
    G = int(groups_N.max()) + 1
    # What the others lose by the texts of a group, and what these scored themselves. Where a group holds several
    # texts, their losses add up: exact for a group of one, and near it while few n-grams stand in just these.
    lost_G = np.bincount(groups_N, weights=losses, minlength=G)
    own_G = np.bincount(groups_N, weights=np.array(scores), minlength=G)
    size_G = np.bincount(groups_N, minlength=G)
    return jackknife_figure(value, (sum(scores) - own_G - lost_G) / (N - size_G), within=(0.0, 1.0))


def readability_figures(readings: Sequence[Reading], *, seed: int) -> dict[str, Figure | None]:
    """Flesch's reading ease and Flesch-Kincaid grade of all texts together, None without a finished sentence."""
    counts_N3 = np.array(
        [(each.num_words, each.num_sentences, each.num_syllables) for each in readings], dtype=np.int64
    ).reshape(-1, 3)
    groups_N = deal(len(readings), seed=seed)
    sums_G3 = np.stack(
        [np.bincount(groups_N, weights=column_N, minlength=groups_N.max(initial=-1) + 1) for column_N in counts_N3.T],
        axis=1,
    )
    found: dict[str, Figure | None] = {}
    for name, formula in (("reading_ease", reading_ease), ("grade_level", grade_level)):
        value = formula(*counts_N3.sum(axis=0).tolist())
        without_G = [formula(*left_3) for left_3 in (sums_G3.sum(axis=0) - sums_G3).tolist()]
        found[name] = None if np.isnan(value) else jackknife_figure(value, without_G)
    return found
