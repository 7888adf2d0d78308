"""`gpt2kit train`: from prepared data and a base model to a fine-tuned model folder."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock

from gpt2kit.console import say, warn
from gpt2kit.errors import TrainingError
from gpt2kit.files import read_json, to_json, write_atomically
from gpt2kit.model.gpt2 import GPT2
from gpt2kit.model.loss import perplexity
from gpt2kit.runtime import keep_freed_memory, provenance, select_device
from gpt2kit.tokens import PreparedData
from gpt2kit.training.build import Start, build_model, find_start
from gpt2kit.training.guard import Validation
from gpt2kit.training.loop import Ending, Run, Trainer
from gpt2kit.training.memory import is_out_of_memory
from gpt2kit.training.plan import (
    Plan,
    default_batch_size,
    default_context,
    make_batches,
    make_plan,
    make_validation_batches,
)
from gpt2kit.training.ranks import Ranks
from gpt2kit.training.run_folder import RunFolder, claim, identity
from gpt2kit.training.settings import TrainSettings
from gpt2kit.training.state import remove_leftovers


@dataclass(frozen=True)
class TrainingResult:
    """What came out of a training run.

    Attributes:
        status: "finished"; "unchanged" when the very same run was finished before; "interrupted" by Ctrl-C or SIGTERM,
            the same command goes on; "planned" for a dry run.
        model_dir: the folder with the best weights.
        plan: what the run set out to do.
        steps: optimizer steps done.
        tokens_seen: target tokens trained on.
        seconds: time spent training, in all parts of the run.
        train_loss: mean nats per token over the latest steps, or None before the first.
        validation_loss_before: nats per token on the fixed validation set before the first step, or None without one.
        validation_loss: the best one, that of the weights in `model_dir`.
        best_step: when that was.
        ending: why it ended: "done" all steps, out of "patience", or "interrupted".
        stop_requested: whether someone asked it to stop, perhaps too late to leave anything undone.
    """

    status: Literal["finished", "unchanged", "interrupted", "planned"]
    model_dir: Path
    plan: Plan
    steps: int = 0
    tokens_seen: int = 0
    seconds: float = 0.0
    train_loss: float | None = None
    validation_loss_before: float | None = None
    validation_loss: float | None = None
    best_step: int | None = None
    ending: Ending | None = None
    stop_requested: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self) | {"model_dir": str(self.model_dir), "warning": self.warning}

    @property
    def is_untrained(self) -> bool:
        """Whether no validation beat that before the first step, so that the folder holds the model it started from."""
        return self.steps > 0 and self.best_step == 0

    @property
    def warning(self) -> str | None:
        """What to do about a finished run that improved nothing, or None."""
        if not self.is_untrained or self.ending not in ("done", "patience"):
            return None
        return (
            f"training did not improve on the model it started from ({self.plan.model}): no validation loss was below "
            f"the {self.validation_loss_before:.3f} before the first step, so {self.model_dir} holds that model "
            f"unchanged. Try a lower --learning_rate (it was {self.plan.learning_rate:g}), more --epochs, or more text"
        )

    @property
    def perplexity(self) -> float | None:
        """The exponential of the best validation loss."""
        return None if self.validation_loss is None else perplexity(self.validation_loss)

    def to_text(self) -> str:
        """The result in one or two sentences; the plan for a dry run."""
        if self.status == "planned":
            return self.plan.to_text()
        why = {"patience": f"stopped early at step {self.steps}", "interrupted": f"interrupted at step {self.steps}"}
        text = f"{why.get(self.ending or '', f'trained {self.steps} steps')} in {self.seconds:.0f} s"
        if self.validation_loss is not None and self.validation_loss_before is not None:
            text += (
                f": validation loss {self.validation_loss_before:.3f} -> {self.validation_loss:.3f} nats per token "
                f"(perplexity {perplexity(self.validation_loss_before):.1f} -> "
                f"{perplexity(self.validation_loss):.1f}), "
                f"best at step {self.best_step}"
            )
        kept = ", the model it started from, unchanged" if self.is_untrained else ""
        return f"{text}{kept}. Model: {self.model_dir}"


def train(settings: TrainSettings, *, on_validation: Callable[[Validation], None] | None = None) -> TrainingResult:
    """Fine-tune a model, or train one from scratch; the same settings go on with an unfinished run.

    Args:
        settings: see `TrainSettings`.
        on_validation: called with each validation, that of step 0 too, by the first process; what it raises ends the
            run, which stays unfinished.

    Returns:
        What came out; the weights are in `settings.model_output_dir`, a plain Hugging Face folder.

    Raises:
        UsageError: a setting does not fit the data, the base model or the output folder.
        DataError: the prepared data are damaged or empty.
        ModelError: the base model is damaged.
        TrainingError: the run diverged again and again, or memory is too small.
        DiskError: the disk is full; the last checkpoint is intact.
        NetworkError: the base model has to be fetched and cannot be.

    Example:
        >>> result = train(TrainSettings(data_dir="data/processed", model_output_dir="models/mine"))
        >>> result.perplexity
    """
    device = select_device(settings.device)
    if device.type == "cpu":
        keep_freed_memory()
    data = PreparedData.open(settings.data_dir)
    start = find_start(settings, data)
    ranks = Ranks.join(device)
    try:
        return _train(settings, data, start, device=device, ranks=ranks, on_validation=on_validation)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            "out of memory for the weights and the optimizer; try --method lora, --freeze_layers with "
            "--freeze_embeddings, or a smaller base model"
        ) from error
    finally:
        ranks.leave()


def _train(
    settings: TrainSettings,
    data: PreparedData,
    start: Start,
    *,
    device: torch.device,
    ranks: Ranks,
    on_validation: Callable[[Validation], None] | None,
) -> TrainingResult:
    folder = RunFolder(settings.model_output_dir)
    if settings.dry_run:
        plan = _make_plan(settings, data, start, build_model(start, settings, device), device=device, ranks=ranks)
        return TrainingResult("planned", folder.root, plan)
    # Before the folder is claimed: what cannot be trained shall neither move a finished model aside nor begin a run.
    model = build_model(start, settings, device)
    default_context(settings, model.config, device, from_scratch=start.folder is None)
    lock = _claim(folder, settings, data, start) if ranks.is_main else None
    try:
        ranks.wait()
        if folder.result.exists():
            result = _read_result(folder)
            if ranks.is_main:
                say(f"nothing to do: this very run is finished in {folder.root}")
            return result
        if ranks.is_main and "plan" not in folder.read_record():
            plan = _make_plan(settings, data, start, model, device=device, ranks=ranks)
            folder.write_record(folder.read_record() | {"plan": plan.to_dict()})
        ranks.wait()
        plan = Plan(**folder.read_record()["plan"])
        if ranks.is_main:
            say(plan.to_text())
        shape = {"context": plan.context, "batch_size": plan.batch_size}
        batches = make_batches(settings, data, **shape)
        validation = make_validation_batches(settings, data, **shape)
        run = Run(settings, plan, start, data, batches, validation, folder, ranks, device)
        trainer = Trainer(run, model, on_validation=on_validation)
        return _conclude(trainer, trainer.train())
    finally:
        if lock is not None:
            lock.release()


def _claim(folder: RunFolder, settings: TrainSettings, data: PreparedData, start: Start) -> FileLock:
    """Make the output folder this run's own: new, or holding this very run so far."""
    wanted = identity(
        settings, data_fingerprint=str(data.manifest["fingerprint"]), base_fingerprint=start.fingerprint()
    )
    standing = claim(folder, wanted, overwrite=settings.overwrite)
    lock = folder.lock()
    remove_leftovers(folder.root)
    if standing == "new":
        folder.write_record(
            {
                "identity": wanted,
                "settings": settings.to_dict(),
                "base": start.base,
                "data": {"folder": str(data.folder), "fingerprint": data.manifest["fingerprint"]},
                "provenance": provenance(),
            }
        )
    return lock


