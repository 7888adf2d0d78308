"""How varied texts are: within a text (repetition, loops) and among texts (distinct-n, self-BLEU).

Texts are lists of words and punctuation marks, as `split_words` gives them. All figures but the loops depend on how
long the texts are, and those among texts on how many there are: compare only sets cut alike.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Words: TypeAlias = Sequence[str]

BLEU_ORDER = 4
SHORTEST_LOOP_WORDS = 10  # "very, very, very" is no loop
_LOOP_COPIES = 3
_LONGEST_PERIOD_WORDS = 200


def ngrams(words: Words, n: int) -> list[tuple[str, ...]]:
    """The runs of n words, in order."""
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def distinct(texts: Sequence[Words], n: int) -> float | None:
    """distinct-n: different n-grams of all texts together, divided by all n-grams (Li et al. 2016, section 5.1).

    It falls with the number of words, for every text.

    Returns:
        0 to 1; None when no text has n words.
    """
    counts: Counter[tuple[str, ...]] = Counter()
    for words in texts:
        counts.update(ngrams(words, n))
    return len(counts) / counts.total() if counts else None


def repetition(words: Words, n: int) -> float | None:
    """rep-n of one text: 1 - different n-grams / n-grams (Welleck et al. 2020, section 6; Su et al. 2022).

    Returns:
        0 for no n-gram twice, near 1 for a loop; None when the text has fewer than n words.
    """
    found = ngrams(words, n)
    return 1 - len(set(found)) / len(found) if found else None


def words_in_loops(words: Words) -> int:
    """Words that stand in a loop: a stretch that comes three times in a row or more, ten words or more in all.

    A period of p words from place i to j is a run of places whose word equals that p places before; the stretch comes
    `run / p + 1` times. Periods of up to 200 words are looked for.
    """
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    ids_W = np.array([numbers[word] for word in words], dtype=np.int64)
    inside_W = np.zeros(len(ids_W), dtype=np.bool_)
    for period in range(1, min(len(ids_W) // _LOOP_COPIES, _LONGEST_PERIOD_WORDS) + 1):
        same_W = ids_W[period:] == ids_W[:-period]
        if np.count_nonzero(same_W) < max((_LOOP_COPIES - 1) * period, SHORTEST_LOOP_WORDS - period):
            continue  # too few for a run that is long enough: so it is for nearly all periods
        for start, end in _runs(same_W):
            # The run holds the copies behind the first; the first stands `period` words before.
            if end - start >= (_LOOP_COPIES - 1) * period and end - start + period >= SHORTEST_LOOP_WORDS:
                inside_W[start : end + period] = True
    return int(inside_W.sum())


def _runs(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where stretches of True begin and end."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    return [(int(start), int(end)) for start, end in edges.reshape(-1, 2)]


def self_bleu(texts: Sequence[Words]) -> list[float]:
    """BLEU-4 of each text against all the others as references (Zhu et al. 2018, section 3); their mean is self-BLEU.

        BLEU = min(1, exp(1 - r / c)) · (p1 p2 p3 p4)^(1/4)

    c is the text's length and r the nearest length among the others (the shorter of two). p_n are clipped precisions;
    one without a match counts as 1 / (2^k · n-grams) for the k-th such order (method 3 of Chen and Cherry 2014), as
    sacrebleu does; without a single word in common BLEU is 0. Texts shorter than four words use the orders they have.

    Returns:
        0 to 1 for each text, high where texts are like each other; an empty list for fewer than two texts.
    """
    return [_bleu(each.matches, each) for each in _hypotheses(texts)]


def self_bleu_and_losses(texts: Sequence[Words]) -> tuple[list[float], list[float]]:
    """`self_bleu`, and by how much the scores of all other texts together would fall without each text.

    Exact: a text matters to another by the n-grams of which it has the only copy, or more copies than a third text,
    and by its length where that is the nearest.
    """
    scores, losses = [], [0.0] * len(texts)
    for each in _hypotheses(texts):
        full = _bleu(each.matches, each)
        scores.append(full)
        for other in each.lost.keys() | {each.only_nearest}:
            if other is None:
                continue
            lost = each.lost.get(other, ())
            matches = [count - sum(gone for k, gone in lost if k == order) for order, count in enumerate(each.matches)]
            nearest = each.next_nearest if other == each.only_nearest else each.nearest
            losses[other] += full - _bleu(matches, each, nearest=nearest)
    return scores, losses


@dataclass(slots=True)
class _Hypothesis:
    """A text against all others: its length, the nearest of theirs, and per order its n-grams and the matched ones.

    `lost` says which matches of an order would go with which text; `only_nearest` is the one text of the nearest
    length, if it is one, and `next_nearest` the nearest length without it.
    """

    length: int
    nearest: int
    only_nearest: int | None
    next_nearest: int
    totals: list[int]
    matches: list[int]
    lost: dict[int, list[tuple[int, int]]]


def _hypotheses(texts: Sequence[Words]) -> list[_Hypothesis]:
    if len(texts) < 2:
        return []
    lengths = [len(words) for words in texts]
    holders: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        holders.setdefault(length, []).append(number)
    found = [_lengths(number, length, holders) for number, length in enumerate(lengths)]
    for order in range(BLEU_ORDER):
        counts = [Counter(ngrams(words, order + 1)) for words in texts]
        greatest = _three_greatest(counts)
        for number, (each, of_text) in enumerate(zip(found, counts, strict=True)):
            matches = 0
            for gram, count in of_text.items():
                best, owner, without_it = _among_others(greatest[gram], number)
                if not best:
                    continue
                matches += min(count, best)
                if without_it < min(count, best):
                    each.lost.setdefault(owner, []).append((order, min(count, best) - without_it))
            each.totals.append(of_text.total())
            each.matches.append(matches)
    return found


def _lengths(number: int, length: int, holders: dict[int, list[int]]) -> _Hypothesis:
    """A text with the length nearest to its own among the others (of two as near, the shorter), and the next one."""

    def distance(other: int) -> tuple[int, int]:
        return abs(other - length), other

    others = [other for other, texts in holders.items() if texts != [number]]
    nearest = min(others, key=distance)
    owners = [owner for owner in holders[nearest][:3] if owner != number]
    only = owners[0] if len(owners) == 1 else None
    following = min((other for other in others if other != nearest or only is None), key=distance, default=length)
    return _Hypothesis(length, nearest, only, following, [], [], {})


def _bleu(matches: Sequence[int], text: _Hypothesis, *, nearest: int | None = None) -> float:
    """BLEU of a text from its matched n-grams of each order."""
    logs, halvings = [], 0
    for matched, total in zip(matches, text.totals, strict=True):
        if not total:
            continue
        halvings += matched == 0
        logs.append(math.log(matched / total if matched else 1 / (2**halvings * total)))
    if halvings == len(logs):
        return 0.0
    reference = text.nearest if nearest is None else nearest
    return math.exp(min(0.0, 1 - reference / text.length) + sum(logs) / len(logs))


# The three greatest counts of an n-gram in any text, and which texts have the first two of them.
_Greatest: TypeAlias = tuple[int, int, int, int, int]


def _three_greatest(counts: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], _Greatest]:
    greatest: dict[tuple[str, ...], _Greatest] = {}
    for number, of_text in enumerate(counts):
        for gram, count in of_text.items():
            first, owner, second, runner_up, third = greatest.get(gram, (0, -1, 0, -1, 0))
            if count > first:
                greatest[gram] = (count, number, first, owner, second)
            elif count > second:
                greatest[gram] = (first, owner, count, number, second)
            elif count > third:
                greatest[gram] = (first, owner, second, runner_up, count)
    return greatest


def _among_others(greatest: _Greatest, number: int) -> tuple[int, int, int]:
    """The greatest count in another text, which text that is, and the greatest in a third."""
    first, owner, second, runner_up, third = greatest
    if number == owner:
        return second, runner_up, third
    return first, owner, third if number == runner_up else second
