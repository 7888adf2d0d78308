"""Seeds as pure functions, the device, memory, and where a result came from."""

import json
import platform
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit import runtime
from gpt2kit.errors import MissingExtraError, UsageError


def test_seeds_are_the_same_in_every_process_and_version() -> None:
    # Written down when the function was: a change would change every shuffled order and every sample.
    assert runtime.derive_seed(0) == 3581690635855307741
    assert runtime.uniform(0, "split", "a document") == 0.774870829149134
    other = subprocess.run(
        [sys.executable, "-c", "from gpt2kit.runtime import derive_seed; print(derive_seed(7, 'dropout', 3))"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "123"},
    )
    assert int(other.stdout) == runtime.derive_seed(7, "dropout", 3)


def test_parts_do_not_run_together() -> None:
    seeds = [
        runtime.derive_seed(0),
        runtime.derive_seed("0"),
        runtime.derive_seed(0, 0),
        runtime.derive_seed(12, 3),
        runtime.derive_seed(1, 23),
        runtime.derive_seed("a", "bc"),
        runtime.derive_seed("ab", "c"),
    ]
    assert len(set(seeds)) == len(seeds)


@given(st.lists(st.integers() | st.text(), min_size=1))
def test_seeds_and_uniforms_stay_in_their_range(parts: list[int | str]) -> None:
    assert 0 <= runtime.derive_seed(*parts) < 1 << 63
    assert 0 <= runtime.uniform(*parts) < 1
    torch.Generator().manual_seed(runtime.derive_seed(*parts))


def test_uniforms_are_uniform() -> None:
    draws = sorted(runtime.uniform("test", number) for number in range(4000))
    distance = max(abs(draw - (rank + 0.5) / len(draws)) for rank, draw in enumerate(draws))
    assert distance < 1.63 / len(draws) ** 0.5  # Kolmogorov-Smirnov, 1%


def test_a_device_that_is_not_there_is_refused() -> None:
    assert runtime.select_device("cpu").type == "cpu"
    for name in ("cuda:99", "nonsense", "cpu:x"):
        with pytest.raises(UsageError, match=f"^--device {name}: this machine has no such device; use --device cpu"):
            runtime.select_device(name)


def test_the_precision_asked_for_is_taken_and_auto_is_exact_on_a_cpu() -> None:
    cpu = torch.device("cpu")
    assert runtime.select_dtype("auto", cpu) is torch.float32
    assert runtime.select_dtype("bf16", cpu) is torch.bfloat16
    assert runtime.select_dtype("fp16", cpu) is torch.float16


def test_memory_is_counted_in_bytes() -> None:
    cpu = torch.device("cpu")
    assert 1 << 20 < runtime.available_memory_bytes(cpu) < 1 << 50
    before = runtime.peak_memory_bytes(cpu)
    block = bytearray(200_000_000)
    block[::4096] = b"x" * len(block[::4096])
    assert runtime.peak_memory_bytes(cpu) >= max(before, 200_000_000)


def test_the_limit_of_a_container_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_cgroup_memory_left", lambda: 12345)
    assert runtime.available_memory_bytes(torch.device("cpu")) == 12345


def test_provenance_is_json_and_names_versions() -> None:
    made = json.loads(json.dumps(runtime.provenance(["gpt2kit", "train"])))
    assert made["command"] == ["gpt2kit", "train"]
    assert made["versions"]["torch"] == torch.__version__
    assert made["versions"]["gpt2kit"] == runtime.VERSION
    assert made["created"].endswith("+00:00")


def test_a_missing_extra_says_how_to_get_it() -> None:
    assert runtime.require_extra("json", extra="plots", purpose="drawing pictures") is json
    with pytest.raises(MissingExtraError) as caught:
        runtime.require_extra("no_such_module.pyplot", extra="plots", purpose="drawing pictures")
    assert str(caught.value) == "drawing pictures needs no_such_module: pip install 'gpt2kit[plots]'"


def test_freed_memory_is_kept_and_given_back() -> None:
    """In a process of its own: the setting is the process's."""
    script = """
import os, psutil
from gpt2kit.runtime import keep_freed_memory, release_freed_memory
resident = lambda: psutil.Process().memory_info().rss
keep_freed_memory()
before = resident()
block = bytearray(os.urandom(1)) * 200_000_000
del block
print(resident() - before)
release_freed_memory()
print(resident() - before)
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    kept, released = map(int, answer.stdout.split())
    assert released < 50_000_000
    if platform.libc_ver()[0] == "glibc":
        assert kept > 150_000_000
