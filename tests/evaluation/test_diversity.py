"""Known answers of the figures on variety, and two libraries as judges of self-BLEU and BLEU."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.evaluation.diversity import distinct, ngrams, repetition, self_bleu, words_in_loops
from gpt2kit.evaluation.words import split_sentences, split_words

texts_of_words = st.lists(st.lists(st.sampled_from("abcde"), max_size=12), min_size=2, max_size=5)


def test_distinct_counts_over_all_texts_together():
    texts = [list("aab"), list("ab")]  # words a a b | a b; pairs aa ab | ab
    assert distinct(texts, 1) == 2 / 5
    assert distinct(texts, 2) == 2 / 3
    assert distinct(texts, 3) == 1.0
    assert distinct(texts, 4) is None


def test_a_planted_loop_lowers_distinct_and_raises_repetition_by_what_it_repeats():
    fresh = [f"w{number}" for number in range(100)]
    looped = fresh[:50] + fresh[:10] * 5
    assert distinct([fresh], 1) == 1.0
    assert distinct([looped], 1) == 50 / 100
    assert repetition(fresh, 2) == 0.0
    # 99 pairs: 49 of the fresh half, its last word with the first, nine inside the loop (seen before), one at its seam
    assert repetition(looped, 2) == pytest.approx(1 - (49 + 1 + 1) / 99)
    assert repetition(["a"], 2) is None


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["very"] * 9, 0),  # too short to be called a loop
        (["very"] * 10, 10),
        (list("abcde") * 2 + ["end"], 0),  # twice is no loop
        (list("abcde") * 3, 15),
        (["start", "here"] + list("abcde") * 3 + ["ab"[0], "x"], 16),  # the begun fourth copy counts
        ([f"w{number}" for number in range(50)], 0),
        ([], 0),
    ],
)
def test_words_in_loops(words, expected):
    assert words_in_loops(words) == expected


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_words_in_loops_agrees_with_the_definition(words):
    inside = set()
    for start in range(len(words)):
        for period in range(1, len(words) // 3 + 1):
            end = start + period
            while end < len(words) and words[end] == words[end - period]:
                end += 1
            if end - start >= max(3 * period, 10):
                inside.update(range(start, end))
    assert words_in_loops(words) == len(inside)


def test_self_bleu_of_equal_and_of_unlike_texts():
    assert self_bleu([list("abcdef")] * 3) == pytest.approx([1.0, 1.0, 1.0])
    assert self_bleu([list("abcdef"), list("ghijkl")]) == [0.0, 0.0]
    # One word of six in common; the longer runs without a match count 1/(2·5), 1/(4·4), 1/(8·3).
    assert self_bleu([list("abcdef"), list("ahijkl")])[0] == pytest.approx((1 / 6 / 10 / 16 / 24) ** 0.25)
    assert self_bleu([list("abc")]) == []


@given(texts_of_words)
def test_self_bleu_is_sacrebleus(texts):
    sacrebleu = pytest.importorskip("sacrebleu")
    for number, score in enumerate(self_bleu(texts)):
        others = [" ".join(other) for place, other in enumerate(texts) if place != number]
        judge = sacrebleu.sentence_bleu(
            " ".join(texts[number]), others, smooth_method="exp", tokenize="none", use_effective_order=True
        )
        assert 100 * score == pytest.approx(judge.score, abs=1e-9)


def test_self_bleu_without_smoothing_at_work_is_nltks():
    bleu_score = pytest.importorskip("nltk.translate.bleu_score")
    draw = random.Random(0)
    texts = [[draw.choice("abcd") for _ in range(80)] for _ in range(5)]
    for number, score in enumerate(self_bleu(texts)):
        others = [other for place, other in enumerate(texts) if place != number]
        assert score == pytest.approx(bleu_score.sentence_bleu(others, texts[number]), rel=1e-12)


@given(st.lists(st.sampled_from("ab"), max_size=10), st.integers(1, 5))
def test_ngrams_are_all_runs(words, n):
    assert ngrams(words, n) == [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]


def test_splitting_words_and_sentences():
    assert split_words("Don't go—the well-known fox, said:") == [
        "Don't", "go", "—", "the", "well-known", "fox", ",", "said", ":",
    ]  # fmt: skip
    text = 'Mr. Fox met J. Wolf. "Where to?" he asked. Home!\n\nTHE END\n\n* * *'
    assert split_sentences(text) == ["Mr. Fox met J. Wolf.", '"Where to?"', "he asked.", "Home!", "THE END"]
    assert split_sentences("") == []


@given(st.text())
def test_sentences_keep_every_word(text):
    kept = [word for sentence in split_sentences(text) for word in split_words(sentence) if word.isalnum()]
    assert kept == [word for word in split_words(text) if word.isalnum()]


def test_repetition_of_a_loop_is_near_one():
    assert repetition(list("ab") * 50, 4) == pytest.approx(1 - 2 / 97)
    assert math.isclose(distinct([list("ab") * 50], 2) or 0, 2 / 99)
