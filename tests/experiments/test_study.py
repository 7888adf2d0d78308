"""The studies: texts that do not leak, runs that are made once, tables and pages from the results alone."""

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments import hyperparameters, methods, overfitting, runs, sampling, texts, writing
from experiments.runs import Maker, Run, words
from experiments.study import DOCS, Mean, Study, filled_in, mean, paired, shown_bits
from experiments.texts import TALES, Text
from gpt2kit.errors import DataError, UsageError

NAMES = ("hyperparameters", "data_size", "overfitting", "methods", "sampling", "model_size", "tuning")
MADE = tuple(sorted(path.stem for path in (DOCS / "results").glob("*.json")))


def study(name: str) -> Study:
    found = importlib.import_module(f"experiments.{name}").STUDY
    assert isinstance(found, Study)
    return found


@pytest.mark.parametrize("name", MADE)
def test_the_page_says_what_the_committed_results_say(name: str) -> None:
    results = json.loads((DOCS / "results" / f"{name}.json").read_text(encoding="utf-8"))
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert study(name).page(results) == page, f"stale: python -m experiments.{name} --page_only"


@pytest.mark.parametrize("name", MADE)
def test_the_committed_results_are_no_trial_and_say_what_made_them(name: str) -> None:
    results = json.loads((DOCS / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert results["study"] == name
    assert not results["quick"]
    assert results["provenance"]["versions"]["torch"]
    for run in results.get("runs", []):
        assert {"text", "settings", "seed", "seconds", "bits_per_byte"} <= set(run)


@pytest.mark.parametrize("name", MADE)
def test_the_picture_of_a_page_is_small_and_can_be_drawn_anew(name: str, tmp_path: Path) -> None:
    results = json.loads((DOCS / "results" / f"{name}.json").read_text(encoding="utf-8"))
    study(name).draw(results, tmp_path)
    picture = DOCS / "images" / f"{name}.png"
    assert (tmp_path / picture.name).exists()
    assert picture.stat().st_size < 120_000
    assert f"images/{picture.name}" in study(name).page(results)


def test_pages_without_results_are_not_in_the_documentation_and_the_index_names_all_studies() -> None:
    assert {path.stem for path in DOCS.glob("*.md")} == {*MADE, "README"}
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert all(f"experiments.{name}" in index for name in NAMES)


def test_a_stale_page_is_seen() -> None:
    page = "words\n<!-- results: one -->\n\nold\n\n<!-- end of results -->\nmore words\n"
    fresh = filled_in(page, {"one": "new \\1 table"})
    assert "new \\1 table" in fresh
    assert "old" not in fresh
    assert fresh.endswith("more words\n")
    assert filled_in(fresh, {"one": "new \\1 table"}) == fresh


def test_a_page_without_a_place_for_a_table_is_an_error() -> None:
    with pytest.raises(DataError, match="two"):
        filled_in("<!-- results: one -->\n<!-- end of results -->\n", {"one": "", "two": ""})


def test_the_interval_of_a_mean_is_students() -> None:
    # By hand: mean 2, s = 1, t(2) = 4.3027, 4.3027 / sqrt(3) = 2.4842.
    found = mean([1.0, 2.0, 3.0])
    assert found.value == 2
    assert math.isclose(found.half_width, 2.4842, abs_tol=1e-4)
    assert found.show(1) == "2.0 ± 2.5"
    assert not found.is_clear
    assert mean([5.0]) == Mean(5.0, 0.0, 1)
    assert not mean([5.0]).is_clear


def test_differences_are_taken_seed_by_seed() -> None:
    # The seeds differ by 10, the settings by 1 at each: the luck of a seed falls out.
    found = paired({0: 1.0, 1: 11.0, 2: 21.0}, {0: 0.0, 1: 10.0, 2: 20.0, 3: 99.0})
    assert found.value == 1
    assert found.half_width == 0
    assert found.is_clear


BOOK = "\n\n".join(f"Paragraph {number} " + "of a book " * 30 for number in range(400))


@pytest.mark.parametrize("share", [1 / 32, 1 / 4, 1.0])
def test_the_test_text_is_the_same_for_every_share_and_in_none_of_them(share: float) -> None:
    training, test = texts.cut(BOOK, Text("book", share, seed=1))
    assert test == texts.cut(BOOK, Text("book", 1.0, seed=2))[1]
    assert 30_000 < len(test) < 50_000
    paragraphs = set(test.split("\n\n"))
    assert not paragraphs & set(training.split("\n\n"))


def test_shares_have_their_size_and_a_smaller_one_is_in_the_larger() -> None:
    whole = len(texts.cut(BOOK, Text("book"))[0])
    quarter = texts.cut(BOOK, Text("book", 1 / 4))[0]
    assert math.isclose(len(quarter), whole / 4, rel_tol=0.01)
    half = set(texts.cut(BOOK, Text("book", 1 / 2))[0].split("\n\n"))
    cut_off = 2  # the block that is cut to size ends within a paragraph
    assert len(set(quarter.split("\n\n")) - half) <= cut_off
    assert texts.cut(BOOK, Text("book", 1 / 4, seed=1))[0] != quarter
    assert len(texts.cut(BOOK, Text("book", characters=5_000))[0]) in range(4_990, 5_010)


def test_a_study_without_the_corpora_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GPT2KIT_CORPORA", raising=False)
    with pytest.raises(UsageError, match="GPT2KIT_CORPORA is not set"):
        texts.read("andersen")
    monkeypatch.setenv("GPT2KIT_CORPORA", str(tmp_path))
    with pytest.raises(UsageError, match=r"andersen_fairy_tales\.txt"):
        texts.read("andersen")


def test_the_same_work_has_one_key_whatever_it_is_called() -> None:
    text = Text(TALES)
    assert Run("one", text, {"epochs": 1}).key == Run("two", text, {"epochs": 1}).key
    assert Run("one", text, {"epochs": 1}).key != Run("one", text, {"epochs": 2}).key
    assert Run("one", text, {"epochs": 1}).key != Run("one", text, {"epochs": 1}, seed=1).key
    of_methods = {run.key for run in methods.quality_runs((0, 1, 2), {"full": (5e-4, 2e-3)}, quick=False)}
    assert of_methods <= {run.key for run in hyperparameters.runs(quick=False)}  # so they are trained once


def test_a_run_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    run = Run("a run", Text(TALES), seed=3)
    record = tmp_path / "runs" / f"{run.key}.json"
    record.parent.mkdir()
    record.write_text(json.dumps({"bits_per_byte": 1.5, "name": "another study's", "seed": 3}), encoding="utf-8")
    # A launcher that fails: were the run made again, this would be an error.
    (found,) = Maker(tmp_path, launcher=("false",)).make([run])
    assert found == {"bits_per_byte": 1.5, "name": "a run", "seed": 3}
    with pytest.raises(SystemExit, match="another run, seed 4: failed"):
        Maker(tmp_path, launcher=("false",)).make([run, Run("another run", Text(TALES), seed=4)])


def test_no_run_begins_when_time_is_up(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="time is up"):
        Maker(tmp_path, deadline=0.0).make([Run("a run", Text(TALES))])
    assert not (tmp_path / "orders").exists() or not list((tmp_path / "runs").glob("*"))


def test_a_launcher_is_split_as_a_shell_does() -> None:
    assert words("nice -n 10") == ("nice", "-n", "10")
    assert words("") == ()


def test_losses_of_steps_are_kept_only_where_a_picture_needs_them() -> None:
    record: dict[str, Any] = {"name": "a", "train_losses": [[1, 1.23456]], "validations": [[0, 2.0]], "provenance": {}}
    assert runs.short(record) == {"name": "a", "validations": [[0, 2.0]]}
    assert runs.short(record, losses=True)["train_losses"] == [[1, 1.2346]]


def run_quick(name: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"experiments.{name}", "--quick", "--output_dir", str(folder), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=DOCS.parent.parent)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_study_makes_a_small_trial_and_goes_on_after_a_stop(name: str, tmp_path: Path) -> None:
    stopped = run_quick(name, tmp_path, "--minutes", "0")
    assert stopped.returncode != 0
    assert "time is up" in stopped.stderr
    done = run_quick(name, tmp_path)
    assert done.returncode == 0, done.stderr
    home = tmp_path / "quick" / "docs"
    results = json.loads((home / "results" / f"{name}.json").read_text(encoding="utf-8"))
    page = (home / f"{name}.md").read_text(encoding="utf-8")
    assert results["quick"]
    assert study(name).page(results) == page
    assert (home / "images" / f"{name}.png").stat().st_size > 5_000
    again = run_quick(name, tmp_path, "--launcher", "false")  # nothing is left to be made
    assert again.returncode == 0, again.stderr
    assert json.loads((home / "results" / f"{name}.json").read_text(encoding="utf-8"))["study"] == name


def test_a_quick_study_end_to_end(tmp_path: Path) -> None:
    order = Run("a trial", Text(TALES, characters=6_000, test_characters=4_000), {"max_steps": 2, "batch_size": 2})
    (record,) = Maker(tmp_path).make([order])
    assert record["training"]["steps"] == 2
    assert 0.5 < record["bits_per_byte"] < 3
    assert record["peak_memory_bytes"] > 1e8
    assert not list((tmp_path / "models").glob("*"))  # a model takes more place than its figures
    assert record["settings"]["max_steps"] == 2
    assert record["provenance"]["versions"]["torch"]


def made(best_steps: list[int]) -> list[runs.Record]:
    return [{"bits_per_byte": 2.5, "training": {"best_step": step}} for step in best_steps]


def test_a_run_that_left_nano_as_it_was_is_marked() -> None:
    """Sixteen rows at four times the rate never beat the start, and passed for better than four rows."""
    assert shown_bits(made([0, 0, 0])) == "2.500 (nano, unchanged)"
    assert shown_bits(made([30, 0, 20])) == "2.500 ± 0.000 (nano, unchanged, in 1 of 3)"
    assert shown_bits(made([30, 30])) == "2.500 ± 0.000"


def test_figures_that_do_not_clearly_differ_from_human_text_are_bold_and_shares_stay_above_nothing() -> None:
    human = {"distinct_2": [0.80, 0.82, 0.90], "words_in_loops": [0.0, 0.0, 0.0]}
    # A little more in each set is clear, though the sets themselves differ more than that.
    other = {"distinct_2": [0.83, 0.85, 0.932], "words_in_loops": [0.0, 0.012, 0.0]}
    figures = {
        name: {str(seed): {figure: found[seed] for figure, found in of_set.items()} for seed in range(3)}
        for name, of_set in (("human", human), ("T 1", other))
    }
    results = {"seeds": [0, 1, 2], "measured": {"figures": figures}}
    assert sampling._shown(results, "human", "distinct_2") == "0.840 ± 0.131"
    assert sampling._shown(results, "T 1", "distinct_2") == "0.871 ± 0.134"
    assert sampling._shown(results, "T 1", "words_in_loops") == "**0.4 (0.0 to 1.2)**"


def test_the_places_of_the_seeds_differ_and_none_reaches_over_a_gap_in_the_book(tmp_path: Path) -> None:
    book = "\n\n".join(" ".join(f"word{word}" for word in range(60 * part, 60 * part + 60)) for part in range(800))
    _, test = texts.cut(book, Text("book"))
    (tmp_path / "test.txt").write_text(test, encoding="utf-8")
    order = {"num_prompts": 24, "tokens": 40, "seeds": [0, 1, 2]}
    places = writing._places(tmp_path / "test.txt", order)
    found = [opening.prompt + opening.continuation for seed in order["seeds"] for opening in places[seed]]
    assert [len(places[seed]) for seed in order["seeds"]] == [24, 24, 24]
    assert len({word for text in found for word in text.split()}) == sum(len(text.split()) for text in found)
    assert all(text in book for text in found)


def test_stretches_given_back_have_the_interval_of_the_stretches() -> None:
    found = {"value": 0.0, "interval": [0.0, 0.0621]}
    record = {"memory": {"extraction": {"training": {"extracted": found}}}}
    assert overfitting._extracted([record] * 3) == "0.0 (0.0 to 6.2)"
