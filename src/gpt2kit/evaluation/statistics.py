"""Intervals that say how far a figure may be off, by the bootstrap."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt2kit.runtime import derive_seed

Interval = tuple[float, float]
Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
SIGNIFICANCE = 0.05
NUM_RESAMPLES = 2000
_RESAMPLES_AT_ONCE = 1_000_000  # of units, so that memory stays bounded
# The 97.5% points of Student's t distribution for 1 to 10 degrees of freedom.
_T_POINTS = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value.

    Attributes:
        value: the value.
        interval: its 95% bootstrap interval; None where there is none to be had (a single unit, or no mean or ratio).
    """

    value: float
    interval: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """The figure as JSON values."""
        return {"value": self.value, "interval": None if self.interval is None else list(self.interval)}


def mean_figure(values: Sequence[float], *, seed: int) -> Figure | None:
    """A mean with its interval, or None of no values."""
    return (
        Figure(float(np.mean(values)), share_of_sums_interval(values, np.ones(len(values)), seed=seed))
        if len(values)
        else None
    )


def share_figure(flags: Sequence[bool]) -> Figure | None:
    """The share of True with Wilson's score interval, which holds for rare and for no cases too (Wilson 1927)."""
    U = len(flags)
    if not U:
        return None
    share, z = sum(flags) / U, 1.959964  # the 97.5% point of the normal distribution
    centre = (share + z * z / (2 * U)) / (1 + z * z / U)
    half = z / (1 + z * z / U) * math.sqrt(share * (1 - share) / U + z * z / (4 * U * U))
    return Figure(share, (max(centre - half, 0.0), min(centre + half, 1.0)))


def ratio_figure(numerators: Sequence[float], denominators: Sequence[float], *, seed: int) -> Figure | None:
    """A ratio of sums with its interval, or None when the denominators are 0."""
    total = float(np.sum(denominators))
    if total <= 0:
        return None
    return Figure(float(np.sum(numerators)) / total, share_of_sums_interval(numerators, denominators, seed=seed))


def ratio_interval(
    numerators_U: npt.ArrayLike, denominators_U: npt.ArrayLike, *, seed: int, confidence: float = CONFIDENCE
) -> Interval | None:
    """A bootstrap-t interval of the ratio of two sums, `Σ x / Σ n`, over units that were drawn independently.

    The percentile bootstrap is too narrow for few units; here the resampled error is measured in its own standard
    error (by linearisation), which corrects for that (Efron and Tibshirani 1993, section 12.5).

    Args:
        numerators_U: x of each unit, e.g. the nats of a document.
        denominators_U: n of each unit, e.g. its tokens; not negative.
        seed: of the resampling.
        confidence: share of intervals that should hold the true value.

    Returns:
        Lower and upper bound; None with fewer than two units, or when the ratio is the same in all of them: from
        that, nothing can be told about how far it varies.
    """
    resampled = _resample(numerators_U, denominators_U, seed=seed)
    if resampled is None:
        return None
    ratio, error, ratio_R, error_R = resampled
    # A resample of one unit again and again has no error of its own, and says nothing.
    usable_R = error_R > error * 1e-6
    if not usable_R.any():
        return None
    t_R = (ratio_R[usable_R] - ratio) / error_R[usable_R]
    tail = (1 - confidence) / 2
    low, high = np.quantile(t_R, [tail, 1 - tail])
    return float(ratio - high * error), float(ratio - low * error)


