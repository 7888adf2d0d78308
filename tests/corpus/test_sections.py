"""Sections: all of the text, cut where the tokens do not change."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.corpus.sections import cut_sections

WORDS = st.lists(
    st.sampled_from(["word", "don't", "«ja»", " ", "  ", "\n", "\n\n", "\t", ". ", "中文。", "e\u0301", "\u00a0"])
)


def first(sections: Iterator[str]) -> str:
    return next(sections)


@given(WORDS.map("".join), st.integers(1, 30), st.integers(1, 40))
def test_sections_together_are_the_text_whatever_the_parts(text: str, section_chars: int, part_chars: int) -> None:
    sections = list(cut_sections([text], section_chars))
    assert "".join(sections) == text
    assert all(sections)
    assert all(len(section) <= 4 * section_chars + 1 for section in sections)
    parts = [text[start : start + part_chars] for start in range(0, len(text), part_chars)]
    assert list(cut_sections(parts, section_chars)) == sections


@given(st.lists(st.sampled_from(["word", "it's", "9", "!", "…”"]), min_size=1), st.data())
def test_text_with_spaces_is_cut_directly_before_white_space(words: list[str], data: st.DataObject) -> None:
    spaces = data.draw(
        st.lists(st.sampled_from([" ", "  ", "\n", "\n\n", " \n"]), min_size=len(words), max_size=len(words))
    )
    text = "".join(word + space for word, space in zip(words, spaces, strict=True))
    sections = list(cut_sections([text], 8))
    for before, after in itertools.pairwise(sections):
        assert after[0].isspace()
        assert not before[-1].isspace()


def test_paragraph_ends_come_first_then_lines_then_sentences_then_words() -> None:
    assert first(cut_sections(["one two. three\nfour\n\nfive six seven eight nine ten"], 28)) == "one two. three\nfour"
    assert first(cut_sections(["one two. three four\nfive six seven eight nine ten elf"], 28)) == "one two. three four"
    assert first(cut_sections(["one two three four. five six seven eight nine ten elf"], 28)) == "one two three four."
    assert first(cut_sections(["one two three four five six seven eight nine ten elf"], 28)).endswith("six")


def test_text_without_spaces_is_cut_behind_signs_and_never_before_accents() -> None:
    assert first(cut_sections(["这是一个故事。从前有一个国王" * 3], 10)) == "这是一个故事。"
    accents = "e\u0301" * 40
    assert all(section[0] == "e" for section in cut_sections([accents], 9))


def test_most_sections_have_half_the_wanted_length_to_all_of_it() -> None:
    text = " ".join(f"word{number}" for number in range(20_000))
    sections = list(cut_sections([text], 1000))
    assert all(500 <= len(section) <= 1250 for section in sections)


def test_pieces_encode_to_the_tokens_of_the_whole(corpora) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE.from_file(
            str(corpora / "tokenizer" / "vocab.json"), str(corpora / "tokenizer" / "merges.txt")
        )
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    for name in ("tinyshakespeare.txt", "andersen_fairy_tales.txt"):
        text = (corpora / "finetune" / name).read_text(encoding="utf-8")[:200_000]
        whole = tokenizer.encode(text).ids
        joined = [token for section in cut_sections([text], 1500) for token in tokenizer.encode(section).ids]
        assert joined == whole
