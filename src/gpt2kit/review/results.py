"""What the judgements of a review say."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Any

from gpt2kit.evaluation.statistics import SIGNIFICANCE, Figure, holm, share_figure, smallest_p_value
from gpt2kit.review.agreement import Agreement, agreement
from gpt2kit.review.pairs import TextPair
from gpt2kit.review.store import Judgement
from gpt2kit.review.strengths import Difference, Outcome, Strengths

_FEWEST_PROMPTS = 10
_FEWEST_DECIDED_FOR_SIDES = 20


@dataclass(frozen=True)
class Match:
    """Two contestants against each other.

    Attributes:
        first: one of them.
        second: the other.
        wins: judgements in which the first was better.
        losses: judgements in which the second was.
        ties: judgements without a difference.
        win_rate: wins / (wins + losses) with Wilson's 95% interval; None without either.
        difference: of their strengths, from all judgements; None when it cannot be told.
        corrected_p: of no difference, after Holm's correction for the number of matches.
        more_judgements: of the whole review, still needed for a chance of 80% that this difference comes out clear;
            None when it is clear, or when there is no saying.
    """

    first: str
    second: str
    wins: int
    losses: int
    ties: int
    win_rate: Figure | None
    difference: Difference | None
    corrected_p: float
    more_judgements: int | None

    @property
    def is_clear(self) -> bool:
        """Whether chance is ruled out."""
        return self.corrected_p <= SIGNIFICANCE

    @property
    def num_judgements(self) -> int:
        """How often the two were judged."""
        return self.wins + self.losses + self.ties

    def to_dict(self) -> dict[str, Any]:
        """The match as JSON values."""
        found = self.difference
        return {
            "first": self.first,
            "second": self.second,
            "wins": self.wins,
            "losses": self.losses,
            "ties": self.ties,
            "win_rate": None if self.win_rate is None else self.win_rate.to_dict(),
            "log_odds": None if found is None else Figure(found.value, found.interval).to_dict(),
            "expected_score": None if found is None else Figure(found.score, found.score_interval).to_dict(),
            "p_value": None if found is None else found.p_value,
            "corrected_p": self.corrected_p,
            "is_clear": self.is_clear,
            "more_judgements": self.more_judgements,
        }


@dataclass(frozen=True)
class Place:
    """A contestant in the ranking.

    Attributes:
        name: the contestant.
        strength: against the mean of those it compares with; None when it compares with nobody.
        group: number of the group within which strengths compare.
        num_judgements: it took part in.
    """

    name: str
    strength: Figure | None
    group: int
    num_judgements: int


@dataclass(frozen=True)
class RaterRecord:
    """A person.

    Attributes:
        name: of the person.
        num_judgements: skipped ones not counted.
        num_skipped: pairs skipped.
        median_seconds: for a judgement; None when no browser said.
    """

    name: str
    num_judgements: int
    num_skipped: int
    median_seconds: float | None


@dataclass(frozen=True)
class Results:
    """What a review came to.

    Attributes:
        num_judgements: skipped ones not counted.
        num_ties: of these.
        num_skipped: pairs skipped.
        num_prompts: prompts that were judged.
        places: the contestants, the strongest first within each group.
        matches: every two contestants that were judged against each other.
        left_share: share of judgements without a tie in which the left text was better, with Wilson's interval.
        agreement: between people; None when no pair was judged twice.
        raters: the people.
    """

    num_judgements: int
    num_ties: int
    num_skipped: int
    num_prompts: int
    places: list[Place]
    matches: list[Match]
    left_share: Figure | None
    agreement: Agreement | None
    raters: list[RaterRecord]

    def to_dict(self) -> dict[str, Any]:
        """The results as JSON values."""
        return {
            "num_judgements": self.num_judgements,
            "num_ties": self.num_ties,
            "num_skipped": self.num_skipped,
            "num_prompts": self.num_prompts,
            "places": [
                vars(each) | {"strength": None if each.strength is None else each.strength.to_dict()}
                for each in self.places
            ],
            "matches": [each.to_dict() for each in self.matches],
            "left_share": None if self.left_share is None else self.left_share.to_dict(),
            "agreement": None
            if self.agreement is None
            else {name: getattr(self.agreement, name) for name in Agreement.__slots__},
            "raters": [vars(each) for each in self.raters],
            "statements": self.statements(),
        }

    def statements(self) -> list[str]:
        """The results in sentences."""
        if not self.num_judgements:
            return ["There are no judgements yet."]
        return [*self._of_matches(), *self._of_groups(), *self._of_sides(), *self._of_people(), *self._of_size()]

    def _of_matches(self) -> list[str]:
        lines = []
        for match in sorted(self.matches, key=lambda match: not match.is_clear):
            found = match.difference
            if found is None:
                continue
            turned = found.value < 0
            better, worse = (match.second, match.first) if turned else (match.first, match.second)
            score = 1 - found.score if turned else found.score
            interval = found.score_interval
            if interval is not None and turned:
                interval = (1 - interval[1], 1 - interval[0])
            figures = f"expected score {score:.0%}" + (
                f", 95% interval {interval[0]:.0%} to {interval[1]:.0%}" if interval else ""
            )
            if match.is_clear:
                lines.append(f"{better} is judged better than {worse} ({figures}).")
                continue
            more = ""
            if match.more_judgements is not None:
                number = counted(match.more_judgements, "more judgement")
                more = f" If it is as large as it looks, about {number} would show it."
            lines.append(f"No clear difference between {better} and {worse} ({figures}).{more}")
        return lines

    def _of_groups(self) -> list[str]:
        """What has no strength: contestants that always won or lost, or never met."""
        group_of = {place.name: place.group for place in self.places}
        lines = []
        for match in self.matches:
            if match.difference is not None or not match.num_judgements:
                continue
            if match.wins and match.losses:
                continue  # cannot be: both ways are connected then
            winner, loser = (match.first, match.second) if match.wins else (match.second, match.first)
            all_of = (
                "its only judgement" if match.num_judgements == 1 else f"all of its {match.num_judgements} judgements"
            )
            won = f"{winner} won {all_of} against {loser}"
            if match.is_clear:
                lines.append(f"{won}: better, but how much cannot be told from wins alone.")
            else:
                lines.append(
                    f"{won} so far, {'too few' if match.num_judgements > 1 else 'not enough'} to rule out chance."
                )
        met = {frozenset((match.first, match.second)) for match in self.matches}
        apart = [
            f"{first} and {second}"
            for first, second in combinations(group_of, 2)
            if group_of[first] != group_of[second] and frozenset((first, second)) not in met
        ]
        if apart:
            lines.append(f"How far these are apart cannot be told from the judgements so far: {'; '.join(apart)}.")
        return lines

    def _of_sides(self) -> list[str]:
        if self.left_share is None or self.left_share.interval is None:
            return []
        low, high = self.left_share.interval
        figures = f"{self.left_share.value:.0%} (95% interval {low:.0%} to {high:.0%})"
        if low > 0.5 or high < 0.5:
            side = "left" if low > 0.5 else "right"
            return [
                f"Position bias: the left text was preferred in {figures} of the decisions. Sides are drawn, so no "
                f"contestant gains by it, but a habit of choosing the {side} one hides differences."
            ]
        return [f"No sign of position bias: the left text was preferred in {figures} of the decisions."]

    def _of_people(self) -> list[str]:
        if self.agreement is None:
            return []
        alpha = "" if self.agreement.alpha is None else f" (Krippendorff's alpha {self.agreement.alpha:.2f})"
        return [
            f"On the {counted(self.agreement.num_pairs, 'pair')} that several people judged, two answers agree "
            f"{self.agreement.share:.0%} of the time{alpha}."
        ]

    def _of_size(self) -> list[str]:
        if self.num_prompts >= _FEWEST_PROMPTS:
            return []
        return [
            f"Only {counted(self.num_prompts, 'prompt')} {'were' if self.num_prompts > 1 else 'was'} judged: the "
            "intervals say little about other prompts and may be too narrow."
        ]


def counted(number: int, what: str) -> str:
    """A number of things in words: "1 tie", "2 ties"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def results(pairs: Sequence[TextPair], judgements: Sequence[Judgement]) -> Results:
    """What judgements say.

    Args:
        pairs: all pairs of the review.
        judgements: those that stand.
    """
    by_number = {pair.number: pair for pair in pairs}
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second)))
    numbers = {name: number for number, name in enumerate(names)}
    scored = [(by_number[each.pair], each, each.score) for each in judgements]
    outcomes = [
        Outcome(numbers[pair.first], numbers[pair.second], score, pair.prompt_number)
        for pair, _, score in scored
        if score is not None
    ]
    strengths = Strengths(outcomes, len(names))
    decided = [each.choice == "left" for each in judgements if each.choice in ("left", "right")]
    answers = defaultdict(list)
    for pair, _, score in scored:
        if score is not None:
            answers[pair.number].append(score)
    return Results(
        num_judgements=len(outcomes),
        num_ties=sum(each.score == 0.5 for each in outcomes),
        num_skipped=len(judgements) - len(outcomes),
        num_prompts=len({each.prompt for each in outcomes}),
        places=_places(names, outcomes, strengths),
        matches=_matches(names, outcomes, strengths),
        left_share=share_figure(decided) if len(decided) >= _FEWEST_DECIDED_FOR_SIDES else None,
        agreement=agreement(answers),
        raters=_raters(judgements),
    )


