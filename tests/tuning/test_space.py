"""What may be searched, how it is written, and what is said when it is wrong."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit import TrainSettings, TuneSettings
from gpt2kit.errors import UsageError
from gpt2kit.tuning.settings import SEARCHABLE_IN_SAMPLING, SEARCHABLE_IN_TRAINING
from gpt2kit.tuning.space import Choice, Range, default_training_space, parse_space

DEFAULTS = {"learning_rate": 5e-5, "epochs": 3.0, "batch_size": 4, "dropout": 0.05}


def parse(**table: Any) -> Any:
    return parse_space(table, TrainSettings, SEARCHABLE_IN_TRAINING)


def test_ranges_and_choices_as_a_settings_file_writes_them() -> None:
    space = parse(
        learning_rate={"low": 1e-5, "high": 1e-3, "log": True},
        lora_rank={"low": 4, "high": 16, "step": 4},
        batch_size=[4, 8],
        schedule={"choices": ["cosine", "linear"]},
    )
    assert space == {
        "learning_rate": Range(1e-5, 1e-3, log=True),
        "lora_rank": Range(4, 16, step=4, whole=True),
        "batch_size": Choice((4, 8)),
        "schedule": Choice(("cosine", "linear")),
    }
    assert space == parse(**{name: dimension.to_dict() for name, dimension in space.items()})


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"low": 1e-3, "high": 1e-5}, "low = 0.001 should be less than high = 1e-05"),
        ({"low": 0, "high": 1, "log": True}, "low = 0 should be greater than 0 with log"),
        ({"low": 0.1}, "a range needs low and high, and high is missing"),
        ({"low": 0.1, "high": "much"}, "high = 'much' should be a number"),
        ({"low": 0.1, "high": math.inf}, "high = inf should be a number"),
        ({"low": 0.1, "hihg": 0.2}, "unknown key 'hihg'; did you mean 'high'?"),
        ({"low": 0.1, "high": 0.2, "log": 1}, "log = 1 should be true or false"),
        ({"low": 0.1, "high": 0.2, "log": True, "step": 0.1}, "step and log exclude each other"),
        ({"low": 0.1, "high": 0.2, "step": 0.03}, "steps of 0.03 from 0.1 do not end at high = 0.2"),
        ({"low": 0.1, "high": 0.2, "step": -1}, "step = -1 should be greater than 0"),
        ([0.1], "at least two choices"),
        ([0.1, 0.1], "has a choice twice"),
        ([0.1, [0.2]], "[0.2] should be a number, a word, true or false"),
        (0.1, "0.1 should be a list of choices, or a range such as {low = 1, high = 4}"),
    ],
)
def test_a_wrong_entry_is_named(entry: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse(learning_rate=entry)
    assert "learning_rate: " in str(caught.value)
    assert message in str(caught.value)


def test_whole_numbers_stay_whole() -> None:
    with pytest.raises(ValueError, match=r"low = 1.5 should be a whole number"):
        parse(batch_size={"low": 1.5, "high": 4})


def test_all_problems_are_told_at_once_with_suggestions() -> None:
    with pytest.raises(UsageError) as caught:
        TuneSettings(space={"learning_rat": [1, 2], "eval_tokens": [1, 2], "dropout": []})
    assert "learning_rat cannot be searched; did you mean 'learning_rate'?" in str(caught.value)
    assert "eval_tokens cannot be searched" in str(caught.value)  # losses would not compare
    assert "dropout: should have at least two choices" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"space": {"dropout": {"low": 0.0, "high": 1.5}}}, "--space: dropout: --dropout 1.5: should be less than 1"),
        ({"space": {"optimizer": ["adamw", "sgd"]}}, "--space: optimizer: --optimizer 'sgd'"),
        ({"space": {"freeze_layers": [0, 2]}, "method": "lora"}, "--method lora freezes the whole base model"),
        ({"space": {"dropout": [0.0, 0.1]}, "fixed": {"dropout": 0.1}}, "--space and --fixed both name dropout"),
        ({"fixed": {"max_step": 3}}, "--fixed: max_step cannot be fixed there; did you mean 'max_steps'?"),
        ({"fixed": {"max_steps": 0}}, "--fixed: --max_steps 0: should be greater than or equal to 1"),
        ({"fixed": {"seed": 3}}, "--fixed: seed cannot be fixed there"),
        ({"space": "dropout = [0.0"}, "should be a table in TOML or JSON"),
        ({"space": {}}, "should name at least one setting to search"),
        ({"what": "sampling", "space": {"dropout": [0.0, 0.1]}}, "dropout cannot be searched"),
    ],
)
def test_values_that_a_training_would_refuse_are_refused_before_the_search(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        TuneSettings(**values)
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["dropout = [0.0, 0.1]", '{"dropout": [0.0, 0.1]}'])
def test_a_space_can_be_given_as_text(text: str) -> None:
    assert TuneSettings(space=text).parsed_space() == {"dropout": Choice((0.0, 0.1))}


@given(st.floats(1e-6, 1.0), st.floats(1.01, 1e3), st.booleans(), st.floats(0, 1))
def test_a_range_holds_what_lies_in_it(low: float, factor: float, log: bool, share: float) -> None:
    dimension = Range(low, low * factor, log=log)
    value = min(low + share * (low * factor - low), low * factor)
    assert dimension.holds(value)
    assert -1e-9 <= dimension.height(value) <= 1 + 1e-9
    assert not dimension.holds(low * factor * 1.01)
    assert not dimension.holds(None)
    assert not dimension.holds(True)


def test_a_range_with_steps_holds_only_those() -> None:
    assert [value for value in range(12) if Range(2, 8, step=3, whole=True).holds(value)] == [2, 5, 8]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_space_by_default_lies_around_the_defaults(method: str) -> None:
    space = default_training_space(DEFAULTS, method=method, num_layers=12, from_scratch=False, fixed={})
    assert space["learning_rate"] == Range(5e-6, 5e-4, log=True)
    assert all(space[name].holds(DEFAULTS[name]) for name in DEFAULTS if name != "dropout" or method == "full")
    assert ("lora_rank" in space, "freeze_layers" in space) == (method == "lora", method == "full")
    TuneSettings(method=method, space={name: dimension.to_dict() for name, dimension in space.items()})


def test_what_is_fixed_is_not_searched() -> None:
    fixed = {"max_steps": 5, "dropout": 0.0}
    space = default_training_space(DEFAULTS, method="full", num_layers=1, from_scratch=True, fixed=fixed)
    assert set(space) == {"learning_rate", "batch_size"}


def test_every_searchable_setting_exists() -> None:
    from gpt2kit import GenerateSettings

    assert set(SEARCHABLE_IN_TRAINING) <= set(TrainSettings.model_fields)
    assert set(SEARCHABLE_IN_SAMPLING) <= set(GenerateSettings.model_fields)
