"""Checkpoints are whole or not there."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from gpt2kit.errors import DiskError, ModelError
from gpt2kit.model.weights import save_weights
from gpt2kit.training.guard import Validation
from gpt2kit.training.state import (
    Intervention,
    RunState,
    latest_checkpoint,
    read_interventions,
    remove_leftovers,
    write_checkpoint,
    write_interventions,
)


def write(folder: Path, step: int, *, keep: int = 2, floats: int = 8) -> Path:
    state = RunState(step=step, recent_losses=[1 / 3, 2.0], validations=[Validation(step, 0.1 + 0.2, 3.0)])
    return write_checkpoint(
        folder,
        state,
        save_model=lambda path: save_weights(
            {"weight": torch.full((floats,), float(step))}, path / "model.safetensors"
        ),
        optimizer={"weight/step": torch.tensor(float(step))},
        keep=keep,
    )


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """Let the operating system refuse to write files beyond a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_comes_back_exactly(tmp_path: Path) -> None:
    write(tmp_path, 7)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.state == RunState(step=7, recent_losses=[1 / 3, 2.0], validations=[Validation(7, 0.1 + 0.2, 3.0)])
    assert checkpoint.optimizer["weight/step"].item() == 7


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        write(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000015", "step-00000020"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_passed_over_by_name(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, 5)
    damaged = write(tmp_path, 10) / name
    content = bytearray(damaged.read_bytes())
    content[-3] ^= 1
    damaged.write_bytes(content)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.state.step == 5
    assert f"step-00000010/{name}" in capsys.readouterr().err


def test_a_cut_or_missing_file_is_noticed(tmp_path: Path) -> None:
    write(tmp_path, 5)
    cut = write(tmp_path, 10) / "optimizer.safetensors"
    cut.write_bytes(cut.read_bytes()[:-1])
    (write(tmp_path, 15, keep=3) / "model.safetensors").unlink()
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.state.step == 5


def test_a_full_disk_leaves_the_previous_checkpoint_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, 5)
    with largest_file(20_000), pytest.raises(DiskError, match=r"no space to write .*step-00000010"):
        write(tmp_path, 10, floats=100_000)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.state.step == 5


def test_leftovers_of_a_kill_are_removed(tmp_path: Path) -> None:
    checkpoints = tmp_path / "training" / "checkpoints"
    write(checkpoints, 5)
    (checkpoints / "step-00000010.partial").mkdir()
    (checkpoints / "step-00000010.partial" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "model.safetensors.partial").write_bytes(b"half")
    remove_leftovers(tmp_path)
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000005"]
    assert not (tmp_path / "model.safetensors.partial").exists()


def test_interventions_come_back(tmp_path: Path) -> None:
    path = tmp_path / "interventions.json"
    assert read_interventions(path) == []
    written = [Intervention(bad_step=9, resumed_step=5, reason="the loss is nan", learning_rate_scale=0.5)]
    write_interventions(path, written)
    assert read_interventions(path) == written
    path.write_text(json.dumps([{"bad": 1}]), encoding="utf-8")
    with pytest.raises(ModelError, match="is damaged"):
        read_interventions(path)


def test_new_checkpoints_stay_though_later_ones_that_are_damaged_lie_there(tmp_path: Path) -> None:
    for step in (110, 120):
        (write(tmp_path, step) / "model.safetensors").write_bytes(b"damaged")
    assert latest_checkpoint(tmp_path) is None
    write(tmp_path, 12)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert checkpoint.state.step == 12
