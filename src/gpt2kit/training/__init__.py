"""Batches -> model folder: the plan, the loop, the optimizer, crash-safe state, and the record of a run."""

from typing import TYPE_CHECKING

from gpt2kit.lazy import lazy_names

if TYPE_CHECKING:
    from gpt2kit.training.run import TrainingResult as TrainingResult
    from gpt2kit.training.run import train as train
    from gpt2kit.training.settings import TrainSettings as TrainSettings

__getattr__ = lazy_names(
    __name__,
    {
        "TrainingResult": "run",
        "train": "run",
        "TrainSettings": "settings",
    },
)