def share_of_sums_interval(
    numerators_U: npt.ArrayLike, denominators_U: npt.ArrayLike, *, seed: int, confidence: float = CONFIDENCE
) -> Interval | None:
    """A BCa interval of `Σ x / Σ n` (Efron and Tibshirani 1993, section 14.3).

    For figures that are 0 in most units and large in few, such as the share of words in loops: there the bootstrap-t
    gives wild bounds, while these are always among the resampled values.

    Args:
        numerators_U: x of each unit.
        denominators_U: n of each unit.
        seed: of the resampling.
        confidence: share of intervals that should hold the true value.

    Returns:
        As `ratio_interval`.
    """
    resampled = _resample(numerators_U, denominators_U, seed=seed)
    if resampled is None:
        return None
    ratio, _, ratio_R, _ = resampled
    x_U, n_U = np.asarray(numerators_U, dtype=np.float64), np.asarray(denominators_U, dtype=np.float64)
    # What the ratio is without each unit: its skewness is the acceleration.
    left_U = n_U.sum() - n_U
    without_U = np.divide(x_U.sum() - x_U, left_U, out=np.full(len(x_U), float(ratio)), where=left_U > 0)
    deviation_U = without_U.mean() - without_U
    spread = float((deviation_U**2).sum())
    acceleration = float((deviation_U**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    normal = NormalDist()
    # Ties count half, or a figure of few values would look biased.
    below = (float((ratio_R < ratio).sum()) + 0.5 * float((ratio_R == ratio).sum())) / len(ratio_R)
    bias = normal.inv_cdf(min(max(below, 1 / len(ratio_R)), 1 - 1 / len(ratio_R)))
    bounds = []
    for tail in ((1 - confidence) / 2, (1 + confidence) / 2):
        shifted = bias + normal.inv_cdf(tail)
        bounds.append(normal.cdf(bias + shifted / max(1 - acceleration * shifted, 1e-6)))
    low, high = np.quantile(ratio_R, bounds)
    return float(low), float(high)


def _resample(
    numerators_U: npt.ArrayLike, denominators_U: npt.ArrayLike, *, seed: int
) -> tuple[float, float, Floats, Floats] | None:
    """The ratio and its standard error, and those of 2,000 resamples; None when there is nothing to resample."""
    x_U, n_U = np.asarray(numerators_U, dtype=np.float64), np.asarray(denominators_U, dtype=np.float64)
    U = len(x_U)
    if U < 2 or n_U.sum() <= 0:
        return None
    terms_U5 = np.stack([x_U, n_U, x_U * x_U, x_U * n_U, n_U * n_U], axis=1)
    ratio_1, error_1 = _ratio_and_error(terms_U5.sum(axis=0, keepdims=True), units=U)
    ratio, error = float(ratio_1[0]), float(error_1[0])
    if not error > abs(ratio) * 1e-7:
        return None
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "bootstrap")))
    sums = []
    rows = max(_RESAMPLES_AT_ONCE // U, 1)
    for start in range(0, NUM_RESAMPLES, rows):
        R = min(rows, NUM_RESAMPLES - start)
        picks = generator.integers(U, size=(R, U)) + np.arange(R)[:, None] * U
        counts_RU = np.bincount(picks.reshape(-1), minlength=R * U).reshape(R, U)
        sums.append(counts_RU.astype(np.float64) @ terms_U5)
    sums_R5 = np.concatenate(sums)
    ratio_R, error_R = _ratio_and_error(sums_R5[sums_R5[:, 1] > 0], units=U)
    return ratio, error, ratio_R, error_R


def _ratio_and_error(sums_R5: Floats, *, units: int) -> tuple[Floats, Floats]:
    """The ratio r and its standard error √(U/(U-1) Σ(x - r n)²) / Σ n, from Σx, Σn, Σx², Σxn, Σn² over the units."""
    x_R, n_R, xx_R, xn_R, nn_R = sums_R5.T
    ratio_R = x_R / n_R
    squares_R = np.maximum(xx_R - 2 * ratio_R * xn_R + ratio_R * ratio_R * nn_R, 0.0)
    return ratio_R, np.sqrt(squares_R * units / (units - 1)) / n_R


def t_point(degrees: int) -> float:
    """The 97.5% point of Student's t distribution.

    Beyond 10 degrees of freedom by the expansion of Cornish and Fisher in 1 / degrees (Abramowitz and Stegun 26.7.5),
    right to 0.0002.
    """
    if degrees <= len(_T_POINTS):
        return _T_POINTS[degrees - 1]
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's correction (1979) of m p-values: the k-th smallest times m - k + 1, made to rise, at most 1.

    It holds the chance of any false finding among the m at the level that each p-value is held to.
    """
    corrected = [0.0] * len(p_values)
    highest = 0.0
    for turn, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - turn) * p_values[place]))
        corrected[place] = highest
    return corrected
