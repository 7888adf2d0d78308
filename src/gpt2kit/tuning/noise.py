"""How much of a gain is noise: the best settings and the defaults once more, on seeds that chose nothing.

The best of many trials looks better than it is, for the luckiest of equals is taken. On fresh seeds that luck is gone.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from gpt2kit.evaluation.statistics import student_quantile


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
        if self.half_width is None:
            return f"{text} On {number} it is {self.remaining:.4f}. One seed does not tell how far it varies."
        low, high = self.remaining - self.half_width, self.remaining + self.half_width
        return (
            f"{text} On {number} it is {self.remaining:.4f} ± {self.half_width:.4f} (95%: {low:.4f} to {high:.4f}). "
            f"{self._meaning(low, high)}"
        )

    def _meaning(self, low: float, high: float) -> str:
        """What the interval says, and no more."""
        if high < 0:
            return (
                "There the best settings are worse than the defaults: the gain was luck of choosing. Keep the defaults."
            )
        if low <= 0:
            return "That cannot be told from no gain at all: take it as noise until more --repeats say otherwise."
        if self.found > high:
            return (
                f"A gain remains, and it is less than the search found: at least {self.found - high:.4f} of that was "
                "luck of choosing."
            )
        return "A gain remains; how much of what the search found was luck of choosing cannot be told."


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
        half_width = student_quantile(len(differences) - 1) * stdev(differences) / math.sqrt(len(differences))
    return Gain(
        found,
        [seed for seed, _, _ in pairs],
        [defaults for _, defaults, _ in pairs],
        [best for _, _, best in pairs],
        fmean(differences) if differences else None,
        half_width,
    )
