"""Cleaning: every change is right, counted, and independent of how the text comes in."""

import itertools
import unicodedata

import pytest
from ftfy.badness import is_bad
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt2kit.corpus import clean
from gpt2kit.corpus.clean import Cleaner

# Characters that rules look at, more often than chance would have them.
TRICKY = st.text(
    st.one_of(
        st.sampled_from("aeE .\n\r\r\n\x0b\x0c\x00\x1b[31m\x85\x93\xad\u0301\u0323\u200b\u2028\ufeffÃÂâ€œ™”é°Å‚ŒœРѓвЂ"),
        st.characters(exclude_categories=()),
    )
)


def cleaned(text: str) -> tuple[str, dict[str, int]]:
    cleaner = Cleaner()
    return cleaner.clean(text), dict(cleaner.changes)


@pytest.mark.parametrize(
    ("text", "expected", "changes"),
    [
        ("plain\ttext\n\nwith “quotes” and café\n", None, {}),
        ("a\r\nb\rc\n\r\nd", "a\nb\nc\n\nd", {clean.LINE_ENDS: 3}),
        ("a\x0bb\u2028c\u2029d", "a\nb\nc\nd", {clean.LINE_ENDS: 3}),
        ("N\x00UL b\x07ell f\x0ceed \x7f", "NUL bell feed ", {clean.CONTROLS: 4}),
        ("é\x00", "é", {clean.CONTROLS: 1}),
        ("red \x1b[31mtext\x1b[0m é", "red text é", {clean.TERMINAL_CODES: 2}),
        ("soft\xadhyphen zero\u200bwidth\ufeff", "softhyphen zerowidth", {clean.INVISIBLE: 3}),
        ("half \ud83d a smile", "half  a smile", {clean.SURROGATES: 1}),
        ("cafe\u0301", "café", {clean.COMPOSED: 1}),
        ("â€œYesâ€\x9d, he said", "“Yes”, he said", {clean.MOJIBAKE: 1}),
        ("voilÃ  le travail", "voilà le travail", {clean.MOJIBAKE: 1}),
        ("good “line”\nbad â€œlineâ€\x9d\n", "good “line”\nbad “line”\n", {clean.MOJIBAKE: 1}),
        ("l’œuvre, un cœur", None, {}),
        ("naïve — «Здравствуй», Ὀδυσσεύς, 你好。👩‍👩‍👧", None, {}),
        ("<|endoftext|>", None, {}),
        ("", None, {}),
    ],
)
def test_what_is_changed_and_counted(text: str, expected: str | None, changes: dict[str, int]) -> None:
    assert cleaned(text) == (text if expected is None else expected, changes)


def test_a_zero_width_space_that_comes_out_of_mojibake_is_removed_too() -> None:
    assert cleaned("so â€œ\u200bgood".replace("\u200b", "") + "â€‹ it isâ€\x9d")[0].count("\u200b") == 0


def test_documents_are_counted_once_for_each_kind_of_change() -> None:
    cleaner = Cleaner()
    for text in ("a\r\nb\r\n", "fine", "c\r"):
        cleaner.start_document()
        cleaner.clean(text)
    assert cleaner.changes[clean.LINE_ENDS] == 3
    assert cleaner.documents[clean.LINE_ENDS] == 2


@given(TRICKY)
def test_clean_text_is_composed_and_free_of_what_is_removed(text: str) -> None:
    result, changes = cleaned(text)
    assert unicodedata.is_normalized("NFC", result)
    assert not any(unicodedata.category(char) in ("Cc", "Cs") and char not in "\t\n" for char in result)
    assert not set("\r\u2028\u2029\ufeff\xad\u200b") & set(result)
    assert (result == text) == (not changes)


@given(TRICKY, st.data())
def test_a_stream_is_the_same_however_it_is_chunked(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    bounds = [0, *cuts, len(text)]
    chunks = [text[start:end] for start, end in itertools.pairwise(bounds)]
    whole, parts = Cleaner(), Cleaner()
    assert "".join(parts.stream(chunks, block_characters=7)) == "".join(whole.stream([text], block_characters=7))
    assert parts.changes == whole.changes
    assert "".join(Cleaner().stream(chunks)) == cleaned(text)[0]


@given(st.lists(st.text(st.sampled_from("abc é\u0301ÃâœA€")), max_size=12))
def test_short_blocks_change_nothing_where_lines_are_short(lines: list[str]) -> None:
    text = "\n".join(line[:20] for line in lines)
    assert "".join(Cleaner().stream([text], block_characters=40)) == cleaned(text)[0]


@settings(max_examples=500)
@given(TRICKY)
@example("Ã")
@example("ГўВЂВ,a")
@example("x Â  ")
@example("Ã ")
@example("œ1")
def test_every_line_that_ftfy_finds_bad_is_shown_to_it(text: str) -> None:
    """The quick look before ftfy's measure never hides a bad line from it."""
    for line in text.replace("\r", "\n").translate({code: None for code in range(32) if code != 10}).split("\n"):
        seen = []
        cleaner = Cleaner()
        cleaner._repaired = lambda shown, seen=seen: seen.append(shown) or shown  # type: ignore[method-assign]
        cleaner.clean(line)
        assert bool(seen) or not is_bad(line)


def test_a_long_line_of_one_megabyte_blocks_is_cleaned_in_parts() -> None:
    text = ("word é cafe\u0301 " * 200_000).strip()
    result, changes = cleaned(text)
    assert result == unicodedata.normalize("NFC", text)
    assert changes[clean.COMPOSED] >= 1


def test_text_without_any_ascii_is_cut_between_characters() -> None:
    text = "한국어" * 50 + "각" * 50
    decomposed = unicodedata.normalize("NFD", text)
    assert "".join(Cleaner().stream([decomposed], block_characters=64)) == text
