"""How strong each contestant is, from judgements of pairs: the model of Bradley and Terry (1952).

    P(i is judged better than j) = 1 / (1 + exp(θ_j - θ_i))        θ: strength, in log-odds

A tie counts half a win for each: θ_i - θ_j is then the log-odds of the expected score, wins plus half the ties. (The
model of Davidson 1970 gives ties a parameter of their own. It has no finite estimate once one side of a pair has wins
and ties but no loss; half wins have, and the intervals below do not rest on the ties' distribution.)

Which strengths there are. Estimates are finite only among contestants of whom each is connected with each other by a
chain of "was not worse than", in both directions (Ford 1957). Contestants fall into such groups; between groups one
side never won, or nothing was judged, and how far they are apart cannot be told. It is not guessed.

Intervals. Judgements of one prompt hang together: the same text stands in several pairs, and several people read it.
So the variance is the sandwich over prompts (Liang and Zeger 1986), with its correction C / (C - 1) for C prompts, and
the interval is Student's with C - 1 degrees of freedom.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from gpt2kit.evaluation.statistics import SIGNIFICANCE, Interval, student_quantile

_MOST_STEPS = 100
_SMALLEST_STEP = 1e-10
_LARGEST_STEP = 2.0  # in log-odds; a longer one may overshoot where the curve is flat
_POWER = 0.8  # chance of finding a difference that is there

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A judgement.

    Attributes:
        first: number of a contestant.
        second: number of the other one.
        score: of the first: 1 when it was better, 0.5 for a tie, 0 when it was worse.
        prompt: number of the prompt.
    """

    first: int
    second: int
    score: float
    prompt: int


@dataclass(frozen=True, slots=True)
class Difference:
    """How much stronger one contestant is than another.

    Attributes:
        value: θ_i - θ_j in log-odds.
        error: its standard error; None from a single prompt, or when nothing varies.
        degrees: of freedom.
    """

    value: float
    error: float | None
    degrees: int

    @property
    def interval(self) -> Interval | None:
        """95% interval of the log-odds."""
        if self.error is None:
            return None
        half = student_quantile(self.degrees) * self.error
        return self.value - half, self.value + half

    @property
    def score(self) -> float:
        """Expected score: the chance to be judged better, plus half that of a tie."""
        return expected_score(self.value)

    @property
    def score_interval(self) -> Interval | None:
        """95% interval of the expected score."""
        return None if self.interval is None else (expected_score(self.interval[0]), expected_score(self.interval[1]))

    @property
    def p_value(self) -> float:
        """Two-sided, of no difference; Student's t by way of a normal deviate (Wallace 1959), right to about 0.001."""
        if self.error is None:
            return 1.0
        t, n = self.value / self.error, self.degrees
        deviate = (8 * n + 1) / (8 * n + 3) * math.sqrt(n * math.log1p(t * t / n))
        return 2 * NormalDist().cdf(-deviate)

    def more_judgements(self, num_judgements: int, *, num_tests: int) -> int | None:
        """Judgements still to be made, of the same kinds, to have a chance of 80% of finding this difference clear.

        Args:
            num_judgements: made so far.
            num_tests: differences that are looked at together, for which p-values are corrected.

        Returns:
            The number, rounded up; None when there is no saying: no difference at all, or no error.
        """
        if self.error is None or abs(self.value) < 1e-9:
            return None
        # Student's quantile at today's degrees of freedom, as the test is made; more prompts only make it smaller.
        errors = student_quantile(self.degrees, confidence=1 - SIGNIFICANCE / num_tests) + NormalDist().inv_cdf(_POWER)
        factor = (errors * self.error / abs(self.value)) ** 2
        return max(math.ceil(num_judgements * (factor - 1)), 1)


