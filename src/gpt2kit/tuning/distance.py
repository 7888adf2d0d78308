"""How far a set of texts is from human ones: by how varied and how repetitive they are, or by MAUVE."""

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from gpt2kit.evaluation.diversity import distinct, repetition, self_bleu, words_in_loops
from gpt2kit.evaluation.mauve import FEWEST_TEXTS, NUM_CLUSTERINGS, mauve_score
from gpt2kit.evaluation.statistics import Floats
from gpt2kit.evaluation.texts import cut_alike
from gpt2kit.runtime import derive_seed

Words: TypeAlias = Sequence[Sequence[str]]
# Texts of a model and human texts of the same places to a distance, 0 where they are alike. The search takes any.
TextDistance: TypeAlias = Callable[[Sequence[str], Sequence[str]], float]

_HALVINGS = 20
_LEAST_SCALE = 0.01  # of shares: a percentage point never counts more than one unit
_FEWEST_TEXTS = 4
_DISTANCE_OF_NOTHING = 10.0


def figures(texts: Words) -> dict[str, float]:
    """distinct-1 to -3, self-BLEU, rep-2 to -4 and the share of words in loops, of texts as words.

    A figure that cannot be measured is left out.
    """
    found: dict[str, float | None] = {f"distinct_{n}": distinct(texts, n) for n in (1, 2, 3)}
    bleus = self_bleu(texts)
    found["self_bleu"] = math.fsum(bleus) / len(bleus) if bleus else None
    for n in (2, 3, 4):
        shares = [share for words in texts if (share := repetition(words, n)) is not None]
        found[f"rep_{n}"] = math.fsum(shares) / len(shares) if shares else None
    total = sum(len(words) for words in texts)
    found["words_in_loops"] = sum(words_in_loops(words) for words in texts) / total if total else None
    return {name: value for name, value in found.items() if value is not None}


def scales(human: Words, *, seed: int) -> dict[str, float]:
    """For each figure, how far two sets of human texts are apart: the root mean square over random halves of one set.

    The halves are half as large as the set, and differ by chance as sets of their size do: √2 times as much as two sets
    of its own size would. At least 0.01.
    """
    draw = random.Random(derive_seed(seed, "halves"))
    squares: dict[str, list[float]] = {}
    for _ in range(_HALVINGS):
        order = list(human)
        draw.shuffle(order)
        middle = len(order) // 2
        first, second = figures(order[:middle]), figures(order[middle : 2 * middle])
        for name in first.keys() & second.keys():
            squares.setdefault(name, []).append((first[name] - second[name]) ** 2)
    return {name: max(math.sqrt(math.fsum(found) / len(found)), _LEAST_SCALE) for name, found in squares.items()}


def diversity_distance(texts: Sequence[str], human: Sequence[str], *, seed: int = 0) -> float:
    """The root mean square of the differences in `figures`, each in units of `scales`.

    Texts are cut to the words of the human text of the same place, for the figures depend on lengths; a place where one
    of the two has fewer than eight words is left out, and an empty text is no way to a small distance: each left out
    because of the model counts as a distance of ten.

    Returns:
        0 for the human texts themselves, about 0.7 for other human texts, above for others. Infinite with fewer than
        four texts that compare.
    """
    human_alone = cut_alike({"human": human}).num_texts
    cut = cut_alike({"texts": texts, "human": human})
    if cut.num_texts < _FEWEST_TEXTS:
        return math.inf
    of_texts, of_human = figures(cut.sets["texts"]), figures(cut.sets["human"])
    units = scales(cut.sets["human"], seed=seed)
    names = sorted(of_texts.keys() & of_human.keys() & units.keys())
    squares = [((of_texts[name] - of_human[name]) / units[name]) ** 2 for name in names]
    distance = math.sqrt(math.fsum(squares) / len(squares))
    missing = max(human_alone - cut.num_texts, 0) / human_alone
    return (1 - missing) * distance + missing * _DISTANCE_OF_NOTHING


class MauveDistance:
    """1 - MAUVE, the mean of five clusterings; see `gpt2kit.evaluation.mauve`.

    A place where the model wrote nothing counts as the greatest distance, 1.

    Args:
        read: the hidden states of texts, [texts, width].
        seed: of the clusterings.
    """

    def __init__(self, read: Callable[[Sequence[str]], Floats], *, seed: int = 0) -> None:
        self._read = read
        self._seed = seed
        self._human: dict[str, Floats] = {}  # read once for all trials

    def __call__(self, texts: Sequence[str], human: Sequence[str]) -> float:
        """The distance, 0 to 1; infinite with fewer than twenty texts that compare."""
        places = [number for number, text in enumerate(human) if text.strip()]
        written = [number for number in places if texts[number].strip()]
        if len(written) < FEWEST_TEXTS:
            return math.inf
        unread = [human[number] for number in written if human[number] not in self._human]
        if unread:
            self._human.update(zip(unread, self._read(unread), strict=True))
        human_ND = np.stack([self._human[human[number]] for number in written])
        texts_ND = self._read([texts[number] for number in written])
        score = mauve_score(texts_ND, human_ND, seed=self._seed, num_clusterings=NUM_CLUSTERINGS)
        return 1 - score * len(written) / len(places)
