"""The middle and the spread of a few measurements."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Measurements of one thing: their median, the smallest and the largest."""

    median: float
    low: float
    high: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one measurement.

    Raises:
        ValueError: there is none.

    Example:
        >>> spread([3.0, 1.0, 2.0])
        Spread(median=2.0, low=1.0, high=3.0, count=3)
    """
    if not values:
        raise ValueError("a spread needs at least one measurement")
    return Spread(statistics.median(values), min(values), max(values), len(values))


def median_ratio(values: Sequence[float | None], others: Sequence[float | None]) -> float:
    """The median, over rounds that have both, of one contestant's figure divided by another's of the same round.

    A machine whose speed drifts changes both alike, so this ratio holds where the ratio of two medians does not.

    Raises:
        ValueError: there is no round that both have.
    """
    pairs = zip(values, others, strict=False)
    ratios = [value / other for value, other in pairs if value is not None and other is not None]
    if not ratios:
        raise ValueError("there is no round that both have")
    return statistics.median(ratios)
