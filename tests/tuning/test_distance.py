"""How far texts are from human ones."""

import math
import random
from collections.abc import Callable, Sequence
from string import ascii_lowercase

import numpy as np
import pytest

from gpt2kit.evaluation.statistics import Floats
from gpt2kit.tuning.distance import MauveDistance, diversity_distance, figures


@pytest.fixture
def human(tale: Callable[..., str]) -> list[str]:
    return [tale(number, sentences=12) for number in range(24)]


def test_human_texts_are_nowhere_from_themselves(human: list[str]) -> None:
    assert diversity_distance(human, human) == 0


def test_other_texts_of_the_same_kind_are_about_one_away(human: list[str], tale: Callable[..., str]) -> None:
    others = [tale(number, sentences=12) for number in range(100, 124)]
    assert 0 < diversity_distance(others, human) < 3


@pytest.mark.parametrize("kind", ["loops", "one text", "noise", "hardly anything"])
def test_texts_that_no_human_writes_are_far_away(human: list[str], kind: str, tale: Callable[..., str]) -> None:
    draw = random.Random(1)
    texts = {
        "loops": ["The old king saw the fox. " * 20 for _ in human],
        "one text": [tale(500, sentences=12) for _ in human],
        "noise": [" ".join(str(draw.random()) for _ in range(100)) for _ in human],
        "hardly anything": [text if number < 6 else "The." for number, text in enumerate(human)],
    }[kind]
    assert diversity_distance(texts, human) > 4


def test_too_few_texts_are_infinitely_far(human: list[str]) -> None:
    assert diversity_distance(human[:3], human[:3]) == math.inf
    assert diversity_distance([""] * len(human), human) == math.inf


def test_the_figures_of_a_known_text() -> None:
    found = figures([list("abab"), list("cdcd")])
    assert found["distinct_1"] == 0.5
    assert found["rep_2"] == pytest.approx(1 / 3)
    assert found["words_in_loops"] == 0
    assert found["self_bleu"] == 0


def letters(texts: Sequence[str]) -> Floats:
    """Texts as a reader might see them, in no time: how often each letter stands in them."""
    return np.array([[text.lower().count(letter) / len(text) for letter in ascii_lowercase] for text in texts])


def test_mauve_tells_other_texts_from_human_ones(human: list[str], tale: Callable[..., str]) -> None:
    distance = MauveDistance(letters)
    alike = distance([tale(number, sentences=12) for number in range(100, 124)], human)
    other = distance(["Zzz xylophone quiz jazz. " * 12 for _ in human], human)
    assert distance(human, human) < 0.5
    assert alike < 0.5 < other


def test_a_text_that_is_not_there_is_as_far_as_can_be(human: list[str]) -> None:
    distance = MauveDistance(letters)
    score = 1 - distance(human[:20], human[:20])
    assert distance([*human[:20], "", " ", "", ""], human) == pytest.approx(1 - score * 20 / 24)
    assert distance([*human[:19], "", "", "", "", ""], human) == math.inf
    assert distance(human[:19], human[:19]) == math.inf


def test_human_texts_are_read_once(human: list[str]) -> None:
    read: list[str] = []

    def reader(texts: Sequence[str]) -> Floats:
        read.extend(texts)
        return letters(texts)

    distance = MauveDistance(reader)
    others = [f"{text} And so on." for text in human]
    for _ in range(2):
        distance(others, human)
    assert sum(text in human for text in read) == len(human)
