"""Intervals hold the true value as often as they say."""

from itertools import product

import numpy as np
import pytest

from gpt2kit.evaluation.statistics import (
    fisher_p_value,
    mean_figure,
    number_text,
    ratio_figure,
    ratio_interval,
    share_figure,
    sign_flip_p_value,
    student_quantile,
)


def test_an_interval_holds_the_ratio_and_is_the_same_for_a_seed():
    x, n = [30.0, 42.0, 25.0, 61.0, 17.5, 44.2] * 2, [10, 14, 9, 20, 6, 13, 11, 13, 8, 21, 6, 14]
    low, high = ratio_interval(x, n, seed=0)
    assert low < sum(x) / sum(n) < high
    assert ratio_interval(x, n, seed=0) == (low, high)
    assert ratio_interval(x, n, seed=1) != (low, high)


def test_edge_cases():
    assert ratio_interval([1.0], [1.0], seed=0) is None
    assert mean_figure([], seed=0) is None
    assert mean_figure([2.0, 2.0, 2.0], seed=0).interval is None
    assert ratio_figure([0.0], [0], seed=0) is None
    assert ratio_interval([3.0, 6.0, 9.0], [1.0, 2.0, 3.0], seed=0) is None


def test_shares_of_none_and_of_some():
    # Wilson's interval of 0 of 20 ends at z² / (20 + z²); of 5 of 20 it is [0.112, 0.469] (Newcombe 1998).
    low, high = share_figure([False] * 20).interval
    assert (low, high) == (0.0, pytest.approx(1.96**2 / (20 + 1.96**2), abs=1e-4))
    figure = share_figure([True] * 5 + [False] * 15)
    assert figure.value == 0.25
    assert figure.interval == pytest.approx((0.1119, 0.4687), abs=1e-4)
    assert share_figure([]) is None


@pytest.mark.parametrize(
    "interval",
    [
        lambda values: ratio_interval(values, np.ones(len(values)), seed=0),
        lambda values: mean_figure(values, seed=0).interval,
    ],
)
def test_agrees_with_the_t_interval_of_a_normal_mean(interval):
    values = np.random.default_rng(0).normal(5, 2, size=400)
    low, high = interval(values)
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


def test_figures_that_are_mostly_zero_have_sane_intervals_that_cover():
    """Words in loops: one text in six loops, for a fifth to all of its 200 words; the true share is 0.1."""
    draw = np.random.default_rng(0)
    repeats, covered = 250, 0
    for repeat in range(repeats):
        looping = (draw.random(40) < 1 / 6) * draw.uniform(0.2, 1.0, size=40) * 200
        low, high = ratio_figure(looping, np.full(40, 200), seed=repeat).interval
        assert 0 <= low <= high <= 1
        covered += low <= 0.1 <= high
    assert 0.92 <= covered / repeats <= 0.98


def test_where_some_units_have_nothing_the_upper_bound_is_on_a_scale_of_logarithms():
    values = np.array([0, 0, 0, 0, 0, 0, 0, 0.01, 0.02, 0.6])
    _, high = mean_figure(values, seed=0).interval
    relative = values.std(ddof=1) / np.sqrt(10) / values.mean()
    assert high == pytest.approx(min(values.mean() * np.exp(2.262157 * relative + relative**2 / 2), 0.6), rel=1e-4)
    assert mean_figure(values - 0.01, seed=0).interval[1] < high - 0.05  # what may be below 0 is no share
    even = np.array([0, 0, 0, 0, 0, 0, 0.2, 0.25, 0.3, 0.35])
    relative = even.std(ddof=1) / np.sqrt(10) / even.mean()
    assert mean_figure(even, seed=0).interval[1] < even.mean() * np.exp(2.262157 * relative + relative**2 / 2) - 0.02


def test_a_single_long_unit_beside_empty_ones_has_a_finite_interval():
    low, high = ratio_figure([900_000.0, 0, 0, 0, 0, 0], [1_000_000.0, 1, 1, 1, 1, 1], seed=0).interval
    assert 0 <= low <= 0.9 <= high <= 1


def test_a_skewed_mean_has_the_bcas_upper_bound_and_students_lower_one():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(1).exponential(size=50)
    low, high = mean_figure(values, seed=0).interval
    # The quantile of the normal distribution times √(U/(U-1)), as a level for scipy's BCa.
    level = 2 * stats.norm.cdf(np.sqrt(50 / 49) * stats.t.ppf(0.975, 49)) - 1
    judge = stats.bootstrap((values,), np.mean, method="BCa", n_resamples=20_000, confidence_level=level, rng=1)
    width = judge.confidence_interval.high - judge.confidence_interval.low
    assert high == pytest.approx(judge.confidence_interval.high, abs=0.06 * width)
    assert low == pytest.approx(values.mean() - stats.t.ppf(0.975, 49) * stats.sem(values))


