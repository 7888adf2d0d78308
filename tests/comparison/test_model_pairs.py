"""The test by random signs and its correction, against counting by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.comparison.pairs import Rank, ranking_words, smallest_p, too_few_words
from gpt2kit.comparison.picture import labels_of
from gpt2kit.comparison.run import titled
from gpt2kit.evaluation.statistics import holm


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferronis_and_keeps_the_order(p_values):
    corrected = holm(p_values)
    for p, found in zip(p_values, corrected, strict=True):
        assert p <= found <= min(1.0, len(p_values) * p) + 1e-12
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    assert [corrected[k] for k in order] == sorted(corrected)


def test_how_small_p_can_get():
    assert smallest_p(5, 1) == 2 / 2**5
    assert smallest_p(14, 3) == 3 * 2 / 2**14
    assert smallest_p(1000, 45) == pytest.approx(45 / 20_001)
    assert smallest_p(2, 6) == 1.0


def test_too_few_documents_are_named():
    assert too_few_words(6, 1) == ""
    assert too_few_words(6, 3) == "with 6 held-out documents and 3 pairs of models no difference can come out clear"
    assert too_few_words(1, 1) == "with 1 held-out document and 1 pair of models no difference can come out clear"
    lines = ranking_words(
        [Rank(1, "a", 1.0, [], [], ["b"]), Rank(2, "b", 2.0, [], [], ["a"])], too_few=too_few_words(1, 1)
    )
    assert lines[0] == (
        "No model is clearly the best: with 1 held-out document and 1 pair of models no difference can come out clear."
    )


def test_titles_tell_models_apart():
    assert titled(["nano", "models/a", "models/b/"]) == ["nano", "a", "b"]
    assert titled(["x/model", "y/model"]) == ["x/model", "y/model"]
    assert titled(["nano", "nano", "nano"]) == ["nano", "nano (2)", "nano (3)"]
    assert titled(["my/human", "nano"]) == ["my/human", "nano"]


def test_a_ranking_that_nothing_is_clear_in():
    ranks = [
        Rank(1, "a", 1.0, [], [], ["b", "c"]),
        Rank(2, "b", 1.1, [], [], ["a", "c"]),
        Rank(3, "c", 1.2, [], [], ["a", "b"]),
    ]
    lines = ranking_words(ranks)
    assert lines[0].startswith("No model is clearly the best")
    assert lines[1] == "1. a (1.0000 bits per byte): not told apart from b and c."


def test_of_many_models_all_the_others_are_not_named_in_every_line():
    names = "abcdef"
    ranks = [Rank(place, name, 1.0, [], [], [*names.replace(name, "")]) for place, name in enumerate(names, 1)]
    assert ranking_words(ranks)[1] == "1. a (1.0000 bits per byte): not told apart from any other."
    ranks = [Rank(1, "a", 1.0, [*"bcdef"], [], []), Rank(6, "f", 2.0, [], [*"abcd"], ["e"]), *ranks[1:5]]
    assert ranking_words(ranks)[1] == "1. a (1.0000 bits per byte): clearly better than every other."
    assert "not told apart from e; clearly worse than a, b, c and d." in ranking_words(ranks)[2]


def test_labels_of_the_picture_tell_models_apart():
    assert labels_of(["nano", "a" * 30]) == {"nano": "nano", "a" * 30: "…" + "a" * 23}
    first, second = "one/" + "a" * 30, "two/" + "a" * 30
    assert labels_of([first, second]) == {first: "1. …" + "a" * 23, second: "2. …" + "a" * 23}
