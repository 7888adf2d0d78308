"""Settings: precedence, strictness, and messages that name every problem and where it came from."""

import json
from pathlib import Path
from typing import ClassVar, Literal, Self

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from gpt2kit.config import Settings, suggestion
from gpt2kit.errors import UsageError


class Baking(Settings):
    stage: ClassVar[str] = "train"

    minutes: int = Field(30, ge=1, le=600, description="Time in the oven, in minutes.")
    heat: float | None = Field(None, gt=0, description="Degrees.")
    dough: Literal["rye", "wheat"] = Field("wheat", description="Kind of flour.")
    tray: Path = Field(Path("tray"), description="Where it goes.")
    seeds: tuple[str, ...] = Field(("poppy",), description="What goes on top.")
    cover: bool = Field(False, description="Cover it.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.cover and self.heat is None:
            raise ValueError("--cover does nothing without --heat")
        return self


def test_defaults_file_environment_and_flags_win_in_that_order(tmp_path: Path) -> None:
    file = tmp_path / "baking.toml"
    file.write_text('minutes = 10\nheat = 1.5\ndough = "rye"\n')
    baking = Baking.resolve(
        {"dough": "wheat"}, config_file=file, environ={"GPT2KIT_TRAIN_HEAT": "2.5", "GPT2KIT_TRAIN_DOUGH": "rye"}
    )
    assert baking == Baking(minutes=10, heat=2.5, dough="wheat")
    assert baking.tray == Path("tray")


def test_another_stages_environment_is_not_taken() -> None:
    assert Baking.resolve({}, environ={"GPT2KIT_GENERATE_MINUTES": "5", "GPT2KIT_CORPORA": "x"}) == Baking()


def test_all_problems_are_reported_at_once_each_with_its_origin(tmp_path: Path) -> None:
    file = tmp_path / "baking.toml"
    file.write_text("minutes = 0\n")
    with pytest.raises(UsageError) as caught:
        Baking.resolve(
            {"heat": -1, "mintes": 3},
            config_file=file,
            environ={"GPT2KIT_TRAIN_DOUGH": "oat", "GPT2KIT_TRAIN_TRY": "x"},
        )
    assert str(caught.value).split("; ") == [
        f"{file}: minutes = 0: should be greater than or equal to 1",
        "--heat -1: should be greater than 0",
        "GPT2KIT_TRAIN_DOUGH='oat': should be 'rye' or 'wheat'",
        "GPT2KIT_TRAIN_TRY: unknown setting 'try'",
        "did you mean 'tray'?",
        "unknown setting 'mintes'",
        "did you mean 'minutes'?",
    ]


def test_a_flag_over_a_bad_value_from_a_file_mends_it(tmp_path: Path) -> None:
    file = tmp_path / "baking.toml"
    file.write_text("minutes = 0\n")
    assert Baking.resolve({"minutes": 3}, config_file=file, environ={}).minutes == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(value: float) -> None:
    with pytest.raises(UsageError, match=r"--heat (nan|inf): should be a finite number"):
        Baking(heat=value)


def test_a_rule_over_two_settings_is_reported_as_it_is_written() -> None:
    with pytest.raises(UsageError) as caught:
        Baking(cover=True)
    assert str(caught.value) == "--cover does nothing without --heat"


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Baking().minutes = 3  # type: ignore[misc]


def test_settings_survive_json() -> None:
    baking = Baking(minutes=7, seeds=("poppy", "sesame"), tray=Path("a/b"))
    assert Baking(**json.loads(json.dumps(baking.to_dict()))) == baking


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("sesame", ("sesame",)), ('["a", "b"]', ("a", "b")), ("a, b", ("a, b",)), ("7", ("7",)), ("[]", ())],
)
def test_a_list_in_the_environment_is_json_or_one_item(text: str, seeds: tuple[str, ...]) -> None:
    assert Baking.resolve({}, environ={"GPT2KIT_TRAIN_SEEDS": text}).seeds == seeds


def test_one_file_can_hold_the_settings_of_all_stages(tmp_path: Path) -> None:
    file = tmp_path / "road.toml"
    file.write_text("[prepare]\nseed = 1\n[train]\nminutes = 12\n")
    assert Baking.resolve({}, config_file=file, environ={}).minutes == 12


@pytest.mark.parametrize(("name", "text"), [("baking.toml", "minutes = 9"), ("baking.json", '{"minutes": 9}')])
def test_a_byte_order_mark_of_windows_is_read_over(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8-sig")
    assert Baking.resolve({}, config_file=file, environ={}).minutes == 9


def test_a_json_file_does_as_well(tmp_path: Path) -> None:
    file = tmp_path / "baking.json"
    file.write_text('{"minutes": 9}')
    assert Baking.resolve({}, config_file=file, environ={}).minutes == 9


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.toml", None, "cannot be read: No such file or directory"),
        ("broken.toml", b"minutes = ", "Invalid value (at end of document)"),
        ("broken.json", b'{"minutes": }', "Expecting value: line 1 column 13"),
        ("list.json", b"[1]", "should hold settings by name"),
        ("binary.toml", b"\xff\xfe\x00", "is not a text file"),
        ("typo.toml", b"[trian]\nminutes = 3\n", "[trian] is no table of settings; did you mean 'train'?"),
        ("other.toml", b"[prepare]\nseed = 1\n", "holds no settings of train, only tables for others (prepare)"),
        ("stray.toml", b"trian = 1\n[train]\nminutes = 3\n", "'trian' stands outside the tables [train]; did you mean"),
    ],
)
def test_a_settings_file_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        Baking.resolve({}, config_file=file, environ={})
    assert str(caught.value).startswith(f"--config {file}: ")
    assert message in str(caught.value)


@given(st.text() | st.just("self"), st.text())
def test_an_unknown_name_is_refused_whatever_it_is(name: str, value: str) -> None:
    assume(name not in Baking.model_fields)
    with pytest.raises(UsageError) as caught:
        Baking.resolve({name: value}, environ={})
    assert str(caught.value).startswith(f"unknown setting {name!r}")


@given(st.text())
def test_a_number_is_taken_as_written_or_refused(text: str) -> None:
    try:
        minutes = Baking.resolve({"minutes": text}, environ={}).minutes
    except UsageError as error:
        message = str(error)
    else:
        message = ""
        assert minutes == int(text)
    assert message == "" or message.startswith(f"--minutes {text!r}: should be ")


def test_suggestion_is_silent_when_nothing_is_near() -> None:
    assert suggestion("xyz", ["minutes", "heat"]) == ""
    assert suggestion("heta", ["minutes", "heat"]) == "; did you mean 'heat'?"
