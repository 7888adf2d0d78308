"""Run a contestant in a process of its own and learn its time and memory.

Nothing here may make the calling process large: Linux gives a new program the peak memory of the process that started
it to begin with, so a starter that had imported torch would hide every peer that needs less.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.core.places import ROOT

STARTED = "BENCHMARK_STARTED"  # monotonic seconds at which the process was asked for
RESULT = "BENCHMARK_RESULT"  # file for what a contestant reports
ARGUMENTS = "BENCHMARK_ARGUMENTS"  # what it is told, as JSON
_KIB = 1024


@dataclass(frozen=True)
class Outcome:
    """How a process went.

    Attributes:
        seconds: from asking for the process to its end.
        peak_memory_bytes: most resident memory of the process, or of the largest of those it started.
        values: what it reported.
        reason: why there is no result, in a line; None when there is one.
    """

    seconds: float
    peak_memory_bytes: int
    values: dict[str, Any]
    reason: str | None = None


def run_contestant(
    module: str, arguments: Mapping[str, Any], *, log: Path, threads: int, timeout_seconds: float
) -> Outcome:
    """Run a module of `benchmarks.contestants` and read its report.

    Args:
        module: its name, e.g. "train_nanogpt".
        arguments: what it is told.
        log: file for all it prints.
        threads: threads it may compute with.
        timeout_seconds: after this it is ended and counts as unable to run.
    """
    command = [sys.executable, "-m", f"benchmarks.contestants.{module}"]
    return run_process(command, arguments=arguments, log=log, threads=threads, timeout_seconds=timeout_seconds)


def run_process(
    command: Sequence[str | Path],
    *,
    arguments: Mapping[str, Any] | None = None,
    log: Path,
    threads: int,
    timeout_seconds: float,
) -> Outcome:
    """Run any command; one that writes no report has `values` empty and fails only by its exit status."""
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that the contestant is ended too, see below
    log.parent.mkdir(parents=True, exist_ok=True)
    result = log.with_suffix(".json")
    result.unlink(missing_ok=True)
    environment = os.environ | _quiet(threads) | {RESULT: str(result), ARGUMENTS: json.dumps(arguments or {})}
    with log.open("wb") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=ROOT,
            env=environment | {STARTED: repr(started)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        with contextlib.suppress(OSError):  # where memory runs out, the contestant is what ends
            Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000", encoding="ascii")
        watchdog = threading.Timer(timeout_seconds, os.killpg, (process.pid, signal.SIGKILL))
        watchdog.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)  # its own usage, where Popen.wait would give none
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            watchdog.cancel()
        seconds = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * _KIB
    values = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
    reason = values.pop("reason", None)
    if reason is None and process.returncode != 0:
        late = seconds >= timeout_seconds
        reason = f"not done within {timeout_seconds:.0f} s" if late else _last_line(log, process.returncode)
    if reason is not None:
        reason = reason.replace(str(ROOT), ".")  # results are published
    return Outcome(seconds, int(values.pop("peak_memory_bytes", peak)), values, reason)


def _quiet(threads: int) -> dict[str, str]:
    """The environment that all contestants share: so many threads, no hub, no progress bars."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "RAYON_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONWARNINGS": "ignore",
        "NO_COLOR": "1",
    }


def _last_line(log: Path, returncode: int) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    words = f": {lines[-1][:200]}" if lines else ""
    return f"ended by signal {-returncode}{words}" if returncode < 0 else f"exit status {returncode}{words}"
