"""The contestant's side of `process`: what it was told, and how it reports."""

import json
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.core.process import ARGUMENTS, RESULT, STARTED

Arguments = dict[str, Any]
_LONGEST_REASON = 200


def seconds_since_start() -> float:
    """Seconds since this process was asked for: interpreter, imports and all."""
    return time.monotonic() - float(os.environ[STARTED])


def report(values: dict[str, Any]) -> None:
    """Write the report; a later one replaces it."""
    Path(os.environ[RESULT]).write_text(json.dumps(values), encoding="utf-8")


def contestant(measure: Callable[[Arguments], dict[str, Any]]) -> None:
    """Measure and report; whatever goes wrong is the reason why this contestant cannot run."""
    arguments = json.loads(os.environ[ARGUMENTS])
    try:
        values = measure(arguments)
    except Exception as error:
        traceback.print_exc()
        report({"reason": one_line(error)})
        raise SystemExit(1) from None
    report(values)


def one_line(error: BaseException) -> str:
    """An error's kind and the first line it says."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said}"[:_LONGEST_REASON]
