"""What the benchmark programs have in common: options, the run itself, results on the disk."""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from benchmarks.core.machine import origin
from benchmarks.core.places import RESULTS, WORK
from benchmarks.core.process import Outcome, run_contestant
from benchmarks.core.rounds import Contestant, Record, measure_in_turn, say

# At the beginning, in the middle and at the end of a round: the best of the three is the round's limit.
LIMITS = tuple(
    Contestant(f"machine limits, {when}", "limits", packages=("torch", "numpy")) for when in ("first", "middle", "last")
)


@dataclass(frozen=True)
class Options:
    """How a benchmark is run.

    Attributes:
        rounds: how often each contestant is measured.
        quick: a trial: as little as shows that everything works; the committed results stay as they are.
        only: contestants whose names hold one of these words; all when empty.
        without: contestants that are called one of these take no part; the results say so.
        threads: threads each contestant may compute with.
        most_minutes: no round is begun after these.
    """

    rounds: int
    quick: bool
    only: tuple[str, ...]
    without: tuple[str, ...]
    threads: int
    most_minutes: float

    @property
    def is_trial(self) -> bool:
        """Whether the committed results stay as they are: not everything, or not everyone, is measured."""
        return self.quick or bool(self.only)

    def chooses(self, contestant: Contestant) -> bool:
        """Whether a contestant takes part."""
        if contestant.name in self.without:
            return False
        return not self.only or any(word.lower() in contestant.name.lower() for word in self.only)


Results = dict[str, Any]


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all programs have."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=None, help="rounds (5; 1 in quick mode)")
    made.add_argument("--quick", action="store_true", help="a trial; its results do not replace the committed ones")
    made.add_argument("--only", action="append", default=[], help="a trial of those whose names hold this (repeatable)")
    made.add_argument("--without", action="append", default=[], help="leave out the one of this name (repeatable)")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of a contestant (all cores)")
    made.add_argument("--most-minutes", type=float, default=math.inf, help="begin no round after these")
    made.add_argument("--list", action="store_true", help="show the contestants and stop")
    return made


def options(arguments: argparse.Namespace) -> Options:
    """The common options out of what was given."""
    rounds = arguments.rounds or (1 if arguments.quick else 5)
    return Options(
        rounds=rounds,
        quick=arguments.quick,
        only=tuple(arguments.only),
        without=tuple(arguments.without),
        threads=arguments.threads,
        most_minutes=arguments.most_minutes,
    )


def choose(contestants: Sequence[Contestant], arguments: argparse.Namespace) -> list[Contestant]:
    """Who takes part; with `--list` they are shown and the program ends.

    Raises:
        SystemExit: they were only to be shown, or nobody has such a name.
    """
    unknown = set(arguments.without) - {one.name for one in contestants}
    if unknown:
        sys.exit(f"--without {min(unknown)}: nobody is called so; --list shows the names")
    chosen = [one for one in contestants if options(arguments).chooses(one)]
    if arguments.list or not chosen:
        print("\n".join(one.name for one in contestants))
        sys.exit(0 if arguments.list else f"--only {' '.join(arguments.only)}: nobody is called so")
    return chosen


def run_benchmark(
    name: str,
    contestants: Sequence[Contestant],
    chosen: Options,
    *,
    common: dict[str, Any],
    settings: dict[str, Any],
    measure: Callable[[Contestant, int], Outcome] | None = None,
) -> Results:
    """Measure the contestants in turn, and the machine's limits between them.

    Args:
        name: of the benchmark; logs and results are called so.
        contestants: who takes part.
        chosen: how.
        common: what every contestant is told.
        settings: what is recorded with the results.
        measure: runs one contestant in a round; by default its module, told `common` and its own arguments.
    """
    logs = WORK / "logs" / name

    def run(one: Contestant, number: int) -> Outcome:
        if measure is not None and one not in LIMITS:
            return measure(one, number)
        return run_contestant(
            one.module,
            common | dict(one.arguments) | {"threads": chosen.threads, "round": number},
            log=logs / f"{slug(one.name)}-{number + 1}.log",
            threads=chosen.threads,
            timeout_seconds=one.timeout_seconds,
        )

    packages = {"gpt2kit", *LIMITS[0].packages, *(package for one in contestants for package in one.packages)}
    results = origin(settings | {key: value for key, value in asdict(chosen).items() if value != math.inf}, packages)

    def gather(records: dict[str, Record]) -> None:
        by_name = {one.name: one for one in contestants}
        results["settings"]["rounds"] = max(len(record.rounds) for record in records.values())
        results["limits"] = best_of([records[one.name].rounds for one in LIMITS])
        results["contestants"] = {name: asdict(records[name]) | {"ours": one.ours} for name, one in by_name.items()}
        write_results(WORK / "unfinished" / f"{name}.json", results)

    middle = len(contestants) // 2
    first, second, last = LIMITS
    turn = [first, *contestants[:middle], second, *contestants[middle:], last]
    gather(measure_in_turn(turn, chosen.rounds, run, progress=gather, most_seconds=60 * chosen.most_minutes))
    return results


def best_of(measured: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """Of several measurements of the same rates, each with its rounds, the best in every round."""
    rounds = [[values for values in one if values is not None] for one in zip_longest(*measured)]
    return [
        {key: max(values[key] for values in found) for key in found[0] if key.endswith("_per_second")}
        for found in rounds
    ]


def keep(name: str, results: Results, *, trial: bool) -> Path:
    """Write the results where they belong: a trial's beside the work, others among the committed ones."""
    path = (WORK / "quick" if trial else RESULTS) / f"{name}.json"
    write_results(path, results)
    say(f"written: {path}")
    return path


def write_results(path: Path, results: Results) -> None:
    """Write results as JSON that a person can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_results(name: str, *, folder: Path = RESULTS) -> Results | None:
    """The results of a benchmark, or None where it has not been run."""
    path = folder / f"{name}.json"
    values: Results | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return values


def records_of(results: Results) -> dict[str, Record]:
    """The contestants' records, in their order."""
    return {name: Record(values["rounds"], values["reason"]) for name, values in results["contestants"].items()}


def slug(name: str) -> str:
    """A name as a file's name."""
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())
