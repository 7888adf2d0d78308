"""A search from end to end: its first trial, its budget, its settings file, and going on with it."""

import json
import math
import time
import tomllib
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from optuna.trial import FrozenTrial, create_trial

from gpt2kit import PreparedData, PrepareSettings, TrainSettings, TuneSettings, prepare, train, tune
from gpt2kit.cli import main
from gpt2kit.errors import Gpt2kitError, NetworkError, TrainingError, UsageError
from gpt2kit.evaluation import models
from gpt2kit.generation import language_model
from gpt2kit.model import GPT2, GPT2Config, save_model
from gpt2kit.training.plan import make_validation_batches
from gpt2kit.tuning.noise import measure_gain
from gpt2kit.tuning.objective import Ground, Report
from gpt2kit.tuning.picture import _draw_course, draw
from gpt2kit.tuning.report import before_training, counts, statement, trial_record
from gpt2kit.tuning.space import Choice, Range, Space
from gpt2kit.tuning.study import SEARCH, TrialStore, TuningFolder, values_of
from gpt2kit.tuning.worker import work

Make = Callable[..., TuneSettings]


class Bowl:
    """An objective in no time: the distance of x from 3, told in four steps from above."""

    unit = "far"
    command = "train"

    def __init__(self, *, pause: float = 0.0) -> None:
        self.pause = pause
        self.made: list[float] = []

    def examine(self) -> Ground:
        return Ground({"x": 9.0}, {"x": Range(0.0, 10.0)}, {}, {}, {})

    def measure(self, values: Mapping[str, Any], *, seed: int, folder: Path, report: Report) -> float:
        self.made.append(values["x"])
        if values["x"] > 9.9:
            raise TrainingError("diverged")
        found = abs(values["x"] - 3)
        for place in range(4):
            time.sleep(self.pause)
            report(place, found + 4 - place)
        return found

    def settings_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return dict(values)


@pytest.fixture
def store(tmp_path: Path) -> TrialStore:
    root = tmp_path / "study"
    root.mkdir()
    return TrialStore(TuningFolder(root), SEARCH, pruner="median", seed=0)


def search(store: TrialStore, bowl: Bowl, settings: TuneSettings, **budget: Any) -> None:
    work(bowl, store, settings, space=bowl.examine().space, **({"limit": None, "deadline": None} | budget))


def test_a_search_finds_what_there_is_to_find_and_gives_up_the_rest(store: TrialStore, settings: Make) -> None:
    bowl = Bowl()
    store.enqueue({"x": 9.0}, bowl.examine().space, role="defaults")
    store.enqueue({"x": 9.95}, bowl.examine().space)
    search(store, bowl, settings(), limit=30)
    best = store.best()
    assert best is not None
    assert best.value is not None
    assert best.value < 0.5
    assert bowl.made[0] == 9.0
    assert len(store.finished()) == 30
    ended = [trial.user_attrs["ended"] for trial in store.finished()]
    assert ended[1] == "failed: diverged"
    assert "pruned" in ended
    assert len({tuple(values_of(trial).items()) for trial in store.finished()}) == 30


def test_time_is_kept_to_within_a_step(store: TrialStore, settings: Make) -> None:
    started = time.time()
    search(store, Bowl(pause=0.3), settings(), deadline=started + 0.7)
    assert time.time() - started < 0.7 + 0.3 + 1.0  # and what the machine is busy with
    assert [trial.user_attrs["ended"] for trial in store.finished()] == ["time"]
    search(store, Bowl(pause=0.3), settings(), deadline=time.time() - 1)
    assert len(store.finished()) == 1


def test_values_are_the_same_however_often_the_search_is_cut_off(tmp_path: Path, settings: Make) -> None:
    def made(name: str, limits: list[int]) -> list[dict[str, Any]]:
        (tmp_path / name).mkdir()
        for limit in limits:
            store = TrialStore(TuningFolder(tmp_path / name), SEARCH, pruner="none", seed=7)
            search(store, Bowl(), settings(pruner="none"), limit=limit)
        return [values_of(trial) for trial in store.finished()]

    assert made("at-once", [15]) == made("in-parts", [1, 4, 12, 15])


