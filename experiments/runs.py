"""Trainings of a study: each in a process of its own, its record kept, so that no finished one is made again."""

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments.texts import Text
from gpt2kit.files import read_json, sha256_json, to_json, write_atomically

Record = dict[str, Any]
# What all trainings of the studies share, unless a study says otherwise. Rows are short, for the sake of time.
COMMON: dict[str, Any] = {
    "base": "nano",
    "context": 128,
    "precision": "fp32",
    "device": "cpu",
    "patience": 0,
    "sample_tokens": 0,
    "tensorboard": False,
    "eval_tokens": 4096,
    "save_every": 1_000_000,
}
TEST_CONTEXT = 128
RUNS_OF_A_PROCESS = 4
BEFORE = "nano as it is"


@dataclass(frozen=True)
class Run:
    """A training, and what is measured after it.

    Attributes:
        name: of the setting it tries; runs that differ only by their seed share it.
        text: what it learns from.
        settings: of `gpt2kit train`, over `COMMON`.
        seed: of the training.
        memory: measure too how far it knows its training text by heart.
        last: measure the weights of the last step too, not only the best ones.
        keep: keep the model.
        timed: its seconds and memory are reported, so that it runs beside no other.
        test: measure it on the test text.
        untrained: measure the base model as it is.
    """

    name: str
    text: Text
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    memory: bool = False
    last: bool = False
    keep: bool = False
    timed: bool = False
    test: bool = True
    untrained: bool = False

    def to_dict(self) -> dict[str, Any]:
        """All that decides what comes out, as JSON values."""
        return asdict(self) | {"settings": COMMON | self.settings | {"seed": self.seed}}

    @property
    def key(self) -> str:
        """A name that is the same for the same work: studies share runs, whatever they call them."""
        values = {name: value for name, value in self.to_dict().items() if name != "name"}
        return sha256_json(values)[:16]


def as_it_is(text: Text) -> Run:
    """Nano itself on the test text of a study."""
    return Run(BEFORE, text, untrained=True)


@dataclass(frozen=True)
class Maker:
    """Makes runs.

    Attributes:
        folder: for texts, records and models.
        launcher: words in front of each run's command, e.g. ("nice", "-n", "10").
        timing_launcher: the same for runs whose time is reported.
        workers: runs at a time, but for these.
        deadline: on the monotonic clock, after which no run begins; None is never.
    """

    folder: Path
    launcher: Sequence[str] = ()
    timing_launcher: Sequence[str] = ()
    workers: int = 1
    deadline: float | None = None

    @property
    def texts(self) -> Path:
        """Where texts are prepared."""
        return self.folder / "texts"

    def model(self, run: Run) -> Path:
        """The model of a run that is kept."""
        return self.folder / "models" / run.key

    def make(self, runs: Sequence[Run]) -> list[Record]:
        """Make what is not there yet; returns a record for each run, in order.

        A record holds the run's `name` and `seed`, its settings, and what `one_run.work` found.

        Raises:
            SystemExit: a run failed, or time is up.
        """
        unique = list({run.key: run for run in runs}.values())
        missing = [run for run in unique if not self._is_there(run)]
        _say(f"{len(unique)} runs, {len(unique) - len(missing)} of them there")
        others = [run for run in missing if not run.timed]
        # Several to a process, which saves its start; never so many that one worker is left with all of them.
        size = max(min(RUNS_OF_A_PROCESS, len(others) // self.workers), 1)
        with ThreadPoolExecutor(self.workers) as pool:
            list(pool.map(self._make_some, [others[first : first + size] for first in range(0, len(others), size)]))
        for run in missing:
            if run.timed:
                self._make_some([run])
        return [read_json(self._record(run), what="a run") | {"name": run.name, "seed": run.seed} for run in runs]

    def _record(self, run: Run) -> Path:
        return self.folder / "runs" / f"{run.key}.json"

    def _is_there(self, run: Run) -> bool:
        return self._record(run).exists() and (not run.keep or (self.model(run) / "config.json").exists())

    def _make_some(self, some: Sequence[Run]) -> None:
        orders = {}
        for run in some:
            paths = {"texts": self.texts, "model": self.model(run), "record": self._record(run)}
            paths["measurements"] = self.folder / "measurements" / run.key
            orders[run.key] = run.to_dict() | {"paths": paths}
        what = "; ".join(f"{run.name}, seed {run.seed}" for run in some)
        self.launch("one_run", orders, what=what, alone=any(run.timed for run in some))

    def launch(self, module: str, orders: Mapping[str, Record], *, what: str, alone: bool = False) -> None:
        """Carry out orders by a module of the studies, in a process of its own.

        Args:
            module: below `experiments`.
            orders: what it is to do, as JSON values, by the name of the order's file.
            what: it is, for the progress.
            alone: its time is reported.

        Raises:
            SystemExit: it failed, with the end of what it said; or time is up.
        """
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise SystemExit("time is up; the same command goes on")
        files = [self.folder / "orders" / f"{key}.json" for key in orders]
        for file, order in zip(files, orders.values(), strict=True):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, to_json(order))
        launcher = self.timing_launcher or self.launcher if alone else self.launcher
        command = [*launcher, sys.executable, "-m", f"experiments.{module}", *map(str, files)]
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{what}: failed ({', '.join(map(str, files))}):\n{done.stderr[-2000:]}")
        _say(f"{what}: {time.monotonic() - started:.0f} s")


def words(text: str) -> tuple[str, ...]:
    """A launcher from the command line as words."""
    return tuple(shlex.split(text))


def short(record: Record, *, losses: bool = False) -> Record:
    """A record for the committed results, losses rounded; those of the steps only if asked for."""
    left_out = {"provenance", "paths"} | (set() if losses else {"train_losses"})
    kept = {name: value for name, value in record.items() if name not in left_out}
    for curve in ("validations", "train_losses"):
        if curve in kept:
            kept[curve] = [[step, round(loss, 4)] for step, loss in kept[curve]]
    return kept


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
