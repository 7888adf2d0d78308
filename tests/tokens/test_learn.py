"""`gpt2kit tokenizer train`: what it makes, and that nothing in the output folder is lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2kit.errors import DataError, UsageError
from gpt2kit.tokens import PrepareSettings, Tokenizer, TokenizerSettings, learn_tokenizer, prepare

TEXT = "Es war einmal ein König, der hatte eine Tochter. Once upon a time there was a king who had a daughter.\n"


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.txt").write_text(f"Tale {number}. " + TEXT * 20, encoding="utf-8")
    return folder


def test_it_is_learned_from_all_documents_and_prepare_takes_it(raw: Path, tmp_path: Path) -> None:
    made = learn_tokenizer(TokenizerSettings(input=raw, output_dir=tmp_path / "models" / "own", vocab_size=300))
    tokenizer = Tokenizer.from_folder(made.folder)
    assert made.vocab_size == tokenizer.vocab_size == 300
    assert tokenizer.end_of_text == 299
    assert tokenizer.decode(tokenizer.encode("Ein König, 王様, \x00")) == "Ein König, 王様, \x00"
    text = "".join(path.read_text(encoding="utf-8") for path in raw.iterdir())
    expected = len(text.encode()) / len(tokenizer.encode(text))
    assert made.bytes_per_token == pytest.approx(expected, rel=0.01)
    data = prepare(PrepareSettings(input=raw, data_dir=tmp_path / "processed", base=str(made.folder)))
    assert data.tokenizer.fingerprint == tokenizer.fingerprint
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["own"]


def test_the_same_text_gives_the_same_tokenizer_and_another_is_never_written_over(raw: Path, tmp_path: Path) -> None:
    settings = TokenizerSettings(input=raw, output_dir=tmp_path / "own", vocab_size=300)
    assert learn_tokenizer(settings).status == "finished"
    before = (tmp_path / "own" / "tokenizer.json").read_bytes()
    assert learn_tokenizer(settings).status == "unchanged"
    with pytest.raises(UsageError, match="holds another tokenizer; name a new or empty folder"):
        learn_tokenizer(settings.model_copy(update={"vocab_size": 290}))
    assert (tmp_path / "own" / "tokenizer.json").read_bytes() == before


def test_a_folder_of_other_things_is_left_alone(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "monday.txt").write_text("rain")
    with pytest.raises(UsageError, match=r"diary: holds other things \(monday.txt\)"):
        learn_tokenizer(TokenizerSettings(input=raw, output_dir=tmp_path / "diary"))
    assert [path.name for path in (tmp_path / "diary").iterdir()] == ["monday.txt"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file: is a file; name a folder"):
        learn_tokenizer(TokenizerSettings(input=raw, output_dir=tmp_path / "file"))


def test_no_input_and_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--input .*nothing: no such file or folder"):
        learn_tokenizer(TokenizerSettings(input=tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text(" \n")
    with pytest.raises((DataError, UsageError), match="empty"):
        learn_tokenizer(TokenizerSettings(input=tmp_path / "empty", output_dir=tmp_path / "own"))
    assert not (tmp_path / "own").exists()


def test_it_warns_when_the_text_has_too_few_pairs(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = learn_tokenizer(TokenizerSettings(input=raw, output_dir=tmp_path / "own", vocab_size=5000))
    assert made.vocab_size < 5000
    assert f"the text has pairs for {made.vocab_size} entries only" in capsys.readouterr().err


def test_the_command_takes_the_input_as_a_word_and_settings_from_the_environment(raw: Path, tmp_path: Path) -> None:
    words = ["tokenizer", "train", str(raw), "--output_dir", str(tmp_path / "own"), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "gpt2kit", *words],
        env={"GPT2KIT_TOKENIZER_VOCAB_SIZE": "280", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["vocab_size"] == 280
    assert Tokenizer.from_folder(tmp_path / "own").vocab_size == 280
