"""Intervals that say how far a figure may be off, and how likely a difference is by chance."""

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
_FEWEST_SHARED = 5  # units of a BCa interval, which does not reach beyond them
_FEWEST_RESAMPLED = 10  # units of a bootstrap-t: of fewer, resamples of one unit several times decide
_MOST_UNITS = 1000  # resampled one by one; of more, several are taken together
_MOST_EXACT_UNITS = 16  # 65,536 ways of choosing signs; of more units some are drawn
_NUM_FLIPS = 20_000
LONGEST_WRITTEN_OUT = 1e9  # from here on numbers have a power of ten
_LARGEST_EXPONENT = 100.0  # of a bound that lies beyond all units, where another one takes its place


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
    """An interval of the ratio of two sums, `Σ x / Σ n`, over units that were drawn independently.

    Each bound lies as many standard errors from the ratio as the bootstrap-t says (Efron and Tibshirani 1993, section
    12.5), which follows skewed units, or as Student's distribution says if that is more: of few units, resamples do not
    show the tails, and of fewer than ten it is Student's alone. Its degrees of freedom are the effective number of
    units, `(Σ n)² / Σ n²` (Kish 1965), less one, for a few long documents may be nearly all there is.

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
    n_U = _together(denominators_U)
    student = student_quantile(_degrees(n_U), confidence=confidence)
    # A resample of one unit again and again has next to no error of its own, and says nothing.
    usable_R = error_R > error * 0.05
    if len(n_U) < _FEWEST_RESAMPLED or not usable_R.any():
        return ratio - student * error, ratio + student * error
    t_R = (ratio_R[usable_R] - ratio) / error_R[usable_R]
    tail = (1 - confidence) / 2
    low, high = np.quantile(t_R, [tail, 1 - tail])
    return float(ratio - max(high, student) * error), float(ratio + max(-low, student) * error)


def student_quantile(degrees: float, *, confidence: float = CONFIDENCE) -> float:
    """How far from 0 Student's t stays with probability `confidence`; the degrees of freedom need not be whole.

    With t = √degrees · tan θ the density of θ is proportional to cos θ to the power of degrees - 1, on a finite range.
    """
    theta_G = np.linspace(0, min(math.pi / 2, 40 / math.sqrt(degrees)), 100_001)
    density_G = np.cos(theta_G) ** (degrees - 1)
    mass_G = np.concatenate([[0.0], np.cumsum((density_G[1:] + density_G[:-1]) / 2)])
    return math.sqrt(degrees) * math.tan(float(np.interp(confidence * mass_G[-1], mass_G, theta_G)))


def sign_flip_p_value(differences_U: npt.ArrayLike, *, seed: int) -> float | None:
    """How often chance alone gives a sum of differences as far from 0: a paired permutation test, two-sided.

    If two models were equally good, either could have had the other's figure on any unit, so every choice of signs is
    as likely as the one observed (Fisher 1935, section 21). All choices are tried for up to 16 units; of more, 20,000
    are drawn, and the observed one counts among them (Phipson and Smyth 2010).

    Args:
        differences_U: of each unit, e.g. the nats that one model needs more than the other.
        seed: of the draws.

    Returns:
        The p-value; None of fewer than two units.
    """
    d_U = np.asarray(differences_U, dtype=np.float64)
    U = len(d_U)
    if U < 2:
        return None
    observed = abs(float(d_U.sum())) - 1e-9 * float(np.abs(d_U).sum())  # sums in another order differ in the last digit
    if U <= _MOST_EXACT_UNITS:
        choices_FU = (np.arange(1 << U)[:, None] >> np.arange(U)) & 1
        return float((np.abs((2.0 * choices_FU - 1) @ d_U) >= observed).mean())
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "sign-flip")))
    as_far, rows = 0, max(_RESAMPLES_AT_ONCE // U, 1)
    for start in range(0, _NUM_FLIPS, rows):
        signs_FU = 2.0 * generator.integers(2, size=(min(rows, _NUM_FLIPS - start), U)) - 1
        as_far += int((np.abs(signs_FU @ d_U) >= observed).sum())
    return (1 + as_far) / (1 + _NUM_FLIPS)


def fisher_p_value(hits: int, total: int, other_hits: int, other_total: int) -> float:
    """How often chance alone gives a share as far above another: Fisher's exact test, one-sided.

    If both shares were of one kind, the hits could be dealt out over all cases in any way (Fisher 1935, section 21.02):

        p = Σ over k ≥ hits of C(total, k) C(other total, all hits - k) / C(all, all hits)

    Args:
        hits: cases that count.
        total: of how many.
        other_hits: likewise of the share it is held against.
        other_total: of how many.
    """
    all_hits = hits + other_hits
    log_ways = _log_choices(total + other_total, all_hits)
    p_values = [
        math.exp(_log_choices(total, k) + _log_choices(other_total, all_hits - k) - log_ways)
        for k in range(max(hits, all_hits - other_total), min(all_hits, total) + 1)
    ]
    return min(math.fsum(p_values), 1.0)


def _log_choices(total: int, chosen: int) -> float:
    """The logarithm of C(total, chosen)."""
    return math.lgamma(total + 1) - math.lgamma(chosen + 1) - math.lgamma(total - chosen + 1)


def smallest_p_value(num_units: int) -> float:
    """The smallest p-value that `sign_flip_p_value` can give for so many units."""
    return 2.0 ** (1 - num_units) if num_units <= _MOST_EXACT_UNITS else 1 / (1 + _NUM_FLIPS)


def share_of_sums_interval(
    numerators_U: npt.ArrayLike, denominators_U: npt.ArrayLike, *, seed: int, confidence: float = CONFIDENCE
) -> Interval | None:
    """A BCa interval of `Σ x / Σ n` (Efron and Tibshirani 1993, section 14.3), widened for few units.

    For figures that are 0 in most units and large in few, such as the share of words in loops: there the bootstrap-t
    gives wild bounds. The quantiles are Student's, times √(U/(U-1)), for a resample varies less than new units would
    (Hesterberg 2015, section 5); a bound is no nearer than Student's own, and none lies beyond the units' own ratios,
    which takes five units at the least. Where some units have nothing and the others very different shares, the largest
    may not have been drawn: the upper bound is then no nearer than on a scale of logarithms, `ratio · exp(t c + c²/2)`
    with the relative error c, half of whose square the logarithm of a ratio lies too low on average.

    Args:
        numerators_U: x of each unit.
        denominators_U: n of each unit.
        seed: of the resampling.
        confidence: share of intervals that should hold the true value.

    Returns:
        As `ratio_interval`; None with fewer than five units.
    """
    x_U, n_U = _together(numerators_U), _together(denominators_U)
    resampled = _resample(x_U, n_U, seed=seed) if len(x_U) >= _FEWEST_SHARED else None
    if resampled is None:
        return None
    ratio, error, ratio_R, _ = resampled
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
    student = student_quantile(_degrees(n_U), confidence=confidence)
    quantile = student * math.sqrt(len(x_U) / (len(x_U) - 1))
    bounds = []
    for tail in (-quantile, quantile):
        shifted = bias + tail
        bounds.append(normal.cdf(bias + shifted / max(1 - acceleration * shifted, 1e-6)))
    low, high = (float(bound) for bound in np.quantile(ratio_R, bounds))
    counts_U = (n_U > 0) | (x_U != 0)  # a unit with something of nothing, a text without a whole sentence, has no end
    ratios_U = np.divide(x_U, n_U, out=np.full(len(x_U), math.inf), where=n_U > 0)[counts_U]
    low, high = min(low, ratio - student * error), max(high, ratio + student * error)
    if x_U.min() == 0 and _are_uneven(ratios_U[(ratios_U > 0) & np.isfinite(ratios_U)]):
        relative = error / ratio
        high = max(high, ratio * math.exp(min(student * relative + relative**2 / 2, _LARGEST_EXPONENT)))
    return max(low, float(ratios_U.min())), min(high, float(ratios_U.max()))


def _are_uneven(shares_P: Floats) -> bool:
    """Whether numbers above 0 differ by more of their mean than 1/√3, as such do that are spread evenly from 0 on."""
    return len(shares_P) > 1 and float(shares_P.std(ddof=1)) > float(shares_P.mean()) / math.sqrt(3)


def _resample(
    numerators_U: npt.ArrayLike, denominators_U: npt.ArrayLike, *, seed: int
) -> tuple[float, float, Floats, Floats] | None:
    """The ratio and its standard error, and those of 2,000 resamples; None when there is nothing to resample."""
    x_U, n_U = _together(numerators_U), _together(denominators_U)
    U = len(x_U)
    if U < 2 or n_U.sum() <= 0:
        return None
    ratio_1, error_1 = _ratio_and_error(np.ones((1, U)), x_U, n_U)
    ratio, error = float(ratio_1[0]), float(error_1[0])
    if not error > abs(ratio) * 1e-7:
        return None
    generator = np.random.Generator(np.random.PCG64(derive_seed(seed, "bootstrap")))
    ratios, errors = [], []
    rows = max(_RESAMPLES_AT_ONCE // U, 1)
    for start in range(0, NUM_RESAMPLES, rows):
        R = min(rows, NUM_RESAMPLES - start)
        picks = generator.integers(U, size=(R, U)) + np.arange(R)[:, None] * U
        counts_RU = np.bincount(picks.reshape(-1), minlength=R * U).reshape(R, U).astype(np.float64)
        ratio_R, error_R = _ratio_and_error(counts_RU[counts_RU @ n_U > 0], x_U, n_U)
        ratios.append(ratio_R)
        errors.append(error_R)
    return ratio, error, np.concatenate(ratios), np.concatenate(errors)


def _degrees(n_U: Floats) -> float:
    """Degrees of freedom: the effective number of units less one, at least 1."""
    return max(float(n_U.sum() ** 2 / (n_U**2).sum()) - 1, 1.0)


def _together(values_U: npt.ArrayLike) -> Floats:
    """At most 1,000 units: of more, every thousandth is added up, for sums of independent units are independent too."""
    values = np.asarray(values_U, dtype=np.float64)
    if len(values) <= _MOST_UNITS:
        return values
    return np.bincount(np.arange(len(values)) % _MOST_UNITS, weights=values).astype(np.float64)


def _ratio_and_error(counts_RU: Floats, x_U: Floats, n_U: Floats) -> tuple[Floats, Floats]:
    """The ratio r = Σ x / Σ n of units taken `counts` times, and its standard error.

    That is √(Σ (x - r n)² / (1 - h)) / Σ n with h = n / Σ n, the unit's share in the ratio: a long document draws the
    ratio towards itself and so looks nearer to it than it is (MacKinnon and White 1985, HC2). Of units of one size it
    is the usual error of a mean, with U - 1.
    """
    total_R = counts_RU @ n_U
    ratio_R = counts_RU @ x_U / total_R
    squares_RU = counts_RU * (x_U - ratio_R[:, None] * n_U) ** 2
    squares_RU /= np.maximum(1 - n_U / total_R[:, None], 1e-3)
    return ratio_R, np.sqrt(squares_RU.sum(axis=1)) / total_R


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


def with_interval(value: float, interval: Interval | None, *, digits: int) -> str:
    """A figure with its interval behind it."""
    text = number_text(value, digits=digits)
    if interval is not None:
        low, high = (number_text(bound, digits=digits) for bound in interval)
        text += f" ({low} to {high})"
    return text


def number_text(value: float, *, digits: int) -> str:
    """A number for a reader; a perplexity of 200 digits, as a damaged model has, with its power of ten."""
    return f"{value:,.{digits}f}" if abs(value) < LONGEST_WRITTEN_OUT or math.isinf(value) else f"{value:.3g}"
