"""Batches -> model folder: the plan, the loop, the optimizer, crash-safe state, and the record of a run."""

from gpt2kit.training.run import TrainingResult as TrainingResult
from gpt2kit.training.run import train as train
from gpt2kit.training.settings import TrainSettings as TrainSettings
