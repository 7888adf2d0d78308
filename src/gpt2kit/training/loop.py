"""The training loop: steps, validations, checkpoints, and what happens when something goes wrong."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from gpt2kit.console import Progress, say, warn
from gpt2kit.errors import TrainingError
from gpt2kit.model.adapters import ADAPTER_WEIGHTS, load_lora_weights, save_adapter
from gpt2kit.model.folder import WEIGHTS, save_model, weights_of
from gpt2kit.model.gpt2 import GPT2
from gpt2kit.model.lora import lora_weights
from gpt2kit.model.loss import perplexity
from gpt2kit.model.weights import read_safetensors
from gpt2kit.runtime import derive_seed, peak_memory_bytes
from gpt2kit.tokens import PackedBatches, PreparedData
from gpt2kit.training.build import Start, build_model
from gpt2kit.training.guard import (
    Validation,
    divergence,
    memorising,
    out_of_patience,
    overfitting,
    worse_than_the_start,
)
from gpt2kit.training.interrupts import Interrupts
from gpt2kit.training.monitor import Monitor
from gpt2kit.training.optimizer import Optimizers
from gpt2kit.training.plan import Plan
from gpt2kit.training.ranks import Ranks
from gpt2kit.training.run_folder import RunFolder
from gpt2kit.training.schedule import learning_rate_at
from gpt2kit.training.settings import TrainSettings
from gpt2kit.training.state import (
    Checkpoint,
    Intervention,
    RunState,
    latest_checkpoint,
    read_interventions,
    write_checkpoint,
    write_interventions,
)
from gpt2kit.training.steps import FIRST_LOSS_SCALE, StepGradients, StepRunner, next_loss_scale

_MOST_INTERVENTIONS = 3
_SMALLER_LEARNING_RATE = 0.5

Ending = Literal["done", "patience", "interrupted"]


@dataclass(frozen=True)
class Run:
    """Everything a run is made of, besides what changes while it runs."""

    settings: TrainSettings
    plan: Plan
    start: Start
    data: PreparedData
    batches: PackedBatches
    validation: PackedBatches | None
    folder: RunFolder
    ranks: Ranks
    device: torch.device


class Trainer:
    """Carries a run from where it stands to its end.

    Args:
        run: the run.
        model: its model at step 0.
        on_validation: called with each validation in the first process; what it raises ends the run as it stands.

    Attributes:
        stop_requested: whether someone asked it to stop, perhaps too late to leave anything undone.
    """

    def __init__(self, run: Run, model: GPT2, *, on_validation: Callable[[Validation], None] | None = None) -> None:
        self.run = run
        self.on_validation = on_validation
        self.model = model
        self.state = RunState(
            micro_batch_size=run.plan.micro_batch_size,
            loss_scale=FIRST_LOSS_SCALE if run.plan.dtype == "float16" else 1.0,
        )
        self.interventions = read_interventions(run.folder.interventions)
        self.optimizers = Optimizers(
            model,
            betas=(run.settings.adam_beta1, run.settings.adam_beta2),
            weight_decay=run.settings.weight_decay,
            kind=run.settings.optimizer,
            dtype=getattr(torch, run.plan.dtype),
        )
        self.steps = StepRunner(
            model,
            seed=run.settings.seed,
            device=run.device,
            dtype=getattr(torch, run.plan.dtype),
            ranks=run.ranks,
            gradient_clip=run.settings.gradient_clip,
            on_halved=self._use_micro_batch_size,
        )
        self.monitor: Monitor | None = None
        self.stop_requested = False
        if run.plan.compile:
            _compile_blocks(model)

    def train(self) -> Ending:
        """Train until the steps are done, patience runs out, or someone interrupts.

        Raises:
            TrainingError: the run diverged again and again, or memory is too small for one row.
            DiskError: the disk is full; the last checkpoint is intact.
        """
        if (checkpoint := latest_checkpoint(self.run.folder.checkpoints)) is not None:
            self._restore(checkpoint)
            self._say(f"going on from step {self.state.step} of {self.run.plan.total_steps}")
        if self.run.ranks.is_main:
            # Without a checkpoint even the first validation is made again.
            step = self.state.step if checkpoint is not None else -1
            self.monitor = Monitor(self.run.folder.training, step=step, tensorboard=self.run.settings.tensorboard)
        try:
            with Interrupts(announce=self.run.ranks.is_main) as interrupts:
                ending = self._loop(interrupts)
                self.stop_requested = interrupts.requested
                return ending
        finally:
            if self.monitor is not None:
                self.monitor.close()

    def _loop(self, interrupts: Interrupts) -> Ending:
        plan = self.run.plan
        if self.state.step == 0 and not self.state.validations and self.run.validation is not None:
            self._validate()
        with Progress("training", total=plan.total_steps, unit="step", initial=self.state.step) as progress:
            while self.state.step < plan.total_steps:
                if out_of_patience(self.state.validations, patience=self.run.settings.patience):
                    self._save()
                    return "patience"
                before = self.state.step
                stopping = self._step(interrupts.requested)
                if self.state.step > before:
                    self._validate_and_save()
                if stopping and self.state.step < plan.total_steps:
                    self._save()
                    return "interrupted"
                progress.advance(self.state.step - progress.done, note=f"loss {self.state.train_loss:.3f}")
        return "done"

    def _validate_and_save(self) -> None:
        """Do what is due after a step."""
        step, plan = self.state.step, self.run.plan
        is_last = step == plan.total_steps
        is_best = self._validate() if step % plan.eval_every == 0 or is_last else False
        if is_best or step % plan.save_every == 0 or is_last:
            self._save()

    def _step(self, stop_requested: bool) -> bool:
        """Do the step the state stands at, or roll back; returns whether a process was asked to stop."""
        state, step = self.state, self.state.step
        started = time.perf_counter()
        if any(intervention.bad_step == step for intervention in self.interventions):
            state.step += 1
            return False  # stopping is agreed upon by all processes, in a step they compute
        learning_rate = self._learning_rate(step)
        # A GPU updates the weights while its gradients are judged: what bad ones do is undone by rolling back. In fp16
        # they may have overflowed, and are computed again.
        at_once = self.run.device.type == "cuda" and self.run.plan.dtype != "float16"
        while True:
            found = self.steps.gradients(
                self.run.batches,
                step,
                micro_batch_size=state.micro_batch_size,
                loss_scale=state.loss_scale,
                stop_requested=stop_requested,
                update=(lambda: self.optimizers.step(learning_rate)) if at_once else None,
            )
            overflowed = self.run.plan.dtype == "float16" and not math.isfinite(found.gradient_norm)
            if self.run.plan.dtype == "float16":
                state.loss_scale = next_loss_scale(state.loss_scale, overflowed=overflowed, step=step)
            if not overflowed or not math.isfinite(found.loss):
                break
        if found.num_targets == 0:  # rows of long prompts without their answers: nothing to learn or to judge by
            state.step += 1
            return found.stop_requested
        if reason := divergence(found.loss, found.gradient_norm, state.recent_losses):
            self._roll_back(step, reason)
            return found.stop_requested
        if not at_once:
            self.optimizers.step(learning_rate)
        self._count(found, learning_rate, started)
        return found.stop_requested

    def _count(self, found: StepGradients, learning_rate: float, started: float) -> None:
        seconds = time.perf_counter() - started
        state = self.state
        state.step += 1
        state.tokens_seen += found.num_targets
        state.elapsed_seconds += seconds
        state.remember_loss(found.loss)
        if self.monitor is not None and state.step % self.run.settings.log_every == 0:
            self.monitor.record(
                state.step,
                "train",
                loss=found.loss,
                learning_rate=learning_rate,
                gradient_norm=found.gradient_norm,
                tokens_per_second=found.num_targets / seconds,
                memory_bytes=peak_memory_bytes(self.run.device),
            )

    def _learning_rate(self, step: int) -> float:
        settings, plan = self.run.settings, self.run.plan
        rate = learning_rate_at(
            step,
            peak=plan.learning_rate,
            total_steps=plan.total_steps,
            warmup_steps=plan.warmup_steps,
            schedule=settings.schedule,
            final_ratio=settings.final_learning_rate_ratio,
        )
        scales = [one.learning_rate_scale for one in self.interventions if step >= one.resumed_step]
        return rate * math.prod(scales)

    def _roll_back(self, bad_step: int, reason: str) -> None:
        """Go back to the last good state, from where the rate is halved and the bad batch is skipped."""
        if len(self.interventions) >= _MOST_INTERVENTIONS:
            raise TrainingError(
                f"step {bad_step + 1}: {reason}, after {_MOST_INTERVENTIONS} rollbacks already; the last good state is "
                f"kept in {self.run.folder.checkpoints}; start again with a lower --learning_rate"
            )
        checkpoint = latest_checkpoint(self.run.folder.checkpoints)
        resumed = checkpoint.state.step if checkpoint is not None else 0
        self.interventions.append(Intervention(bad_step, resumed, reason, _SMALLER_LEARNING_RATE))
        if self.run.ranks.is_main:
            write_interventions(self.run.folder.interventions, self.interventions)
        self.run.ranks.wait()
        words = (
            f"step {bad_step + 1}: {reason}; going back to step {resumed}, skipping that batch, with half the "
            "learning rate"
        )
        self._warn(words)
        self._restore(checkpoint)
        if self.monitor is not None:
            self.monitor.rewind(resumed)
            self.monitor.record(resumed, "event", reason=words)

    def _restore(self, checkpoint: Checkpoint | None) -> None:
        """Put a checkpoint's state in place, or that before the first step."""
        if checkpoint is None:
            self.state = RunState(
                micro_batch_size=self.state.micro_batch_size,
                loss_scale=self.state.loss_scale,
                validations=[validation for validation in self.state.validations if validation.step == 0],
            )
            fresh = build_model(self.run.start, self.run.settings, torch.device("cpu"))
            self.model.load_state_dict(fresh.state_dict())
        elif self.run.settings.method == "lora":
            load_lora_weights(self.model, checkpoint.folder / ADAPTER_WEIGHTS)
            self.state = checkpoint.state
        else:
            self.model.load_state_dict(read_safetensors(checkpoint.folder / WEIGHTS), strict=False)
            self.state = checkpoint.state
        self.optimizers.restore(checkpoint.optimizer if checkpoint is not None else {})

    def _validate(self) -> bool:
        """Measure the validation loss, keep the weights when they are the best; returns whether they are."""
        state = self.state
        if self.run.validation is None:
            if self.run.ranks.is_main:
                self.save_weights(self.run.folder.root)
            return False
        started = time.perf_counter()
        loss = self.steps.validation_loss(
            self.run.validation,
            num_batches=self.run.plan.validation_batches,
            micro_batch_size=state.micro_batch_size,
        )
        if not math.isfinite(loss):
            if state.step == 0:
                raise TrainingError(f"the validation loss of the model to start from is {loss}: its weights are broken")
            self._roll_back(state.step - 1, f"the validation loss is {loss}")
            return False
        state.validations.append(Validation(state.step, loss, state.train_loss if state.recent_losses else loss))
        if reason := worse_than_the_start(state.validations):
            self._roll_back(state.step - 1, reason)
            return False
        state.elapsed_seconds += time.perf_counter() - started
        is_best = state.best is state.validations[-1]
        if self.run.ranks.is_main:
            if is_best:
                self.save_weights(self.run.folder.root)
            self._report(state.validations[-1], is_best=is_best)
            if self.on_validation is not None:
                self.on_validation(state.validations[-1])
        self.run.ranks.wait()
        return is_best

    def _report(self, validation: Validation, *, is_best: bool) -> None:
        trained = f"train loss {validation.train_loss:.4f}, " if validation.step else ""
        self._say(
            f"step {validation.step}: {trained}validation loss {validation.loss:.4f} "
            f"(perplexity {perplexity(validation.loss):.6g}){', the best so far' if is_best else ''}"
        )
        if self.monitor is not None:
            self.monitor.record(validation.step, "validation", validation_loss=validation.loss)
        for alarm in (overfitting, memorising):
            words = alarm(self.state.validations)
            if words is not None and all(
                alarm(self.state.validations[:end]) is None for end in range(len(self.state.validations))
            ):  # said once, not each time
                self._warn(words)
                if self.monitor is not None:
                    self.monitor.record(validation.step, "event", reason=words)
        self._sample()

    def _sample(self) -> None:
        """Continue the fixed prompts, for TensorBoard and metrics.jsonl."""
        settings = self.run.settings
        if not settings.sample_tokens or self.monitor is None:
            return
        from gpt2kit.generation import GenerateSettings, LanguageModel, generate

        language_model = LanguageModel(model=self.model, tokenizer=self.run.data.tokenizer, folder=self.run.folder.root)
        options = GenerateSettings(max_new_tokens=settings.sample_tokens, seed=derive_seed(settings.seed, "samples"))
        self.model.eval()
        # Compiled blocks would be compiled anew for every length of the text.
        with torch.compiler.set_stance("force_eager") if self.run.plan.compile else nullcontext():
            samples = generate(language_model, settings.sample_prompts, options)
        for sample in samples:
            self.monitor.sample(self.state.step, sample.prompt, sample.text)
        self.model.train()

    def _save(self) -> None:
        if self.run.ranks.is_main:
            started = time.perf_counter()
            write_checkpoint(
                self.run.folder.checkpoints,
                self.state,
                save_model=self.save_weights,
                optimizer=self.optimizers.tensors(),
                keep=self.run.settings.keep_checkpoints,
            )
            self.state.elapsed_seconds += time.perf_counter() - started
        self.run.ranks.wait()

    def save_weights(self, folder: Path) -> None:
        """Write the current weights as a model folder: an adapter for LoRA, else a whole model; with its tokenizer."""
        if self.run.settings.method == "lora":
            save_adapter(self.model, folder, base=self.run.start.base or "", weights=lora_weights(self.model))
        else:
            save_model(self.model, folder, weights=weights_of(self.model))
        self.run.data.tokenizer.save(folder)

    def _use_micro_batch_size(self, rows: int) -> None:
        self._warn(f"out of memory: computing {rows} rows at a time from here on; the batch stays the same")
        self.state.micro_batch_size = rows

    def _say(self, message: str) -> None:
        if self.run.ranks.is_main:
            say(message)

    def _warn(self, message: str) -> None:
        if self.run.ranks.is_main:
            warn(message)


def _compile_blocks(model: GPT2) -> None:
    """Compile the blocks: once for each kind of use (training, measuring, the last few rows), and all share it."""
    from torch._dynamo import config

    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # PyTorch 2.6
    setattr(config, limit, max(getattr(config, limit), 4 * len(model.transformer.h)))
    for block in model.transformer.h:
        block.compile()
    model.blocks_compiled = True
