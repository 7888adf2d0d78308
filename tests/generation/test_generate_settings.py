"""Settings: ranges, other names, and what has no effect."""

import pytest

from gpt2kit.errors import UsageError
from gpt2kit.generation import GenerateSettings, generate


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top_p": 2}, "--top_p 2: should be less than or equal to 1"),
        ({"top_p": 0}, "--top_p 0: should be greater than 0"),
        ({"temperature": -1}, "--temperature -1: should be greater than or equal to 0"),
        ({"temperature": float("nan")}, "--temperature nan"),
        ({"max_new_tokens": 0}, "--max_new_tokens 0: should be greater than or equal to 1"),
        ({"top_k": -3}, "--top_k -3"),
        ({"window_keep": 1}, "--window_keep 1"),
        ({"stop": ""}, "stop string should not be empty"),
        ({"truncate": ""}, "should not be empty"),
        ({"length": 5, "max_new_tokens": 6}, "--length 5 and --max_new_tokens 6: give one of the two"),
        ({"num_beams": 2, "penalty_alpha": 0.6, "top_k": 4}, "exclude each other"),
        ({"penalty_alpha": 0.6}, "--penalty_alpha 0.6 needs --top_k of at least 2"),
        ({"num_beams": 2, "nsamples": 3}, "--nsamples 3: beam search with --num_beams 2"),
        ({"min_new_tokens": 9, "length": 5}, "--min_new_tokens 9 is more than --max_new_tokens 5"),
        ({"system": "Be brief."}, "--system needs --chat"),
        ({"topp": 0.5}, "unknown setting 'topp'; did you mean 'top_p'"),
    ],
)
def test_a_wrong_value_is_one_clear_line(values, message):
    with pytest.raises(UsageError) as caught:
        GenerateSettings(**values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_names_of_gpt_2_simple():
    settings = GenerateSettings(length=5, prefix="The king", truncate="END", nsamples=2, nfiles=3)
    assert settings.token_limit == 5
    assert settings.prompts == ("The king",)
    assert settings.stop_strings == ("END",)


@pytest.mark.parametrize(
    ("values", "method"),
    [
        ({}, "sampling"),
        ({"temperature": 0}, "greedy"),
        ({"top_k": 1}, "greedy"),
        ({"num_beams": 2}, "beam"),
        ({"penalty_alpha": 0.6, "top_k": 4}, "contrastive"),
    ],
)
def test_the_method_follows_from_the_values(values, method):
    assert GenerateSettings(**values).method == method


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"temperature": 0, "top_p": 0.9}, ["top_p"]),
        ({"temperature": 0, "top_k": 40, "min_p": 0.1}, ["top_k", "min_p"]),
        ({"top_k": 1, "temperature": 0.7}, ["temperature"]),
        ({"num_beams": 2, "temperature": 0.7, "length_penalty": 2.0}, ["temperature"]),
        ({"length_penalty": 2.0, "early_stopping": True}, ["length_penalty", "early_stopping"]),
        ({"penalty_alpha": 0.5, "top_k": 4, "typical_p": 0.5}, ["typical_p"]),
        ({"temperature": 0, "top_p": 1.0, "top_k": 0, "seed": 3}, []),
        ({"num_beams": 2, "temperature": 0}, []),
        ({"top_k": 40, "top_p": 0.5, "min_p": 0.1, "typical_p": 0.5, "temperature": 2}, []),
    ],
)
def test_settings_without_effect_are_named(values, names, model, capsys):
    settings = GenerateSettings(max_new_tokens=1, **values)
    assert sorted(settings.without_effect()) == sorted(names)
    generate(model, ["fox"], settings)
    said = capsys.readouterr().err
    assert all(f"--{name} has no effect with" in said for name in names)
    assert said.count("no effect") == len(names)
