"""The folder of a search, and the trials in it: kept by Optuna in SQLite, which survives a kill at any moment.

results/tuning/training/
    study.json      what makes it this very search: settings, space, data, model
    study.db        the trials
    clock.json      seconds spent
    trials/         what the trials in course make; deleted after each, but with --keep
    logs/           what each trial said
    best.toml       the best settings, as `gpt2kit train --config` takes them
    report.md, report.json, report.png
"""

import itertools
import math
import random
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from gpt2kit.errors import UsageError
from gpt2kit.files import explained_disk_errors, read_json
from gpt2kit.runtime import derive_seed
from gpt2kit.tuning.space import Range, Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.trial import FrozenTrial, Trial

SEARCH = "search"
Pruner = Literal["median", "hyperband", "none"]

_STARTUP_TRIALS = 8  # drawn at random before the sampler has something to go by
_PRUNER_STARTUP_TRIALS = 4
_PRUNER_WARMUP = 2  # validations: that before the first step, and the next
_MOST_KILLS = 3  # of one trial, whose values may be what kills it: of a batch that memory does not hold, say
_LOCK_SECONDS = 60
_MOST_COMBINATIONS = 2_000  # of which a search remembers what was tried; of more it hardly draws one twice
_SKIPPED = "skipped"
_IGNORED = {".gitkeep", ".gitignore", "lock"}


