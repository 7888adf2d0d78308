"""What a run will do, settled before its first step: every default resolved, memory and time estimated."""

import functools
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

import torch

from gpt2kit.console import text_table
from gpt2kit.errors import DataError, UsageError
from gpt2kit.model import kernels
from gpt2kit.model.gpt2 import GPT2, GPT2Config
from gpt2kit.runtime import available_memory_bytes, select_dtype
from gpt2kit.tokens import PackedBatches, PreparedData, TokenStore
from gpt2kit.training.memory import (
    MOMENTS,
    matrix_rate,
    memory_estimate,
    step_seconds,
)
from gpt2kit.training.settings import OptimizerKind, TrainSettings

# Up to about four times round, text read again teaches nearly as much as fresh text (Muennighoff et al. 2023).
_SCRATCH_EPOCHS = 4.0
_FINE_TUNING_EPOCHS = 3.0
_BATCH_ROWS, _STEPS = 8, 500
_SCRATCH_RATES: dict[OptimizerKind, float] = {"adamw": 1e-3, "muon": 5e-3, "adafactor": 8e-3}
_FINE_TUNING_RATES: dict[OptimizerKind, float] = {"adamw": 5e-5, "muon": 3e-4, "adafactor": 4e-4}  # of GPT-2
_LORA_RATE = 3e-4
_GPT2_PARAMETERS = 124_439_808
_CPU_CONTEXT = 512
# On a CPU more tokens at a time are no faster beyond these, the fewer where they would take this much more memory.
_CPU_MICRO_BATCH_TOKENS, _CPU_FEWER_TOKENS, _CPU_GROWTH_BYTES = 4096, 512, 300_000_000
_VALIDATIONS = 10
_VALIDATION_SHARE = 0.03  # of the training tokens: a forward pass is a third of a step, so about 1% of the time
_VALIDATION_TOKENS = (2048, 131_072)
_MEMORY_SHARE = 0.8
_COMPILE_SECONDS = 20.0  # for the first block, which the others share
_COMPILE_GAIN = 0.25  # share of the time that compiled blocks save


