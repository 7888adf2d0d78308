"""Intervals hold the true value as often as they say."""

import numpy as np
import pytest

from gpt2kit.evaluation.statistics import mean_interval, ratio_interval


def test_an_interval_holds_the_ratio_and_is_the_same_for_a_seed():
    x, n = [30.0, 42.0, 25.0, 61.0, 17.5, 44.2], [10, 14, 9, 20, 6, 13]
    low, high = ratio_interval(x, n, seed=0)
    assert low < sum(x) / sum(n) < high
    assert ratio_interval(x, n, seed=0) == (low, high)
    assert ratio_interval(x, n, seed=1) != (low, high)


def test_edge_cases():
    assert ratio_interval([1.0], [1.0], seed=0) is None
    assert mean_interval([], seed=0) is None
    assert mean_interval([2.0, 2.0, 2.0], seed=0) == (2.0, 2.0)
    assert ratio_interval([3.0, 6.0, 9.0], [1.0, 2.0, 3.0], seed=0) == (3.0, 3.0)


def test_agrees_with_the_t_interval_of_a_normal_mean():
    values = np.random.default_rng(0).normal(5, 2, size=400)
    low, high = mean_interval(values, seed=0)
    half = 1.96 * values.std(ddof=1) / 20
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize("units", [8, 25, 60])
def test_ninety_five_per_cent_intervals_cover_documents_of_uneven_length(units):
    """Nats per token of documents that differ in length and in difficulty; the true mean is 3 nats."""
    draw = np.random.default_rng(units)
    repeats, covered = 250, 0
    for repeat in range(repeats):
        tokens = np.ceil(draw.lognormal(5, 0.7, size=units))
        nats = tokens * draw.normal(3, 0.4, size=units) + draw.normal(size=units) * 2 * np.sqrt(tokens)
        low, high = ratio_interval(nats, tokens, seed=repeat)
        covered += low <= 3 <= high
    # 95% of 250 is 237.5 with a standard error of 3.4; few units of uneven length cover a little less.
    assert 0.90 <= covered / repeats <= 0.99
