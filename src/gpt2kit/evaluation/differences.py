"""Whether two figures differ by more than chance, for the sentences of a verdict."""

from typing import Literal

from gpt2kit.evaluation.statistics import Figure, Interval

FEWEST_COMPARED = 5  # texts of each set; of fewer, no figure has an interval
# A figure this much off the human one is spoken of; smaller differences are called none.
MUCH_LESS, MUCH_MORE = 0.85, 1.15

Judgement = Literal["less", "more", "alike", "unclear"]


def bounds(figure: Figure) -> Interval:
    """The interval of a figure; of five texts and more, one without an interval is the same in all of them."""
    return (figure.value, figure.value) if figure.interval is None else figure.interval


def overlap(one: Figure, other: Figure) -> bool:
    """Whether the intervals of two figures have a value in common, so that their difference may be chance."""
    return bounds(one)[0] <= bounds(other)[1] and bounds(other)[0] <= bounds(one)[1]


def is_above(own: Figure, theirs: Figure | None, *, by: float, is_enough: bool = True) -> bool:
    """Whether a figure is more than `by` above another (above 0 without one), and clearly above it at all.

    Args:
        own: the figure.
        theirs: the other one, if there is one.
        by: how much more it has to be.
        is_enough: whether five texts or more have a part in it; of fewer, one without an interval is not clear.
    """
    if own.interval is None and not is_enough:
        return False
    if theirs is None:
        return own.value > by and bounds(own)[0] > 0
    return own.value > theirs.value + by and not overlap(own, theirs)


def judge(own: Figure, theirs: Figure, *, is_enough: bool) -> Judgement:
    """Whether a figure is much less or more than the human one.

    Args:
        own: the figure.
        theirs: the human one.
        is_enough: whether there are texts enough to call two figures near each other alike.

    Returns:
        "unclear" where the difference is large, and may be chance, or small, of few texts.
    """
    is_less, is_more = own.value < MUCH_LESS * theirs.value, own.value > MUCH_MORE * theirs.value
    if (is_less or is_more) and not overlap(own, theirs):
        return "less" if is_less else "more"
    return "alike" if is_enough and not is_less and not is_more else "unclear"
