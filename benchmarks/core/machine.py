"""What the figures were measured on and with."""

import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.core.places import ROOT

_TELLING_FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)


def machine() -> dict[str, Any]:
    """The processor, its cores and instructions, and the memory."""
    facts = _processor()
    return {
        "processor": facts.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cache": facts.get("cache size"),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "instructions": sorted(set(_TELLING_FLAGS) & set((facts.get("flags") or facts.get("Features") or "").split())),
        "gpu": gpu(),
    }


def _processor() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def gpu() -> str | None:
    """The name of the GPU and its memory; None where there is none."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip().partition("\n")[0] or None if done.returncode == 0 else None


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """The installed versions of Python and of packages; None for one that is not there."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in sorted(set(packages)):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def origin(settings: dict[str, Any], packages: Iterable[str]) -> dict[str, Any]:
    """When, from which commit, with what, on what."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "command": ["python", "-m", _program(), *sys.argv[1:]],
        "settings": settings,
        "machine": machine(),
        "versions": versions(packages),
    }


def _program() -> str:
    return f"benchmarks.{Path(sys.argv[0]).stem}"


def commit() -> str | None:
    """The commit measured; with "+changes" where the working tree has changes that matter.

    Where the files came without their history, the environment variable BENCHMARK_COMMIT names it.
    """
    if named := os.environ.get("BENCHMARK_COMMIT"):
        return named
    try:
        name = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "src", "benchmarks", ":!benchmarks/results"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{name}+changes" if changed else name