@dataclass(frozen=True)
class Plan:
    """A run's resolved numbers; it is saved with the run, so that going on later decides nothing anew.

    Attributes:
        model: what is trained, in words.
        parameters: all parameters of the model.
        trainable_parameters: those that are trained.
        context: tokens in a row.
        batch_size: rows in a step.
        micro_batch_size: rows computed at a time by one process.
        processes: processes that share a step's rows.
        train_tokens: tokens of the training split.
        validation_tokens: tokens of the fixed validation set.
        validation_batches: its batches of `batch_size` rows.
        epochs: times through the training split.
        total_steps: optimizer steps.
        warmup_steps: steps in which the learning rate rises.
        learning_rate: its peak.
        eval_every: steps between validations.
        save_every: steps between checkpoints.
        device: torch device.
        dtype: what matrices are multiplied in.
        compile: whether blocks are compiled.
        memory_bytes: estimated peak memory.
        available_bytes: memory free when the plan was made; of main memory, the share of a process.
        seconds: estimated time.
    """

    model: str
    parameters: int
    trainable_parameters: int
    context: int
    batch_size: int
    micro_batch_size: int
    processes: int
    train_tokens: int
    validation_tokens: int
    validation_batches: int
    epochs: float
    total_steps: int
    warmup_steps: int
    learning_rate: float
    eval_every: int
    save_every: int
    device: str
    dtype: str
    compile: bool
    memory_bytes: int
    available_bytes: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON values."""
        return asdict(self)

    def to_text(self) -> str:
        """The plan as a table for the terminal."""
        trained = self.trainable_parameters / self.parameters
        rows = [
            ("model", f"{self.model}, {_millions(self.parameters)} parameters"),
            ("trained", f"{_millions(self.trainable_parameters)} parameters ({trained:.1%})"),
            ("training text", f"{self.train_tokens:,} tokens, {self.epochs:.3g} times"),
            ("validation text", f"{self.validation_tokens:,} tokens every {self.eval_every} steps"),
            (
                "steps",
                f"{self.total_steps:,} of {self.batch_size} x {self.context} tokens, "
                f"{self.micro_batch_size} rows at a time"
                + (f" in each of {self.processes} processes" if self.processes > 1 else ""),
            ),
            ("learning rate", f"up to {self.learning_rate:g}, warm-up {self.warmup_steps} steps"),
            ("device", f"{self.device}, {self.dtype}{', compiled' if self.compile else ''}"),
            ("memory", f"about {self.memory_bytes / 1e9:.1f} GB of {self.available_bytes / 1e9:.1f} GB available"),
            ("time", f"about {timedelta(seconds=round(self.seconds))}"),
        ]
        return text_table(rows, ["plan", ""])


def default_context(settings: TrainSettings, config: GPT2Config, device: torch.device, *, from_scratch: bool) -> int:
    """Tokens in a row: as set, else the model's own, at most 512 on a CPU (attention and memory grow with it).

    Raises:
        UsageError: more than the model has positions for.
    """
    if settings.context is not None:
        if settings.context > config.n_positions:
            raise UsageError(f"--context {settings.context}: the model has {config.n_positions} positions")
        return settings.context
    return config.n_positions if from_scratch or device.type != "cpu" else min(config.n_positions, _CPU_CONTEXT)


def default_learning_rate(settings: TrainSettings, *, parameters: int, from_scratch: bool) -> float:
    """The peak learning rate: as set, else what suits the optimizer, the method and the size.

    For fine-tuning GPT-2 5e-5, or 3e-4 with LoRA or Muon, or 4e-4 with Adafactor, whose steps are shares of the
    weights' own size. A smaller base model wants more: in proportion, up to ten times as much (measured on nano, see
    docs/lab-log.md). From scratch 1e-3, with Muon 5e-3, with Adafactor 8e-3.

    Args:
        settings: the run's.
        parameters: of the base model.
        from_scratch: whether there is none.
    """
    if settings.learning_rate is not None:
        return settings.learning_rate
    if from_scratch:
        return _SCRATCH_RATES[settings.optimizer]
    rate = _LORA_RATE if settings.method == "lora" else _FINE_TUNING_RATES[settings.optimizer]
    return rate * min(max(_GPT2_PARAMETERS / parameters, 1.0), 10.0)


def default_batch_size(
    settings: TrainSettings, data: PreparedData, *, context: int, processes: int, from_scratch: bool
) -> int:
    """Rows in a step: as set, else 8, or 4 where the run would have fewer than 500 steps.

    A small text gives few steps, and the same tokens in more, smaller steps teach more (docs/lab-log.md).
    """
    if settings.batch_size is not None:
        return settings.batch_size
    fewest = max(processes, settings.micro_batch_size or 1)
    tokens = _epochs(settings, from_scratch=from_scratch) * data.store("train").num_tokens
    is_long = settings.max_steps is not None or tokens >= _STEPS * _BATCH_ROWS * context
    return max(_BATCH_ROWS if is_long else _BATCH_ROWS // 2, fewest)


def make_batches(settings: TrainSettings, data: PreparedData, *, context: int, batch_size: int) -> PackedBatches:
    """The training batches.

    Raises:
        DataError: the training split is empty.
    """
    store = data.store("train")
    if store.num_tokens == 0:
        raise DataError(f"{data.folder}: the training split is empty; prepare more text")
    return _pack(store, settings, data, context=context, batch_size=batch_size, seed=settings.seed)


def make_validation_batches(
    settings: TrainSettings, data: PreparedData, *, context: int, batch_size: int
) -> PackedBatches | None:
    """The batches the fixed validation set is the first of, or None without a validation split.

    They are shuffled, with a seed of their own, so that the first batches are a fair sample and the same for every run;
    and whole, so that the first rows are the same for every batch size.
    """
    store = data.store("validation")
    if store.num_tokens == 0:
        return None
    return _pack(store, settings, data, context=context, batch_size=batch_size, seed=0, even=False)


def _pack(
    store: TokenStore,
    settings: TrainSettings,
    data: PreparedData,
    *,
    context: int,
    batch_size: int,
    seed: int,
    even: bool = True,
) -> PackedBatches:
    return PackedBatches(
        store,
        context=context,
        batch_size=batch_size,
        seed=seed,
        packing=settings.packing,
        even=even,
        end_of_text=data.tokenizer.end_of_text,
    )


def make_plan(
    settings: TrainSettings,
    model: GPT2,
    *,
    from_scratch: bool,
    name: str,
    device: torch.device,
    processes: int,
    batches: PackedBatches,
    validation: PackedBatches | None,
) -> Plan:
    """Resolve every default and estimate memory and time."""
    context, dtype = batches.context, select_dtype(settings.precision, device)
    epochs, total_steps = _length(settings, batches, from_scratch=from_scratch)
    train_tokens = batches.store.num_tokens
    eval_every = settings.eval_every or max(total_steps // _VALIDATIONS, 1)
    validation_tokens, validation_batches = _validation_size(
        settings, validation, trained_tokens=epochs * train_tokens, num_validations=total_steps / eval_every
    )
    by_kernels = kernels.available(model.transformer.wte.weight)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    rows, available = math.ceil(batches.batch_size / processes), available_memory_bytes(device)
    estimate = functools.partial(
        memory_estimate(
            settings, attention_dropout=model.config.attn_pdrop, context=context, device=device, dtype=dtype
        ),
        model.config,
        parameters=parameters,
        trainable=trainable,
        gradient_checkpointing=settings.gradient_checkpointing,
        moments=MOMENTS[settings.optimizer],
        on_gpu=by_kernels,
    )

    def memory(at_a_time: int) -> int:
        return estimate(rows=at_a_time, accumulates=at_a_time < rows)

    if device.type == "cpu":  # which the processes on this machine share
        available //= int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    micro = settings.micro_batch_size or fitting_rows(rows, memory, context=context, available=available, device=device)
    seconds = total_steps * step_seconds(
        model.config,
        tokens=rows * context,
        micro_batches=math.ceil(rows / micro),
        context=context,
        trainable_share=trainable / parameters,
        rate=matrix_rate(device, dtype),
    )
    return Plan(
        model=name,
        parameters=parameters,
        trainable_parameters=trainable,
        context=context,
        batch_size=batches.batch_size,
        micro_batch_size=micro,
        processes=processes,
        train_tokens=train_tokens,
        validation_tokens=validation_tokens,
        validation_batches=validation_batches,
        epochs=epochs,
        total_steps=total_steps,
        warmup_steps=round(settings.warmup_ratio * total_steps),
        learning_rate=default_learning_rate(settings, parameters=parameters, from_scratch=from_scratch),
        eval_every=eval_every,
        save_every=settings.save_every or eval_every,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        compile=settings.compile == "on" or (settings.compile == "auto" and by_kernels and _repays_compiling(seconds)),
        memory_bytes=memory(micro),
        available_bytes=available,
        seconds=seconds,
    )


def _length(settings: TrainSettings, batches: PackedBatches, *, from_scratch: bool) -> tuple[float, int]:
    """Epochs and steps of the run."""
    if settings.max_steps is not None:
        return settings.max_steps / batches.steps_in_epoch(), settings.max_steps
    epochs = _epochs(settings, from_scratch=from_scratch)
    return epochs, batches.total_steps(epochs)


def _epochs(settings: TrainSettings, *, from_scratch: bool) -> float:
    return settings.epochs or (_SCRATCH_EPOCHS if from_scratch else _FINE_TUNING_EPOCHS)


def _repays_compiling(seconds: float) -> bool:
    """Whether a run on a GPU, of so many seconds without, saves what compiling takes."""
    return seconds * _COMPILE_GAIN > _COMPILE_SECONDS


def _validation_size(
    settings: TrainSettings, validation: PackedBatches | None, *, trained_tokens: float, num_validations: float
) -> tuple[int, int]:
    """Tokens and batches of the fixed validation set: about `eval_tokens`, whole batches, at most all there are."""
    if validation is None:
        return 0, 0
    low, high = _VALIDATION_TOKENS
    wanted = settings.eval_tokens or min(max(_VALIDATION_SHARE * trained_tokens / num_validations, low), high)
    tokens = batches = 0
    while tokens < wanted and batches < validation.steps_in_epoch():
        tokens += validation.targets_in_step(batches)
        batches += 1
    return tokens, batches


def fitting_rows(
    limit: int, memory: Callable[[int], int], *, context: int, available: int, device: torch.device
) -> int:
    """The largest power of two of rows that fits in memory; on a CPU no more than make it faster."""
    rows = 1
    while rows * 2 <= limit and memory(rows * 2) <= _MEMORY_SHARE * available:
        tokens, growth = rows * 2 * context, memory(rows * 2) - memory(rows)
        is_enough = tokens > _CPU_FEWER_TOKENS and growth > _CPU_GROWTH_BYTES
        if device.type == "cpu" and (is_enough or tokens > _CPU_MICRO_BATCH_TOKENS):
            break
        rows *= 2
    return rows


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count < 1e9 else f"{count / 1e9:,.2f} B"
