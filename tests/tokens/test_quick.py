"""tiktoken gives the ids of `tokenizers`, or is not asked."""

import json
import random
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

import gpt2kit
from gpt2kit.tokens import Tokenizer
from gpt2kit.tokens.quick import reads_alike

pytest.importorskip("tiktoken")

NANO = Path(gpt2kit.__file__).parent / "nano"
ALIKE = [character for character in map(chr, range(0x2065)) if reads_alike(character)]


@pytest.fixture(scope="module", params=["nano", "gpt2"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "nano":
        return Tokenizer.from_folder(NANO)
    return Tokenizer.from_folder(request.getfixturevalue("corpora") / "tokenizer")


def quick(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    assert tokenizer._quick is not None
    return tokenizer._quick(texts)


def test_every_character_that_is_taken_in_every_place(tokenizer: Tokenizer) -> None:
    assert len(ALIKE) > 1300
    texts = [f"a{each}b {each} 1{each}2{each}{each} {each}\n{each}'s." for each in ALIKE]
    assert quick(tokenizer, texts) == [tokenizer.encode(text) for text in texts]


@settings(max_examples=300)
@given(st.data())
def test_any_text_of_these_characters(data: st.DataObject) -> None:
    tokenizer = Tokenizer.from_folder(NANO)
    common = st.sampled_from(" \n\t'stheandre.,-10éß\u2019\u2014\u00a0")
    texts = data.draw(st.lists(st.text(st.one_of(common, st.sampled_from(ALIKE)), max_size=60), max_size=5))
    assert quick(tokenizer, texts) == [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize(
    "text", [" " * 100_000, "a" * 100_000, "\n \n" * 30_000, "ab1 " * 30_000, "<|endoftext|>" * 999]
)
def test_long_runs_and_what_looks_like_a_special_token(text: str) -> None:
    tokenizer = Tokenizer.from_folder(NANO)
    assert quick(tokenizer, [text]) == [tokenizer.encode(text)]


def test_books(corpora: Path, tokenizer: Tokenizer) -> None:
    texts = [path.read_text(encoding="utf-8") for path in sorted((corpora / "finetune").glob("*.txt"))]
    texts = [part for text in texts for part in text.split("\n\n")]
    assert quick(tokenizer, texts) == [tokenizer.encode(text) for text in texts]


def test_a_large_batch_of_both_kinds_is_in_its_order() -> None:
    tokenizer = Tokenizer.from_folder(NANO)
    draw = random.Random(0)
    words = ["the old king", "日本語のテキスト", "haus — straße", "😀 smile", "<|endoftext|>"]
    texts = [" ".join(draw.choices(words, k=200)) for _ in range(400)]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_merges_that_ids_do_not_tell_are_left_alone() -> None:
    """Of "abc" the merges make "ab" first, although "bc" has the lower id; and a token that no merge reaches."""
    values = json.loads(tokenizers.Tokenizer.from_file(str(NANO / "tokenizer.json")).to_str())
    merges = values["model"]["merges"]
    swapped = values | {"model": values["model"] | {"merges": [merges[1], merges[0], *merges[2:]]}}
    shorter = values | {"model": values["model"] | {"merges": merges[:-1]}}
    lower = values | {"normalizer": {"type": "Lowercase"}}
    for changed in (swapped, shorter, lower):
        assert Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(changed)))._quick is None
