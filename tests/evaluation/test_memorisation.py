"""Copies of the training text: found all, exactly, wherever they lie."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2kit.evaluation import memorisation
from gpt2kit.evaluation.memorisation import SHORTEST_RUN_WORDS, TrainingText, batches_of_texts, find_copies


def words(count: int, *, seed: int, vocabulary: int = 5000) -> list[str]:
    draw = random.Random(seed)
    return [f"w{draw.randrange(vocabulary)}" for _ in range(count)]


def naive_runs(text: list[str], training: list[list[str]]) -> list[int]:
    """For each word, the longest run ending with it that some training text holds: by trying them all."""
    runs = []
    for end in range(1, len(text) + 1):
        longest = 0
        for length in range(SHORTEST_RUN_WORDS, end + 1):
            run = text[end - length : end]
            if any(run == each[at : at + length] for each in training for at in range(len(each) - length + 1)):
                longest = length
        runs.append(longest)
    return runs


def test_a_planted_copy_is_found_with_its_place_and_counts_by_its_length():
    training = [words(300, seed=number) for number in range(5)]
    text = words(40, seed=100, vocabulary=10**9) + training[3][100:120] + words(40, seed=101, vocabulary=10**9)
    [copies] = find_copies(
        [" ".join(text)],
        [TrainingText("\n".join(each), f"{number}.txt", f"line {number}") for number, each in enumerate(training)],
    )
    [match] = copies.matches
    assert (match.first_word, match.num_words, match.source, match.place) == (40, 20, "3.txt", "line 3")
    assert match.text == " ".join(training[3][100:120])
    assert copies.longest == 20
    assert copies.num_copied(8) == copies.num_copied(20) == 20
    assert copies.num_copied(21) == 0
    assert copies.num_unseen == 80


def test_a_copy_over_the_border_of_pieces_counts_only_when_they_go_on():
    text = " ".join(words(20, seed=1))
    first, second = " ".join(words(20, seed=1)[:9]), " ".join(words(20, seed=1)[9:])
    [whole] = find_copies([text], [TrainingText(first, "a"), TrainingText(second, "a", continues=True)])
    assert [match.num_words for match in whole.matches] == [20]
    [apart] = find_copies([text], [TrainingText(first, "a", "1"), TrainingText(second, "b", "2")])
    assert [(match.num_words, match.source, match.place) for match in apart.matches] == [(9, "a", "1"), (11, "b", "2")]


def test_the_longer_of_two_copies_is_told_and_a_run_does_not_cross_texts():
    long = words(30, seed=2)
    training = [TrainingText(" ".join(long[:12]), "short"), TrainingText(" ".join(long), "long")]
    [copies] = find_copies([" ".join(long)], training)
    assert [(match.num_words, match.source) for match in copies.matches] == [(30, "long")]
    halves = find_copies([" ".join(long[:15]), " ".join(long[15:])], training)
    assert [each.longest for each in halves] == [15, 15]


@settings(max_examples=60)
@given(st.data())
def test_agrees_with_trying_everything(data):
    letters = st.lists(st.sampled_from("abc"), max_size=25)
    texts = data.draw(st.lists(letters, max_size=3))
    documents = data.draw(st.lists(st.lists(letters, min_size=1, max_size=3), max_size=3))
    training = [
        TrainingText(" ".join(piece), "s", continues=number > 0)
        for pieces in documents
        for number, piece in enumerate(pieces)
    ]
    whole = [[word for piece in pieces for word in piece] for pieces in documents]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memorisation, "_BLOCK_WORDS", data.draw(st.integers(1, 30)))
        found = find_copies([" ".join(text) for text in texts], training)
    for text, copies in zip(texts, found, strict=True):
        expected = naive_runs(text, whole)
        assert copies.runs_W.tolist() == expected
        covered = {at for end, run in enumerate(expected) if run >= 8 for at in range(end + 1 - run, end + 1)}
        assert copies.num_copied(8) == len(covered)


def test_places_are_right_when_blocks_are_small(monkeypatch):
    monkeypatch.setattr(memorisation, "_BLOCK_WORDS", 7)
    training = [words(10, seed=number) for number in range(20)]
    found = find_copies(
        [" ".join(each) for each in training],
        [TrainingText(" ".join(each), str(number)) for number, each in enumerate(training)],
    )
    assert [(each.matches[0].source, each.longest) for each in found] == [(str(number), 10) for number in range(20)]


@given(st.text())
def test_a_text_is_a_copy_of_itself_whatever_its_white_space(text):
    [copies] = find_copies([text], [TrainingText("\n \t".join(text.split()), "s")])
    expected = len(text.split())
    assert copies.longest == (expected if expected >= SHORTEST_RUN_WORDS else 0)


def test_case_and_punctuation_make_no_new_words():
    training = [TrainingText("The Wolf (so they say) ran home: yes—and no. It is a king's house.", "s")]
    texts = ["the wolf, SO they\n\"ran\"... home -- yes/no! It's the kings'", "The wolf zzyzx!"]
    [same, invents] = find_copies(texts, training)
    assert (same.num_bare, same.num_unseen) == (11, 1)  # "It's"
    assert (invents.num_bare, invents.num_unseen) == (3, 1)
    [without] = find_copies(["The wolf, the wolf"], [])
    assert (without.num_bare, without.num_unseen) == (4, 4)


def test_unseen_words_do_not_hang_on_what_is_remembered(monkeypatch):
    text = " ".join(words(200, seed=1, vocabulary=500))
    training = [TrainingText(" ".join(words(300, seed=number, vocabulary=500)), "s") for number in range(2, 5)]
    [expected] = find_copies([text], training)
    monkeypatch.setattr(memorisation, "_MOST_KNOWN_WORDS", 3)
    monkeypatch.setattr(memorisation, "_BLOCK_WORDS", 7)
    [found] = find_copies([text], training)
    assert found.num_unseen == expected.num_unseen > 0


def test_lots_keep_order_and_size():
    texts = ["a b c", "d e", "f", "g h i j k l", ""]
    assert batches_of_texts(texts, max_words=5) == [["a b c", "d e"], ["f"], ["g h i j k l"], [""]]
    assert batches_of_texts([]) == []


@pytest.mark.slow
def test_a_hundred_megabytes_take_seconds():
    pieces = [" ".join(words(3000, seed=number, vocabulary=50_000)) for number in range(60)]

    def training():
        for number in range(100_000_000 // len(pieces[0])):
            yield TrainingText(pieces[number % len(pieces)], "s")

    import time

    start = time.monotonic()
    [copies] = find_copies([pieces[7][:2000]], training())
    assert copies.longest > 250
    assert time.monotonic() - start < 30


def test_recites_a_real_book(corpora: Path):
    book = next(corpora.rglob("*.txt")).read_text(encoding="utf-8", errors="replace")[:300_000]
    passage = book[len(book) // 2 :][:1000].split(maxsplit=1)[1].rsplit(maxsplit=1)[0]
    [copies] = find_copies([passage], [TrainingText(book, "book")])
    assert copies.longest == len(passage.split())
