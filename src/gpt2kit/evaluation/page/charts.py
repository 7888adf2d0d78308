"""The charts of a report: the training's curve, and copies of the training text by their length."""

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from gpt2kit.evaluation.page.plots import SMALLEST_SHARE_SCALE, Chart, line, percent, ticks

_MOST_DOTS = 60
_FEWEST_AVERAGED = 2  # points at either end: the loss of a single batch is noise


def curve_chart(curve: Mapping[str, Any]) -> Chart:
    """How the loss fell, from the JSON values of `curve.Curve`."""
    train, validation = curve["train"], curve["validation"]
    steps = [step for step, _ in (*train, *validation)]
    losses = sorted(loss for _, loss in (*train, *validation))
    x_marks = ticks(0, max(steps))
    y_marks = ticks(losses[0], losses[-1], wanted=4)
    xs, ys = (0.0, float(max(steps))), (y_marks[0], y_marks[-1])
    lines = []
    if train:
        lines.append(line("train", "text it learns from", train, x_range=xs, y_range=ys))
    if validation:
        labels = [f"step {step:,}: {loss:.3f}" for step, loss in validation] if len(validation) <= _MOST_DOTS else []
        lines.append(line("validation", "text it has not seen", validation, x_range=xs, y_range=ys, labels=labels))
    highlight = None
    if validation:
        step, loss = min(validation, key=lambda point: float(point[1]))
        highlight = (
            percent(step, xs),
            100 - percent(loss, ys),
            f"best: {loss:.3f} at step {step:,}",
        )
    return Chart(
        title="Loss while training, in nats per token",
        description=curve_words(curve),
        lines=lines,
        x_ticks=[(percent(x, xs), f"{x:,.0f}") for x in x_marks if x <= max(steps)],
        y_ticks=[(100 - percent(y, ys), f"{y:.4g}") for y in y_marks],
        x_title="step",
        y_title="nats per token",
        rules=[(percent(step, xs), reason) for step, reason in curve["events"]],
        highlight=highlight,
    )


def curve_words(curve: Mapping[str, Any]) -> str:
    """The curve in a sentence or two."""
    parts = []
    if validation := curve["validation"]:
        step, loss = min(validation, key=lambda point: float(point[1]))
        parts.append(
            f"On text it has not seen, the loss went from {validation[0][1]:.3f} at step {validation[0][0]:,} to its "
            f"best, {loss:.3f}, at step {step:,}, and was {validation[-1][1]:.3f} at the last measurement (step "
            f"{validation[-1][0]:,})."
        )
    if train := curve["train"]:
        size = curve["steps_per_point"]
        mean = f"; each point is the mean of {size:,} steps" if size > 1 else ""
        tenth = len(train) // 10
        if tenth >= _FEWEST_AVERAGED:
            first, last = (fmean(loss for _, loss in part) for part in (train[:tenth], train[-tenth:]))
            parts.append(
                f"On the text it learns from, it went from {first:.3f} to {last:.3f} (means of the first and the last "
                f"tenth{mean})."
            )
    return " ".join(parts)


def copies_chart(sets: Mapping[str, Mapping[str, Any]], names: Mapping[str, str]) -> Chart | None:
    """The share of words in copied runs, by the runs' length; None when copies were not looked for."""
    measured = {role: each["copied_by_length"] for role, each in sets.items() if each["copied_by_length"]}
    if not measured:
        return None
    lengths = list(next(iter(measured.values())))
    highest = max(SMALLEST_SHARE_SCALE, *(share for each in measured.values() for share in each.values()))
    y_marks = ticks(0, highest, wanted=4)
    xs, ys = (0.0, float(max(len(lengths) - 1, 1))), (0.0, y_marks[-1])
    lines = [
        line(
            role,
            names[role],
            list(enumerate(each.values())),
            x_range=xs,
            y_range=ys,
            labels=[f"{names[role]}: {100 * share:.1f}% in runs of {length} or more" for length, share in each.items()],
        )
        for role, each in measured.items()
    ]
    said = (
        f"{names[role]}: " + ", ".join(f"{100 * share:.1f}% from {length} words" for length, share in each.items())
        for role, each in measured.items()
    )
    return Chart(
        title="Words that stand in the training text word for word, by the length of the copied run",
        description="; ".join(said) + ".",
        lines=lines,
        x_ticks=[(percent(place, xs), length) for place, length in enumerate(lengths)],
        y_ticks=[(100 - percent(y, ys), f"{100 * y:.3g}%") for y in y_marks],
        x_title="run of at least so many words",
        y_title="share of words",
        rules=[],
    )
