"""The documentation's checker finds what it is there to find, and leaves the rest alone."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Problems = Callable[[str], list[str]]


@pytest.fixture
def problems(tmp_path: Path, check_docs: ModuleType) -> Problems:
    """What the checker says of a page, without the page's name."""

    def check(text: str) -> list[str]:
        page = tmp_path / "page.md"
        page.write_text(text, encoding="utf-8")
        return [problem.removeprefix(f"{page}:") for problem in check_docs.check_file(page)]

    return check


def shell(*lines: str) -> str:
    return "\n".join(["# Title", "", "```bash", *lines, "```"])


@pytest.mark.parametrize(
    "line",
    [
        "gpt2kit train --data_dir data/processed --no-tensorboard   # a comment",
        "$ gpt2kit train --dry_run",
        "gpt2kit prepare data/raw && gpt2kit train --epochs 2 | tee log",
        "gpt2kit train \\",
        "GPT2KIT_TRAIN_EPOCHS=2 .venv/bin/gpt2kit train",
        "torchrun --nproc-per-node 2 -m gpt2kit train --batch_size 32",
        "python scripts/train.py --data_dir data/processed/ --model_output_dir models/gpt2_fine_tuned/",
        "python -m gpt2kit --version",
        "python other.py --whatever",
        "make test PYTHON=python3.12",
        "pip install 'gpt2kit[plots]'",
        "# gpt2kit trian",
    ],
)
def test_right_commands_pass(problems: Problems, line: str) -> None:
    assert problems(shell(line, "    --epochs 2" if line.endswith("\\") else "")) == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("gpt2kit trian", "no command `gpt2kit trian`"),
        ("gpt2kit train --epocs 2", "No such option '--epocs'"),
        ("gpt2kit train --epochs", "requires an argument"),
        ("gpt2kit train --method glue", "--method 'glue': should be 'full' or 'lora'"),
        ("gpt2kit doctor; gpt2kit train --epochs 0", "--epochs 0: should be greater than 0"),
        ("gpt2kit prepare a | gpt2kit train --sede 1", "No such option '--sede'"),
        ("torchrun -m gpt2kit train --sede 1", "No such option '--sede'"),
        ("python scripts/train.py --sede 1", "No such option '--sede'"),
        ("gpt2kit --sede", "no option --sede"),
        ("gpt2kit inspect", "Missing argument 'MODEL'"),
        ("make cake", "no `make cake`"),
        ("gpt2kit train 'unclosed", "not a command line"),
    ],
)
def test_wrong_commands_are_found(problems: Problems, line: str, what: str) -> None:
    found = problems(shell("gpt2kit doctor", line))
    assert len(found) == 1
    assert found[0].startswith("5: ")
    assert what in found[0]


def test_options_in_running_text_must_exist(problems: Problems) -> None:
    assert problems("Use `--dry-run`, `--no_tensorboard` or `gpt2kit train --epochs N`, and `make demo`.") == []
    assert problems("There is no `--resume`.") == []
    found = problems("Use `--dry-rnu`\nor `gpt2kit train --epocs N`\nor `gpt2kit bake`, or `make cake`.")
    assert found == [
        "1: no command has an option --dry-rnu",
        "2: `gpt2kit train` has no option --epocs",
        "3: no `make cake`",
        "3: no command `gpt2kit bake`",
    ]


def test_links_and_anchors_must_resolve(tmp_path: Path, problems: Problems) -> None:
    (tmp_path / "other.md").write_text("# One `two`, *three*!\n\n## Twice\n\n## Twice\n\n```\n# not a heading\n```\n")
    text = (
        "# Here\n[a](other.md) [b](other.md#one-two-three) [c](#here) [d](https://example.org/x#y) ![e](no.png)\n"
        "[f](other.md#twice-1) [g](other.md#twice-2) [h](other.md#not-a-heading) [i](#there) `[j](gone.md)`\n"
    )
    assert problems(text) == [
        "2: link to no.png: there is no such file",
        "3: link to #there: there is no such heading",
        "3: link to other.md#not-a-heading: there is no such heading",
        "3: link to other.md#twice-2: there is no such heading",
    ]


def test_python_must_compile_and_name_what_there_is(problems: Problems) -> None:
    text = "```python\nimport gpt2kit\n\nsettings = gpt2kit.TrainSettings()\ngpt2kit.trian(settings)\n```\n"
    assert problems(text) == ["5: gpt2kit has no trian"]
    found = problems("```python\nx = 1\nfor x in\n```\n")
    assert len(found) == 1
    assert found[0].startswith("3: Python snippet does not compile: ")


def test_the_exit_code_says_whether_there_are_problems(
    tmp_path: Path, check_docs: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("`gpt2kit trian`\n")
    assert check_docs.main([str(page)]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{page}:1: no command `gpt2kit trian`",
        "1 pages, 1 problems",
    ]
    page.write_text("`gpt2kit train`\n")
    assert check_docs.main([str(page)]) == 0