def _places(names: Sequence[str], outcomes: Sequence[Outcome], strengths: Strengths) -> list[Place]:
    places = []
    for number, name in enumerate(names):
        group = next(place for place, members in enumerate(strengths.groups) if number in members)
        strength = None
        if len(strengths.groups[group]) > 1:
            found = strengths.strength(number)
            strength = Figure(found.value, found.interval)
        taken_part = sum(number in (each.first, each.second) for each in outcomes)
        places.append(Place(name, strength, group, taken_part))
    return sorted(places, key=lambda each: (each.group, -(each.strength.value if each.strength else 0.0)))


def _matches(names: Sequence[str], outcomes: Sequence[Outcome], strengths: Strengths) -> list[Match]:
    """Every two contestants. One that won always is held to the sign test over prompts, each of which it won."""
    found: list[tuple[str, str, list[float], Difference | None, float]] = []
    for first, second in combinations(range(len(names)), 2):
        scores = [each.score for each in outcomes if (each.first, each.second) == (first, second)]
        scores += [1 - each.score for each in outcomes if (each.first, each.second) == (second, first)]
        difference = strengths.difference(first, second) if strengths.compares(first, second) else None
        if difference is not None:
            found.append((names[first], names[second], scores, difference, difference.p_value))
        elif scores:
            prompts = {each.prompt for each in outcomes if {each.first, each.second} == {first, second}}
            found.append((names[first], names[second], scores, None, smallest_p_value(len(prompts))))
    corrected = holm([p_value for *_, p_value in found])
    matches = []
    for (first_name, second_name, scores, difference, _), p_value in zip(found, corrected, strict=True):
        wins, losses = scores.count(1.0), scores.count(0.0)
        match = Match(
            first_name,
            second_name,
            wins,
            losses,
            scores.count(0.5),
            share_figure([True] * wins + [False] * losses),
            difference,
            p_value,
            None
            if difference is None or p_value <= SIGNIFICANCE
            else difference.more_judgements(len(outcomes), num_tests=len(found)),
        )
        matches.append(match)
    return matches


def _raters(judgements: Sequence[Judgement]) -> list[RaterRecord]:
    records = []
    for name in dict.fromkeys(each.rater for each in judgements):
        own = [each for each in judgements if each.rater == name]
        seconds = [each.seconds for each in own if each.seconds is not None and each.choice != "skip"]
        skipped = sum(each.choice == "skip" for each in own)
        records.append(RaterRecord(name, len(own) - skipped, skipped, median(seconds) if seconds else None))
    return records
