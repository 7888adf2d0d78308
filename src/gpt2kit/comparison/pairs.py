"""Every two models on the same text: differences, whether chance explains them, and the ranking that remains.

The test. If two models are equally good, it is chance which of them predicts a document better, so the sign of each
document's difference could as well be the other one (Fisher 1935; in this field Yeh 2000, "More accurate tests for the
statistical significance of result differences"):

    p = share of all choices of signs s for which |Σ s d| is at least the |Σ d| that was found

All choices are tried for 14 documents or fewer; of more, 20,000 are drawn. With m pairs of models some small p comes by
chance, so Holm's step-down correction (Holm 1979) makes the chance of any false "clear" at most 5%.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt2kit.evaluation.comparison import Comparison
from gpt2kit.evaluation.comparison import compare as compare_two
from gpt2kit.evaluation.likelihood import Likelihood, Protocol, TokenDocument, units
from gpt2kit.evaluation.statistics import SIGNIFICANCE, holm
from gpt2kit.runtime import derive_seed

_ALL_SIGNS_UNITS = 14
_NUM_DRAWN = 20_000
_DRAWN_AT_ONCE = 1_000_000  # signs, so that memory stays bounded

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reading:
    """What a model made of the held-out text.

    Attributes:
        title: what to call the model.
        likelihood: its figures.
        documents: the text as its tokenizer sees it.
        tokenizer: fingerprint of its tokenizer.
    """

    title: str
    likelihood: Likelihood
    documents: Sequence[TokenDocument]
    tokenizer: str


@dataclass(frozen=True)
class Pair:
    """Two models on the same text.

    Attributes:
        first: title of one.
        second: title of the other.
        difference: of the first from the second; above 0 the first predicts better.
        p_value: of the test by random signs, not corrected.
        corrected_p: after Holm's correction for the number of pairs.
    """

    first: str
    second: str
    difference: Comparison
    p_value: float
    corrected_p: float

    @property
    def is_clear(self) -> bool:
        """Whether chance is ruled out, by the corrected test and by the interval."""
        return self.corrected_p <= SIGNIFICANCE and self.difference.is_clear

    @property
    def saved(self) -> float:
        """Bits per byte that the first needs less."""
        return self.difference.bits_per_byte_saved.value

    def to_dict(self) -> dict[str, Any]:
        """The pair as JSON values."""
        return {
            "first": self.first,
            "second": self.second,
            **self.difference.to_dict(),
            "p_value": self.p_value,
            "corrected_p": self.corrected_p,
            "is_clear": self.is_clear,
        }


@dataclass(frozen=True)
class Rank:
    """A model's place.

    Attributes:
        title: the model.
        bits_per_byte: what it is ranked by.
        clearly_better_than: models it predicts clearly better than.
        clearly_worse_than: models that predict clearly better.
        not_told_apart: models from which the text does not tell it apart.
    """

    title: str
    bits_per_byte: float
    clearly_better_than: list[str]
    clearly_worse_than: list[str]
    not_told_apart: list[str]


def all_pairs(readings: Sequence[Reading], *, protocol: Protocol, seed: int) -> list[Pair]:
    """Compare every two models, in the order they were given.

    Args:
        readings: of two models or more, on the same documents in the same order.
        protocol: of all of them.
        seed: of bootstrap and test.
    """
    found = []
    for first, second in combinations(readings, 2):
        same_tokenizer = first.tokenizer == second.tokenizer
        difference = compare_two(
            (first.likelihood, first.documents),
            (second.likelihood, second.documents),
            protocol=protocol,
            same_tokenizer=same_tokenizer,
            seed=seed,
        )
        saved_U = _sums(second, protocol, same_tokenizer) - _sums(first, protocol, same_tokenizer)
        found.append((first.title, second.title, difference, sign_flip_p(saved_U, seed=seed)))
    corrected = holm([p for *_, p in found])
    return [Pair(*each, corrected_p=p) for each, p in zip(found, corrected, strict=True)]


def _sums(reading: Reading, protocol: Protocol, same_tokenizer: bool) -> Floats:
    """Nats of each unit: documents, or windows where there are few of these and both models' windows are the same."""
    nats = reading.likelihood.token_nats
    if same_tokenizer:
        return units(reading.documents, nats, protocol=protocol)[1][:, 0]
    return np.array([values.sum() for values in nats])