def _make_plan(
    settings: TrainSettings, data: PreparedData, start: Start, model: GPT2, *, device: torch.device, ranks: Ranks
) -> Plan:
    from_scratch = start.folder is None
    context = default_context(settings, model.config, device, from_scratch=from_scratch)
    rows = default_batch_size(settings, data, context=context, processes=ranks.world_size, from_scratch=from_scratch)
    return make_plan(
        settings,
        model,
        from_scratch=from_scratch,
        name=_name(settings, start),
        device=device,
        processes=ranks.world_size,
        batches=make_batches(settings, data, context=context, batch_size=rows),
        validation=make_validation_batches(settings, data, context=context, batch_size=rows),
    )


def _name(settings: TrainSettings, start: Start) -> str:
    if start.base is None:
        return f"from scratch, {start.config.n_layer} layers of width {start.config.n_embd}"
    return f"{start.base}, LoRA of rank {settings.lora_rank}" if settings.method == "lora" else start.base


def _conclude(trainer: Trainer, ending: Ending) -> TrainingResult:
    state, run = trainer.state, trainer.run
    result = TrainingResult(
        status="interrupted" if ending == "interrupted" else "finished",
        model_dir=run.folder.root,
        plan=run.plan,
        steps=state.step,
        tokens_seen=state.tokens_seen,
        seconds=state.elapsed_seconds,
        train_loss=state.train_loss if state.recent_losses else None,
        validation_loss_before=state.validations[0].loss if state.validations else None,
        validation_loss=state.best.loss if state.best is not None else None,
        best_step=state.best.step if state.best is not None else None,
        ending=ending,
        stop_requested=trainer.stop_requested,
    )
    if not run.ranks.is_main:
        return result
    if ending == "interrupted":
        say(f"interrupted at step {state.step} of {run.plan.total_steps}, saved; the same command goes on from there")
    else:
        write_atomically(run.folder.result, to_json(result.to_dict()))
        if result.warning is not None:
            warn(result.warning)
    return result


def _read_result(folder: RunFolder) -> TrainingResult:
    values = read_json(folder.result, what="the result of a training run")
    plan = Plan(**values.pop("plan"))
    values.pop("warning", None)  # follows from the others
    now = {"status": "unchanged", "model_dir": folder.root, "plan": plan, "stop_requested": False}
    return TrainingResult(**(values | now))
