"""The Trainer at its defaults fine-tunes nano on tiny Shakespeare for as long as it is given.

Its defaults: AdamW, 5e-5 falling linearly to nothing, eight rows. The number of steps is what fits into the time, so
that the learning rate has fallen when it is over.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, default_data_collator

from benchmarks.core.child import Arguments, contestant, seconds_since_start

_CALIBRATION_STEPS = 20


class _Saves(TrainerCallback):
    """When each checkpoint was there."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def on_save(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self.seen.append((state.global_step, seconds_since_start()))


def measure(arguments: Arguments) -> dict[str, Any]:
    """Measure the time of a step, then train anew for the whole time."""
    folder = Path(arguments["folder"])
    rows = _rows(arguments)
    calibrating = seconds_since_start()
    trainer = _trainer(arguments, rows, folder / "calibration", steps=_CALIBRATION_STEPS, save_steps=None)
    started = time.perf_counter()
    trainer.train()
    step_seconds = (time.perf_counter() - started) / _CALIBRATION_STEPS
    calibrated_seconds = seconds_since_start() - calibrating  # a user would not do this
    steps = max(int((arguments["seconds"] - (seconds_since_start() - calibrated_seconds)) / step_seconds), 1)
    saves = _Saves()
    trainer = _trainer(arguments, rows, folder, steps=steps, save_steps=max(steps // arguments["checkpoints"], 1))
    trainer.add_callback(saves)
    trainer.train()
    points = [
        {"seconds": seconds - calibrated_seconds, "folder": str(folder / f"checkpoint-{step}")}
        for step, seconds in saves.seen
    ]
    tokens = steps * trainer.args.per_device_train_batch_size * arguments["context"]
    total_seconds = seconds_since_start() - calibrated_seconds
    return {"points": points, "steps": steps, "tokens": tokens, "total_seconds": total_seconds}


def _rows(arguments: Arguments) -> list[dict[str, torch.Tensor]]:
    """The training tokens end to end, cut into rows, as transformers' own example does it."""
    with np.load(arguments["tokens"]) as arrays:
        ids_N = torch.from_numpy(arrays["train_N"])
    context = arguments["context"]
    ids_RT = ids_N[: len(ids_N) // context * context].view(-1, context)
    return [{"input_ids": row_T, "labels": row_T} for row_T in ids_RT]


def _trainer(arguments: Arguments, rows: Any, folder: Path, *, steps: int, save_steps: int | None) -> Trainer:
    torch.manual_seed(1)
    settings = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        save_strategy="no" if save_steps is None else "steps",
        save_steps=save_steps or 500,
        save_only_model=True,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    model = GPT2LMHeadModel.from_pretrained(arguments["base"])
    return Trainer(model=model, args=settings, train_dataset=rows, data_collator=default_data_collator)


if __name__ == "__main__":
    contestant(measure)
