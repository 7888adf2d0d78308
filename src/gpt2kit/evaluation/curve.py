"""The curve of the training that made a model, as its folder tells it."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt2kit.errors import DataError
from gpt2kit.files import read_json_lines
from gpt2kit.training.monitor import METRICS

_MOST_POINTS = 200


@dataclass(frozen=True, slots=True)
class Curve:
    """How the loss fell, in nats per token.

    Attributes:
        train: [step, loss], by step; of many steps, means over stretches of them.
        validation: [step, loss], by step.
        events: what happened on the way, rollbacks and warnings: [step, reason].
        steps_per_point: how many steps a point of `train` is the mean of.
    """

    train: list[tuple[float, float]]
    validation: list[tuple[int, float]]
    events: list[tuple[int, str]]
    steps_per_point: int

    def to_dict(self) -> dict[str, Any]:
        """The curve as JSON values."""
        return asdict(self)


def read_curve(model_folder: Path) -> Curve | None:
    """The curve in `training/metrics.jsonl`; None where there is none.

    Raises:
        DataError: the file is damaged.
    """
    train: list[tuple[int, float]] = []
    validation: list[tuple[int, float]] = []
    events: list[tuple[int, str]] = []
    path = model_folder / "training" / METRICS
    for record in read_json_lines(path):
        try:
            step, kind = int(record["step"]), record["kind"]
            if kind == "train" and _is_number(record["loss"]):
                train.append((step, float(record["loss"])))
            elif kind == "validation" and _is_number(record["validation_loss"]):
                validation.append((step, float(record["validation_loss"])))
            elif kind == "event":
                events.append((step, str(record["reason"])))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: holds a record that is none of a training: {str(record)[:80]}") from error
    if not train and not validation:
        return None
    size = max(math.ceil(len(train) / _MOST_POINTS), 1)
    return Curve([_mean(train[start : start + size]) for start in range(0, len(train), size)], validation, events, size)


def _is_number(loss: float | None) -> bool:
    """Whether a loss can be drawn; where a training diverged it is null, which JSON has for what is not finite."""
    return loss is not None and math.isfinite(loss)


def _mean(points: list[tuple[int, float]]) -> tuple[float, float]:
    steps, losses = zip(*points, strict=True)
    return sum(steps) / len(steps), sum(losses) / len(losses)
