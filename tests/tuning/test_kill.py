"""`kill -9` at any moment, then the same command: nothing finished is lost, and what was cut off is tried again."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from gpt2kit import TuneSettings, tune

Make = Callable[..., TuneSettings]
_PATIENCE_SECONDS = 120
_SCRIPT = """
import json, sys
import gpt2kit
gpt2kit.tune(gpt2kit.TuneSettings(**json.loads(sys.argv[1])))
"""


def start(settings: TuneSettings) -> "subprocess.Popen[bytes]":
    arguments = [sys.executable, "-c", _SCRIPT, settings.model_dump_json()]
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def states(folder: Path) -> list[str]:
    """The states of the trials, by their numbers."""
    if not (folder / "study.db").exists():
        return []
    connection = sqlite3.connect(folder / "study.db", timeout=30)
    try:
        return [row[0] for row in connection.execute("select state from trials order by number")]
    except sqlite3.OperationalError:  # no tables yet
        return []
    finally:
        connection.close()


def results(folder: Path) -> dict[int, float]:
    connection = sqlite3.connect(folder / "study.db", timeout=30)
    try:
        query = "select number, value from trials join trial_values using (trial_id) where state = 'COMPLETE'"
        return dict(connection.execute(query).fetchall())
    finally:
        connection.close()


def wait_for(condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not condition():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def slow(settings: Make) -> Make:
    """Trials of a second or so, so that there is something to kill."""

    def make(**values: Any) -> TuneSettings:
        fixed = (settings().fixed or {}) | {"max_steps": 60, "eval_every": 30}
        return settings(**({"fixed": fixed, "pruner": "none", "trials": 3} | values))

    return make


def test_a_killed_search_goes_on_and_loses_nothing(slow: Make, tmp_path: Path) -> None:
    folder = tmp_path / "tuning"
    process = start(slow())
    wait_for((folder / "trials/search-0001").exists, process)  # its values are noted by then
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert states(folder) == ["COMPLETE", "RUNNING"]
    before = results(folder)

    found = tune(slow())
    assert states(folder) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert results(folder)[0] == before[0]
    assert found.values["counts"]["retried"] == 1
    assert found.values["trials"][2]["retry_of"] == 1
    assert found.values["trials"][2]["values"] == found.values["trials"][1]["values"]
    assert list((folder / "trials").iterdir()) == []

    undisturbed = tune(slow(output_dir=tmp_path / "undisturbed"))
    losses = sorted(results(tmp_path / "undisturbed").values())
    assert sorted(results(folder).values()) == pytest.approx(losses, abs=1e-5)  # threads change the last digits
    assert found.best == undisturbed.best


def test_workers_share_a_study_and_end_with_the_one_that_started_them(slow: Make, tmp_path: Path) -> None:
    folder = tmp_path / "tuning"
    process = start(slow(workers=2, trials=5))
    # On a busy machine one may have finished a trial before the other begins.
    wait_for(lambda: len(list(folder.glob("trials/*"))) == 2 and states(folder).count("RUNNING") == 2, process)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    assert {worker.environ()["OMP_NUM_THREADS"] for worker in workers} == {"1"}  # the two of the first, shared
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert not alive
    cut_off = states(folder).count("RUNNING")
    assert cut_off >= 1  # one may have finished its trial meanwhile

    found = tune(slow(workers=2, trials=5))
    assert found.values["counts"]["complete"] == 5
    assert found.values["counts"]["retried"] == cut_off
    assert sum(trial["role"] == "defaults" and trial["value"] is not None for trial in found.values["trials"]) == 1


def test_a_worker_that_fails_is_heard(slow: Make) -> None:
    """A base folder that goes away between the plan and the trial stands for all that a worker may stumble on."""
    from gpt2kit.errors import UsageError
    from gpt2kit.tuning.study import SEARCH, TrialStore, TuningFolder
    from gpt2kit.tuning.training import TrainingObjective
    from gpt2kit.tuning.worker import Workers

    settings = slow(workers=2)
    folder = TuningFolder(settings.folder)
    folder.root.mkdir()
    store = TrialStore(folder, SEARCH, pruner="none", seed=0)
    space = TrainingObjective(settings).examine().space
    wrong = settings.model_copy(update={"data_dir": folder.root / "gone"})
    with pytest.raises(UsageError, match="gone"):
        Workers(wrong, store, space=space, limit=2, deadline=None).wait()
    assert store.trials() == []
