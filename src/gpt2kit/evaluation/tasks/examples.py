"""Tasks as local files: what each line or page asks, and what is right."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from gpt2kit.errors import DataError, UsageError


@dataclass(frozen=True, slots=True)
class Question:
    """A context with one continuation or several.

    Attributes:
        context: what is read.
        choices: continuations as they are scored, with the space before them.
        answer: place of the right one.
    """

    context: str
    choices: tuple[str, ...]
    answer: int


@dataclass(frozen=True, slots=True)
class Page:
    """A page of WikiText: the text that is predicted, and the words and bytes of the original it is divided by."""

    text: str
    num_words: int
    num_bytes: int


def read_lambada(path: Path, *, limit: int | None) -> list[Question]:
    """Passages whose last word is to be predicted; words are what single spaces part, as in lm-eval.

    Raises:
        UsageError: the file is not there.
        DataError: a line is not as it should be; the message names file and line.
    """

    def question(values: dict[str, Any]) -> Question:
        head, space, word = _text(values, "text").rpartition(" ")
        if not space or not word:
            raise ValueError("text should be two words or more, parted by spaces, and end in a word")
        return Question(head, (f" {word}",), 0)

    return _read_lines(path, question, limit=limit, option="lambada")


def read_cloze(path: Path, *, limit: int | None) -> list[Question]:
    """Contexts with their right continuation, behind a space; raises as `read_lambada`."""

    def question(values: dict[str, Any]) -> Question:
        answer = _text(values, "answer")
        if not answer:
            raise ValueError("answer is empty")
        return Question(_text(values, "context"), (f" {answer}",), 0)

    return _read_lines(path, question, limit=limit, option="cloze")


def read_multiple_choice(path: Path, *, limit: int | None) -> list[Question]:
    """Questions with choices, each behind a space; raises as `read_lambada`."""

    def question(values: dict[str, Any]) -> Question:
        choices, answer = values.get("choices"), values.get("answer")
        if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(each, str) for each in choices):
            raise ValueError("choices should be a list of two texts or more")
        if not all(choices):
            raise ValueError("choices holds an empty text")
        for each in choices:
            _check_whole(each, "choices")
        if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
            raise ValueError(f"answer should be a number from 0 to {len(choices) - 1}, and is {answer!r}")
        return Question(_text(values, "context"), tuple(f" {each}" for each in choices), answer)

    return _read_lines(path, question, limit=limit, option="multiple_choice")


def read_wikitext(path: Path, *, limit: int | None) -> list[Page]:
    """The pages of a split of WikiText, each detokenised as lm-eval's task `wikitext` does.

    A page begins at a heading of the first level. Words and bytes are those of the page as published, with its line
    ends as lm-eval's data has them: one character each, however the file was saved.

    Raises:
        UsageError: the file is not there.
        DataError: it is not UTF-8, or empty.
    """
    text = _read(path, "wikitext").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise DataError(f"--wikitext {path}: holds no text; name a split of WikiText as published, as wiki.test.raw")
    pages, lines = [], list[str]()
    for line in text.split("\n"):
        bare = line.replace("= = =", "===").replace("= =", "==").strip()
        if bare.startswith("= ") and bare.endswith(" =") and "".join(lines).strip():
            pages.append("\n".join(lines))
            lines = []
        elif bare.startswith("= ") and bare.endswith(" ="):
            lines = []  # the empty lines before the first heading
        lines.append(line)
    pages.append("\n".join(lines))
    return [Page(detokenised(page), len(re.split(r"\s+", page)), len(page.encode())) for page in pages[:limit]]


# What WikiText's tokenizer parted, put together again; the order matters. The rules are those of lm-eval's task,
# so that the figures are the same; its second one looks for slashes that the text has not, and is left out.
_REPLACEMENTS_BEFORE = (
    ("s '", "s'"),
    (" @-@ ", "-"),
    (" @,@ ", ","),
    (" @.@ ", "."),
    (" : ", ": "),
    (" ; ", "; "),
    (" . ", ". "),
    (" ! ", "! "),
    (" ? ", "? "),
    (" , ", ", "),
)
_PAIRS = (
    (re.compile(r"\(\s*([^\)]*?)\s*\)"), r"(\1)"),
    (re.compile(r"\[\s*([^\]]*?)\s*\]"), r"[\1]"),
    (re.compile(r"{\s*([^}]*?)\s*}"), r"{\1}"),
    (re.compile(r"\"\s*([^\"]*?)\s*\""), r'"\1"'),
    (re.compile(r"'\s*([^']*?)\s*'"), r"'\1'"),
)
_REPLACEMENTS_AFTER = (
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" ° ", "°"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)


def detokenised(page: str) -> str:
    """A page of WikiText with its punctuation where it belongs."""
    for parted, whole in _REPLACEMENTS_BEFORE:
        page = page.replace(parted, whole)
    for pattern, whole in _PAIRS:
        page = pattern.sub(whole, page)
    for parted, whole in _REPLACEMENTS_AFTER:
        page = page.replace(parted, whole)
    return page


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name} should be a text, and is {'missing' if value is None else repr(value)}")  # noqa: TRY004
    _check_whole(value, name)
    return value


def _check_whole(text: str, name: str) -> None:
    r"""Refuse a text with half a character, which JSON may hold: "\ud800" without the other half behind it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(text[error.start]):04x}"
        raise ValueError(f"{name} holds half a character ({half}), which is no text; mend or remove it") from error


def _read(path: Path, option: str) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(
            f"--{option} {path}: cannot be read: {error.strerror}; name a file that you may read"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(f"--{option} {path}: is not UTF-8 text (byte {error.start}); save it as UTF-8") from error


def _read_lines(
    path: Path, question: Callable[[dict[str, Any]], Question], *, limit: int | None, option: str
) -> list[Question]:
    questions = list(islice(_questions(path, question, option), limit))
    if not questions:
        raise DataError(f"--{option} {path}: holds no examples; each is a line of JSON (docs/tasks.md says which)")
    return questions


def _questions(path: Path, question: Callable[[dict[str, Any]], Question], option: str) -> Iterator[Question]:
    for number, line in enumerate(_read(path, option).split("\n"), 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
            if not isinstance(values, dict):
                raise ValueError("should be a JSON object")  # noqa: TRY004
            yield question(values)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: is not valid JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: {error}") from error
