"""Documents, and the pieces of them that prepared data is made of."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpt2kit.errors import DataError, UsageError

Kind = Literal["text", "chat", "completion"]
Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant")
SPLITS = ("train", "validation", "test")
PLANTED_TEXTS = "canaries.jsonl"  # file whose texts `gpt2kit canaries` planted: they are training text only


def is_planted(source: str) -> bool:
    """Whether a text was planted, by the name of its file: copies of one secret in two splits would tell nothing."""
    return source.rpartition("/")[2] == PLANTED_TEXTS


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat.

    Attributes:
        role: "system", "user" or "assistant".
        content: what is said.
    """

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Document:
    """A text, a chat, or a prompt with its completion, and where it came from.

    Attributes:
        kind: which of the three it is; only the fields of that kind are filled.
        source: path of its file, relative to the input folder.
        place: where in the file, such as "line 12" or "row 3"; empty when the document is the whole file.
        text: of a text.
        messages: of a chat, in order.
        prompt: of a pair.
        completion: of a pair.
    """

    kind: Kind
    source: str
    place: str
    text: str = ""
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    completion: str = ""

    @property
    def num_characters(self) -> int:
        """Characters of all its parts together."""
        said = sum(len(message.content) for message in self.messages)
        return len(self.text) + said + len(self.prompt) + len(self.completion)

    def content(self) -> dict[str, Any]:
        """The fields of its kind as JSON values."""
        if self.kind == "text":
            return {"text": self.text}
        if self.kind == "chat":
            return {"messages": [{"role": message.role, "content": message.content} for message in self.messages]}
        return {"prompt": self.prompt, "completion": self.completion}


@dataclass(frozen=True, slots=True)
class Piece(Document):
    """One line of `documents/<split>.jsonl`: a whole document, or one section of a long text.

    Attributes:
        document: number of its document, counted from 0 over all splits.
        section: number of the section in its document.
        continues: whether it follows on directly from the piece on the line before, so that no end-of-text stands
            between the two.
    """

    document: int = 0
    section: int = 0
    continues: bool = False


def read_pieces(path: Path) -> Iterator[Piece]:
    """Yield the pieces of a split, in order.

    Args:
        path: a file that `collect_documents` wrote.

    Raises:
        UsageError: the file is not there.
        DataError: a line is not a piece; the message names file and line.
    """
    try:
        file = path.open(encoding="utf-8", newline="\n")
    except FileNotFoundError as error:
        raise UsageError(f"{path} is not there; `gpt2kit prepare` makes it") from error
    with file:
        number = 0
        try:
            for line in file:
                number += 1
                yield _piece(json.loads(line))
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{number + 1}: is damaged (not UTF-8); prepare the data again") from error
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}:{number}: is damaged ({error}); prepare the data again") from error


def _piece(values: dict[str, Any]) -> Piece:
    messages = tuple(Message(turn["role"], turn["content"]) for turn in values.pop("messages", ()))
    return Piece(messages=messages, **values)
