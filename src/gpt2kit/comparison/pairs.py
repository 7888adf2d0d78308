"""Every two models on the same text: differences, whether chance explains them, and the ranking that remains.

The test. If two models are equally good, it is chance which of them predicts a document better, so the sign of each
document's difference could as well be the other one (Fisher 1935; in this field Yeh 2000, "More accurate tests for the
statistical significance of result differences"):

    p = share of all choices of signs s for which |Σ s d| is at least the |Σ d| that was found

`evaluation.statistics` tries all choices for 16 documents or fewer, and draws 20,000 of more. With m pairs some
small p comes by chance, so Holm's step-down correction (Holm 1979) makes the chance of any false "clear" at most 5%.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from gpt2kit.evaluation.comparison import Comparison
from gpt2kit.evaluation.comparison import compare as compare_two
from gpt2kit.evaluation.likelihood import Likelihood, TokenDocument
from gpt2kit.evaluation.statistics import SIGNIFICANCE, holm, smallest_p_value

_MOST_LISTED = 3  # models, in the words about another one


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
        place: from 1 on; models of the same figure share one.
        title: the model.
        bits_per_byte: what it is ranked by.
        clearly_better_than: models it predicts clearly better than.
        clearly_worse_than: models that predict clearly better.
        not_told_apart: models from which the text does not tell it apart.
    """

    place: int
    title: str
    bits_per_byte: float
    clearly_better_than: list[str]
    clearly_worse_than: list[str]
    not_told_apart: list[str]


def all_pairs(readings: Sequence[Reading], *, seed: int) -> list[Pair]:
    """Compare every two models, in the order they were given.

    Args:
        readings: of two models or more, on the same documents in the same order.
        seed: of bootstrap and test.
    """
    found = []
    for first, second in combinations(readings, 2):
        same_tokenizer = first.tokenizer == second.tokenizer
        difference = compare_two(
            (first.likelihood, first.documents),
            (second.likelihood, second.documents),
            same_tokenizer=same_tokenizer,
            seed=seed,
        )
        # Of a single document nothing can be told.
        found.append((first.title, second.title, difference, 1.0 if difference.p_value is None else difference.p_value))
    corrected = holm([p for *_, p in found])
    return [Pair(*each, corrected_p=p) for each, p in zip(found, corrected, strict=True)]


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
                # Of equal figures the place is the same.
                1 + sum(each.likelihood.bits_per_byte < reading.likelihood.bits_per_byte for each in ordered),
                reading.title,
                reading.likelihood.bits_per_byte,
                [title for title in apart if places[title] > place],
                [title for title in apart if places[title] < place],
                [title for title in others if title not in apart],
            )
        )
    return ranks


def ranking_words(ranks: Sequence[Rank], *, too_few: str = "") -> list[str]:
    """The ranking in sentences: who leads, then each model in its place.

    Args:
        ranks: the models, the best first.
        too_few: why nothing can be told apart, if the text is too little for that.
    """
    best = ranks[0]
    if too_few:
        lines = [f"No model is clearly the best: {too_few}."]
    elif not best.not_told_apart:
        lines = [f"{best.title} predicts the text best, clearly ahead of every other model."]
    elif len(best.not_told_apart) == len(ranks) - 1:
        lines = ["No model is clearly the best: the one with the lowest figure is not told apart from any other."]
    else:
        lines = [f"{_listed([best.title, *best.not_told_apart])} lead; which of them is best, this text does not tell."]
    num_others = len(ranks) - 1
    for rank in ranks:
        parts = []
        if rank.clearly_better_than:
            parts.append(f"clearly better than {_whom(rank.clearly_better_than, num_others, every='every other')}")
        if rank.not_told_apart:
            parts.append(f"not told apart from {_whom(rank.not_told_apart, num_others, every='any other')}")
        if rank.clearly_worse_than:
            parts.append(f"clearly worse than {_whom(rank.clearly_worse_than, num_others, every='every other')}")
        lines.append(f"{rank.place}. {rank.title} ({rank.bits_per_byte:.4f} bits per byte): {'; '.join(parts)}.")
    return lines


def _whom(names: Sequence[str], num_others: int, *, every: str) -> str:
    """Models by name, unless they are all the others and many."""
    return every if len(names) == num_others > _MOST_LISTED else _listed(names)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def too_few_words(num_documents: int, num_pairs: int) -> str:
    """Why no difference can come out clear of so many documents and pairs of models; empty where one can."""
    if num_documents > 1 and smallest_p(num_documents, num_pairs) <= SIGNIFICANCE:
        return ""
    return (
        f"with {num_documents} held-out document{'s' * (num_documents != 1)} and {num_pairs} "
        f"pair{'s' * (num_pairs != 1)} of models no difference can come out clear"
    )


def smallest_p(num_units: int, num_pairs: int) -> float:
    """The smallest corrected p-value that so many units can give; above 5% nothing can come out clear."""
    smallest = smallest_p_value(num_units)
    return min(1.0, num_pairs * smallest)
