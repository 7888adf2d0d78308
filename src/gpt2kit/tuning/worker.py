"""One trial after the other: in this process, or in several that share the study."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Literal

from gpt2kit.console import say
from gpt2kit.errors import Gpt2kitError, TrainingError, UsageError
from gpt2kit.files import explained_disk_errors
from gpt2kit.runtime import num_threads
from gpt2kit.tuning.objective import Interrupted, Objective
from gpt2kit.tuning.settings import TuneSettings
from gpt2kit.tuning.space import Space
from gpt2kit.tuning.study import SEARCH, TrialStore, TuningFolder, values_of

if TYPE_CHECKING:
    from optuna.trial import Trial

Ending = Literal["done", "interrupted"]

_EXIT_INTERRUPTED = 130
_POLL_SECONDS = 0.2
_LEAVE_SECONDS = 20


class _GivenUp(Exception):  # noqa: N818 (no error)
    """A trial is stopped; the reason is "pruned" or "time"."""


def make_objective(settings: TuneSettings) -> Objective:
    """The objective that was asked for."""
    if settings.what == "training":
        from gpt2kit.tuning.training import TrainingObjective

        return TrainingObjective(settings)
    from gpt2kit.tuning.sampling import SamplingObjective

    return SamplingObjective(settings)


def work(
    objective: Objective,
    store: TrialStore,
    settings: TuneSettings,
    *,
    space: Space,
    limit: int | None,
    deadline: float | None,
) -> Ending:
    """Make trials until there are enough, none waits, or time is up.

    Args:
        objective: what a trial is.
        store: where trials are kept.
        settings: of the search.
        space: what fresh values are drawn from; of an empty one, only trials that wait are made.
        limit: trials in all, or None.
        deadline: seconds since the epoch at which trials are stopped, or None.

    Raises:
        UsageError: the settings of a trial do not fit the data or the model.
        DiskError: the disk is full.
    """
    while deadline is None or time.time() < deadline:
        trial = store.ask(space, limit=limit)
        if trial is None:
            break
        try:
            _make_trial(objective, store, trial, settings, deadline=deadline)
        except Interrupted:
            trial.set_user_attr("stopped", True)
            return "interrupted"
    return "done"


def _make_trial(
    objective: Objective, store: TrialStore, trial: "Trial", settings: TuneSettings, *, deadline: float | None
) -> None:
    folder, log = store.folder.trial(store.name, trial.number), store.folder.log(store.name, trial.number)
    values, seed = values_of(trial), int(trial.user_attrs.get("seed", settings.seed))
    may_be_pruned = trial.user_attrs.get("role") is None  # the defaults and the repeats are run to their end

    def report(place: int, value: float) -> None:
        trial.report(value, place)
        if deadline is not None and time.time() >= deadline:
            raise _GivenUp("time")
        if may_be_pruned and trial.should_prune():
            raise _GivenUp("pruned")

    started = time.monotonic()
    with explained_disk_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with log.open("w", encoding="utf-8") as file, contextlib.redirect_stderr(file):
            value = objective.measure(values, seed=seed, folder=folder, report=report)
    except _GivenUp as reason:
        _finish(store, trial, None, settings, seconds=time.monotonic() - started, ended=str(reason))
    except (TrainingError, UsageError) as error:
        if isinstance(error, UsageError) and not may_be_pruned:
            raise  # not these values: the data, the model, or what was fixed
        _finish(store, trial, None, settings, seconds=time.monotonic() - started, ended=f"failed: {error}")
    else:
        _finish(store, trial, value, settings, seconds=time.monotonic() - started, ended="complete")
    if not settings.keep:  # a kill before this line leaves it to `take_up`
        shutil.rmtree(folder, ignore_errors=True)


def _finish(
    store: TrialStore, trial: "Trial", value: float | None, settings: TuneSettings, *, seconds: float, ended: str
) -> None:
    from optuna.trial import TrialState

    trial.set_user_attr("seconds", round(seconds, 3))
    trial.set_user_attr("ended", ended)
    trial.set_user_attr("kept", settings.keep)
    if value is None:
        store.study.tell(trial, state=TrialState.PRUNED)
    else:
        store.study.tell(trial, value)
    said = {"pruned": "given up", "time": "stopped, time is up"}.get(ended, ended)
    best = store.best() if store.name == SEARCH else None
    what = f"trial {trial.number}" if store.name == SEARCH else _repeat_name(trial)
    say(
        f"{what}: {said if value is None else f'{value:.4f}'} after {seconds:.0f} s, "
        f"{shown(values_of(trial))}" + ("" if best is None else f"; best {best.value:.4f} of trial {best.number}")
    )


def _repeat_name(trial: "Trial") -> str:
    return f"{trial.user_attrs['role']} on seed {trial.user_attrs['seed']}"


def shown(values: dict[str, Any]) -> str:
    """Values for a reader, in a line."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )


