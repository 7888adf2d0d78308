"""How much of a gain is noise: the best settings and the defaults once more, on seeds that chose nothing.

The best of many trials looks better than it is, for the luckiest of equals is taken. On fresh seeds that luck is gone.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist, fmean, stdev
from typing import Any

# The 97.5% points of Student's t distribution for 1 to 10 degrees of freedom.
_T_POINTS = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


@dataclass(frozen=True)
class Gain:
    """What a search gained over the defaults.

    Attributes:
        found: defaults less best, in the search; positive is better.
        seeds: fresh seeds on which both were tried.
        defaults: results of the defaults, a seed each.
        best: results of the best settings, a seed each.
        remaining: mean of their differences; None without a fresh seed.
        half_width: of the 95% interval of that; None with fewer than two seeds.
    """

    found: float
    seeds: list[int]
    defaults: list[float]
    best: list[float]
    remaining: float | None
    half_width: float | None

    def to_dict(self) -> dict[str, Any]:
        """The gain as JSON values."""
        return asdict(self)

    def to_text(self, unit: str) -> str:
        """The statement in words."""
        text = f"The search found a gain of {self.found:.4f} over the defaults ({unit})."
        if self.remaining is None:
            return f"{text} It was not tried on fresh seeds, so nobody can say how much of it is luck of choosing."
        number = f"{len(self.seeds)} fresh seed{'s' if len(self.seeds) > 1 else ''}"
        width = "" if self.half_width is None else f" ± {self.half_width:.4f} (95%)"
        text += f" On {number} the gain is {self.remaining:.4f}{width}. {self._share()}"
        if self.half_width is None:
            return f"{text} One seed does not tell how far it varies."
        if abs(self.remaining) <= self.half_width:
            return (
                f"{text} What remains cannot be told from no gain at all: take it as noise until more --repeats say "
                "otherwise."
            )
        return text

    def _share(self) -> str:
        assert self.remaining is not None
        if self.remaining <= 0:
            return f"Of the gain of {self.found:.4f} found in the search, nothing remains: it was luck of choosing."
        if self.remaining >= self.found:
            return f"The whole gain of {self.found:.4f} found in the search remains: none of it was luck of choosing."
        return (
            f"Of the gain of {self.found:.4f} found in the search, {self.remaining:.4f} "
            f"({self.remaining / self.found:.0%}) remains on fresh seeds; the rest was luck of choosing."
        )


def measure_gain(found: float, pairs: Sequence[tuple[int, float, float]]) -> Gain:
    """The gain on fresh seeds, with its interval.

    Both settings see the same order of texts and the same noise for a seed, so their differences are what varies:
    d ± t · s / √R of the R differences (Student 1908), which are taken as normally distributed.

    Args:
        found: in the search, defaults less best.
        pairs: (seed, result of the defaults, result of the best settings).
    """
    differences = [defaults - best for _, defaults, best in pairs]
    half_width = None
    if len(differences) > 1:
        half_width = t_point(len(differences) - 1) * stdev(differences) / math.sqrt(len(differences))
    return Gain(
        found,
        [seed for seed, _, _ in pairs],
        [defaults for _, defaults, _ in pairs],
        [best for _, _, best in pairs],
        fmean(differences) if differences else None,
        half_width,
    )


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
