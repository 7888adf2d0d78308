"""Which pairs are shown, in which order, and what cannot be judged."""

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.errors import DataError, UsageError
from gpt2kit.evaluation.texts import TextSet
from gpt2kit.review.pairs import cut_to_same_length, make_pairs, read_contestants, tidied, turns_of


def sets_of(number_of_prompts, *names):
    prompts = [f"p{number}" for number in range(number_of_prompts)]
    return {
        name: TextSet(name, [f"{name} wrote {number}" for number in range(number_of_prompts)], prompts)
        for name in names
    }


def test_every_two_texts_of_a_prompt_are_a_pair(report):
    sets = read_contestants([report], with_human=False)
    found = make_pairs(sets, same_length=False)
    assert len(found.pairs) == 6 * 3
    assert found.contestants == ["models/alpha-7", "models/beta-9", "gamma"]
    assert Counter(pair.prompt_number for pair in found.pairs) == dict.fromkeys(range(6), 3)
    assert len(make_pairs(read_contestants([report], with_human=True), same_length=False).pairs) == 6 * 6


def test_texts_that_are_the_same_are_left_out_and_counted():
    sets = sets_of(3, "a", "b")
    sets["b"].texts[1] = sets["a"].texts[1] + "  "
    found = make_pairs(sets, same_length=False)
    assert ([pair.prompt for pair in found.pairs], found.num_alike) == (["p0", "p2"], 1)
    with pytest.raises(UsageError, match="no pair of different texts"):
        make_pairs({"a": sets["a"], "b": sets["a"]}, same_length=False)


def test_only_prompts_that_all_have_are_judged():
    sets = sets_of(3, "a", "b")
    sets["c"] = TextSet("c", ["x", "y", "z"], ["p0", "p2", "elsewhere"])
    found = make_pairs(sets, same_length=False)
    assert {pair.prompt for pair in found.pairs} == {"p0", "p2"}
    assert found.num_unmatched == 1 + 1 + 1


@given(st.text(), st.text())
def test_cut_texts_have_as_many_words_and_are_beginnings(first, second):
    cut = cut_to_same_length(first, second)
    assert len(cut[0].split()) == len(cut[1].split()) == min(len(first.split()), len(second.split()))
    assert first.startswith(cut[0])
    assert second.startswith(cut[1])


def test_empty_lines_do_not_fill_the_screen():
    assert tidied("\n a\n\n \n\n\nb\n\nc\nd \n") == "a\n\nb\n\nc\nd"


def test_orders_are_everyones_own_and_the_same_again():
    pairs = make_pairs(sets_of(12, "a", "b", "c"), same_length=False).pairs
    ann, bob = (turns_of(pairs, rater, seed=0, limit=0) for rater in ("Ann", "Bob"))
    assert ann == turns_of(pairs, "Ann", seed=0, limit=0)
    assert [turn.pair.number for turn in ann] != [turn.pair.number for turn in bob]
    assert sorted(turn.pair.number for turn in ann) == list(range(36))
    assert [turn.position for turn in ann] == list(range(36))
    assert [turn.left_is_first for turn in ann] != [turn.left_is_first for turn in bob]
    assert turns_of(pairs, "Ann", seed=1, limit=0) != ann


def test_who_stops_early_has_judged_all_contestants_about_equally():
    pairs = make_pairs(sets_of(12, "a", "b", "c"), same_length=False).pairs
    for stop in (3, 6, 9, 30):
        asked = Counter((turn.pair.first, turn.pair.second) for turn in turns_of(pairs, "Ann", seed=0, limit=stop))
        assert set(asked.values()) == {stop // 3}
    first_round = turns_of(pairs, "Ann", seed=0, limit=3)
    assert len({turn.pair.prompt_number for turn in first_round}) == 3


def test_sides_are_drawn():
    pairs = make_pairs(sets_of(400, "a", "b"), same_length=False).pairs
    left = sum(turn.left_is_first for turn in turns_of(pairs, "Ann", seed=0, limit=0))
    assert 150 < left < 250
    turn = turns_of(pairs, "Ann", seed=0, limit=1)[0]
    shown = (turn.left_text, turn.right_text)
    assert shown == (turn.pair.first_text, turn.pair.second_text)[:: 1 if turn.left_is_first else -1]


def test_files_of_generate_are_contestants_by_their_names(tmp_path):
    for name, word in (("one", "x"), ("two", "y")):
        lines = [{"settings": {}}] + [{"prompt": "p", "text": f"{word}{turn}"} for turn in range(2)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = make_pairs(
        read_contestants([tmp_path / "one.jsonl", tmp_path / "two.jsonl"], with_human=False), same_length=True
    )
    assert [(pair.first_text, pair.second_text) for pair in found.pairs] == [("x0", "y0"), ("x1", "y1")]
    assert found.contestants == ["one", "two"]
    assert {pair.prompt_number for pair in found.pairs} == {0}


def test_files_whose_prompts_had_another_form_are_warned_of(tmp_path, capsys):
    paths = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for path, is_first in zip(paths, (True, False), strict=True):
        lines = [{"settings": {}, "end_of_text_first": is_first}, {"prompt": "p", "text": path.stem}]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    read_contestants(paths, with_human=False)
    assert "write them with the same --end_of_text_first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("[]", DataError, "holds a list"),
        ("{}", DataError, "holds no samples"),
        ('{"samples": {"a": {"texts": ["x"], "prompts": []}}}', DataError, "'a' should be as many texts as prompts"),
        ('{"samples": {"a": {"texts": [1], "prompts": ["p"]}}}', DataError, "'a' should be as many texts as prompts"),
        ('{"samples": {"a": {"texts": ["x"], "prompts": ["p"]}}}', UsageError, "holds texts of 1 contestant, and two"),
    ],
)
def test_reports_that_hold_nothing_to_judge(tmp_path, content, error, message):
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(error, match=message):
        read_contestants([path], with_human=False)


def test_wrong_inputs_are_said(tmp_path):
    with pytest.raises(UsageError, match=r"give one \.json report .* or two or more \.jsonl"):
        read_contestants([tmp_path / "a.jsonl"], with_human=False)
    with pytest.raises(UsageError, match="the same file is given twice"):
        read_contestants([Path("a.jsonl"), Path("a.jsonl")], with_human=False)
    with pytest.raises(UsageError, match=r"INPUTS .*a\.jsonl: cannot be read"):
        read_contestants([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], with_human=False)


def test_a_text_of_nothing_is_judged():
    texts = {"a": ["", "two words"], "b": ["some words", "one two"]}
    sets = {name: TextSet(name, of_name, prompts=["p", "q"]) for name, of_name in texts.items()}
    first = make_pairs(sets, same_length=True).pairs[0]
    assert (first.first_text, first.second_text) == ("", "some words")
