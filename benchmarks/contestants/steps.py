"""When steps ended, and what that says: shared by the training contestants."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.core.child import Arguments, seconds_since_start


class StepClock:
    """Notes the end of each step.

    Args:
        arguments: what the contestant was told: `context`, `rows`, `warmup_steps`, `measured_steps`.
    """

    def __init__(self, arguments: Arguments) -> None:
        self.step_tokens: int = arguments["context"] * arguments["rows"]
        self.warmup_steps: int = arguments["warmup_steps"]
        self.num_steps: int = self.warmup_steps + arguments["measured_steps"]
        self.begun_seconds: float | None = None
        self.first_step_seconds: float | None = None
        self.ends: list[float] = []

    def begin(self) -> None:
        """A step begins; only the first is noted."""
        if self.begun_seconds is None:
            self.begun_seconds = seconds_since_start()

    def tick(self) -> None:
        """A step has ended."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if self.first_step_seconds is None:
            self.first_step_seconds = seconds_since_start()
        self.ends.append(time.perf_counter())

    def report(self, first_loss: float) -> dict[str, Any]:
        """The rate from the end of the warm-up to that of the last step, and when the first step began and ended."""
        seconds = self.ends[self.num_steps - 1] - self.ends[self.warmup_steps - 1]
        values: dict[str, Any] = {
            "tokens_per_second": (self.num_steps - self.warmup_steps) * self.step_tokens / seconds,
            "begun_seconds": self.begun_seconds,
            "first_step_seconds": self.first_step_seconds,
            "first_loss": first_loss,
        }
        if torch.cuda.is_available():
            values["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
        return values


def load_batches(arguments: Arguments) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of all steps, [S, B, T]."""
    with np.load(Path(arguments["batches"])) as arrays:
        return torch.from_numpy(arrays["inputs_SBT"]), torch.from_numpy(arrays["targets_SBT"])