def test_students_quantile_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 2.5, 9, 30.2, 1e5):
        assert student_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-5)


def test_sign_flips_of_a_few_units_are_counted_exactly():
    # Of the 8 choices of signs, + + + and - - - are as far from 0 as what was observed.
    assert sign_flip_p_value([1.0, 2.0, 3.0], seed=0) == 2 / 8
    assert sign_flip_p_value([3.0, -3.0], seed=0) == 1.0
    assert sign_flip_p_value([1.0], seed=0) is None
    assert sign_flip_p_value([0.0] * 40, seed=0) == 1.0
    assert sign_flip_p_value(np.ones(100), seed=0) == 1 / 20_001


@pytest.mark.parametrize("seed", range(4))
def test_few_documents_are_counted_out(seed):
    differences = np.random.default_rng(seed).normal(0.5, 1, size=9)
    found = abs(differences.sum())
    reached = [abs(np.dot(signs, differences)) >= found - 1e-9 for signs in product((-1, 1), repeat=9)]
    assert sign_flip_p_value(differences, seed=0) == np.mean(reached)


def test_sign_flips_of_many_units_agree_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    differences = np.random.default_rng(0).normal(0.3, 1, size=25)
    judge = stats.permutation_test((differences,), np.sum, permutation_type="samples", n_resamples=50_000, rng=1)
    assert sign_flip_p_value(differences, seed=0) == pytest.approx(judge.pvalue, abs=0.01)


def test_equal_models_are_told_apart_as_often_as_the_p_value_says():
    draw = np.random.default_rng(0)
    p_values = [sign_flip_p_value(draw.standard_t(4, size=12), seed=0) for _ in range(1000)]
    # 5% of 1,000 is 50 with a standard error of 6.9.
    assert 30 <= sum(p <= 0.05 for p in p_values) <= 70


def test_thousands_of_units_are_taken_together():
    draw = np.random.default_rng(0)
    tokens = draw.lognormal(5, 0.7, size=12_345)
    nats = tokens * draw.normal(3, 0.4, size=12_345)
    ratio = nats.sum() / tokens.sum()
    error = np.sqrt(((nats - ratio * tokens) ** 2).sum()) / tokens.sum()
    assert ratio_interval(nats, tokens, seed=0) == pytest.approx((ratio - 1.96 * error, ratio + 1.96 * error), abs=2e-3)


def test_few_units_with_two_alike_give_no_wild_bounds():
    """Of three, a resample of the two that are alike has next to no error: its t once was the bound."""
    nats, tokens = [300.0, 301.0, 350.0], [100.0] * 3
    low, high = ratio_interval(nats, tokens, seed=0)
    half = student_quantile(2) * np.std([3.0, 3.01, 3.5], ddof=1) / 3**0.5
    assert (low, high) == pytest.approx((3.17 - half, 3.17 + half), rel=1e-6)


def test_units_of_something_in_nothing_have_no_upper_end():
    """Texts of forty words, of which three finish a sentence: 133 words a sentence lie beyond each text's own ratio."""
    figure = ratio_figure([40.0] * 10, [1.0] * 3 + [0.0] * 7, seed=0)
    assert figure.value == pytest.approx(400 / 3)
    assert figure.interval[0] < figure.value < figure.interval[1]


def test_shares_of_fewer_than_five_units_have_no_interval():
    assert mean_figure([1.0, 2.0, 4.0, 3.0], seed=0).interval is None
    assert mean_figure([1.0, 2.0, 4.0, 3.0, 5.0], seed=0).interval is not None


@pytest.mark.parametrize(
    "cases", [(9, 23, 0, 13), (9, 23, 0, 2), (3, 7, 4, 5), (0, 5, 0, 5), (5, 5, 5, 5), (0, 5, 2, 5)]
)
def test_fishers_exact_test_is_scipys(cases):
    stats = pytest.importorskip("scipy.stats")
    hits, total, other_hits, other_total = cases
    table = [[hits, total - hits], [other_hits, other_total - other_hits]]
    assert fisher_p_value(*cases) == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue)


def test_a_number_of_hundreds_of_digits_is_not_written_out():
    assert number_text(1234.5678, digits=2) == "1,234.57"
    assert number_text(-999_999_999.0, digits=0) == "-999,999,999"
    assert number_text(1.2376e242, digits=3) == "1.24e+242"
    assert number_text(-3.2e300, digits=1) == "-3.2e+300"
    assert number_text(float("inf"), digits=1) == "inf"
