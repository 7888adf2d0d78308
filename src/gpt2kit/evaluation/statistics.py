"""Intervals that say how far a figure may be off, by the bootstrap."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt2kit.runtime import derive_seed

Interval = tuple[float, float]
Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95
NUM_RESAMPLES = 2000
_RESAMPLES_AT_ONCE = 1_000_000  # of units, so that memory stays bounded


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
    return Figure(float(np.mean(values)), mean_interval(values, seed=seed)) if len(values) else None


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
    return Figure(float(np.sum(numerators)) / total, ratio_interval(numerators, denominators, seed=seed))


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
    x_U, n_U = np.asarray(numerators_U, dtype=np.float64), np.asarray(denominators_U, dtype=np.float64)
    U = len(x_U)
    if U < 2 or n_U.sum() <= 0:
        return None
    ratio, error = _ratio_and_error(*(part.sum() for part in (x_U, n_U, x_U * x_U, x_U * n_U, n_U * n_U)), units=U)
    if not error > abs(ratio) * 1e-12:
        return None
    terms_U5 = np.stack([x_U, n_U, x_U * x_U, x_U * n_U, n_U * n_U], axis=1)
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "bootstrap")))
    errors = []
    rows = max(_RESAMPLES_AT_ONCE // U, 1)
    for start in range(0, NUM_RESAMPLES, rows):
        R = min(rows, NUM_RESAMPLES - start)
        picks = generator.integers(U, size=(R, U)) + np.arange(R)[:, None] * U
        counts_RU = np.bincount(picks.reshape(-1), minlength=R * U).reshape(R, U)
        sums_R5 = counts_RU.astype(np.float64) @ terms_U5
        ratio_R, error_R = _ratio_and_error(*sums_R5.T, units=U)
        # A resample of one unit again and again has no error of its own, and says nothing.
        usable_R = error_R > error * 1e-6
        errors.append((ratio_R[usable_R] - ratio) / error_R[usable_R])
    tail = (1 - confidence) / 2
    t = np.concatenate(errors)
    if not len(t):
        return None
    low, high = np.quantile(t, [tail, 1 - tail])
    return float(ratio - high * error), float(ratio - low * error)


def mean_interval(values_U: npt.ArrayLike, *, seed: int, confidence: float = CONFIDENCE) -> Interval | None:
    """A bootstrap-t interval of a mean; see `ratio_interval`."""
    values_U = np.asarray(values_U, dtype=np.float64)
    return ratio_interval(values_U, np.ones(len(values_U)), seed=seed, confidence=confidence)


def _ratio_and_error(x: Floats, n: Floats, xx: Floats, xn: Floats, nn: Floats, *, units: int) -> tuple[Floats, Floats]:
    """The ratio and its standard error √(U/(U-1) Σ(x - r n)²) / Σ n, from sums over the units."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = x / n
        squares = np.maximum(xx - 2 * ratio * xn + ratio * ratio * nn, 0.0)
        return ratio, np.sqrt(squares * units / (units - 1)) / n
