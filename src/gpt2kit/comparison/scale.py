"""Places of figures and their intervals on a line, for pages that draw them without scripts."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpt2kit.evaluation.statistics import Figure

_MARGIN = 0.06  # of a scale, left free on both sides


@dataclass(frozen=True, slots=True)
class Dot:
    """A dot with its interval on a scale, in per cent of the scale's width."""

    at: float
    start: float
    width: float


class Scale:
    """From figures to places on a line that holds all of them.

    Args:
        figures: the figures with their intervals.
        with_zero: whether 0 is on it too.
    """

    def __init__(self, figures: Sequence[Figure], *, with_zero: bool = False) -> None:
        ends: list[float] = [end for figure in figures for end in (figure.value, *(figure.interval or ()))]
        if with_zero:
            ends.append(0.0)
        low, high = min(ends), max(ends)
        room = (high - low) * _MARGIN or 1.0
        self.low, self.high = low - room, high + room

    def place(self, value: float) -> float:
        """Where a value stands, in per cent."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    def dot(self, figure: Figure) -> Dot:
        """Where a figure and its interval stand."""
        start, end = (self.place(each) for each in (figure.interval or (figure.value, figure.value)))
        return Dot(self.place(figure.value), start, round(end - start, 2))
