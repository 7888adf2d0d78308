"""Prompts from files and stdin."""

import io
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.errors import DataError, Gpt2kitError, UsageError
from gpt2kit.generation.prompts import as_given, collect_prompts, read_prompts


def written(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "prompts"),
    [
        ("a.txt", "one\ntwo words\r\n\nthree", ["one", "two words", "three"]),
        ("b.txt", b"\xef\xbb\xbfone\n", ["one"]),
        ("c.jsonl", '{"prompt": "one\\ntwo"}\n\n{"prompt": "", "id": 3}\n', ["one\ntwo", ""]),
        ("d.csv", 'id,prompt\n1,"one, two"\n2,"line\nend"\n', ["one, two", "line\nend"]),
        ("e.tsv", "prompt\tid\none, two\t1\n", ["one, two"]),
    ],
)
def test_each_kind_of_file(tmp_path, name, content, prompts, capsys):
    assert read_prompts(written(tmp_path, name, content)) == prompts
    assert ("left out 1 empty lines" in capsys.readouterr().err) == (name == "a.txt")


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("a.txt", b"one\ntw\xff\n", DataError, "a.txt:2: is not UTF-8"),
        (
            "a.jsonl",
            '{"prompt": "x"}\n{"prompt": 3}\n',
            DataError,
            "a.jsonl:2: should be an object with a text 'prompt'",
        ),
        ("b.jsonl", '{"prompt": "x"\n', DataError, "b.jsonl:1: is not a line of JSON"),
        ("a.csv", "text,id\nx,1\n", DataError, "a.csv:1: should have a column 'prompt'.*'text', 'id'"),
        ("b.csv", "id,prompt\n1,x\n2\n", DataError, "b.csv:3: has no column 'prompt', only 1 fields"),
        ("c.csv", 'prompt\n"x\n', DataError, "c.csv:2: unexpected end of data"),
        ("empty.csv", "", DataError, "empty.csv:1: .*it has none"),
        ("a.pdf", "x", UsageError, "a.pdf: should be a .txt, .jsonl, .csv or .tsv file"),
    ],
)
def test_mistakes_name_the_place(tmp_path, name, content, kind, message):
    with pytest.raises(kind, match=message):
        read_prompts(written(tmp_path, name, content))


def test_files_that_are_not_there_or_empty(tmp_path):
    with pytest.raises(UsageError, match="there is no such file"):
        read_prompts(tmp_path / "a.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_prompts(tmp_path / "folder.txt")
    with pytest.raises(UsageError, match="holds no prompts"):
        collect_prompts([], written(tmp_path, "a.txt", "\n\n"))


@given(st.binary(max_size=60), st.sampled_from([".txt", ".jsonl", ".csv", ".tsv"]))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, suffix):
    path = written(tmp_path_factory.getbasetemp(), f"any{suffix}", content)
    try:
        prompts, said = read_prompts(path), ""
    except Gpt2kitError as error:
        prompts, said = [], str(error)
    assert all(isinstance(prompt, str) for prompt in prompts)
    assert not said or path.name in said


def test_given_prompts_come_before_those_of_the_file(tmp_path):
    assert collect_prompts(["a", "b"], written(tmp_path, "a.txt", "c\n")) == ["a", "b", "c"]


def test_without_any_a_text_begins_from_nothing():
    assert collect_prompts([], None) == [""]


def test_a_trailing_space_is_warned_of(capsys):
    assert collect_prompts(["The king "], None) == ["The king "]
    assert "ends with a space" in capsys.readouterr().err


class FakeStdin(io.TextIOWrapper):
    def __init__(self, content):
        super().__init__(io.BytesIO(content))


@pytest.mark.parametrize(
    ("given", "prompt"), [(r"\-", "-"), (r"\\-", r"\-"), ("--", "--"), ("- ", "- "), (r"\n", r"\n")]
)
def test_a_dash_alone_can_be_a_prompt(given, prompt):
    assert collect_prompts([given], None) == [prompt]
    assert as_given(prompt) == given


@given(st.one_of(st.text(alphabet="\\-", max_size=4), st.text()))
def test_every_prompt_can_be_given(prompt):
    assert collect_prompts([as_given(prompt)], None) == [prompt]


def test_stdin_by_name(monkeypatch):
    monkeypatch.setattr(sys, "stdin", FakeStdin(b"one\ntwo\n"))
    assert collect_prompts(["-"], None) == ["one\ntwo"]
    monkeypatch.setattr(sys, "stdin", FakeStdin(b"one\ntwo\n"))
    assert collect_prompts([], "-") == ["one", "two"]
    with pytest.raises(UsageError, match="more than once"):
        collect_prompts(["-"], "-")
    monkeypatch.setattr(sys, "stdin", FakeStdin(b"\xff"))
    with pytest.raises(DataError, match="stdin: is not UTF-8"):
        collect_prompts(["-"], None)


PROGRAM = "from gpt2kit.generation.prompts import collect_prompts; print(collect_prompts([], None))"


def asked(**stdin):
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, **stdin)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


def test_what_is_piped_in_is_a_prompt(tmp_path):
    assert asked(input="The king\n") == ("['The king']", "")
    assert asked(stdin=subprocess.DEVNULL) == ("['']", "")
    with written(tmp_path, "a.txt", "The fox").open() as file:
        assert asked(stdin=file) == ("['The fox']", "")


def test_a_pipe_that_nobody_writes_to_is_not_waited_for():
    reading, writing = os.pipe()
    try:
        found, said = asked(stdin=reading)
    finally:
        os.close(reading)
        os.close(writing)
    assert found == "['']"
    assert "nothing came through it" in said