class TuningFolder:
    """Paths below the folder of a search."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record = root / "study.json"
        self.database = root / "study.db"
        self.clock = root / "clock.json"
        self.best = root / "best.toml"
        self.report = root / "report.md"
        self.asking = root / "asking"

    def trial(self, study: str, number: int) -> Path:
        """What a trial makes."""
        return self.root / "trials" / f"{study}-{number:04}"

    def log(self, study: str, number: int) -> Path:
        """What a trial said."""
        return self.root / "logs" / f"{study}-{number:04}.log"

    def lock(self) -> FileLock:
        """Take the search for this process, until it ends.

        Raises:
            UsageError: another process is tuning there, or the folder holds other things.
        """
        if self.root.exists() and not self.root.is_dir():
            raise UsageError(f"--output_dir {self.root} is a file; choose a folder")
        found = [path.name for path in sorted(self.root.iterdir())] if self.root.is_dir() else []
        strange = [name for name in found if name not in _IGNORED and not name.endswith(".partial")]
        if strange and not self.record.exists():
            raise UsageError(
                f"--output_dir {self.root} holds other things ({strange[0]}) and no study; choose an empty or new "
                "folder"
            )
        with explained_disk_errors(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / "lock", blocking=False)
            try:
                lock.acquire()
            except Timeout:
                raise UsageError(
                    f"--output_dir {self.root}: another process is tuning there; wait for it, or choose another folder"
                ) from None
        return lock

    def read_record(self) -> dict[str, Any]:
        """What makes it this very search."""
        return read_json(self.record, what="the record of a tuning study")


class TrialStore:
    """The trials of one study; several processes may use it at a time.

    SQLite and not Optuna's journal file: a kill in the middle of a write leaves half a line in a journal, at which
    every later reader fails, and its lock for half a minute; SQLite rolls back, and its locks end with the process.

    Args:
        folder: of the search.
        name: of the study in it.
        pruner: which trials are given up.
        seed: of the search.
    """

    def __init__(self, folder: TuningFolder, name: str, *, pruner: Pruner, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.folder = folder
        self.name = name
        self.seed = seed
        self._lock = FileLock(folder.asking)
        with self._lock, explained_disk_errors(folder.database):
            self._storage = optuna.storages.RDBStorage(
                f"sqlite:///{folder.database.absolute()}",
                engine_kwargs={"connect_args": {"timeout": _LOCK_SECONDS}},
            )
            self.study: Study = optuna.create_study(
                study_name=name,
                storage=self._storage,
                pruner=_make_pruner(pruner),
                direction="minimize",
                load_if_exists=True,
            )

    def close(self) -> None:
        """Close the database."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    def trials(self, *states: str) -> list["FrozenTrial"]:
        """The trials in these states ("COMPLETE", "PRUNED", "RUNNING", "WAITING", "FAIL"), all without any."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if not states or trial.state.name in states]

    def ask(self, space: Space, *, limit: int | None) -> "Trial | None":
        """The next trial: one that waits, or one of fresh values; None with `limit` made, or nothing left to try.

        The fresh values of the n-th trial depend on the trials before it, the seed and n alone, so that one worker
        makes the same search however often it is killed. Where there are few combinations, as of choices alone, none is
        tried twice: in place of one that was, an untried one is drawn.

        Args:
            space: what fresh values are drawn from; of an empty one there are none.
            limit: trials, finished or in course; None is no limit.
        """
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        with self._lock:
            waiting = self.trials("WAITING")
            if limit is not None and len(self.trials("COMPLETE", "PRUNED", "RUNNING")) >= limit:
                return None
            if not waiting and not space:
                return None
            number = len(self.trials("COMPLETE", "PRUNED", "RUNNING"))
            seed = derive_seed(self.seed, "sampler", number) % 2**32
            self.study.sampler = TPESampler(seed=seed, n_startup_trials=_STARTUP_TRIALS)
            unsearched = bool(waiting) and not waiting[0].system_attrs["fixed_params"]
            shapes = {} if unsearched else {name: each.distribution() for name, each in space.items()}
            untried = None if waiting else self._untried(space)
            if untried == []:
                return None
            trial = self.study.ask(shapes)
            if untried is not None and dict(trial.params) not in untried:
                trial.set_user_attr(_SKIPPED, True)
                self.study.tell(trial, state=TrialState.FAIL)
                self.enqueue(random.Random(seed).choice(untried), space)
                trial = self.study.ask(shapes)
            if "values" not in trial.user_attrs:
                trial.set_user_attr("values", dict(trial.params))
            return trial

    def _untried(self, space: Space) -> list[dict[str, Any]] | None:
        """The combinations that no trial has or had; None when there are too many to list."""
        if not space or any(isinstance(each, Range) and not each.whole for each in space.values()):
            return None
        choices = [each.every_value() for each in space.values()]
        if math.prod(map(len, choices)) > _MOST_COMBINATIONS:
            return None
        tried = [
            values_of(trial)
            for trial in self.trials()  # of those that a kill cut off, too: they wait for another try, or are given up
            if "values" in trial.user_attrs and trial.user_attrs.get("ended") != "time"
        ]
        every = (dict(zip(space, values, strict=True)) for values in itertools.product(*choices))
        return [values for values in every if values not in tried]

    def is_exhausted(self, space: Space) -> bool:
        """Whether every combination of a space of few was tried."""
        return self._untried(space) == []

    @staticmethod
    def was_skipped(trial: "FrozenTrial") -> bool:
        """Whether its values had been tried before, so that it was never made."""
        return bool(trial.user_attrs.get(_SKIPPED))

    def enqueue(self, values: Mapping[str, Any], space: Space, **notes: Any) -> None:
        """Let a trial of these values wait; of values beyond the space the sampler hears nothing.

        Args:
            values: of the trial.
            space: what is searched.
            notes: kept with the trial.
        """
        inside = space.keys() == values.keys() and all(space[name].holds(value) for name, value in values.items())
        self.study.enqueue_trial(
            dict(values) if inside else {}, user_attrs={"values": dict(values), **notes}, skip_if_exists=False
        )

    def forget_waiting(self, seeds: Collection[int]) -> None:
        """Make none of the trials that wait on other seeds than these."""
        from optuna.trial import TrialState

        for trial in self.trials("WAITING"):
            if trial.user_attrs.get("seed") not in seeds:
                self._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)

    def take_up(self, space: Space) -> int:
        """After a kill: let the trials that were running wait once more, mark what is left of them as failed, clear up.

        A trial that was killed three times waits no more; one that was stopped by Ctrl-C does, as often as you like.
        Only for the process that has the lock of the folder, before it starts workers.

        Args:
            space: what is searched.

        Returns:
            How many there were.
        """
        from optuna.trial import TrialState

        lost = self.trials("RUNNING")
        taken_up = {trial.user_attrs.get("retry_of") for trial in self.trials()}
        for trial in self.finished():
            if not trial.user_attrs.get("kept"):
                shutil.rmtree(self.folder.trial(self.name, trial.number), ignore_errors=True)
        for trial in lost:
            notes = dict(trial.user_attrs)
            # A kill before its values were noted leaves nothing to try again: the same are drawn afresh.
            kills = notes.get("kills", 0) + (not notes.pop("stopped", False))
            if trial.number not in taken_up and "values" in notes and kills < _MOST_KILLS:
                self.enqueue(notes.pop("values"), space, **notes | {"retry_of": trial.number, "kills": kills})
            self.study.tell(trial.number, state=TrialState.FAIL)
            shutil.rmtree(self.folder.trial(self.name, trial.number), ignore_errors=True)
        return len(lost)

    def finished(self) -> list["FrozenTrial"]:
        """Trials that count: complete, or given up."""
        return self.trials("COMPLETE", "PRUNED")

    def complete(self) -> list["FrozenTrial"]:
        """Trials with a result."""
        return self.trials("COMPLETE")

    def best(self) -> "FrozenTrial | None":
        """The trial of the lowest result, the first of equals."""
        return min(self.complete(), key=lambda trial: (trial.value, trial.number), default=None)

    def baseline(self) -> "FrozenTrial | None":
        """The trial of the defaults, if it is complete."""
        return next((trial for trial in self.complete() if trial.user_attrs.get("role") == "defaults"), None)


def values_of(trial: "Trial | FrozenTrial") -> dict[str, Any]:
    """What a trial was made with."""
    return dict(trial.user_attrs["values"])


def _make_pruner(kind: Pruner) -> "BasePruner":
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    if kind == "none":
        return NopPruner()
    if kind == "hyperband":
        return HyperbandPruner(min_resource=_PRUNER_WARMUP, max_resource=10)  # of ten validations by default
    return MedianPruner(n_startup_trials=_PRUNER_STARTUP_TRIALS, n_warmup_steps=_PRUNER_WARMUP)