class Strengths:
    """The strengths of contestants.

    Args:
        outcomes: the judgements.
        num_contestants: how many contestants there are.

    Attributes:
        groups: contestants whose strengths compare, a group each; a contestant alone has no strength to speak of.
        values_K: θ of each, with mean 0 in its group.
    """

    def __init__(self, outcomes: Sequence[Outcome], num_contestants: int) -> None:
        self.groups = comparable_groups(outcomes, num_contestants)
        self.values_K: Floats = np.zeros(num_contestants)
        self._group_of = {each: number for number, group in enumerate(self.groups) for each in group}
        self._covariance_KK: Floats = np.zeros((num_contestants, num_contestants))
        self._degrees: list[int] = []
        for group in self.groups:
            inside = [each for each in outcomes if each.first in group and each.second in group]
            prompts = len({each.prompt for each in inside})
            self._degrees.append(prompts - 1)
            if len(group) > 1:
                self._fit(group, inside)

    def _fit(self, group: list[int], outcomes: Sequence[Outcome]) -> None:
        places = {contestant: place for place, contestant in enumerate(group)}
        design_NG = np.zeros((len(outcomes), len(group)))
        for row, each in enumerate(outcomes):
            design_NG[row, places[each.first]], design_NG[row, places[each.second]] = 1.0, -1.0
        scores_N = np.array([each.score for each in outcomes])
        values_G, information_GG = maximise(design_NG, scores_N)
        self.values_K[group] = values_G
        _, cluster_N = np.unique([each.prompt for each in outcomes], return_inverse=True)
        C = int(cluster_N.max()) + 1
        if C < 2:
            return
        chances_N = 1 / (1 + np.exp(-design_NG @ values_G))
        sums_CG = np.zeros((C, len(group)))
        np.add.at(sums_CG, cluster_N, (scores_N - chances_N)[:, None] * design_NG)
        inverse_GG = np.linalg.pinv(information_GG)
        sandwich_GG = inverse_GG @ (sums_CG.T @ sums_CG) @ inverse_GG * C / (C - 1)
        self._covariance_KK[np.ix_(group, group)] = sandwich_GG

    def compares(self, first: int, second: int) -> bool:
        """Whether it can be told how far two contestants are apart."""
        return self._group_of[first] == self._group_of[second]

    def difference(self, first: int, second: int) -> Difference:
        """How much stronger the first is than the second; both of one group."""
        assert self.compares(first, second)
        weights_K = np.zeros(len(self.values_K))
        weights_K[first], weights_K[second] = 1.0, -1.0
        return self._combined(weights_K, self._group_of[first])

    def strength(self, contestant: int) -> Difference:
        """How much stronger a contestant is than the mean of its group."""
        group = self._group_of[contestant]
        weights_K = np.zeros(len(self.values_K))
        weights_K[self.groups[group]] = -1 / len(self.groups[group])
        weights_K[contestant] += 1
        return self._combined(weights_K, group)

    def _combined(self, weights_K: Floats, group: int) -> Difference:
        variance = float(weights_K @ self._covariance_KK @ weights_K)
        degrees = self._degrees[group]
        # A variance of 0 is not certainty: every prompt said the same.
        error = math.sqrt(variance) if variance > 1e-12 and degrees > 0 else None
        return Difference(float(weights_K @ self.values_K), error, degrees)


def maximise(design_NG: Floats, scores_N: Floats) -> tuple[Floats, Floats]:
    """The θ with mean 0 that make the scores most likely, by Newton's method, and the information there.

    Args:
        design_NG: a row a judgement, 1 at the first contestant and -1 at the second.
        scores_N: of the first one.

    Returns:
        θ [G] and the information matrix [G, G], whose rows sum to 0.
    """
    G = design_NG.shape[1]
    values_G = np.zeros(G)
    information_GG = np.zeros((G, G))
    for _ in range(_MOST_STEPS):
        chances_N = 1 / (1 + np.exp(-design_NG @ values_G))
        information_GG = (design_NG * (chances_N * (1 - chances_N))[:, None]).T @ design_NG
        gradient_G = design_NG.T @ (scores_N - chances_N)
        # The likelihood does not change when all strengths rise together: a matrix of ones takes that direction out.
        step_G = np.linalg.solve(information_GG + np.ones((G, G)), gradient_G)
        length = float(np.abs(step_G).max())
        values_G = values_G + step_G * min(1.0, _LARGEST_STEP / max(length, 1e-300))
        if length < _SMALLEST_STEP:
            break
    return values_G - values_G.mean(), information_GG


def comparable_groups(outcomes: Sequence[Outcome], num_contestants: int) -> list[list[int]]:
    """Contestants that are connected both ways by "was not worse than", in the order of their numbers."""
    reaches_KK = np.eye(num_contestants, dtype=bool)
    for each in outcomes:
        reaches_KK[each.first, each.second] |= each.score > 0
        reaches_KK[each.second, each.first] |= each.score < 1
    for between in range(num_contestants):  # Warshall 1962
        reaches_KK |= reaches_KK[:, between, None] & reaches_KK[None, between, :]
    groups: list[list[int]] = []
    for contestant in range(num_contestants):
        for group in groups:
            if reaches_KK[group[0], contestant] and reaches_KK[contestant, group[0]]:
                group.append(contestant)
                break
        else:
            groups.append([contestant])
    return groups


def expected_score(log_odds: float) -> float:
    """1 / (1 + exp(-x)) without overflow."""
    return 0.5 * (1 + math.tanh(log_odds / 2))


def judgements_to_tell(share: float) -> int:
    """Judgements of one pair that tell a win rate from one half, with a chance of 80%.

        n = ((1.96 · 0.5 + 0.84 · √(p (1 - p))) / (p - 0.5))²         (normal approximation; Fleiss 1981, section 1.4)

    Args:
        share: the true win rate p, not 0.5.
    """
    normal = NormalDist()
    errors = normal.inv_cdf(1 - SIGNIFICANCE / 2) * 0.5 + normal.inv_cdf(_POWER) * math.sqrt(share * (1 - share))
    return math.ceil((errors / (share - 0.5)) ** 2)
