"""Ctrl-C and SIGTERM while training: finish the step, save, and say how to go on."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

from gpt2kit.console import say


class Interrupts:
    """Remembers a first Ctrl-C or SIGTERM in `requested`; a second one stops at once.

    Args:
        announce: say what happens; only one process of several should.
    """

    def __init__(self, *, announce: bool) -> None:
        self.requested = False
        self.announce = announce
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere signals cannot be caught
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self.announce:
            say("stopping after this step, and saving (once more to stop at once)")
