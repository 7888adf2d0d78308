"""The learning rate as a pure function of the step, so that any position of a run can be resumed."""

import math
from typing import Literal

Schedule = Literal["cosine", "linear", "constant"]


def learning_rate_at(
    step: int, *, peak: float, total_steps: int, warmup_steps: int, schedule: Schedule, final_ratio: float
) -> float:
    """The learning rate of a step.

    It rises linearly over the warm-up (step 0 already has peak / (warmup + 1)), then falls from `peak` to
    `final_ratio * peak` at the last step: along half a cosine (Loshchilov & Hutter 2017), along a line, or not at all.

    Args:
        step: 0 to total_steps - 1; later steps keep the last rate.
        peak: the highest rate.
        total_steps: length of the run.
        warmup_steps: length of the warm-up.
        schedule: the shape of the fall.
        final_ratio: the last rate as a share of the peak.

    Example:
        >>> learning_rate_at(99, peak=1.0, total_steps=100, warmup_steps=0, schedule="cosine", final_ratio=0.1)
        0.1
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if schedule == "constant":
        return peak
    fraction = min((step - warmup_steps) / max(total_steps - 1 - warmup_steps, 1), 1.0)
    remaining = 1 - fraction if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * fraction))
    return peak * (final_ratio + (1 - final_ratio) * remaining)
