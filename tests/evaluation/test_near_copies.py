"""Near copies: planted ones are found wherever they lie, by how much they were changed."""

import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2kit.evaluation import near_copies
from gpt2kit.evaluation.memorisation import TrainingText
from gpt2kit.evaluation.near_copies import _extend, find_near_copies


def words(count: int, *, seed: int, vocabulary: int = 5000) -> list[str]:
    draw = random.Random(seed)
    return [f"w{draw.randrange(vocabulary)}" for _ in range(count)]


def training(*texts: list[str]) -> list[TrainingText]:
    return [TrainingText(" ".join(each), f"{number}.txt", f"line {number}") for number, each in enumerate(texts)]


def with_edits(copy: list[str], every: int) -> list[str]:
    """One word of so many changed, left out or added in turn."""
    changed: list[str] = []
    for number, word in enumerate(copy):
        if number % every != every - 1:
            changed.append(word)
        elif number // every % 3 == 0:
            changed.append(f"other{number}")
        elif number // every % 3 == 1:
            changed += [word, f"more{number}"]
    return changed


@pytest.mark.parametrize(("every", "edits"), [(100, 0), (25, 2), (10, 5), (6, 8)])
def test_a_copy_with_some_words_changed_is_found_with_its_edits(every: int, edits: int) -> None:
    books = [words(2000, seed=number) for number in range(4)]
    copy = with_edits(books[2][700:750], every)
    text = words(30, seed=50, vocabulary=10**9) + copy + words(30, seed=51, vocabulary=10**9)
    [found] = find_near_copies([" ".join(text)], training(*books), shortest=20)
    [copied] = found.copies
    assert copied.edits == pytest.approx(edits, abs=1)  # an edit near the end does not pay, and is left out
    assert copied.num_words == pytest.approx(len(copy), abs=4)
    assert (copied.source, copied.place) == ("2.txt", "line 2")
    assert " ".join(text)[copied.start : copied.end] == copied.text
    assert found.num_words == len(text)
    assert found.num_copied == copied.num_words


def test_more_changes_are_no_near_copy() -> None:
    book = words(2000, seed=1)
    text = with_edits(book[700:800], 3)
    [found] = find_near_copies([" ".join(text)], training(book), shortest=20)
    assert (found.num_copied, found.copies) == (0, [])


def test_case_punctuation_and_line_breaks_do_not_count() -> None:
    book = (
        "The old king saw the little fox in the garden, and he said: 'Come here, my friend, and tell me all!'".split()
    )
    text = "THE OLD KING - saw the little fox\nin the garden and he said come here my friend and tell me all"
    [found] = find_near_copies([text], training(words(500, seed=3), book), shortest=20)
    [copied] = found.copies
    assert (copied.edits, copied.similarity, copied.num_words) == (0, 1.0, 21)
    assert copied.text == text
    assert copied.training_text.startswith("The old king saw")
    assert find_near_copies([text], training(book), shortest=22)[0].copies == []


def test_texts_and_documents_are_kept_apart() -> None:
    passage = words(30, seed=4)
    halves = [" ".join(passage[:15]), " ".join(passage[15:])]
    assert [each.num_copied for each in find_near_copies(halves, training(passage), shortest=20)] == [0, 0]
    # Between documents stands a mark, which nothing goes over: there it would be two pieces of 15.
    goes_on = [TrainingText(halves[0], "a"), TrainingText(halves[1], "a", continues=True)]
    assert find_near_copies([" ".join(passage)], goes_on, shortest=20)[0].copies[0].edits == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(20, 60), st.integers(8, 30), st.integers(50, 400))
