"""Intervals for figures of a whole set of texts, by leaving groups of texts out.

distinct-n, self-BLEU or Zipf's exponent are no means over texts: each text counts through what it shares with others.
The bootstrap is wrong for them, because a resample holds some texts twice and so shares too much. The jackknife only
ever leaves texts out: how the figure moves without a group says how far it hangs on the texts that were drawn (Efron
and Tibshirani 1993, chapter 11). That it covers is measured in `tools/measure_coverage.py`.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from gpt2kit.evaluation.statistics import CONFIDENCE, Figure, Floats, Interval
from gpt2kit.runtime import derive_seed

Ints = npt.NDArray[np.int64]

MOST_GROUPS = 50  # more narrow the interval by 1% at most, for twice the work
FEWEST_GROUPS = 5


def deal(num_texts: int, *, seed: int) -> Ints:
    """The group of each text: every text its own, or 50 groups of nearly the same size, drawn by the seed."""
    G = min(num_texts, MOST_GROUPS)
    groups_N = np.arange(num_texts, dtype=np.int64) % max(G, 1)
    return np.random.Generator(np.random.PCG64(derive_seed(seed, "jackknife"))).permutation(groups_N)


def jackknife_figure(
    value: float, without_G: Sequence[float] | Floats, *, within: Interval = (-math.inf, math.inf)
) -> Figure:
    """A figure with its interval, `value ± t · √((G-1)/G Σ (θ_g - mean θ)²)`, θ_g being the figure without group g.

    t is the quantile of Student's distribution with G - 1 degrees of freedom. For figures that count different things
    (distinct-n), the variance is too large rather than too small (Efron and Stein 1981).

    Args:
        value: the figure of all texts.
        without_G: the figure without each group; those that are not finite are no evidence, and leave no interval.
        within: bounds that the figure cannot leave.

    Returns:
        The figure; without an interval for fewer than five groups, or where leaving texts out changes nothing.
    """
    theta_G = np.asarray(without_G, dtype=np.float64)
    G = len(theta_G)
    if G < FEWEST_GROUPS or not np.isfinite(theta_G).all():
        return Figure(value)
    error = math.sqrt((G - 1) / G * float(((theta_G - theta_G.mean()) ** 2).sum()))
    if not error > abs(value) * 1e-9:
        return Figure(value)
    half = t_quantile((1 + CONFIDENCE) / 2, degrees=G - 1) * error
    return Figure(value, (max(value - half, within[0]), min(value + half, within[1])))


def t_quantile(probability: float, *, degrees: int) -> float:
    """A quantile of Student's distribution by its expansion at the normal one (Abramowitz and Stegun 1964, 26.7.5).

    Args:
        probability: between 0 and 1.
        degrees: degrees of freedom; right to three digits at the 97.5% point from four on.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / degrees**power for power, term in enumerate(terms, 1))
