"""Where the marks of charts lie, in per cent of a chart's width and height: a chart then fits any screen without its
letters shrinking."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpt2kit.evaluation.statistics import LONGEST_WRITTEN_OUT, Figure
from gpt2kit.evaluation.texts import Metric

_MARGIN = 4.0  # per cent of a row on both sides, so that no mark is cut off
_SMALLEST_SCALE = 0.25  # of the largest value, where there are no intervals
_SHARE_DIGITS = 3  # behind the point of a share, shown in per cent
SMALLEST_SHARE_SCALE = 0.05  # so that hardly anything looks like hardly anything


@dataclass(frozen=True, slots=True)
class Mark:
    """A figure in a row: its place, its interval if it has one, and how it reads."""

    role: str
    x: float
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True, slots=True)
class DotRow:
    """Figures of one kind side by side on one scale.

    Attributes:
        title: what they are.
        marks: one for each model or set of texts.
        band: where the interval of human text lies, from and to; None without one.
        zero: where 0 lies, if that is a mark to compare with.
        ends: two places of the scale, and what it reads there.
        hint: what to know beside it.
    """

    title: str
    marks: list[Mark]
    band: tuple[float, float] | None
    zero: float | None
    ends: list[tuple[float, str]]
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart.

    Attributes:
        role: gives it its colour.
        title: its name.
        path: its points for a `polyline`, in thousandths of the chart.
        dots: its points as places in per cent and how they read; empty where there are too many.
    """

    role: str
    title: str
    path: str
    dots: list[tuple[float, float, str]]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over two axes.

    Attributes:
        title: what it shows.
        description: what it shows, for those who cannot see it.
        lines: the lines.
        x_ticks: places in per cent and their labels.
        y_ticks: likewise.
        x_title: what the axis is.
        y_title: likewise.
        rules: places of upright lines, and what they say.
        highlight: a place, and what it is.
    """

    title: str
    description: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    x_title: str
    y_title: str
    rules: list[tuple[float, str]]
    highlight: tuple[float, float, str] | None = None


def dot_row(
    metric: Metric,
    figures: Mapping[str, Figure],
    *,
    with_zero: bool = False,
    hint: str = "",
    log_limits: tuple[float, float] | None = None,
) -> DotRow:
    """Put figures of one kind on a scale.

    Args:
        metric: how they are called and shown.
        figures: by model or set of texts, at least one.
        with_zero: 0 is on the scale, and marked.
        hint: what to know beside it.
        log_limits: the ends of a logarithmic scale that several rows share; None for one of its own.
    """
    # What is infinite or not a number has no place; the tables show it.
    figures = {role: figure for role, figure in figures.items() if _is_finite(figure)}
    if not figures:
        return DotRow(metric.title, [], None, None, [], hint)
    low, high = _limits(metric, figures, with_zero=with_zero) if log_limits is None else log_limits

    def place(value: float) -> float:
        if log_limits is None:
            inner = share(value, (low, high))
        else:
            inner = share(math.log(max(value, low)), (math.log(low), math.log(high)))
        return round(_MARGIN + (100 - 2 * _MARGIN) * inner, 2)

    marks = []
    for role, figure in figures.items():
        bounds = (None, None) if figure.interval is None else tuple(map(place, figure.interval))
        marks.append(Mark(role, place(figure.value), bounds[0], bounds[1], metric.show(figure)))
    human = figures.get("human")
    band = None if human is None or human.interval is None else (place(human.interval[0]), place(human.interval[1]))
    ends = [(place(value), metric.show(Figure(value))) for value in (low, high)]
    return DotRow(metric.title, marks, band, place(0.0) if with_zero else None, ends, hint)


def _limits(metric: Metric, figures: Mapping[str, Figure], *, with_zero: bool) -> tuple[float, float]:
    """From the lowest to the highest value or bound, with what keeps small differences small."""
    values = [0.0] if with_zero or metric.is_share else []
    for figure in figures.values():
        values += [figure.value, *(figure.interval or ())]
    low, high = min(values), max(values)
    if metric.is_share:
        high = max(high, SMALLEST_SHARE_SCALE)
    smallest = 0.0 if any(figure.interval for figure in figures.values()) else _SMALLEST_SCALE * max(abs(high), 1e-6)
    if high - low < smallest:
        # Without intervals nothing else says that a difference is small.
        low, high = low - (smallest - (high - low)) / 2, high + (smallest - (high - low)) / 2
    if max(abs(low), abs(high)) >= LONGEST_WRITTEN_OUT:  # labels have no unit to round to
        return low, high
    # Ends that their labels can say: else "6" could stand beside a mark of 6 that lies elsewhere.
    unit = 10.0 ** -(_SHARE_DIGITS if metric.is_share else metric.digits)
    return math.floor(low / unit + 1e-9) * unit, math.ceil(high / unit - 1e-9) * unit


def _is_finite(figure: Figure) -> bool:
    return all(math.isfinite(each) for each in (figure.value, *(figure.interval or ())))


def ticks(low: float, high: float, *, wanted: int = 5) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about as many as are wanted."""
    raw = max(high - low, 1e-12) / wanted
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, max(last, first + 1) + 1)]


def line(
    role: str,
    title: str,
    points: Sequence[tuple[float, float]],
    *,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    labels: Sequence[str] = (),
) -> Line:
    """Put points on a chart.

    Args:
        role: gives the line its colour.
        title: its name.
        points: x and y of each.
        x_range: x at the left and at the right end.
        y_range: y at the bottom and at the top.
        labels: how each point reads; without any, no dots are drawn.
    """
    places = [(share(x, x_range), 1 - share(y, y_range)) for x, y in points]
    path = " ".join(f"{1000 * x:.1f},{1000 * y:.1f}" for x, y in places)
    dots = [(round(100 * x, 2), round(100 * y, 2), label) for (x, y), label in zip(places, labels, strict=False)]
    return Line(role, title, path, dots)


def share(value: float, limits: tuple[float, float]) -> float:
    """Where a value lies between two limits, from 0 to 1."""
    low, high = limits
    return (value - low) / (high - low) if high > low else 0.5


def percent(value: float, limits: tuple[float, float]) -> float:
    """The same in per cent."""
    return round(100 * share(value, limits), 2)
