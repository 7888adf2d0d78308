"""The contract word for word: the commands of the README, run as a user runs them, on a small setting."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SMALL = {
    "GPT2KIT_TRAIN_MAX_STEPS": "6",
    "GPT2KIT_TRAIN_N_LAYER": "1",
    "GPT2KIT_TRAIN_N_HEAD": "2",
    "GPT2KIT_TRAIN_N_EMBD": "32",
    "GPT2KIT_TRAIN_CONTEXT": "64",
    "GPT2KIT_GENERATE_MAX_NEW_TOKENS": "20",
    "GPT2KIT_EVALUATE_NUM_SAMPLES": "4",
    "GPT2KIT_EVALUATE_SAMPLE_TOKENS": "20",
    "OMP_NUM_THREADS": "1",
}


def run(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | SMALL,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project folder with some raw text, prepared from scratch."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "data" / "raw").mkdir(parents=True)
    for tale in sorted((ROOT / "data" / "raw").rglob("*.txt"))[:24]:
        shutil.copy(tale, folder / "data" / "raw")
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    done = run(folder, "-m", "gpt2kit", "prepare", "--from_scratch", "--vocab_size", "600")
    assert done.returncode == 0, done.stderr
    assert "prepared" in done.stdout
    return folder


def test_the_road_by_the_scripts(project: Path) -> None:
    arguments = ("scripts/train.py", "--data_dir", "data/processed/", "--model_output_dir", "models/gpt2_fine_tuned/")
    trained = run(project, *arguments)
    assert trained.returncode == 0, trained.stderr
    assert "validation loss" in trained.stdout
    again = run(project, *arguments)
    assert again.returncode == 0
    assert "nothing to do" in again.stderr

    arguments = ("scripts/generate.py", "--model_dir", "models/gpt2_fine_tuned/")
    written = run(project, *arguments, "--output_dir", "results/generated_texts/", "--prompt", "Once upon a time")
    assert written.returncode == 0, written.stderr
    texts = sorted(path.suffix for path in (project / "results" / "generated_texts").iterdir())
    assert texts == [".jsonl", ".txt"]

    measured = run(project, "-m", "gpt2kit", "evaluate", "--json")
    assert measured.returncode == 0, measured.stderr
    assert json.loads(measured.stdout)["likelihood"]["model"]["perplexity"] > 1
    assert {path.suffix for path in (project / "results" / "evaluation_metrics").iterdir()} >= {".html", ".md", ".json"}


def test_flags_work_with_dashes_too(project: Path) -> None:
    plan = run(project, "-m", "gpt2kit", "train", "--data-dir", "data/processed", "--dry-run", "--n-layer", "2")
    assert plan.returncode == 0, plan.stderr
    assert "2 layers of width 32" in plan.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("generate", "--top_p", "2"), "--top_p 2"),
        (("generate", "--temperature", "-1"), "--temperature -1"),
        (("train", "--data_dir", "nowhere"), "gpt2kit prepare"),
        (("generate", "--model_dir", "./nowhere"), "./nowhere: no such folder"),
        (("prepare", "nowhere"), "nowhere"),
        (("train", "--learning-rat", "1"), "did you mean"),
    ],
)
def test_bad_input_is_one_clear_line_and_exit_code_two(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run(tmp_path, "-m", "gpt2kit", *arguments)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())
