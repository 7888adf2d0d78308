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
        half_width = student_quantile(len(differences) - 1) * stdev(differences) / math.sqrt(len(differences))
    return Gain(
        found,
        [seed for seed, _, _ in pairs],
        [defaults for _, defaults, _ in pairs],
        [best for _, _, best in pairs],
        fmean(differences) if differences else None,
        half_width,
    )
