"""What the machine can do at most: multiply matrices, and read memory."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.core.child import Arguments, contestant
from benchmarks.core.machine import machine
from benchmarks.core.places import WORK

_CPU_SIZE, _GPU_SIZE = 4096, 8192
_REPEATS = 4
_READ_MEBIBYTES = 1024
_NATIVE_BF16 = {"avx512_bf16", "amx_bf16", "bf16"}


def measure(arguments: Arguments) -> dict[str, object]:
    """The rates, each the best of a few tries: a limit is what the machine does when nothing disturbs it."""
    torch.set_num_threads(arguments["threads"])
    if torch.cuda.is_available():
        return _of_gpu()
    values: dict[str, object] = {
        "fp32_flops_per_second": max(_matrix_rate(torch.float32, "cpu", _CPU_SIZE), _onednn_rate(_CPU_SIZE)),
        "read_bytes_per_second": _read_rate(),
    }
    if _NATIVE_BF16 & set(machine()["instructions"]):
        values["bf16_flops_per_second"] = _matrix_rate(torch.bfloat16, "cpu", _CPU_SIZE)
    return values


def _of_gpu() -> dict[str, object]:
    buffer = torch.empty(1 << 30, dtype=torch.float32, device="cuda").normal_()
    seconds = _best_seconds(buffer.sum, device="cuda")
    return {
        "fp32_flops_per_second": _matrix_rate(torch.float32, "cuda", _GPU_SIZE),
        "bf16_flops_per_second": _matrix_rate(torch.bfloat16, "cuda", _GPU_SIZE),
        "read_bytes_per_second": buffer.numel() * buffer.element_size() / seconds,
    }


def _matrix_rate(dtype: torch.dtype, device: str, size: int) -> float:
    left, right, out = (torch.randn(size, size, device=device).to(dtype) for _ in range(3))
    return 2 * size**3 / _best_seconds(lambda: torch.mm(left, right, out=out), device=device)


def _onednn_rate(size: int) -> float:
    """fp32 by oneDNN, which on some processors is twice as quick as the library behind torch.mm."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    multiply = torch.ops.mkldnn._linear_pointwise
    return 2 * size**3 / _best_seconds(lambda: multiply(left, right, None, "none", [], ""), device="cpu")


def _best_seconds(work: Callable[[], object], *, device: str) -> float:
    best = float("inf")
    for _ in range(_REPEATS + 1):
        started = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return best


def _read_rate() -> float:
    """By a small C program where there is a compiler; else by torch's sum, which reads nearly as fast."""
    source, program = Path(__file__).with_name("read_speed.c"), WORK / "read_speed"
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is not None and not program.exists():
        command = [compiler, "-O3", "-march=native", "-fopenmp", str(source), "-o", str(program)]
        subprocess.run(command, check=False)
    if program.exists():
        words = [str(program), str(_READ_MEBIBYTES), str(_REPEATS)]
        return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[0])
    buffer = torch.ones(_READ_MEBIBYTES << 18, dtype=torch.float32)
    return buffer.numel() * 4 / _best_seconds(buffer.sum, device="cpu")


if __name__ == "__main__":
    contestant(measure)
