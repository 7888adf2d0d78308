"""How varied texts are: within a text (repetition, loops) and among texts (distinct-n, self-BLEU).

Texts are lists of words and punctuation marks, as `split_words` gives them. All figures but the loops depend on how
long the texts are, and those among texts on how many there are: compare only sets cut alike.
"""

import math
from collections import Counter
from collections.abc import Sequence
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
        for start, end in _runs(ids_W[period:] == ids_W[:-period]):
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
    if len(texts) < 2:
        return []
    counts = [[Counter(ngrams(words, n)) for words in texts] for n in range(1, BLEU_ORDER + 1)]
    most = [_two_greatest(of_order) for of_order in counts]
    lengths = sorted(len(words) for words in texts)
    scores = []
    for number, words in enumerate(texts):
        if not words:
            scores.append(0.0)
            continue
        logs, halvings = [], 0
        for of_order, greatest in zip(counts, most, strict=True):
            own = of_order[number]
            if not own:
                continue
            matches = sum(min(count, _among_others(greatest[gram], number)) for gram, count in own.items())
            halvings += matches == 0
            logs.append(math.log(matches / own.total() if matches else 1 / (2**halvings * own.total())))
        nearest = _nearest_other(lengths, len(words))
        if halvings == len(logs):
            scores.append(0.0)
            continue
        scores.append(math.exp(min(0.0, 1 - nearest / len(words)) + sum(logs) / len(logs)))
    return scores


# The greatest count of an n-gram in any text, which text that is, and the greatest count in another one.
_Greatest: TypeAlias = tuple[int, int, int]


def _two_greatest(counts: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], _Greatest]:
    greatest: dict[tuple[str, ...], _Greatest] = {}
    for number, of_text in enumerate(counts):
        for gram, count in of_text.items():
            first, owner, second = greatest.get(gram, (0, -1, 0))
            greatest[gram] = (count, number, first) if count > first else (first, owner, max(second, count))
    return greatest


def _among_others(greatest: _Greatest, number: int) -> int:
    first, owner, second = greatest
    return second if owner == number else first


def _nearest_other(sorted_lengths: Sequence[int], length: int) -> int:
    """The length nearest to `length` among the other texts; of two as near, the shorter."""
    others = list(sorted_lengths)
    others.remove(length)
    return min(others, key=lambda other: (abs(other - length), other))
