"""Several processes compute what one does; too little memory and two runs in one folder are handled."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2kit import PreparedData

_SCRIPT = """
import json, sys
import gpt2kit
gpt2kit.train(gpt2kit.TrainSettings(**json.loads(sys.argv[1])))
"""
_LIMITED = """
import json, resource, sys
import psutil, torch
import gpt2kit.training.run, gpt2kit.generation
torch.ones(64, 64) @ torch.ones(64, 64)
torch.set_num_threads(1)
limit = psutil.Process().memory_info().vms + int(sys.argv[2]) * 1_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
gpt2kit.train(gpt2kit.TrainSettings(**json.loads(sys.argv[1])))
"""

_FULL_DISK = """
import json, resource, sys
import gpt2kit
from gpt2kit.errors import DiskError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    gpt2kit.train(gpt2kit.TrainSettings(**json.loads(sys.argv[1])))
except DiskError as error:
    sys.exit(str(error))
"""


def values(prepared: PreparedData, folder: Path, **changes: Any) -> str:
    settings = {
        "data_dir": str(prepared.folder),
        "model_output_dir": str(folder),
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 32,
        "context": 32,
        "batch_size": 6,
        "max_steps": 8,
        "eval_every": 4,
        "sample_tokens": 0,
        "tensorboard": False,
        "device": "cpu",
    }
    return json.dumps(settings | changes)


def losses(folder: Path) -> list[float]:
    lines = (folder / "training" / "metrics.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [record.get("loss", record.get("validation_loss")) for record in map(json.loads, lines)]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=180)


def test_two_processes_find_the_losses_of_one(prepared: PreparedData, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT, encoding="utf-8")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    two = run(*torchrun, values(prepared, tmp_path / "two"))
    assert two.returncode == 0, two.stderr
    assert two.stderr.count("the best so far") == losses_reported(tmp_path / "two")
    one = run(str(script), values(prepared, tmp_path / "one"))
    assert one.returncode == 0, one.stderr
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=2e-6)


def losses_reported(folder: Path) -> int:
    """How often a validation was the best so far: each is said by one process only."""
    lines = (folder / "training" / "metrics.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    found = [record["validation_loss"] for record in map(json.loads, lines) if record["kind"] == "validation"]
    return sum(loss < min(found[:index], default=float("inf")) for index, loss in enumerate(found))


def test_out_of_memory_halves_the_micro_batch_and_goes_on(prepared: PreparedData, tmp_path: Path) -> None:
    settings = {"context": 256, "batch_size": 64, "n_embd": 64, "max_steps": 2, "eval_every": 2}
    limited = run("-c", _LIMITED, values(prepared, tmp_path / "limited", micro_batch_size=64, **settings), "150")
    assert limited.returncode == 0, limited.stderr
    assert "out of memory: computing 32 rows at a time" in limited.stderr
    free = run("-c", _SCRIPT, values(prepared, tmp_path / "free", **settings))
    assert free.returncode == 0, free.stderr
    np.testing.assert_allclose(losses(tmp_path / "limited"), losses(tmp_path / "free"), rtol=2e-6)


def test_two_runs_in_one_folder_are_kept_apart(prepared: PreparedData, tmp_path: Path) -> None:
    from gpt2kit.errors import UsageError
    from gpt2kit.training.run_folder import RunFolder

    first = RunFolder(tmp_path / "model").lock()
    with pytest.raises(UsageError, match="another process is training there"):
        RunFolder(tmp_path / "model").lock()
    first.release()


def test_a_full_disk_is_said_and_costs_nothing(prepared: PreparedData, tmp_path: Path) -> None:
    settings = values(prepared, tmp_path / "full", save_every=2, max_steps=8)
    # The weights (about 150 kB) still fit, the optimizer's moments (twice that) do not.
    full = run("-c", _FULL_DISK, settings, "250000")
    assert full.returncode == 1
    assert "no space to write" in full.stderr
    assert "run the same command again" in full.stderr
    assert (tmp_path / "full" / "model.safetensors").is_file()
    assert not list(tmp_path.rglob("*.partial"))
    assert run("-c", _SCRIPT, settings).returncode == 0
    assert run("-c", _SCRIPT, values(prepared, tmp_path / "free", save_every=2, max_steps=8)).returncode == 0
    assert losses(tmp_path / "full") == losses(tmp_path / "free")