class Workers:
    """Processes that work on one study, and end with this one, however it ends.

    Each reads its task from its standard input, and ends at once when that is closed, as it is when this process is
    killed; what they leave is taken up by the next start.

    Args:
        settings: of the search.
        store: the study.
        space: as `work`.
        limit: as `work`.
        deadline: as `work`.
    """

    def __init__(
        self, settings: TuneSettings, store: TrialStore, *, space: Space, limit: int | None, deadline: float | None
    ) -> None:
        searched = {name: dimension.to_dict() for name, dimension in space.items()}
        task = {
            "settings": settings.to_dict() | {"space": searched or None},
            "study": store.name,
            "limit": limit,
            "deadline": deadline,
        }
        threads = max(num_threads() // settings.workers, 1)
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "gpt2kit.tuning.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
                text=True,
            )
            for _ in range(settings.workers)
        ]
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()

    def wait(self) -> Ending:
        """Wait until all are done, or one fails; then none is left.

        Raises:
            UsageError: a worker says that a setting is wrong.
            TrainingError: a worker failed, or was killed.
        """
        try:
            while any(process.poll() is None for process in self._processes):
                for process in self._processes:
                    if process.returncode:
                        return self._explain(process)
                time.sleep(_POLL_SECONDS)
            for process in self._processes:
                if process.returncode:
                    return self._explain(process)
        except KeyboardInterrupt:
            return "interrupted"
        finally:
            self._end()
        return "done"

    @staticmethod
    def _explain(process: "subprocess.Popen[str]") -> Ending:
        assert process.stdout is not None
        said = process.stdout.read().strip()
        if process.returncode == _EXIT_INTERRUPTED:
            return "interrupted"
        if process.returncode < 0:
            raise TrainingError(
                f"a worker was killed by signal {-process.returncode}, perhaps for want of memory; the same command "
                "goes on, with fewer --workers if it happens again"
            )
        if said:
            raise UsageError(said) if process.returncode == UsageError.exit_code else TrainingError(said)
        raise TrainingError(f"a worker ended with exit code {process.returncode}; what it wrote stands above")

    def _end(self) -> None:
        for process in self._processes:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(timeout=_LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def _end_with_the_parent() -> None:
    """Wait for the end of standard input, and leave without a word."""
    while sys.stdin.readline():
        pass
    os._exit(_EXIT_INTERRUPTED)


def main() -> int:
    """One worker: `python -m gpt2kit.tuning.worker`, started by `Workers`."""
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    try:
        settings = TuneSettings(**task["settings"])
        objective = make_objective(settings)
        store = TrialStore(TuningFolder(settings.folder), task["study"], pruner=settings.pruner, seed=settings.seed)
        space = settings.parsed_space() or {}
        ending = work(objective, store, settings, space=space, limit=task["limit"], deadline=task["deadline"])
    except Gpt2kitError as error:
        sys.stdout.write(str(error))
        sys.stdout.flush()
        return error.exit_code
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    return _EXIT_INTERRUPTED if ending == "interrupted" else 0


if __name__ == "__main__":
    sys.exit(main())
