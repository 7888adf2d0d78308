"""The machine and the run: device, precision, memory, seeds, and where a result came from.

torch is imported inside the functions that need it, so that importing this module is cheap.
"""

import ctypes
import hashlib
import importlib
import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import psutil

from gpt2kit.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16", "fp16"]
VERSION = metadata.version("gpt2kit")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_REPORTED_PACKAGES = ("gpt2kit", "torch", "tokenizers", "safetensors", "numpy")


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of `parts`, e.g. `derive_seed(seed, "dropout", step)`.

    Every random choice in gpt2kit draws from a seed derived like this from the user's seed and the place of use, so
    any position of a run can be made again without replaying what came before it.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def uniform(*parts: int | str) -> float:
    """A number in [0, 1) with 53 random bits that is a pure function of `parts`."""
    return (derive_seed(*parts) >> 10) / (1 << 53)


def select_device(name: str) -> "torch.device":
    """The torch device for "auto" (a GPU if there is one) or an explicit name such as "cpu" or "cuda:1".

    Raises:
        UsageError: the device does not exist on this machine.
    """
    import torch

    if name == "auto" and not torch.cuda.is_available():
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        if name in ("auto", "cuda"):  # under torchrun, a GPU for each process
            device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        else:
            device = torch.device(name)
        torch.empty(0, device=device)
        if device.type == "cuda":  # kernels and graphs go to the one in use
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name}: this machine has no such device; use --device cpu or auto") from error
    return device


def select_dtype(precision: Precision, device: "torch.device") -> "torch.dtype":
    """The dtype matrices are multiplied in: for "auto", bf16 on a GPU that has it, fp16 on an older one, else fp32."""
    import torch

    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def available_memory_bytes(device: "torch.device") -> int:
    """Bytes a new allocation may use: free memory of the GPU, or available memory of the machine (or its container)."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    return available_main_memory_bytes()


def available_main_memory_bytes() -> int:
    """Bytes of main memory that a new allocation may use: what the machine has available, or its container."""
    available = int(psutil.virtual_memory().available)
    limit = _cgroup_memory_left()
    return available if limit is None else min(available, limit)


def _cgroup_memory_left() -> int | None:
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:  # noqa: PTH123 (hot and tiny)
            limit = file.read().strip()
        with open("/sys/fs/cgroup/memory.current", encoding="ascii") as file:  # noqa: PTH123
            used = int(file.read())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(int(limit) - used, 0)


def num_threads() -> int:
    """Threads to compute with: OMP_NUM_THREADS, or the cores that this process may use."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Tell glibc to keep large blocks that are freed, for the next of their size.

    It would give them back to the system at once, and a training step would spend a fifth of its time on fresh, zeroed
    pages. Elsewhere than on glibc nothing happens.
    """
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def release_freed_memory() -> None:
    """Give what `keep_freed_memory` kept back to the system."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def peak_memory_bytes(device: "torch.device") -> int:
    """The most memory this process has held so far: on the GPU, or resident in main memory."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def provenance(command: Sequence[str] | None = None) -> dict[str, Any]:
    """What made a result: command, versions, machine and time, to be saved beside it."""
    return {
        "command": list(sys.argv if command is None else command),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _REPORTED_PACKAGES},
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "memory_bytes": int(psutil.virtual_memory().total),
        },
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def require_extra(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: the module to import, e.g. "matplotlib.pyplot".
        extra: the extra that brings it, e.g. "plots".
        purpose: what it is needed for, e.g. "drawing pictures".

    Raises:
        MissingExtraError: it is not installed; the message says how to get it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs {module.partition('.')[0]}: pip install 'gpt2kit[{extra}]'"
        ) from error
