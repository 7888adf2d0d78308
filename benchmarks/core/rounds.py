"""Contestants in turn: every round has each of them once, so that a machine whose speed drifts is fair to all."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.core.places import VENV
from benchmarks.core.process import Outcome


@dataclass(frozen=True)
class Contestant:
    """One who is measured.

    Attributes:
        name: what the tables call it.
        module: the module of `benchmarks.contestants` that runs it.
        arguments: what the module is told, beside what all are told.
        peer: whose requirements-<peer>.txt it needs; empty for gpt2kit itself.
        packages: whose versions are recorded.
        ours: whether it is gpt2kit.
        timeout_seconds: most time for one of its processes.
    """

    name: str
    module: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    peer: str = ""
    packages: tuple[str, ...] = ()
    ours: bool = False
    timeout_seconds: float = 900.0


@dataclass
class Record:
    """What a contestant did.

    Attributes:
        rounds: the values of each round, with `seconds` and `peak_memory_bytes` of its process.
        reason: why it cannot run.
    """

    rounds: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None

    def all(self, key: str) -> list[float]:
        """A figure in all rounds that have it."""
        return [value for value in self.by_round(key) if value is not None]

    def by_round(self, key: str) -> list[float | None]:
        """A figure in each round; None where there is none."""
        return [values.get(key) for values in self.rounds]


def in_turn(contestants: Sequence[Contestant], rounds: int) -> Iterator[tuple[int, Contestant]]:
    """Who runs when: all of them in each round, every second round backwards, so that neighbours differ."""
    for number in range(rounds):
        yield from ((number, one) for one in (contestants if number % 2 == 0 else reversed(contestants)))


def measure_in_turn(
    contestants: Sequence[Contestant],
    rounds: int,
    run: Callable[[Contestant, int], Outcome],
    *,
    progress: Callable[[dict[str, Record]], None] | None = None,
    most_seconds: float = math.inf,
) -> dict[str, Record]:
    """Run all contestants in turn.

    One that cannot run in a round is not asked again, and keeps the reason; its earlier rounds are dropped, since a
    contestant that works only at times has no figure.

    Args:
        contestants: who.
        rounds: how often each.
        run: runs one in a round, numbered from 0.
        progress: told the records after each.
        most_seconds: no round is begun after these.
    """
    started = time.monotonic()
    records = {one.name: Record(reason=install_failure(one.peer)) for one in contestants}
    begun = 0
    for number, one in in_turn(contestants, rounds):
        if number > begun and time.monotonic() - started > most_seconds:
            break
        begun = number
        record = records[one.name]
        if record.reason is not None:
            continue
        say(f"round {number + 1} of {rounds}: {one.name}")
        outcome = run(one, number)
        if outcome.reason is not None:
            say(f"  cannot run: {outcome.reason}")
            record.reason = outcome.reason
            record.rounds.clear()
        else:
            values = outcome.values | {"seconds": outcome.seconds, "peak_memory_bytes": outcome.peak_memory_bytes}
            record.rounds.append(values)
            say("  " + ", ".join(f"{key} {value:.4g}" for key, value in values.items() if _is_number(value)))
        if progress is not None:
            progress(records)
    return records


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def install_failure(peer: str, *, environment: Path = VENV) -> str | None:
    """Why a peer could not be installed; None when it could."""
    note = environment / "failures" / f"{peer}.txt"
    return f"does not install: {note.read_text(encoding='utf-8').strip()}" if peer and note.exists() else None


def say(message: str) -> None:
    """Tell how far the run is."""
    print(message, file=sys.stderr, flush=True)
