"""How much of a gain remains on fresh seeds."""

import math

import pytest
from scipy import stats

from gpt2kit.evaluation.statistics import student_quantile
from gpt2kit.tuning.noise import measure_gain


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 10, 11, 15, 30, 99])
def test_points_of_students_distribution(degrees: int) -> None:
    assert student_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=2e-4)


def test_the_interval_is_that_of_a_paired_t_test() -> None:
    defaults, best = [3.50, 3.40, 3.45, 3.52], [3.30, 3.31, 3.30, 3.28]
    gain = measure_gain(0.3, list(zip(range(4), defaults, best, strict=True)))
    found = stats.ttest_rel(defaults, best).confidence_interval(0.95)
    assert gain.remaining is not None
    assert gain.half_width is not None
    assert gain.remaining - gain.half_width == pytest.approx(found.low, abs=1e-5)
    assert gain.remaining + gain.half_width == pytest.approx(found.high, abs=1e-5)


@pytest.mark.parametrize(
    ("differences", "message"),
    [
        # t = 4.3027 and s = 0.01: half-width 0.0248, so the interval ends at 0.0948 and 0.1 is beyond it.
        ([0.06, 0.07, 0.08], "it is 0.0700 ± 0.0248 (95%: 0.0452 to 0.0948). A gain remains, and it is less than"),
        ([0.06, 0.07, 0.08], "at least 0.0052 of that was luck of choosing"),
        ([0.05, 0.07, 0.09], "A gain remains; how much of what the search found was luck of choosing cannot be told"),
        ([0.12, 0.13, 0.14], "A gain remains; how much of what the search found was luck of choosing cannot be told"),
        ([-0.12, -0.13, -0.14], "worse than the defaults: the gain was luck of choosing. Keep the defaults"),
        ([0.3, -0.25, 0.1], "cannot be told from no gain at all"),
        ([0.2, 0.3, -0.1], "cannot be told from no gain at all"),  # the mean is above what was found
        ([0.07], "One seed does not tell how far it varies"),
        ([], "nobody can say how much of it is luck of choosing"),
    ],
)
def test_the_statement_says_what_remains(differences: list[float], message: str) -> None:
    gain = measure_gain(0.1, [(seed, 3.0, 3.0 - each) for seed, each in enumerate(differences)])
    text = gain.to_text("nats")
    assert message in text
    assert ("take it as noise" in text) == (
        gain.half_width is not None and gain.remaining is not None and abs(gain.remaining) <= gain.half_width
    )
    assert not ("take it as noise" in text and ("remains" in text or "%)" in text.replace("(95%", "")))


def test_choosing_the_best_of_equals_is_found_out() -> None:
    """Twenty draws of pure noise: the least looks like a gain, and fresh draws have none."""
    import random

    draw = random.Random(3)
    trials = [draw.gauss(3.0, 0.1) for _ in range(20)]
    pairs = [(seed, draw.gauss(3.0, 0.1), draw.gauss(3.0, 0.1)) for seed in range(5)]
    gain = measure_gain(trials[0] - min(trials), pairs)
    assert gain.found > 0.1
    assert gain.half_width is not None
    assert gain.remaining is not None
    assert math.isclose(gain.remaining, 0, abs_tol=gain.half_width)
    assert "take it as noise" in gain.to_text("nats")
