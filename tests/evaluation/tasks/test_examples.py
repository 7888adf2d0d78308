"""Task files: what is read, and one clear line for what is wrong."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.errors import DataError, UsageError
from gpt2kit.evaluation.tasks.examples import (
    Question,
    detokenised,
    read_cloze,
    read_lambada,
    read_multiple_choice,
    read_wikitext,
)


def write(path, *lines):
    path.write_text("\n".join(json.dumps(line) if not isinstance(line, str) else line for line in lines) + "\n")
    return path


def test_lambada_asks_for_the_last_word(tmp_path):
    path = write(tmp_path / "l.jsonl", {"text": 'He said "Jon, not\nJane'}, "", {"text": "a b  c"})
    first, second = read_lambada(path, limit=None)
    assert first == Question('He said "Jon,', (" not\nJane",), 0)  # words are what spaces part, as in lm-eval
    assert second == Question("a b ", (" c",), 0)
    assert len(read_lambada(path, limit=1)) == 1


@given(st.lists(st.text(min_size=1).filter(lambda word: " " not in word), min_size=2, max_size=6))
def test_lambada_splits_as_lm_evals_template_does(tmp_path_factory, words):
    text = " ".join(words)
    path = write(tmp_path_factory.mktemp("l") / "l.jsonl", {"text": text})
    [question] = read_lambada(path, limit=None)
    # doc_to_text and doc_to_target of lm_eval/tasks/lambada/lambada_openai.yaml
    assert question.context == " ".join(text.split(" ")[:-1])
    assert question.choices == (" " + text.split(" ")[-1],)


def test_questions_and_cloze(tmp_path):
    path = write(tmp_path / "q.jsonl", {"context": "Grass is", "choices": ["green", "loud"], "answer": 0, "id": 3})
    assert read_multiple_choice(path, limit=None) == [Question("Grass is", (" green", " loud"), 0)]
    path = write(tmp_path / "c.jsonl", {"context": "", "answer": "Once upon"})
    assert read_cloze(path, limit=None) == [Question("", (" Once upon",), 0)]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "is not valid JSON"),
        ("[1]", "should be a JSON object"),
        ({"choices": ["a", "b"], "answer": 0}, "context should be a text, and is missing"),
        ({"context": "x", "choices": ["a"], "answer": 0}, "choices should be a list of two texts or more"),
        ({"context": "x", "choices": ["a", ""], "answer": 0}, "choices holds an empty text"),
        ({"context": "x", "choices": ["a", "b"], "answer": 2}, "answer should be a number from 0 to 1, and is 2"),
        ({"context": "x", "choices": ["a", "b"], "answer": True}, "answer should be a number from 0 to 1, and is True"),
        ({"context": 7, "choices": ["a", "b"], "answer": 0}, "context should be a text, and is 7"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(line, what, tmp_path):
    path = write(tmp_path / "q.jsonl", {"context": "x", "choices": ["a", "b"], "answer": 1}, line)
    with pytest.raises(DataError, match=re.escape(f"{path}:2: {what}")):
        read_multiple_choice(path, limit=None)


@pytest.mark.parametrize(
    ("read", "line", "name"),
    [
        (read_lambada, {"text": "one \ud800"}, "text"),
        (read_cloze, {"context": "\udfff", "answer": "x"}, "context"),
        (read_cloze, {"context": "x", "answer": "\ud800"}, "answer"),
        (read_multiple_choice, {"context": "\ud800", "choices": ["a", "b"], "answer": 0}, "context"),
        (read_multiple_choice, {"context": "x", "choices": ["a", "b\ud83d"], "answer": 0}, "choices"),
    ],
)
def test_half_a_character_is_told_with_its_line(read, line, name, tmp_path):
    path = write(tmp_path / "h.jsonl", "", line)
    with pytest.raises(DataError, match=re.escape(f"{path}:2: {name} holds half a character (\\ud")):
        read(path, limit=None)


def test_both_halves_of_a_character_are_one(tmp_path):
    path = write(tmp_path / "c.jsonl", {"context": "\U0001f98a", "answer": "x"})
    assert "\\ud83e\\udd8a" in path.read_text()
    assert read_cloze(path, limit=None)[0].context == "\U0001f98a"


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match=r"--lambada .*: cannot be read: No such file or directory; name a file"):
        read_lambada(tmp_path / "none.jsonl", limit=None)
    (tmp_path / "latin.jsonl").write_bytes(b'{"text": "caf\xe9 au"}')
    with pytest.raises(DataError, match="is not UTF-8 text \\(byte 13\\); save it as UTF-8"):
        read_lambada(tmp_path / "latin.jsonl", limit=None)
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"--cloze .* holds no examples; each is a line of JSON"):
        read_cloze(tmp_path / "empty.jsonl", limit=None)
    with pytest.raises(DataError, match=r"--wikitext .* holds no text; name a split of WikiText"):
        read_wikitext(tmp_path / "empty.jsonl", limit=None)
    for text in ("word", "ends in a space "):
        with pytest.raises(DataError, match=r"l.jsonl:1: text should be two words or more"):
            read_lambada(write(tmp_path / "l.jsonl", {"text": text}), limit=None)


def test_wikitext_in_pages(tmp_path):
    raw = " \n = One = \n \n = = Part = = \n It was 3 @.@ 5 @,@ 000 . \n \n = Two = \n \n ( a ) \n"
    path = tmp_path / "wiki.raw"
    path.write_text(raw)
    first, second = read_wikitext(path, limit=None)
    assert first.text == " = One =\n\n== Part ==\nIt was 3.5,000.\n"
    assert first.num_words == len(re.split(r"\s+", " = One = \n \n = = Part = = \n It was 3 @.@ 5 @,@ 000 . \n "))
    assert second.num_bytes == len(" = Two = \n \n ( a ) \n")
    assert len(read_wikitext(path, limit=1)) == 1


def test_detokenised_as_lm_eval_does(corpora):
    preprocess = pytest.importorskip("lm_eval.tasks.wikitext.preprocess_wikitext")
    raw = (corpora / "eval" / "wiki.test.raw").read_text(encoding="utf-8")
    assert detokenised(raw) == preprocess.wikitext_detokenizer({"page": raw})


def test_the_test_split_has_62_pages(corpora):
    assert len(read_wikitext(corpora / "eval" / "wiki.test.raw", limit=None)) == 62
