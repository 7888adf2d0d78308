"""The CLI reference is made from the commands, and the check notices a difference."""

from pathlib import Path
from types import ModuleType

import pytest

from gpt2kit.training.settings import TrainSettings


def test_every_command_and_setting_is_in_the_reference(cli_reference: ModuleType) -> None:
    made = cli_reference.make_reference()
    for command in ("prepare", "train", "generate", "evaluate", "fetch", "inspect", "merge", "doctor", "demo"):
        assert f"\n## gpt2kit {command}\n" in made
        assert f"(#gpt2kit-{command})" in made
    assert "\n## gpt2kit tokenizer train\n" in made
    assert "(#gpt2kit-tokenizer-train)" in made
    for name in TrainSettings.model_fields:
        assert f"`--{name}" in made


def test_check_notices_a_difference_and_writing_mends_it(
    cli_reference: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "cli.md"
    monkeypatch.setattr(cli_reference, "REFERENCE", page)
    monkeypatch.setattr("sys.argv", ["make_cli_reference.py"])
    assert cli_reference.main() == 0
    monkeypatch.setattr("sys.argv", ["make_cli_reference.py", "--check"])
    assert cli_reference.main() == 0
    page.write_text(page.read_text().replace("## gpt2kit train", "## gpt2kit trian"))
    assert cli_reference.main() == 1
    shown = capsys.readouterr().out
    assert "-## gpt2kit trian\n+## gpt2kit train\n" in shown
    assert "run `make docs`" in shown
