"""transformers' Trainer: at its defaults, at its best settings, with peft's LoRA, with the lower half frozen."""

import math
import tempfile
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, default_data_collator

from benchmarks.contestants.steps import StepClock, load_batches
from benchmarks.core.child import Arguments, contestant

_NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}


class _InOrder(Trainer):
    """Takes the rows as they come, so that the first loss can be compared."""

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)


class _Watch(TrainerCallback):
    def __init__(self, clock: StepClock) -> None:
        self.clock = clock
        self.losses: list[float] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.clock.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock.tick()

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))


def measure(arguments: Arguments) -> dict[str, Any]:
    """Train so many steps.

    `arguments`: `dropout`: GPT-2's own, as the defaults have it; `training`: TrainingArguments; `lora_rank`;
    `frozen_layers`.
    """
    torch.manual_seed(1)
    shape = {} if arguments["dropout"] else _NO_DROPOUT
    model = GPT2LMHeadModel.from_pretrained(arguments["model"], **shape, **arguments.get("loading", {}))
    if (rank := arguments.get("lora_rank")) is not None:
        from peft import LoraConfig, get_peft_model

        targets = ["c_attn", "c_proj", "c_fc"]
        adapter = LoraConfig(
            r=rank, lora_alpha=16, target_modules=targets, fan_in_fan_out=True, lora_dropout=0.0, task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, adapter)
    for block in model.transformer.h[: arguments.get("frozen_layers", 0)]:
        block.requires_grad_(False)
    inputs_SBT, _ = load_batches(arguments)
    clock = StepClock(arguments)
    watch = _Watch(clock)
    rows = [{"input_ids": row_T, "labels": row_T} for row_T in inputs_SBT[: clock.num_steps].flatten(0, 1)]
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            output_dir=folder,
            max_steps=clock.num_steps,
            per_device_train_batch_size=arguments["rows"],
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            bf16=torch.cuda.is_available() and not arguments["dropout"],  # on a GPU, the best settings
            **arguments["training"],
        )
        trainer = _InOrder(
            model=model, args=settings, train_dataset=rows, data_collator=default_data_collator, callbacks=[watch]
        )
        trainer.train()
    return clock.report(watch.losses[0] if watch.losses else math.nan)


if __name__ == "__main__":
    contestant(measure)
