"""The demo: its sample texts are there, and every task walks the whole road."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2kit.corpus import collect_documents
from gpt2kit.demo import TASKS, run
from gpt2kit.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent


def test_an_unknown_task_is_named_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="--task song: should be story, poem, chat, product"):
        run(task="song")


def test_without_sample_text_it_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="samples/poem: no texts here; run the demo in a clone"):
        run(task="poem", root=tmp_path)


@pytest.mark.parametrize(
    ("task", "kind"), [("story", "text"), ("poem", "text"), ("chat", "chat"), ("product", "completion")]
)
def test_the_sample_texts_are_read_as_what_they_are(task: str, kind: str, tmp_path: Path) -> None:
    report = collect_documents(ROOT / TASKS[task].raw, tmp_path)
    assert set(report.kinds) == {kind}
    assert report.num_documents >= 60
    assert not report.skipped_files
    assert not report.skipped_rows
    assert not report.duplicates


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_task_walks_the_whole_road(task: str, tmp_path: Path) -> None:
    chosen = TASKS[task]
    shutil.copytree(ROOT / chosen.raw, tmp_path / chosen.raw)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GPT2KIT_")}
    done = subprocess.run(
        [sys.executable, "-m", "gpt2kit", "demo", "--task", task],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert "before and after" in done.stdout
    assert chosen.prompts[0].splitlines()[0] in done.stdout
    assert (tmp_path / chosen.results / "demo.png").stat().st_size > 10_000