def test_trials_that_were_cut_off_are_tried_again_and_their_folders_go(store: TrialStore, settings: Make) -> None:
    space: Space = {"x": Range(0.0, 10.0), "kind": Choice(("a", "b"))}
    store.enqueue({"x": 50.0, "kind": "a"}, space, role="defaults")  # beyond the space, as defaults may be
    lost = [store.ask(space, limit=None) for _ in range(2)]
    assert [trial is not None and trial.number for trial in lost] == [0, 1]
    folder = store.folder.trial(SEARCH, 1)
    folder.mkdir(parents=True)
    assert store.take_up(space) == 2
    assert store.take_up(space) == 0
    assert not folder.exists()
    assert [trial.state.name for trial in store.trials()] == ["FAIL", "FAIL", "WAITING", "WAITING"]
    again = [store.ask(space, limit=None) for _ in range(2)]
    for first, second in zip(lost, again, strict=True):
        assert first is not None
        assert second is not None
        assert values_of(second) == values_of(first)
        assert second.user_attrs["retry_of"] == first.number
    assert again[0] is not None
    assert again[0].user_attrs["role"] == "defaults"
    assert again[0].params == {}


def test_the_first_trial_is_the_defaults_and_train_takes_the_best(
    settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = tune(settings(trials=4, repeats=2))
    folder = tmp_path / "tuning"
    report = json.loads((folder / "report.json").read_text())
    first = report["trials"][0]
    assert first["role"] == "defaults"
    assert first["values"] == {"learning_rate": 1e-3, "dropout": 0.0}
    plain = TrainSettings(**(settings().fixed or {}), data_dir=settings().data_dir, device="cpu", dry_run=True)
    assert train(plain).plan.learning_rate == first["values"]["learning_rate"]
    assert found.status == "finished"
    assert found.default_value == first["value"]
    assert found.best_value == min(trial["value"] for trial in report["trials"] if trial["value"] is not None)
    assert found.best_value < first["value"]  # six steps want a greater learning rate
    assert found.gain is not None
    assert found.gain.seeds == [1, 2]
    assert "fresh seeds" in found.statement
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    assert found.statement in (folder / "report.md").read_text()
    assert list((folder / "trials").iterdir()) == []
    assert "trial 0: " in capsys.readouterr().err

    # The very trial once more, by the command that the report names.
    assert list(tomllib.loads(found.best_settings.read_text())) == ["train"]
    assert "base" not in tomllib.loads(found.best_settings.read_text())["train"]  # from scratch
    done = main(["train", "--config", str(found.best_settings), "--model_output_dir", str(tmp_path / "model")])
    assert done == 0
    assert json.loads((tmp_path / "model/training/result.json").read_text())["validation_loss"] == found.best_value

    # Nothing is left to do; more trials go on; other settings do not mix.
    again = tune(settings(trials=4, repeats=2))
    assert again.status == "unchanged"
    assert again.best == found.best
    further = tune(settings(trials=5, repeats=0))
    assert further.status == "finished"
    assert [trial["value"] for trial in further.values["trials"][:4]] == [t["value"] for t in report["trials"]]
    assert sum(further.values["counts"].values()) == 5
    with pytest.raises(UsageError, match=r"holds a study with other settings \(--seed was 0 and is 4\): repeat"):
        tune(settings(seed=4))


def test_trials_of_all_batch_sizes_are_measured_on_the_same_text(settings: Make) -> None:
    """Whole batches of four and of six rows are the same rows; found when losses before the first step differed."""
    fixed = {name: value for name, value in (settings().fixed or {}).items() if name != "batch_size"}
    fixed |= {"eval_tokens": 150, "max_steps": 1, "eval_every": 1}
    found = tune(settings(trials=6, fixed=fixed, space={"batch_size": [2, 4, 6]}, pruner="none"))
    trials = found.values["trials"]
    assert sorted(trial["values"]["batch_size"] for trial in trials) == [2, 4, 6, 8]  # 8 by default, each once
    untrained = [trial["on_the_way"]["0"] for trial in trials]
    assert untrained == pytest.approx([untrained[0]] * 4, abs=1e-5)


def test_the_same_choices_are_not_tried_twice(store: TrialStore, settings: Make) -> None:
    """Of choices alone a search trained the best ones again and again, on the same seed to the same loss."""
    space: Space = {"x": Choice((1.0, 2.0, 3.0, 4.0)), "kind": Choice(("a", "b")), "n": Range(0, 1, whole=True)}
    bowl = Bowl()
    store.enqueue({"x": 2.0, "kind": "a", "n": 0}, space, role="defaults")
    work(bowl, store, settings(pruner="none"), space=space, limit=12, deadline=None)
    made = [tuple(values_of(trial).values()) for trial in store.finished()]
    assert len(made) == len(set(made)) == 12
    assert not store.is_exhausted(space)
    work(bowl, store, settings(pruner="none"), space=space, limit=50, deadline=None)
    assert len(store.finished()) == 16  # all there are, and then it ends
    assert store.is_exhausted(space)
    assert counts(store.trials())["retried"] == 0


def test_the_report_says_the_loss_before_training(settings: Make) -> None:
    found = tune(settings(trials=2))
    before = found.values["loss_before_training"]
    assert before == found.values["trials"][0]["on_the_way"]["0"]
    assert f"Before training the loss is {before:.4f}; every finished trial came below it." in found.statement


def trial(number: int, value: float, *, before: float, role: str | None = None) -> FrozenTrial:
    """A finished training, which began at a loss."""
    made = create_trial(value=value, intermediate_values={0: before, 1: value}, user_attrs={"values": {}, "role": role})
    made.number = number
    return made


def test_the_statement_tells_untrained_defaults_from_a_gain() -> None:
    defaults, best = trial(0, 3.4, before=3.4, role="defaults"), trial(1, 3.3, before=3.4)
    told = {"unit": "nats", "baseline": defaults, "compared": 1, "before": 3.4}
    words = statement(best=best, gain=measure_gain(0.1, []), **told)
    assert "the defaults 3.4000, the loss before training: they leave the model as it was. The search found" in words
    words = statement(best=defaults, gain=None, **told)
    assert words.startswith("No trial came below the loss before training (3.4000 nats)")
    assert "Keep them" not in words
    sampled = statement(best=defaults, gain=None, **(told | {"before": None}))  # texts of its first lot are no start
    assert sampled == "No trial was better than the defaults, which reached 3.4000 nats. Keep them."
    of_trials = before_training([trial_record(defaults), trial_record(best)])
    assert of_trials == (
        3.4,
        "Before training the loss is 3.4000; 1 of 2 finished trials never came below it, and end as the model they "
        "began with, unchanged: the defaults among them.",
    )
    assert before_training([trial_record(best)])[1].endswith("every finished trial came below it.")


def test_defaults_alone_are_no_comparison(settings: Make) -> None:
    """Time was up in the second trial, and the report said that none was better."""
    assert tune(settings(trials=1)).statement.startswith("Only the defaults were tried to their end")


def test_another_study_is_moved_aside_when_asked(settings: Make, tmp_path: Path) -> None:
    tune(settings(trials=1))
    assert tune(settings(trials=1, seed=1, overwrite=True)).values["settings"]["seed"] == 1
    assert json.loads((tmp_path / "tuning-1/report.json").read_text())["settings"]["seed"] == 0


def test_a_folder_with_other_things_is_left_alone(settings: Make, tmp_path: Path) -> None:
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning/novel.txt").write_text("Chapter one")
    with pytest.raises(UsageError, match=r"holds other things \(novel.txt\) and no study"):
        tune(settings())
    assert [path.name for path in (tmp_path / "tuning").iterdir()] == ["novel.txt"]


def test_models_are_kept_when_asked_and_stay(settings: Make, tmp_path: Path) -> None:
    tune(settings(trials=2, keep=True))
    kept = sorted(path.name for path in (tmp_path / "tuning/trials").iterdir())
    assert kept == ["search-0000", "search-0001"]
    tune(settings(trials=3))
    assert sorted(path.name for path in (tmp_path / "tuning/trials").iterdir()) == kept
    assert (tmp_path / "tuning/trials/search-0000/model.safetensors").exists()


def test_no_time_is_no_result_and_says_so(settings: Make) -> None:
    with pytest.raises(TrainingError, match=r"no trial was finished \(1 stopped because time was up"):
        tune(settings(trials=None, minutes=1e-5))
    assert tune(settings(trials=2)).status == "finished"  # the defaults are tried again


def test_data_without_validation_text(settings: Make, tmp_path: Path) -> None:
    (tmp_path / "raw.txt").write_text("The old king saw the fox. " * 50)
    prepare(
        PrepareSettings(
            input=tmp_path / "raw.txt",
            data_dir=tmp_path / "none",
            from_scratch=True,
            vocab_size=300,
            validation_fraction=0,
        )
    )
    with pytest.raises(UsageError, match=r"its validation split is empty, so there is nothing to tune by"):
        tune(settings(data_dir=tmp_path / "none"))


@pytest.fixture
def writer(prepared: PreparedData, tmp_path: Path) -> Path:
    """A model that writes, if nothing to read."""
    shape = GPT2Config(vocab_size=prepared.tokenizer.vocab_size, n_positions=64, n_embd=16, n_layer=1, n_head=2)
    model = GPT2(shape)
    model.initialise(torch.Generator().manual_seed(1))
    save_model(model, tmp_path / "model")
    prepared.tokenizer.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def sampling(prepared: PreparedData, writer: Path, tmp_path: Path) -> Make:
    """Makes settings of a small search for sampling settings; arguments override them."""

    def make(**values: Any) -> TuneSettings:
        given = {
            "what": "sampling",
            "model_dir": str(writer),
            "data_dir": prepared.folder,
            "output_dir": tmp_path / "tuning",
            "trials": 3,
            "repeats": 1,
            "num_samples": 8,
            "sample_tokens": 40,
            "fixed": {"top_k": 0},
            "device": "cpu",
        }
        return TuneSettings(**(given | values))

    return make


def test_sampling_is_searched_by_the_distance_to_human_text(sampling: Make, tmp_path: Path) -> None:
    found = tune(sampling())
    assert set(found.best) == {"temperature", "top_p", "min_p", "repetition_penalty"}
    assert found.values["trials"][0]["values"]["temperature"] == 0.8
    assert math.isfinite(found.best_value)
    words = ["--prompt", "The", "--max_new_tokens", "3", "--output_dir", str(tmp_path / "texts")]
    assert main(["generate", "--config", str(found.best_settings), *words]) == 0


def test_sampling_is_searched_by_mauve(
    sampling: Make, writer: Path, raw_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = {"from_scratch": True, "vocab_size": 400, "validation_fraction": 0.5}
    data = prepare(PrepareSettings(input=raw_folder, data_dir=tmp_path / "data", **shape))
    wanted = {"data_dir": data.folder, "num_samples": 24}
    found = tune(sampling(**wanted, measure="mauve", mauve_model=str(writer)))
    assert 0 <= found.best_value <= 1
    assert found.values["unit"] == f"1 - MAUVE, read by {writer}"
    assert "MAUVE of 24 texts is rough" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--measure was mauve and is diversity"):
        tune(sampling(**wanted))
    with pytest.raises(UsageError, match=r"--num_samples 8: --measure mauve needs at least 20"):
        tune(sampling(measure="mauve"))


def test_fewer_prompts_than_asked_for_are_told_and_very_few_refused(
    sampling: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sixteen silently became four."""
    tune(sampling(num_samples=5_000, trials=1, repeats=0))
    said = capsys.readouterr().err
    assert "prompts and not for --num_samples 5000; of so few, gains may be luck" in said
    with pytest.raises(UsageError, match=r"has room for \d prompts, and 8 are needed"):
        tune(sampling(sample_tokens=20_000))


@pytest.mark.parametrize("option", ["model_dir", "mauve_model"])
def test_a_model_that_is_not_there_is_named_by_its_option(
    sampling: Make, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """The advice was `--base nano`, which is for a training."""

    def unreachable(name: str) -> Path:
        raise NetworkError(f"{name} is no folder here: start from the small model in this package with --base nano")

    known = language_model.find_folder
    monkeypatch.setattr(models, "find_folder", lambda name: unreachable(name) if name == "nowhere" else known(name))
    with pytest.raises(Gpt2kitError, match=rf"^--{option}: nowhere") as caught:
        tune(sampling(**({option: "nowhere"} | ({"measure": "mauve"} if option == "mauve_model" else {}))))
    assert "--base" not in str(caught.value)


def test_the_settings_file_names_the_base(settings: Make, writer: Path) -> None:
    fixed = {"context": 32, "batch_size": 4, "max_steps": 2}
    found = tune(
        settings(trials=1, base=str(writer), fixed=fixed, space={"learning_rate": {"low": 1e-4, "high": 1e-3}})
    )
    assert tomllib.loads(found.best_settings.read_text())["train"]["base"] == str(writer)


def test_settings_for_the_other_search_are_said_to_do_nothing(
    settings: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    tune(settings(trials=1, num_samples=9))
    assert "warning: --num_samples has no effect with --what training" in capsys.readouterr().err


class Poisoned(Bowl):
    """Values below 1 are wrong in a way that only the trial finds out."""

    def measure(self, values: Mapping[str, Any], *, seed: int, folder: Path, report: Report) -> float:
        if values["x"] < 1:
            raise UsageError("--x is too small")
        return super().measure(values, seed=seed, folder=folder, report=report)


def test_values_that_do_not_go_fail_their_trial_and_not_the_search(store: TrialStore, settings: Make) -> None:
    bowl = Poisoned()
    store.enqueue({"x": 9.0}, bowl.examine().space, role="defaults")
    store.enqueue({"x": 0.5}, bowl.examine().space)
    search(store, bowl, settings(), limit=4)
    assert [trial.user_attrs["ended"] for trial in store.finished()][1] == "failed: --x is too small"
    assert len(store.finished()) == 4
    store.enqueue({"x": 0.5}, bowl.examine().space, role="defaults")
    with pytest.raises(UsageError, match="too small"):
        search(store, bowl, settings(), limit=5)


def test_a_trial_that_is_killed_again_and_again_is_given_up(store: TrialStore) -> None:
    space: Space = {"x": Range(0.0, 10.0)}
    store.enqueue({"x": 5.0}, space)
    for _ in range(2):
        store.ask(space, limit=None)
        store.take_up(space)
    stopped = store.ask(space, limit=None)
    assert stopped is not None
    stopped.set_user_attr("stopped", True)  # by Ctrl-C, which does not count
    store.take_up(space)
    assert len(store.trials("WAITING")) == 1
    store.ask(space, limit=None)
    store.take_up(space)
    assert store.trials("WAITING") == []


def test_fewer_repeats_leave_out_those_that_wait(store: TrialStore, settings: Make) -> None:
    for seed in (1, 2, 3):
        store.enqueue({"x": 5.0}, {}, role="best", seed=seed)
    store.forget_waiting([1, 2])
    bowl = Bowl()
    work(bowl, store, settings(), space={}, limit=None, deadline=None)
    assert [trial.user_attrs["seed"] for trial in store.finished()] == [1, 2]


def test_batches_of_any_size_begin_with_the_same_validation_rows(settings: Make, tmp_path: Path) -> None:
    """Of a split that is larger than what is measured; rows were once spread evenly over its batches."""
    (tmp_path / "raw").mkdir()
    for number in range(60):
        (tmp_path / "raw" / f"{number}.txt").write_text(f"The king of {number} saw the river and the old fox. " * 12)
    data = prepare(
        PrepareSettings(
            input=tmp_path / "raw",
            data_dir=tmp_path / "large",
            from_scratch=True,
            vocab_size=400,
            validation_fraction=0.5,
        )
    )
    made = [
        make_validation_batches(TrainSettings(data_dir=data.folder), data, context=32, batch_size=size)
        for size in (4, 8)
    ]
    first = np.concatenate([made[0].batch(step).input_ids_BT for step in range(6)])
    second = np.concatenate([made[1].batch(step).input_ids_BT for step in range(3)])
    np.testing.assert_array_equal(first, second)


def drawn_course(trials: list[dict[str, Any]]) -> list[str]:
    """The words of the legend of a search's course."""
    panel = Figure().subplots()
    _draw_course(panel, trials, "nats")
    return [text.get_text() for text in panel.get_legend().get_texts()]


def test_the_legend_names_only_what_is_in_the_picture() -> None:
    done = {"number": 0, "state": "complete", "value": 3.0, "role": "defaults", "on_the_way": {"0": 3.5}}
    lost = {"number": 1, "state": "pruned", "value": None, "role": None, "on_the_way": {"0": 3.5}}
    assert drawn_course([done]) == ["best so far", "defaults"]
    assert drawn_course([done, lost]) == ["given up (last value)", "best so far", "defaults"]


def test_trials_above_the_picture_are_counted() -> None:
    trials = [
        {"number": number, "state": "complete", "value": value, "role": None, "on_the_way": {}}
        for number, value in enumerate([3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6, 3.7, 3.8, 3.9, 99.0])
    ]
    lost = {"number": 11, "state": "pruned", "value": None, "role": None, "on_the_way": {"0": 50.0}}
    panel = Figure().subplots()
    _draw_course(panel, [*trials, lost], "nats")
    assert panel.get_title() == "the course of the search (lower is better; 2 above the picture)"
    _draw_course(panel, trials[:10], "nats")
    assert panel.get_title() == "the course of the search (lower is better)"


def test_the_names_of_many_settings_do_not_run_into_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("learning_rate", "gradient_checkpointing", "final_learning_rate_ratio", "lora_targets", "lora_dropout",
             "freeze_embeddings", "batch_size", "epochs")  # fmt: skip
    values = dict.fromkeys(words, "a choice of very many letters")
    trial = {"number": 0, "state": "complete", "value": 3.0, "role": "defaults", "on_the_way": {}, "values": values}
    places: list[tuple[float, float]] = []
    save = Figure.savefig

    def look(page: Any, path: Path, **given: Any) -> None:
        save(page, path, **given)
        for words in (page.axes[2].get_xticklabels(), page.axes[2].texts[::2]):
            boxes = sorted((each.get_window_extent().x0, each.get_window_extent().x1) for each in words)
            places.extend((left[1], right[0]) for left, right in pairwise(boxes))

    monkeypatch.setattr(Figure, "savefig", look)
    space = {name: Choice((values[name], "b")) for name in words}
    draw(tmp_path / "report.png", [trial], space, {}, unit="nats", why_no_importance="none")
    assert len(places) == 2 * (len(words) - 1)
    assert all(end <= start for end, start in places)
