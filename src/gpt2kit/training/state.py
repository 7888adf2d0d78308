"""Crash-safe checkpoints: written beside and renamed, verified on load, the previous good one kept.

    training/checkpoints/step-00000120/
        config.json, model.safetensors, tokenizer files     a model folder (or an adapter) like any other
        optimizer.safetensors                               the optimizer's moments and step counts
        state.json                                          position, history, and the SHA-256 of every file

A kill at any moment leaves either no new checkpoint or a whole one. Nothing random is saved: order and dropout are
pure functions of the seed and the position.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from gpt2kit.console import warn
from gpt2kit.errors import DataError, Gpt2kitError, ModelError
from gpt2kit.files import (
    PARTIAL_SUFFIX,
    explained_disk_errors,
    read_json,
    sha256_file,
    sha256_json,
    sync_folder,
    to_json,
    write_atomically,
)
from gpt2kit.model.weights import read_safetensors, save_weights
from gpt2kit.training.guard import WINDOW, Validation

_OPTIMIZER = "optimizer.safetensors"
_STATE = "state.json"
_PATTERN = "step-????????"


@dataclass
class RunState:
    """Where a run stands, apart from its weights.

    Attributes:
        step: optimizer steps done.
        tokens_seen: target tokens trained on.
        micro_batch_size: rows computed at a time (it may have been halved).
        loss_scale: what losses are multiplied by before the backward pass, so that fp16 gradients do not vanish.
        recent_losses: nats per token of the latest steps, for the divergence guard.
        validations: every validation so far.
        elapsed_seconds: training time so far, over all resumed parts.
    """

    step: int = 0
    tokens_seen: int = 0
    micro_batch_size: int = 1
    loss_scale: float = 1.0
    recent_losses: list[float] = field(default_factory=list)
    validations: list[Validation] = field(default_factory=list)
    elapsed_seconds: float = 0.0

    def remember_loss(self, loss: float) -> None:
        """Add a step's loss to the window the divergence guard looks at."""
        self.recent_losses = [*self.recent_losses, loss][-WINDOW:]

    @property
    def train_loss(self) -> float:
        """Mean nats per token of the latest steps; NaN before the first."""
        return sum(self.recent_losses) / len(self.recent_losses) if self.recent_losses else float("nan")

    @property
    def best(self) -> Validation | None:
        """The validation with the lowest loss, the earliest of equals."""
        return min(self.validations, key=lambda validation: validation.loss, default=None)

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunState":
        """The state back from JSON values."""
        return cls(**(values | {"validations": [Validation(**validation) for validation in values["validations"]]}))


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its state and moments in memory, its weights still in `folder`."""

    folder: Path
    state: RunState
    optimizer: dict[str, Tensor]


@dataclass(frozen=True)
class Intervention:
    """A rollback: the step whose batch is skipped from now on, and how the learning rate is scaled from where."""

    bad_step: int
    resumed_step: int
    reason: str
    learning_rate_scale: float


def write_checkpoint(
    folder: Path, state: RunState, *, save_model: Callable[[Path], None], optimizer: dict[str, Tensor], keep: int
) -> Path:
    """Write a checkpoint and remove the oldest ones beyond `keep`.

    Args:
        folder: where checkpoints lie.
        state: where the run stands.
        save_model: writes the model to a folder.
        optimizer: its tensors by name.
        keep: how many checkpoints stay.

    Raises:
        DiskError: the disk is full; earlier checkpoints are intact and nothing half-written is left.
    """
    final = folder / f"step-{state.step:08d}"
    partial = final.with_name(final.name + PARTIAL_SUFFIX)
    with explained_disk_errors(final):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            save_model(partial)
            save_weights(optimizer, partial / _OPTIMIZER)
            hashes = {path.name: sha256_file(path) for path in sorted(partial.iterdir())}
            values = {"state": state.to_dict(), "sha256": hashes}
            write_atomically(partial / _STATE, to_json(values | {"self_sha256": sha256_json(values)}))
            shutil.rmtree(final, ignore_errors=True)
            partial.rename(final)
            sync_folder(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    # Later ones are damaged, or the run would have gone on from them.
    for old in sorted(path for path in folder.glob(_PATTERN) if path <= final)[:-keep]:
        shutil.rmtree(old)
    return final


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read and verify one checkpoint.

    Raises:
        DataError: a file does not have the hash it was saved with.
        Gpt2kitError: a file is missing or unreadable.
    """
    values = read_json(folder / _STATE, what="a checkpoint's state")
    digest = values.pop("self_sha256", None)
    if digest != sha256_json(values):
        raise DataError(f"{folder / _STATE}: was changed or damaged after it was written")
    for name, expected in values["sha256"].items():
        if not (folder / name).is_file() or sha256_file(folder / name) != expected:
            raise DataError(f"{folder / name}: is missing, or was changed or damaged after it was written")
    return Checkpoint(
        folder=folder,
        state=RunState.from_dict(values["state"]),
        optimizer=read_safetensors(folder / _OPTIMIZER),
    )


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; damaged ones are named in a warning and passed over."""
    for path in sorted(folder.glob(_PATTERN), reverse=True):
        try:
            return read_checkpoint(path)
        except (Gpt2kitError, KeyError, TypeError) as error:
            warn(f"checkpoint passed over: {error}")
    return None


def remove_leftovers(folder: Path) -> None:
    """Remove what a kill left half-written below a run's folder."""
    for leftover in [*folder.glob(f"*{PARTIAL_SUFFIX}"), *folder.glob(f"training/**/*{PARTIAL_SUFFIX}")]:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def read_interventions(path: Path) -> list[Intervention]:
    """The rollbacks of a run so far.

    Raises:
        ModelError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        return [Intervention(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (json.JSONDecodeError, TypeError) as error:
        raise ModelError(f"{path}: is damaged; the run cannot be resumed exactly") from error


def write_interventions(path: Path, interventions: list[Intervention]) -> None:
    """Save the rollbacks of a run, atomically."""
    write_atomically(path, to_json([asdict(intervention) for intervention in interventions]))
