"""`kill -9` at any moment, then the same command: bit for bit the uninterrupted run."""

import functools
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt2kit import PreparedData

_SCRIPT = """
import json, sys
import gpt2kit
result = gpt2kit.train(gpt2kit.TrainSettings(**json.loads(sys.argv[1])))
sys.exit(130 if result.status == "interrupted" else 0)
"""
_PATIENCE_SECONDS = 120


def command(prepared: PreparedData, folder: Path, **values: Any) -> list[str]:
    settings = {
        "data_dir": str(prepared.folder),
        "model_output_dir": str(folder),
        "context": 32,
        "batch_size": 8,
        "micro_batch_size": 4,
        "max_steps": 45,
        "eval_every": 9,
        "save_every": 3,
        "sample_tokens": 4,
        "dropout": 0.1,
        "device": "cpu",
    } | values
    return [sys.executable, "-c", _SCRIPT, json.dumps(settings)]


def from_scratch() -> dict[str, Any]:
    return {"n_layer": 2, "n_head": 2, "n_embd": 32}


def outcome(folder: Path) -> dict[str, Any]:
    """Everything a run computes: weights, losses, order of batches (through the losses), validations."""
    lines = (folder / "training" / "metrics.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    timing = ("tokens_per_second", "memory_bytes")
    metrics = [{key: value for key, value in json.loads(line).items() if key not in timing} for line in lines]
    newest = max((folder / "training" / "checkpoints").glob("step-????????"))
    files = [*folder.glob("*.safetensors"), *newest.glob("*.safetensors")]
    return {"metrics": metrics} | {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    """Wait until something is so; False when the process ended first."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < deadline
        time.sleep(0.001)
    return True


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def steps_done(folder: Path) -> int:
    path = folder / "training" / "metrics.jsonl"
    return path.read_bytes().count(b'"kind": "train"') if path.exists() else 0


def has_begun(folder: Path, since_ns: int) -> bool:
    """Whether a process that was started at a time has opened the run's metrics: steps and checkpoints come next."""
    path = folder / "training" / "metrics.jsonl"
    return path.exists() and path.stat().st_mtime_ns > since_ns


def finish(arguments: list[str]) -> str:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=_PATIENCE_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def uninterrupted(prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the run from scratch gives when nothing happens to it."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    finish(command(prepared, folder, **from_scratch()))
    return outcome(folder)


def test_killed_between_steps_and_while_writing_a_checkpoint(
    prepared: PreparedData, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    arguments = command(prepared, killed, **from_scratch())

    process = start(arguments)
    assert wait_for(lambda: steps_done(killed) >= 11, process)
    kill(process)

    process = start(arguments)
    checkpoints = killed / "training" / "checkpoints"
    assert wait_for(lambda: steps_done(killed) >= 20 and any(checkpoints.glob("*.partial")), process)
    kill(process)

    assert "going on from step" in finish(arguments)
    assert outcome(killed) == uninterrupted
    assert not list(killed.rglob("*.partial"))


def test_ctrl_c_saves_and_tells_how_to_go_on(
    prepared: PreparedData, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    stopped = tmp_path / "stopped"
    arguments = command(prepared, stopped, **from_scratch())
    process = start(arguments)
    assert wait_for(lambda: steps_done(stopped) >= 4, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=_PATIENCE_SECONDS)
    assert process.returncode == 130
    assert b"the same command goes on from there" in said
    finish(arguments)
    assert outcome(stopped) == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_twenty_kills_at_random_moments(prepared: PreparedData, tmp_path: Path, base: Path, method: str) -> None:
    values = {"base": str(base), "method": method, "max_steps": 120}
    values |= {"lora_dropout": 0.1} if method == "lora" else {}
    finish(command(prepared, tmp_path / "whole", **values))
    expected = outcome(tmp_path / "whole")
    draw = random.Random(os.urandom(8))
    killed = tmp_path / "killed"
    arguments = command(prepared, killed, **values)
    kills = 0
    while kills < 20:
        started = time.time_ns()
        process = start(arguments)
        if wait_for(functools.partial(has_begun, killed, started), process):
            time.sleep(draw.uniform(0, 0.6))
        if process.poll() is None:
            kill(process)
            kills += 1
        else:
            process.communicate()
            assert outcome(killed) == expected  # it was quicker than its killer: begin another
            killed = tmp_path / f"killed-{kills}"
            arguments = command(prepared, killed, **values)
    finish(arguments)
    assert outcome(killed) == expected


def test_an_unfinished_run_with_other_settings_is_left_alone(prepared: PreparedData, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    process = start(command(prepared, folder, **from_scratch()))
    assert wait_for(lambda: steps_done(folder) >= 4, process)
    kill(process)
    before = sorted(path.name for path in (folder / "training" / "checkpoints").iterdir())
    other = subprocess.run(
        command(prepared, folder, **from_scratch(), learning_rate=0.5), capture_output=True, text=True, check=False
    )
    assert other.returncode != 0
    assert "holds an unfinished run with other settings (--learning_rate was None and is 0.5)" in other.stderr
    assert sorted(path.name for path in (folder / "training" / "checkpoints").iterdir()) == before
