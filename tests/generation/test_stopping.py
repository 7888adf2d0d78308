"""Texts while they are written: stop strings, characters of several bytes, what is given out when."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2kit.generation.writing import Ending, Job, Writing, find_stop

JOB = Job("", (0,), 0, 0, 0, 0)


def write(tokenizer, ids, ending):
    """All pieces of a text, and the text, when these ids come until it is finished."""
    writing = Writing(JOB, tokenizer, ending)
    pieces = []
    for identifier in ids:
        pieces.append(writing.push(identifier, -1.0))
        if writing.finish_reason is not None:
            break
    return writing, pieces


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=40),
    st.lists(st.text("ab \nü", min_size=1, max_size=4), max_size=3),
)
def test_pieces_are_the_text_and_never_hold_a_stop_string(tokenizer, ids, stop):
    writing, pieces = write(tokenizer, ids, Ending(len(ids), tuple(stop)))
    assert writing.finish_reason is not None
    assert "".join(pieces) == writing.text
    whole = tokenizer.decode(writing.ids)
    assert whole.startswith(writing.text)
    assert find_stop(writing.text, stop) is None
    assert (writing.finish_reason == "stop") == (find_stop(whole, stop) is not None)
    assert writing.logprob == -len(writing.ids)


def test_a_stop_string_over_several_tokens_stops_with_its_last_one(tokenizer):
    ids = [*tokenizer.encode("The fox"), *(i for c in "END" for i in tokenizer.encode(c)), *tokenizer.encode(" ran")]
    writing, pieces = write(tokenizer, ids, Ending(100, ("END",)))
    assert (writing.text, writing.finish_reason) == ("The fox", "stop")
    assert "".join(pieces) == "The fox"
    assert tokenizer.decode(writing.ids) == "The foxEND"


def test_what_only_looked_like_a_stop_string_is_given_out(tokenizer):
    ids = [i for c in "aENaEN" for i in tokenizer.encode(c)]
    writing, pieces = write(tokenizer, ids, Ending(len(ids), ("END",)))
    assert pieces == ["a", "", "", "ENa", "", "EN"]
    assert (writing.text, writing.finish_reason) == ("aENaEN", "length")


def test_never_half_a_character(tokenizer):
    ids = tokenizer.encode("a🦊b")
    _, pieces = write(tokenizer, ids, Ending(len(ids)))
    assert "".join(pieces) == "a🦊b"
    assert all("\ufffd" not in piece for piece in pieces)


def test_a_character_cut_by_the_length_is_shown_as_unknown(tokenizer):
    first_bytes = tokenizer.encode("ж")[:1]
    assert len(tokenizer.encode("ж")) > 1
    writing, pieces = write(tokenizer, first_bytes, Ending(1))
    assert writing.text == "".join(pieces) == "\ufffd"


def test_end_of_text_ends_a_text_and_is_not_part_of_it(tokenizer):
    writing, pieces = write(tokenizer, [*tokenizer.encode("fox"), tokenizer.end_of_text, 5], Ending(100, ("<|",)))
    assert (writing.text, writing.finish_reason) == ("fox", "end_of_text")
    assert writing.ids[-1] == tokenizer.end_of_text
    assert "".join(pieces) == "fox"


@pytest.mark.parametrize("text", ["  the fox", "the fox"])
def test_white_space_at_the_start_is_left_out_where_asked(tokenizer, text):
    ids = [i for c in text for i in tokenizer.encode(c)]
    writing, pieces = write(tokenizer, ids, Ending(len(ids), strip_start=True))
    assert writing.text == "".join(pieces) == "the fox"


def test_white_space_that_is_left_out_may_begin_a_stop_string(tokenizer):
    """An answer that is nothing but the next line of another role is empty, and not that line."""
    for text in ("\nUser: Hi", " \n\nUser: Hi"):
        ids = [i for c in text for i in tokenizer.encode(c)]
        writing, pieces = write(tokenizer, ids, Ending(len(ids), ("\nUser:",), strip_start=True))
        assert (writing.text, writing.finish_reason, "".join(pieces)) == ("", "stop", "")
    ids = [i for c in "\n\nUse it.\nMore" for i in tokenizer.encode(c)]
    writing, pieces = write(tokenizer, ids, Ending(len(ids), ("\nUser:", "\n"), strip_start=True))
    assert (writing.text, writing.finish_reason, "".join(pieces)) == ("Use it.", "stop", "Use it.")


@settings(max_examples=200, deadline=None)
@given(st.text("ab \n", max_size=12), st.lists(st.text("ab \n", min_size=1, max_size=4), max_size=3))
def test_a_text_ends_where_its_ending_says_it_has_come(tokenizer, text, stop):
    ending = Ending(100, tuple(stop), strip_start=True)
    ids = [i for c in text for i in tokenizer.encode(c)]
    writing, pieces = write(tokenizer, ids, ending)
    for number in range(1, len(ids) + 1):
        has_come = ending.has_come(tokenizer.decode(ids[:number]))
        assert has_come == (writing.finish_reason == "stop" and number >= len(writing.ids))
    assert writing.text.startswith("".join(pieces))
    assert writing.text == writing.text.lstrip()
