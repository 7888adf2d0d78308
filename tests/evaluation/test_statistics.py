"""Intervals hold the true value as often as they say."""

import numpy as np
import pytest

from gpt2kit.evaluation.statistics import mean_interval, ratio_interval, share_figure


def test_an_interval_holds_the_ratio_and_is_the_same_for_a_seed():
    x, n = [30.0, 42.0, 25.0, 61.0, 17.5, 44.2], [10, 14, 9, 20, 6, 13]
    low, high = ratio_interval(x, n, seed=0)
    assert low < sum(x) / sum(n) < high
    assert ratio_interval(x, n, seed=0) == (low, high)
    assert ratio_interval(x, n, seed=1) != (low, high)


def test_edge_cases():
    assert ratio_interval([1.0], [1.0], seed=0) is None
    assert mean_interval([], seed=0) is None
    assert mean_interval([2.0, 2.0, 2.0], seed=0) is None
    assert ratio_interval([3.0, 6.0, 9.0], [1.0, 2.0, 3.0], seed=0) is None


def test_shares_of_none_and_of_some():
    # Wilson's interval of 0 of 20 ends at z² / (20 + z²); of 5 of 20 it is [0.112, 0.469] (Newcombe 1998).
    low, high = share_figure([False] * 20).interval
    assert (low, high) == (0.0, pytest.approx(1.96**2 / (20 + 1.96**2), abs=1e-4))
    figure = share_figure([True] * 5 + [False] * 15)
    assert figure.value == 0.25
    assert figure.interval == pytest.approx((0.1119, 0.4687), abs=1e-4)
    assert share_figure([]) is None


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
