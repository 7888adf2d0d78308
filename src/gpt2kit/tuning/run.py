"""`gpt2kit tune`: a search under a budget, the best settings on fresh seeds, and what it comes to."""

import contextlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gpt2kit.console import say, warn
from gpt2kit.errors import MissingExtraError, TrainingError, UsageError
from gpt2kit.files import explained_disk_errors, to_json, write_atomically
from gpt2kit.runtime import provenance, require_extra
from gpt2kit.training.run_folder import move_aside
from gpt2kit.tuning import report as reports
from gpt2kit.tuning.clock import Clock
from gpt2kit.tuning.noise import Gain, measure_gain
from gpt2kit.tuning.objective import Ground, Objective
from gpt2kit.tuning.picture import draw
from gpt2kit.tuning.settings import TuneSettings
from gpt2kit.tuning.space import Range, Space
from gpt2kit.tuning.study import SEARCH, TrialStore, TuningFolder, values_of
from gpt2kit.tuning.worker import Ending, Workers, make_objective, work

FORMAT = "gpt2kit tuning"
FORMAT_VERSION = 1
_SEARCH_SHARE = 0.7  # of the minutes; the rest is for the repeats
_EDGE = 0.03
_ROLES = ("defaults", "best")
Status = Literal["finished", "unchanged", "interrupted"]


