"""Seconds that a search has spent, over all its starts."""

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from gpt2kit.files import read_json, to_json, write_atomically

_WRITE_SECONDS = 2.0  # what a kill may lose


class Clock:
    """Counts the seconds of one part of a search while it is entered, and keeps them in a file.

    Args:
        path: the file; of several parts.
        part: whose seconds are counted.
    """

    def __init__(self, path: Path, part: str) -> None:
        self.path = path
        self.part = part
        self._before = self.parts().get(part, 0.0)
        self._started = 0.0
        self._ended = threading.Event()
        self._writer = threading.Thread(target=self._keep_writing, daemon=True)

    def parts(self) -> dict[str, float]:
        """Seconds of all parts so far, as the file has them."""
        if not self.path.exists():
            return {}
        return {name: float(seconds) for name, seconds in read_json(self.path, what="seconds spent").items()}

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._writer.join()
        self._write()

    def _keep_writing(self) -> None:
        while not self._ended.wait(_WRITE_SECONDS):
            self._write()

    def _write(self) -> None:
        seconds = self._before + time.monotonic() - self._started
        write_atomically(self.path, to_json(self.parts() | {self.part: round(seconds, 3)}))
