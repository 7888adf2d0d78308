"""Which columns or fields of a table hold the text, and rows to documents.

In this order: what the user named; `messages` (a chat); `prompt` and `completion`; `text`; the other known pairs; the
other known names of texts; and where no name is known, the one column whose texts are long. The report says what was
taken.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from gpt2kit.corpus.account import Account, BadFileError, listed
from gpt2kit.corpus.document import ROLES, Document, Kind, Message

TEXT_NAMES = tuple(
    "text content body story article document passage paragraph sentence lyrics poem tweet review post".split()
)
PAIR_NAMES = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("input", "output"),
)
EMPTY = "no text in it"
_SAMPLE_ROWS = 100
_LONG_TEXT_CHARACTERS = 40
_TIMES_LONGER = 3
_COLUMNS_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table or an entry of a JSON file.

    Attributes:
        line: its line in the file; 0 when it has none.
        place: as it is written into the document, such as "line 12" or "row 3".
        value: the row: fields by name, or a text.
    """

    line: int
    place: str
    value: Any


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields a document is made from.

    Attributes:
        kind: of the document.
        names: one field, or those of prompt and completion, and perhaps a third that is added to the prompt.
    """

    kind: Kind
    names: tuple[str, ...]

    def __str__(self) -> str:
        return " + ".join(self.names)


def choose_fields(names: Sequence[str], text_field: str | None = None) -> Fields | None:
    """The fields among `names` to take; None when no name is known."""
    if text_field is not None:
        return Fields("text", (text_field,)) if text_field in names else None
    known = {name.strip().casefold(): name for name in reversed(names)}
    if "messages" in known:
        return Fields("chat", (known["messages"],))
    for index, (asked, answer) in enumerate(PAIR_NAMES):
        if index == 1 and "text" in known:
            return Fields("text", (known["text"],))
        if asked in known and answer in known:
            more = (known["input"],) if asked == "instruction" and "input" in known else ()
            return Fields("completion", (known[asked], known[answer], *more))
    found = next((known[name] for name in TEXT_NAMES if name in known), None)
    return None if found is None else Fields("text", (found,))


def longest_field(rows: Iterable[Mapping[str, Any]]) -> str | None:
    """The one field whose texts are long while those of the others are short; None when it is not clear."""
    lengths: dict[str, int] = {}
    count = 0
    for row in rows:
        count += 1
        for name, value in row.items():
            lengths[name] = lengths.get(name, 0) + (len(value) if isinstance(value, str) else 0)
    ranked = sorted(lengths, key=lambda name: -lengths[name])
    if not ranked or lengths[ranked[0]] < _LONG_TEXT_CHARACTERS * count:
        return None
    if len(ranked) > 1 and lengths[ranked[0]] < _TIMES_LONGER * lengths[ranked[1]]:
        return None
    return ranked[0]


def unknown_fields(names: Sequence[str], text_field: str | None) -> BadFileError:
    """What to tell when the text is not found among the columns `names`."""
    columns = listed([repr(name[:40]) for name in names], limit=_COLUMNS_SHOWN) or "none"
    if text_field is not None:
        return BadFileError("no such field", f"--text_field {text_field}: there is no such field; there are: {columns}")
    return BadFileError(
        "unknown text field", f"which field holds the text? name it with --text_field; there are: {columns}"
    )


def read_rows(
    rows: Iterator[Row], *, source: str, shown: str, text_field: str | None, account: Account
) -> Iterator[Document]:
    """Turn rows into documents; rows that cannot be are counted, or noted as problems.

    Args:
        rows: of one file.
        source: the file's name for the documents.
        shown: the file's name for messages.
        text_field: the field the user named.
        account: where to count.

    Raises:
        BadFileError: it is not clear which field holds the text.
    """
    sample = list(islice(rows, _SAMPLE_ROWS))
    tables = [row.value for row in sample if isinstance(row.value, dict)]
    names = list(dict.fromkeys(name for table in tables for name in table))
    fallback = None
    if tables and not any(choose_fields(list(table), text_field) for table in tables):
        longest = None if text_field is not None else longest_field(tables)
        if longest is None:
            raise unknown_fields(names, text_field)
        fallback = Fields("text", (longest,))
    chosen: dict[tuple[str, ...], Fields | None] = {}
    for row in chain(sample, rows):
        where = f"{shown}:{row.line}" if row.line else f"{shown}, {row.place}"
        if isinstance(row.value, str):
            made: Document | str = Document("text", source, row.place, text=row.value)
        elif isinstance(row.value, dict):
            key = tuple(row.value)
            if key not in chosen:
                chosen[key] = choose_fields(key, text_field) or (
                    fallback if fallback and fallback.names[0] in key else None
                )
            made = _document(row, chosen[key], source)
        else:
            made = f"is {_kind_of(row.value)}, and no object with a text"
        if isinstance(made, Document):
            yield made
        elif made == EMPTY:
            account.skip_row(where, EMPTY)
        else:
            account.bad_row(where, made)
    for fields in {str(fields) for fields in chosen.values() if fields is not None}:
        account.text_fields[fields] += 1


def _document(row: Row, fields: Fields | None, source: str) -> Document | str:
    """The document of a row, or why there is none."""
    values: Mapping[str, Any] = row.value
    if fields is None:
        return f"has no text field, only {listed([repr(name) for name in values], limit=4) or 'nothing'}"
    if fields.kind == "chat":
        return _chat(values[fields.names[0]], row.place, source)
    texts = [values[name] for name in fields.names]
    for name, text in zip(fields.names, texts, strict=True):
        if text is not None and not isinstance(text, str):
            return f"{name!r} is {_kind_of(text)}, and no text"
    if not any(texts):
        return EMPTY
    if fields.kind == "text":
        return Document("text", source, row.place, text=texts[0])
    prompt, completion, *more = (text or "" for text in texts)
    prompt = "\n\n".join(part for part in (prompt, *more) if part)
    return Document("completion", source, row.place, prompt=prompt, completion=completion)


def _chat(turns: Any, place: str, source: str) -> Document | str:
    if not isinstance(turns, list):
        return f"'messages' is {_kind_of(turns)}, and no list of messages"
    messages = []
    for number, turn in enumerate(turns, 1):
        if not isinstance(turn, dict) or "role" not in turn or "content" not in turn:
            return f"message {number} is no object with 'role' and 'content'"
        if turn["role"] not in ROLES:
            return f"message {number} has the role {str(turn['role'])[:40]!r}; roles are {', '.join(ROLES)}"
        if not isinstance(turn["content"], str):
            return f"message {number}: 'content' is {_kind_of(turn['content'])}, and no text"
        messages.append(Message(turn["role"], turn["content"]))
    if not any(message.content for message in messages):
        return EMPTY
    return Document("chat", source, place, messages=tuple(messages))


def _kind_of(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else f"of type {type(value).__name__}")