@dataclass(frozen=True)
class Tuning:
    """What a search found.

    Attributes:
        status: "finished"; "unchanged" when there was nothing left to do; "interrupted" by Ctrl-C or SIGTERM, the same
            command goes on.
        best: the best values of the searched settings.
        best_value: their result in the search, the lower the better.
        default_value: that of the defaults, or None if they were not tried to their end.
        gain: how much of the gain remains on fresh seeds; None where nothing was gained.
        statement: all that in words.
        best_settings: the settings file, for `--config`.
        report: the Markdown report; JSON and picture lie beside it.
        values: everything that the report's JSON holds.
    """

    status: Status
    best: dict[str, Any]
    best_value: float
    default_value: float | None
    gain: Gain | None
    statement: str
    best_settings: Path
    report: Path
    values: dict[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The search as JSON values."""
        return {"status": self.status, "best_settings": str(self.best_settings)} | self.values

    def to_text(self) -> str:
        """The search in a few lines."""
        number = sum(self.values["counts"].values())
        head = "interrupted; the same command goes on\n" if self.status == "interrupted" else ""
        return (
            f"{head}{number} trials: {reports.counts_text(self.values['counts'])}.\n{self.statement}\n"
            f"Settings: {self.best_settings} ({self.values['command']})\nReport: {self.report}"
        )


def tune(settings: TuneSettings) -> Tuning:
    """Search for settings under a budget; the same settings go on with a search that was stopped or killed.

    More `trials` or `minutes`, other `workers`, `repeats` or `keep` go on with it too.

    Args:
        settings: see `TuneSettings`.

    Returns:
        What was found; settings file and report are in the search's folder.

    Raises:
        UsageError: the data or the model are not there, a setting does not fit them, or the folder holds another study.
        MissingExtraError: Optuna is not installed.
        TrainingError: no trial was finished, or a worker was killed.
        DiskError: the disk is full; finished trials are kept.

    Example:
        >>> found = tune(TuneSettings(data_dir="data/processed", minutes=60))
        >>> train(TrainSettings.resolve({}, config_file=found.best_settings))
    """
    require_extra("optuna", extra="tune", purpose="tuning")
    for name in settings.without_effect():
        warn(f"--{name} has no effect with --what {settings.what}")
    objective = make_objective(settings)
    ground = objective.examine()
    folder = TuningFolder(settings.folder)
    lock = _claim(folder, settings, ground)
    try:
        return _Search(settings, objective, ground, folder).run()
    finally:
        lock.release()


def _claim(folder: TuningFolder, settings: TuneSettings, ground: Ground) -> Any:
    """Make the folder this search's own, and return its lock."""
    wanted = json.loads(to_json(_identity(settings, ground)))
    lock = folder.lock()
    try:
        if folder.record.exists():
            recorded = folder.read_record().get("identity", {})
            differences = [
                _difference(name, recorded.get(name), wanted.get(name))
                for name in sorted(recorded.keys() | wanted.keys())
                if recorded.get(name) != wanted.get(name)
            ]
            if differences and not settings.overwrite:
                raise UsageError(
                    f"--output_dir {folder.root} holds a study with other settings ({'; '.join(differences)}): repeat "
                    "its settings to go on with it, choose another folder, or add --overwrite to move it aside"
                )
            if settings.overwrite:
                lock.release()
                say(f"{folder.root} held a study; it is now {move_aside(folder.root)}")
                lock = folder.lock()
        if not folder.record.exists():
            record = {"identity": wanted, "settings": settings.to_dict(), "provenance": provenance()}
            write_atomically(folder.record, to_json(record))
    except BaseException:
        lock.release()
        raise
    return lock


def _identity(settings: TuneSettings, ground: Ground) -> dict[str, Any]:
    """What makes a search that very search; budget, workers and repeats do not."""
    values = settings.to_dict()
    names = ["what", "seed", "pruner", "device", "fixed"]
    names += ["method"] if settings.what == "training" else ["num_samples", "sample_tokens"]
    return (
        {name: values[name] for name in names}
        | {"space": _shown_space(ground.space), "defaults": ground.defaults}
        | ground.identity
    )


def _shown_space(space: Space) -> dict[str, Any]:
    return {name: dimension.to_dict() for name, dimension in space.items()}


def _difference(name: str, recorded: Any, wanted: Any) -> str:
    if name == "data_dir":
        return "--data_dir holds other data now"
    if name in ("base", "model_dir", "mauve_model"):
        return f"--{name} is another model now"
    return f"{'the ' if name == 'defaults' else '--'}{name} was {recorded} and is {wanted}"


class _Search:
    """One search: from where it stands to its report."""

    def __init__(self, settings: TuneSettings, objective: Objective, ground: Ground, folder: TuningFolder) -> None:
        self.settings = settings
        self.objective = objective
        self.ground = ground
        self.folder = folder
        self.notes: list[str] = []

    def run(self) -> Tuning:
        """Search, try the best on fresh seeds, and report."""
        with contextlib.closing(self._store(SEARCH)) as store:
            return self._run(store)

    def _run(self, store: TrialStore) -> Tuning:
        before = len(store.finished())
        if taken_up := store.take_up(self.ground.space):
            say(f"{taken_up} trial{'s were' if taken_up > 1 else ' was'} cut off, and will be tried again")
        waiting = [trial for trial in store.trials("WAITING") if trial.user_attrs.get("role") == "defaults"]
        if store.baseline() is None and not waiting:
            store.enqueue(self.ground.defaults, self.ground.space, role="defaults")
        if before:
            say(f"going on with {before} finished trials in {self.folder.root}")
        ending = self._work(store, self.ground.space, part="search", limit=self.settings.trial_limit)
        best = store.best()
        if best is None:
            if ending == "interrupted":
                raise KeyboardInterrupt  # with nothing to report
            raise TrainingError(
                f"no trial was finished ({reports.counts_text(reports.counts(store.trials()))}; their words are in "
                f"{self.folder.root / 'logs'}); the same command with more --trials or --minutes goes on"
            )
        self._write_best(store)
        changed = len(store.finished()) > before
        gain = None
        baseline = store.baseline()
        if baseline is not None and best.number != baseline.number:
            assert baseline.value is not None
            assert best.value is not None
            pairs: list[tuple[int, float, float]] = []
            if self.settings.repeats and ending == "done":
                made, ending, pairs = self._repeat(values_of(best), best.number)
                changed = changed or made
            gain = measure_gain(baseline.value - best.value, pairs)
        status: Status = "interrupted" if ending == "interrupted" else "finished" if changed else "unchanged"
        return self._report(store, gain, status)

    def _store(self, name: str) -> TrialStore:
        return TrialStore(self.folder, name, pruner=self.settings.pruner, seed=self.settings.seed)

    def _work(self, store: TrialStore, space: Space, *, part: str, limit: int | None) -> Ending:
        with Clock(self.folder.clock, part) as clock:
            deadline = self._deadline(part, clock.parts())
            if deadline is not None and deadline <= time.time():
                return "done"
            if self.settings.workers == 1:
                return work(self.objective, store, self.settings, space=space, limit=limit, deadline=deadline)
            of_workers = self.settings.model_copy(
                update={"fixed": (self.settings.fixed or {}) | self.ground.fixed or None}
            )
            return Workers(of_workers, store, space=space, limit=limit, deadline=deadline).wait()

    def _deadline(self, part: str, spent: dict[str, float]) -> float | None:
        """When this part has to end, in seconds since the epoch."""
        if self.settings.minutes is None:
            return None
        budget, searched = 60 * self.settings.minutes, spent.get("search", 0.0)
        if part == "search":
            return time.time() + budget * (_SEARCH_SHARE if self.settings.repeats else 1.0) - searched
        return time.time() + budget - searched - spent.get("repeats", 0.0)

    def _repeat(self, best: dict[str, Any], number: int) -> tuple[bool, Ending, list[tuple[int, float, float]]]:
        """Try the best settings and the defaults on fresh seeds; returns whether any trial was made, and the pairs."""
        with contextlib.closing(self._store(f"repeats-of-{number}")) as store:
            return self._repeat_in(store, best)

    def _repeat_in(
        self, store: TrialStore, best: dict[str, Any]
    ) -> tuple[bool, Ending, list[tuple[int, float, float]]]:
        store.take_up({})
        before = len(store.finished())
        seeds = [self.settings.seed + turn for turn in range(1, self.settings.repeats + 1)]
        store.forget_waiting(seeds)
        there = {
            (trial.user_attrs["role"], trial.user_attrs["seed"])
            for trial in store.trials("COMPLETE", "PRUNED", "WAITING")
            if trial.user_attrs.get("ended") != "time"
        }
        for seed in seeds:
            for role, values in zip(_ROLES, (self.ground.defaults, best), strict=True):
                if (role, seed) not in there:
                    store.enqueue(values, {}, role=role, seed=seed)
        ending = self._work(store, {}, part="repeats", limit=None)
        results = {(trial.user_attrs["role"], trial.user_attrs["seed"]): trial.value for trial in store.complete()}
        pairs = []
        for seed in seeds:
            of_defaults, of_best = (results.get((role, seed)) for role in _ROLES)
            if of_defaults is not None and of_best is not None:
                pairs.append((seed, of_defaults, of_best))
        if len(pairs) < len(seeds) and ending == "done":
            self._note(
                f"{len(pairs)} of {len(seeds)} repeats were finished within --minutes or at all; the same command with "
                "more goes on"
            )
        return len(store.finished()) > before, ending, pairs

    def _note(self, text: str) -> None:
        self.notes.append(text)
        say(text)

    def _note_edges(self, best: dict[str, Any]) -> None:
        """A best value at the end of its range says that the range is too narrow."""
        for name, dimension in self.ground.space.items():
            if isinstance(dimension, Range) and not dimension.whole and dimension.holds(best[name]):
                height = dimension.height(best[name])
                end, bound = ("lower", dimension.low) if height < 0.5 else ("upper", dimension.high)
                # Beyond 0 and 1 there is nothing for shares such as dropout.
                if min(height, 1 - height) < _EDGE and bound not in (0, 1):
                    self._note(
                        f"the best {name}, {best[name]:.3g}, lies at the {end} end of its range; a wider --space may "
                        "hold a better one"
                    )

    def _write_best(self, store: TrialStore) -> None:
        best = store.best()
        assert best is not None
        comment = (
            f"The best settings of `gpt2kit tune` in {self.folder.root}: trial {best.number}, {best.value:.4f} "
            f"{self.objective.unit}.\ngpt2kit {self.objective.command} --config {self.folder.best}"
        )
        values = self.objective.settings_of(values_of(best))
        write_atomically(self.folder.best, reports.to_toml(self.objective.command, values, comment=comment))

    def _report(self, store: TrialStore, gain: Gain | None, status: Status) -> Tuning:
        best, baseline = store.best(), store.baseline()
        assert best is not None
        assert best.value is not None
        self._note_edges(values_of(best))
        if store.is_exhausted(self.ground.space):
            self._note("every combination of the searched values was tried")
        shares, why_none = reports.importance(store)
        made = [trial for trial in store.trials() if trial.state.is_finished() and not store.was_skipped(trial)]
        trials = [reports.trial_record(trial) for trial in made]
        before, of_training = reports.before_training(trials) if self.settings.what == "training" else (None, "")
        told = reports.counts(store.trials())
        words = reports.statement(
            unit=self.objective.unit,
            best=best,
            baseline=baseline,
            gain=gain,
            compared=told["complete"] + told["pruned"] + told["failed"] - (baseline is not None),
            before=before,
        )
        words = f"{words} {of_training}".rstrip()
        picture = self._draw(trials, shares, why_none)
        values: dict[str, Any] = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "what": self.settings.what,
            "statement": words,
            "unit": self.objective.unit,
            "command": f"gpt2kit {self.objective.command} --config {self.folder.best}",
            "best": reports.trial_record(best),
            "defaults": self.ground.defaults,
            "gain": None if gain is None else gain.to_dict(),
            "importance": shares,
            "why_no_importance": why_none,
            "counts": told,
            "loss_before_training": before,
            "seconds": round(sum(Clock(self.folder.clock, "report").parts().values()), 3),
            "space": _shown_space(self.ground.space),
            "about": self.ground.about,
            "notes": self.notes,
            "trials": trials,
            "settings": self.settings.to_dict(),
            "provenance": provenance(),
        }
        write_atomically(self.folder.report.with_suffix(".json"), to_json(values))
        write_atomically(self.folder.report, reports.markdown_text(values, picture=picture))
        return Tuning(
            status=status,
            best=values_of(best),
            best_value=best.value,
            default_value=None if baseline is None else baseline.value,
            gain=gain,
            statement=words,
            best_settings=self.folder.best,
            report=self.folder.report,
            values=values,
        )

    def _draw(self, trials: list[dict[str, Any]], shares: dict[str, float], why_none: str) -> Path | None:
        path = self.folder.report.with_suffix(".png")
        try:
            with explained_disk_errors(path):
                draw(path, trials, self.ground.space, shares, unit=self.objective.unit, why_no_importance=why_none)
        except MissingExtraError as error:
            self._note(f"no picture: {error}")
            return None
        return path