def test_planted_copies_are_found_over_the_borders_of_blocks(seed: int, length: int, every: int, block: int) -> None:
    book = words(600, seed=seed, vocabulary=10**6)
    at = seed % (600 - length)
    copy = with_edits(book[at : at + length], every)
    pieces = [
        TrainingText(" ".join(["-", *book[first : first + 50]]), "b", str(first), continues=first > 0)
        for first in range(0, 600, 50)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_copies, "_BLOCK_WORDS", block)
        patch.setattr(near_copies, "_MARGIN_WORDS", 80)
        [found] = find_near_copies([" ".join(copy)], pieces, shortest=16)
    assert found.num_copied >= len(copy) - every
    assert found.copies[0].place in (str(at // 50 * 50), str((at // 50 + 1) * 50))


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_an_alignment_grows_to_the_best_score(text: list[int], other: list[int]) -> None:
    def best(first: int, second: int) -> int:
        """The best score of aligning the two beginnings in full: by the plain recursion of Needleman and Wunsch."""
        table = [[-3 * (row + column) for column in range(second + 1)] for row in range(first + 1)]
        for row in range(1, first + 1):
            for column in range(1, second + 1):
                agree = 1 if text[row - 1] == other[column - 1] else -3
                table[row][column] = max(
                    table[row - 1][column - 1] + agree, table[row - 1][column] - 3, table[row][column - 1] - 3
                )
        return table[first][second]

    first, second, edits = _extend(text, other, edit_cost=3)
    highest = max(best(row, column) for row in range(len(text) + 1) for column in range(len(other) + 1))
    assert best(first, second) == highest
    assert 0 <= edits <= max(first, second)


def test_a_near_copy_ends_with_its_document() -> None:
    one, two = words(200, seed=1), words(200, seed=2)
    across = " ".join([*one[-10:], *two[:10]])  # twenty words, of which no document has more than ten
    [found] = find_near_copies([across], training(one, two), shortest=16)
    assert (found.num_copied, found.copies) == (0, [])
    long = " ".join([*one[-20:], *two[:20]])
    [found] = find_near_copies([long], training(one, two), shortest=16)
    assert [(each.num_words, each.edits) for each in found.copies] == [(20, 0), (20, 0)]
    joined = [TrainingText(" ".join(one), "a"), TrainingText(" ".join(two), "a", continues=True)]
    [found] = find_near_copies([across], joined, shortest=16)
    assert [(each.num_words, each.edits) for each in found.copies] == [(20, 0)]


def test_no_text_no_training_text() -> None:
    assert find_near_copies([], training(["a"] * 30), shortest=20) == []
    assert [each.num_copied for each in find_near_copies(["", "a b"], [], shortest=20)] == [0, 0]
    [loop] = find_near_copies(["la " * 200], training(["la"] * 300), shortest=20)
    assert loop.num_copied == 200


@pytest.mark.slow
def test_a_hundred_megabytes_take_seconds() -> None:
    pieces = [" ".join(words(3000, seed=number, vocabulary=50_000)) for number in range(60)]
    copy = with_edits(pieces[7].split()[:300], 12)
    start = time.monotonic()
    stream = (TrainingText(pieces[number % 60], "s") for number in range(100_000_000 // len(pieces[0])))
    [found] = find_near_copies([" ".join(copy)], stream, shortest=20)
    assert found.num_copied > 280
    assert time.monotonic() - start < 60


def test_recites_a_real_book_with_changes(corpora: Path) -> None:
    book = next(corpora.rglob("conan*.txt")).read_text(encoding="utf-8")[:300_000]
    copy = with_edits(book[len(book) // 2 :].split()[:200], 10)
    [found] = find_near_copies([" ".join(copy)], [TrainingText(book, "book")], shortest=20)
    assert found.num_copied > 0.95 * found.num_words


def test_a_core_is_found_though_its_surroundings_are_too_loose() -> None:
    """Sixteen words alike, and on both sides ten of thirteen: together below 0.8, but not the core."""
    book = words(2000, seed=1, vocabulary=10**9)
    changed = list(book[700:850])
    for start in (700, 713, 726, 739, 752, 781, 794, 807, 820, 833):
        for place in (start + 10, start + 11, start + 12):
            changed[place - 700] = f"other{place}"
    [found] = find_near_copies([" ".join(changed)], training(book), shortest=20)
    assert found.num_copied >= 16
    assert all(copied.similarity >= 0.8 for copied in found.copies)


def test_vowel_signs_tell_words_apart() -> None:
    assert len({near_copies.normalised(word) for word in ("का", "कि", "की", "के")}) == 4
