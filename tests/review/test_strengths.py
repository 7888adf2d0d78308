"""Bradley-Terry strengths against an independent optimisation, and what cannot be told."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from gpt2kit.review.strengths import Difference, Outcome, Strengths, comparable_groups, judgements_to_tell


def outcomes_of(rows):
    return [Outcome(first, second, score, prompt) for prompt, (first, second, score) in enumerate(rows)]


def optimum(rows, number):
    """Strengths by a general optimiser on the log-likelihood written out."""
    first, second = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    score = np.array([row[2] for row in rows])

    def loss(values):
        gap = values[first] - values[second]
        return np.sum(score * np.logaddexp(0, -gap) + (1 - score) * np.logaddexp(0, gap))

    found = optimize.minimize(loss, np.zeros(number), method="BFGS", options={"gtol": 1e-9})
    return found.x - found.x.mean()


@st.composite
def tournaments(draw):
    number = draw(st.integers(2, 5))
    contestants = st.integers(0, number - 1)
    rows = st.tuples(contestants, contestants, st.sampled_from([0.0, 0.5, 1.0])).filter(lambda row: row[0] != row[1])
    return number, draw(st.lists(rows, min_size=1, max_size=60))


@given(tournaments())
@settings(deadline=None, suppress_health_check=[HealthCheck.filter_too_much])  # few are finite
def test_strengths_are_the_optimum_wherever_they_are_finite(tournament):
    number, rows = tournament
    strengths = Strengths(outcomes_of(rows), number)
    assume(len(strengths.groups) == 1)
    assert strengths.values_K == pytest.approx(optimum(rows, number), abs=1e-4)
    assert strengths.values_K.mean() == pytest.approx(0, abs=1e-9)


@given(tournaments())
@settings(deadline=None)
def test_every_contestant_is_in_one_group_and_every_figure_is_finite(tournament):
    number, rows = tournament
    strengths = Strengths(outcomes_of(rows), number)
    assert sorted(each for group in strengths.groups for each in group) == list(range(number))
    assert np.isfinite(strengths.values_K).all()
    for group in strengths.groups:
        for first in group:
            for second in group:
                if first != second:
                    found = strengths.difference(first, second)
                    turned = strengths.difference(second, first)
                    assert found.value == pytest.approx(-turned.value)
                    assert 0 <= found.score <= 1
                    if found.interval is not None:
                        assert found.interval[0] <= found.value <= found.interval[1]


def test_two_contestants_by_hand():
    rows = [(0, 1, 1.0)] * 6 + [(0, 1, 0.0)] * 2 + [(1, 0, 0.5)] * 4
    found = Strengths(outcomes_of(rows), 2).difference(0, 1)
    share = (6 + 2) / 12
    assert found.score == pytest.approx(share)
    assert found.value == pytest.approx(math.log(share / (1 - share)))
    scores = np.array([1.0] * 6 + [0.0] * 2 + [0.5] * 4)
    # The variance of a mean by the delta method, with n / (n - 1).
    by_hand = math.sqrt(scores.var(ddof=1) / 12) / (share * (1 - share))
    assert found.error == pytest.approx(by_hand)
    assert found.degrees == 11
    assert found.p_value == pytest.approx(2 * stats.t.sf(found.value / found.error, 11), abs=0.002)


def test_the_same_prompt_judged_again_is_no_more_evidence():
    rows = [(0, 1, 1.0)] * 7 + [(0, 1, 0.0)] * 5
    once = Strengths(outcomes_of(rows), 2).difference(0, 1)
    again = [Outcome(first, second, score, prompt) for prompt, (first, second, score) in enumerate(rows)] * 10
    repeated = Strengths(again, 2).difference(0, 1)
    assert repeated.value == pytest.approx(once.value)
    assert repeated.error == pytest.approx(once.error)


def test_who_always_wins_has_no_strength():
    rows = [(0, 1, 1.0)] * 5 + [(1, 2, 1.0), (1, 2, 0.0)]
    strengths = Strengths(outcomes_of(rows), 3)
    assert strengths.groups == [[0], [1, 2]]
    assert not strengths.compares(0, 1)
    assert strengths.compares(1, 2)
    assert strengths.difference(1, 2).value == pytest.approx(0)


def test_a_tie_connects_and_a_stranger_does_not():
    assert comparable_groups(outcomes_of([(0, 1, 0.5), (2, 3, 1.0), (3, 2, 1.0)]), 5) == [[0, 1], [2, 3], [4]]
    assert comparable_groups([], 2) == [[0], [1]]
    circle = outcomes_of([(0, 1, 1.0), (1, 2, 1.0), (2, 0, 1.0)])
    assert comparable_groups(circle, 3) == [[0, 1, 2]]


def test_nothing_that_varies_gives_no_interval():
    ties = Strengths(outcomes_of([(0, 1, 0.5)] * 8), 2).difference(0, 1)
    assert (ties.value, ties.interval, ties.p_value) == (0.0, None, 1.0)
    single = Strengths([Outcome(0, 1, 1.0, 0), Outcome(0, 1, 0.0, 0)], 2).difference(0, 1)
    assert single.interval is None


@pytest.mark.parametrize("degrees", [3, 9, 30, 200])
@pytest.mark.parametrize("t", [0.3, 1.5, 2.3, 4.0])
def test_p_values_are_students(degrees, t):
    assert Difference(t, 1.0, degrees).p_value == pytest.approx(2 * stats.t.sf(t, degrees), abs=0.003)


def test_more_judgements_shrink_the_error_as_far_as_needed():
    found = Difference(0.5, 0.25, 40)
    more = found.more_judgements(100, num_tests=1)
    error = 0.25 * math.sqrt(100 / (100 + more))
    assert 0.5 / error == pytest.approx(2.021075 + 0.841621, rel=0.01)  # Student's with 40 degrees, and the normal
    assert found.more_judgements(100, num_tests=10) > more
    assert Difference(0.0, 0.25, 40).more_judgements(100, num_tests=1) is None
    assert Difference(0.5, None, 0).more_judgements(100, num_tests=1) is None


def test_how_many_judgements_tell_a_win_rate_from_one_half():
    assert [judgements_to_tell(share) for share in (0.55, 0.6, 0.65, 0.7, 0.8)] == [783, 194, 85, 47, 20]
    assert judgements_to_tell(0.4) == judgements_to_tell(0.6)
