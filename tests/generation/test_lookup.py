"""Guessing from what the text holds: the same texts with and without, and fewer readings where texts repeat."""

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.generation import GenerateSettings, LanguageModel, generate, load
from gpt2kit.generation.lookup import Lookup
from gpt2kit.native.engine import NativeEngine
from gpt2kit.native.library import load_library

needs_kernel = pytest.mark.skipif(load_library() is None, reason="the kernel was not compiled")


@pytest.fixture(scope="module", params=["fp32", "int8"])
def native(model_folder, request) -> LanguageModel:
    return load(model_folder, engine="native", weights=request.param)


@pytest.fixture
def num_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The tokens of each reading."""
    counts: list[int] = []

    def count(name: str) -> None:
        read = getattr(NativeEngine, name)

        def counted(self, caches, tokens, *arguments, **options):
            counts.append(sum(map(len, tokens)))
            return read(self, caches, tokens, *arguments, **options)

        monkeypatch.setattr(NativeEngine, name, counted)

    count("read")
    count("pick")
    return counts


@needs_kernel
@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0},
        {"temperature": 0.3, "seed": 1},
        {"temperature": 0.9, "top_p": 0.9, "seed": 2, "nsamples": 3},
        {"temperature": 0.2, "top_k": 20, "repetition_penalty": 1.2, "frequency_penalty": 0.3, "seed": 3},
        {"temperature": 0, "no_repeat_ngram_size": 5},
        {"temperature": 0.3, "seed": 4, "stop": ("fox",)},
        {"temperature": 0, "min_new_tokens": 60},
        {"temperature": 0.3, "seed": 5, "window_keep": 0.2},
    ],
)
@pytest.mark.parametrize("logprobs", [True, False])
def test_guesses_change_no_text(native: LanguageModel, how: dict, logprobs: bool) -> None:
    # 120 tokens go beyond the context of 48 more than once.
    prompts = ["The king saw the old fox. The king saw the old fox. The king", "", "fox fox fox fox fox fox", "A"]
    samples = [
        generate(
            native,
            prompts,
            GenerateSettings(engine="native", max_new_tokens=120, lookup=lookup, logprobs=logprobs, **how),
        )
        for lookup in (True, False)
    ]
    for one, other in zip(*samples, strict=True):
        assert (one.ids, one.text, one.finish_reason) == (other.ids, other.text, other.finish_reason)
        if logprobs:
            assert math.isclose(one.logprob, other.logprob, abs_tol=1e-9)
        else:
            assert one.logprob is other.logprob is None


@needs_kernel
def test_a_text_that_repeats_itself_takes_fewer_readings(native: LanguageModel, num_read: list[int]) -> None:
    """A negative penalty rewards tokens that are there already, so that greedy search goes round."""
    settings = GenerateSettings(
        engine="native", temperature=0, max_new_tokens=40, min_new_tokens=40, frequency_penalty=-10
    )
    [sample] = generate(native, ["fox"], settings.model_copy(update={"lookup": False}))
    assert len(num_read) == len(sample.ids) == 40
    num_read.clear()
    [again] = generate(native, ["fox"], settings)
    assert again.ids == sample.ids
    assert len(num_read) < 25


@needs_kernel
def test_nothing_is_read_beyond_the_end(native: LanguageModel, num_read: list[int]) -> None:
    for count in (1, 2, 3):
        num_read.clear()
        settings = GenerateSettings(engine="native", temperature=0, max_new_tokens=count, min_new_tokens=count)
        generate(native, ["fox fox fox fox fox fox"], settings)
        # Behind the prompt, no more than every token but the last: each wrong guess stands in for a token not read yet.
        assert all(tokens <= count - 1 for tokens in num_read[1:])
        assert len(num_read) <= count


def test_what_followed_last_time_is_guessed() -> None:
    lookup = Lookup([1, 2, 3, 4, 5, 6, 9, 1, 2, 3])
    assert lookup.guess(8) == [4, 5]
    lookup.learn(num_guessed=2, num_right=2)
    assert lookup.guess(8) == [4, 5, 6, 9]
    assert lookup.guess(1) == [4]
    assert lookup.guess(0) == lookup.guess(-1) == []
    assert Lookup([1, 2, 3, 4]).guess(8) == []


def test_the_latest_occurrence_counts_and_what_repeats_goes_round() -> None:
    assert Lookup([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3]).guess(1) == [5]
    lookup = Lookup([7, 8] * 4)
    lookup.learn(num_guessed=2, num_right=2)
    assert lookup.guess(4) == [7, 8, 7, 8]


def test_wrong_guesses_are_followed_by_ever_longer_rests() -> None:
    lookup = Lookup([1, 2, 3] * 4)
    rests = []
    for _ in range(8):
        assert lookup.guess(8)
        lookup.learn(num_guessed=2, num_right=0)
        rest = 0
        while not lookup.guess(8):
            rest += 1
        rests.append(rest)
    assert rests == sorted(rests)
    assert rests[-1] > 8 * rests[0]
    assert rests[-1] == rests[-2]


@given(st.lists(st.integers(0, 3), max_size=40), st.integers(-1, 9))
def test_guesses_are_of_the_text_and_no_more_than_asked_for(tokens: list[int], most: int) -> None:
    guesses = Lookup(tokens).guess(most)
    assert len(guesses) <= max(most, 0)
    assert set(guesses) <= set(tokens)
