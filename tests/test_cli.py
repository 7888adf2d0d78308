"""The command line as a user meets it: help, errors of one line, exit codes, settings from everywhere."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import gpt2kit
from gpt2kit.cli import main
from gpt2kit.cli.app import STAGES, make_app
from gpt2kit.cli.stage import StageCommand, load
from gpt2kit.errors import TrainingError

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = [
    "prepare",
    "train",
    "generate",
    "chat",
    "evaluate",
    "tasks",
    "compare",
    "review",
    "tune",
    "tokenizer",
    "canaries",
    "fetch",
    "inspect",
    "merge",
    "doctor",
    "demo",
]


def run(*words: str, environment: dict[str, str] | None = None, cwd: Path | None = None) -> Any:
    """`gpt2kit ...` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "gpt2kit", *words],
        env=os.environ | (environment or {}),
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@dataclass
class Stub:
    """Stands for the entry function of a stage: notes the settings, gives a result."""

    status: str = "finished"
    error: BaseException | None = None
    settings: list[Any] = field(default_factory=list)

    def __call__(self, settings: Any) -> "Stub":
        self.settings.append(settings)
        if self.error is not None:
            raise self.error
        return self

    def to_text(self) -> str:
        return "in words"

    def to_dict(self) -> dict[str, Any]:
        return {"status": self.status, "folder": Path("a/b")}


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """`gpt2kit train` that trains nothing."""
    for name in [name for name in os.environ if name.startswith("GPT2KIT_TRAIN_")]:
        monkeypatch.delenv(name)
    stub = Stub()
    import gpt2kit.training as training

    monkeypatch.setattr(training, "train", stub)
    return stub


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr; nothing may be on stdout."""
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("gpt2kit: ")
    return captured.err.rstrip("\n")


# ---- help -----------------------------------------------------------------------------------------------------------


def test_help_lists_the_commands_and_imports_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "gpt2kit", "--help"]
    heavy = {"torch", "numpy", "pydantic", "tokenizers", "huggingface_hub", "pyarrow", "sklearn", "matplotlib"}
    microseconds = []
    for _ in range(3):  # another program may be in the way of one
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert re.findall(r"^  (\w+)  +[A-Z]", done.stdout, re.MULTILINE) == COMMANDS
        rows = [line.removeprefix("import time:").split("|") for line in done.stderr.splitlines() if "|" in line][1:]
        modules = {name.strip() for _, _, name in rows}
        assert "click" in modules
        assert not heavy & modules
        microseconds.append(sum(int(own) for own, _, _ in rows))
    # The interpreter's own start apart, importing is to stay far below the 0.3 s that help may take.
    assert min(microseconds) < 250_000


def test_no_command_shows_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_no_command_of_a_group_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tokenizer"]) == 0
    assert "Commands:" in capsys.readouterr().out
    assert main(["tokenizer", "trian"]) == 2
    assert error_line(capsys).startswith("gpt2kit: error: no such command trian; did you mean train?")


def test_the_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert capsys.readouterr().out == f"gpt2kit {version}\n"
    assert gpt2kit.__version__ == version


@pytest.mark.parametrize("command", [*(name for name in COMMANDS if name != "tokenizer"), "tokenizer train"])
def test_every_command_explains_itself_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: gpt2kit {command} ")
    assert re.search(r"Examples:\n(    .*)?gpt2kit ", shown)
    assert "--debug" in shown


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_every_setting_is_an_option_with_its_description(stage: Any) -> None:
    app = make_app()
    command = app.commands[stage.name]
    assert isinstance(command, StageCommand)
    with app.make_context("gpt2kit", [], resilient_parsing=True) as context:
        options = {param.name: param for param in command.get_params(context)}
    settings = load(stage.settings)
    assert settings.stage == stage.name
    for name, setting in settings.model_fields.items():
        assert f"--{name}" in options[name].opts
        assert setting.description, f"{stage.name}: {name} has no description"
        assert setting.description.strip().rstrip(".") in options[name].help
    assert not stage.argument or stage.argument in settings.model_fields


# ---- settings -------------------------------------------------------------------------------------------------------


def test_flags_reach_the_settings_with_both_spellings(train: Stub) -> None:
    words = ["--data_dir", "a", "--model-output-dir", "b", "--epochs=2", "--no-tensorboard", "--dry_run"]
    assert main(["train", *words, "--packing", "run-on", "--sample_prompts", "One", "--sample-prompts", "-2"]) == 0
    settings = train.settings[0]
    assert (settings.data_dir, settings.model_output_dir) == (Path("a"), Path("b"))
    assert (settings.epochs, settings.tensorboard, settings.dry_run) == (2.0, False, True)
    assert settings.packing == "run_on"
    assert settings.sample_prompts == ("One", "-2")
    assert settings.seed == 0


def test_a_settings_file_and_the_environment_come_before_flags(
    train: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "road.toml").write_text("[train]\nepochs = 1\nbatch_size = 2\npatience = 9\n[prepare]\nseed = 3\n")
    monkeypatch.setenv("GPT2KIT_TRAIN_BATCH_SIZE", "3")
    monkeypatch.setenv("GPT2KIT_TRAIN_PATIENCE", "4")
    assert main(["train", "--config", str(tmp_path / "road.toml"), "--patience", "5"]) == 0
    settings = train.settings[0]
    assert (settings.epochs, settings.batch_size, settings.patience) == (1.0, 3, 5)


def test_the_first_word_stands_for_the_setting_it_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import gpt2kit.tokens as tokens

    stub = Stub()
    monkeypatch.setattr(tokens, "prepare", stub)
    assert main(["prepare", str(tmp_path), "--seed", "1"]) == 0
    assert stub.settings[0].input == tmp_path


def test_the_first_word_and_its_flag_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "a", "--input", "b"]) == 2
    assert error_line(capsys) == "gpt2kit: error: a and --input b say the same thing twice: give one"


def test_a_setting_that_can_be_repeated_is_shown_as_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a", "--prompt", "b"]) == 2
    assert error_line(capsys) == "gpt2kit: error: a and --prompt b say the same thing twice: give one"
    assert main(["compare", "a", "b", "--models", "c"]) == 2
    assert error_line(capsys) == "gpt2kit: error: a b and --models c say the same thing twice: give one"


def test_results_are_words_or_json(train: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--model_output_dir", "my models/tales"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "in words\n"
    assert captured.err == "next: gpt2kit generate --model_dir 'my models/tales'\n"
    assert main(["train", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"status": "finished", "folder": "a/b"}
    assert captured.err == ""
    train.status = "planned"
    assert main(["train", "--dry_run"]) == 0
    assert capsys.readouterr().err == ""


def test_what_a_terminal_cannot_show_is_escaped(train: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr(Stub, "to_text", lambda self: "Märchen \udcff")
    assert main(["train"]) == 0
    assert written.getvalue() == b"M\\xe4rchen \\udcff\n"


def test_of_several_processes_the_first_one_speaks(
    train: Stub, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert main(["train"]) == 0
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


# ---- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["trian"], "no such command trian; did you mean train? (`gpt2kit --help` shows what there is)"),
        (["--verison"], "no such option --verison; did you mean --version? (`gpt2kit --help` shows what there is)"),
        (
            ["train", "--epocs", "2"],
            "no such option --epocs; did you mean --epochs? (`gpt2kit train --help` shows what there is)",
        ),
        (["train", "--epochs"], "option '--epochs' requires an argument"),
        (
            ["train", "stray"],
            "got unexpected extra argument (stray) (`gpt2kit train --help` shows what there is)",
        ),
        (["inspect"], "missing argument 'MODEL' (`gpt2kit inspect --help` shows what there is)"),
        (["train", "--seed", "-1"], "--seed -1: should be greater than or equal to 0"),
        (
            ["train", "--epochs", "many", "--dropout", "1.5", "--schedule", "steep"],
            "--epochs 'many': should be a valid number, unable to parse string as a number; "
            "--schedule 'steep': should be 'cosine', 'linear' or 'constant'; --dropout 1.5: should be less than 1",
        ),
        (["train", "--epochs", "1", "--max_steps", "1"], "--epochs and --max_steps exclude each other: give one"),
        (["train", "--config", "/no/such.toml"], "--config /no/such.toml: cannot be read: No such file or directory"),
        (["doctor", "--device", "abacus"], None),
    ],
)
def test_what_cannot_be_asked_is_one_line_and_exit_code_2(
    words: list[str], line: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    shown = error_line(capsys)
    assert line is None or shown == f"gpt2kit: error: {line}"


def test_every_bad_setting_of_a_stage_is_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "--top_p", "2", "--temperature", "-1"]) == 2
    line = error_line(capsys)
    assert "--top_p 2: " in line
    assert "--temperature -1: " in line


def test_failures_are_one_line_and_exit_code_1(train: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    train.error = TrainingError("the loss keeps jumping")
    assert main(["train"]) == 1
    assert error_line(capsys) == "gpt2kit: error: the loss keeps jumping"
    train.error = FileNotFoundError(2, "No such file or directory", "notes.txt")
    assert main(["train"]) == 1
    assert error_line(capsys) == "gpt2kit: error: notes.txt: no such file or directory"
    train.error = MemoryError()
    assert main(["train"]) == 1
    assert error_line(capsys) == "gpt2kit: error: out of memory; `gpt2kit doctor` tells what fits on this machine"


def test_a_bug_says_how_to_report_it_and_debug_shows_where(train: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    train.error = KeyError("n_layer\nmore")
    assert main(["train"]) == 1
    assert error_line(capsys) == (
        "gpt2kit: error: KeyError: 'n_layer\\nmore' (this is a bug in gpt2kit: run the same command again with "
        "--debug, and report what it prints)"
    )
    assert main(["train", "--debug"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("Traceback (most recent call last):")
    assert "in __call__" in shown
    assert shown.rstrip().splitlines()[-1].startswith("gpt2kit: error: KeyError")


def test_ctrl_c_and_an_interrupted_run_exit_with_130(train: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    train.error = KeyboardInterrupt()
    assert main(["train"]) == 130
    assert error_line(capsys) == "gpt2kit: interrupted"
    train.error, train.status = None, "interrupted"
    assert main(["train"]) == 130


def test_a_missing_stage_extra_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from gpt2kit.errors import MissingExtraError

    module = ModuleType("gpt2kit.demo")

    def run_demo(*, task: str) -> None:
        raise MissingExtraError("drawing pictures needs matplotlib: pip install 'gpt2kit[plots]'")

    module.run = run_demo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gpt2kit.demo", module)
    assert main(["demo"]) == 2
    assert "pip install 'gpt2kit[plots]'" in error_line(capsys)


def test_a_closed_pipe_exits_with_141() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "gpt2kit", "--help"], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_ctrl_c_ends_a_real_process_without_a_traceback(tmp_path: Path) -> None:
    # The process waits on a settings file that never comes.
    fifo = tmp_path / "settings.toml"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2kit", "train", "--config", str(fifo)], stderr=subprocess.PIPE, text=True
    )
    writer = os.open(fifo, os.O_WRONLY)  # returns when the process has opened its end
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    os.close(writer)
    assert (process.returncode, shown) == (130, "gpt2kit: interrupted\n")


# ---- the doors ------------------------------------------------------------------------------------------------------


def test_the_train_script_is_the_same_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data_dir", str(tmp_path / "none"), "--model_output_dir", str(tmp_path / "model")]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "train.py"), *words], capture_output=True, text=True, check=False
    )
    assert main(["train", *words]) == done.returncode == 2
    assert capsys.readouterr().err == done.stderr
    assert str(tmp_path / "none") in done.stderr