def sign_flip_p(differences_U: npt.ArrayLike, *, seed: int) -> float:
    """The two-sided p-value of "it is chance which one is better in each unit".

    Args:
        differences_U: a difference for each document.
        seed: of the signs that are drawn.
    """
    d_U = np.asarray(differences_U, dtype=np.float64)
    d_U = d_U[d_U != 0]
    U = len(d_U)
    if U == 0:
        return 1.0
    at_least = abs(float(d_U.sum())) - 1e-9 * float(np.abs(d_U).sum())  # sums in another order differ in the last digit
    if U <= _ALL_SIGNS_UNITS:
        signs_RU = 1 - 2 * ((np.arange(2**U)[:, None] >> np.arange(U)) & 1)
        return float((np.abs(signs_RU @ d_U) >= at_least).mean())
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "signs")))
    rows = max(_DRAWN_AT_ONCE // U, 1)
    reached = 0
    for start in range(0, _NUM_DRAWN, rows):
        signs_RU = 1 - 2 * generator.integers(2, size=(min(rows, _NUM_DRAWN - start), U), dtype=np.int8)
        reached += int((np.abs(signs_RU @ d_U) >= at_least).sum())
    # The choice that was found is one of them, so that p is never 0 (Phipson and Smyth 2010).
    return (1 + reached) / (1 + _NUM_DRAWN)


def ranking(readings: Sequence[Reading], pairs: Sequence[Pair]) -> list[Rank]:
    """The models from best to worst by bits per byte, and from which others each is told apart."""
    ordered = sorted(readings, key=lambda reading: reading.likelihood.bits_per_byte)
    places = {reading.title: place for place, reading in enumerate(ordered)}
    clear = {frozenset((pair.first, pair.second)) for pair in pairs if pair.is_clear}
    ranks = []
    for place, reading in enumerate(ordered):
        others = [each.title for each in ordered if each is not reading]
        apart = [title for title in others if frozenset((reading.title, title)) in clear]
        ranks.append(
            Rank(
                reading.title,
                reading.likelihood.bits_per_byte,
                [title for title in apart if places[title] > place],
                [title for title in apart if places[title] < place],
                [title for title in others if title not in apart],
            )
        )
    return ranks


def ranking_words(ranks: Sequence[Rank]) -> list[str]:
    """The ranking in sentences: who leads, then each model in its place."""
    best = ranks[0]
    if not best.not_told_apart:
        lines = [f"{best.title} predicts the text best, clearly ahead of every other model."]
    elif len(best.not_told_apart) == len(ranks) - 1:
        lines = ["No model is clearly the best: the one with the lowest figure is not told apart from any other."]
    else:
        lines = [f"{_listed([best.title, *best.not_told_apart])} lead; which of them is best, this text does not tell."]
    for place, rank in enumerate(ranks, 1):
        parts = []
        if rank.clearly_better_than:
            parts.append(f"clearly better than {_listed(rank.clearly_better_than)}")
        if rank.not_told_apart:
            parts.append(f"not told apart from {_listed(rank.not_told_apart)}")
        if rank.clearly_worse_than:
            parts.append(f"clearly worse than {_listed(rank.clearly_worse_than)}")
        lines.append(f"{place}. {rank.title} ({rank.bits_per_byte:.4f} bits per byte): {'; '.join(parts)}.")
    return lines


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def smallest_p(num_units: int, num_pairs: int) -> float:
    """The smallest corrected p-value that so many units can give; above 5% nothing can come out clear."""
    smallest = 2.0 ** (1 - num_units) if num_units <= _ALL_SIGNS_UNITS else 1 / (1 + _NUM_DRAWN)
    return min(1.0, num_pairs * smallest)
