"""Rows of JSON lines and JSON files, in bounded memory."""

import json
from collections.abc import Iterator
from typing import IO, Any

from gpt2kit.corpus.account import Account, BadFileError
from gpt2kit.corpus.fields import Row, choose_fields

# A single row or entry longer than this is a mistake about the format, and would fill the memory.
_LONGEST_CHARACTERS = 1 << 28
_CHUNK_CHARACTERS = 1 << 20
_WHITE_SPACE = " \t\n\r\ufeff"
# Control characters inside strings are against the standard, and harmless: cleaning takes them out.
_DECODER = json.JSONDecoder(strict=False)


def json_lines(file: IO[str], *, shown: str, account: Account) -> Iterator[Row]:
    """Yield the rows of a JSON-lines file; blank lines are no rows, broken ones are counted or noted as problems."""
    number = 0
    while line := file.readline(_LONGEST_CHARACTERS):
        number += 1
        if len(line) >= _LONGEST_CHARACTERS:
            raise BadFileError("not JSON lines", f"line {number} is longer than {_LONGEST_CHARACTERS:,} characters")
        stripped = line.strip(_WHITE_SPACE)
        if not stripped:
            continue
        try:
            value = _DECODER.decode(stripped)
        except json.JSONDecodeError as error:
            account.bad_row(f"{shown}:{number}", "is not valid JSON", remedy=_explained(error, stripped))
        except (ValueError, RecursionError) as error:
            account.bad_row(f"{shown}:{number}", "is not usable JSON", remedy=str(error))
        else:
            yield Row(number, f"line {number}", value)


def _explained(error: json.JSONDecodeError, line: str) -> str:
    return f"{error.msg} at character {error.pos + 1}: {line[max(error.pos - 15, 0) : error.pos + 15]!r}"


def json_entries(file: IO[str], *, shown: str, account: Account) -> Iterator[Row]:
    """Yield the entries of a JSON file: a list, an object with one list in it, or a single object.

    A file with an object on each line (JSON lines under another name) is read as such. Lists are read entry by entry.

    Raises:
        BadFileError: it is not JSON, or it is not clear where the entries are.
    """
    scanner = _Scanner(file)
    opening = scanner.peek()
    if opening == "[":
        for number, value in enumerate(scanner.entries(), 1):
            yield Row(0, f"entry {number}", value)
        return
    value = scanner.value()
    if scanner.peek():
        if not isinstance(value, dict | str):
            raise BadFileError("not JSON", f"is not valid JSON: more follows after the first value ({scanner.where()})")
        file.seek(0)
        yield from json_lines(file, shown=shown, account=account)
        return
    lists = [entry for entry in value.values() if isinstance(entry, list)] if isinstance(value, dict) else []
    if isinstance(value, dict) and choose_fields(list(value)) is None and len(lists) == 1:
        for number, entry in enumerate(lists[0], 1):
            yield Row(0, f"entry {number}", entry)
    else:
        yield Row(0, "", value)


class _Scanner:
    """Reads JSON values one after the other, holding only what is needed of the file."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._buffer = ""
        self._start = 0
        self._before = 0  # characters that were dropped from the front of the buffer

    def peek(self) -> str:
        """The next character that is no white space, without taking it; empty at the end."""
        while True:
            while self._start < len(self._buffer):
                if self._buffer[self._start] not in _WHITE_SPACE:
                    return self._buffer[self._start]
                self._start += 1
            if not self._more():
                return ""

    def value(self) -> Any:
        """Take the next value."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._start)
            except json.JSONDecodeError as error:
                if self._more():
                    continue
                raise BadFileError("not JSON", f"is not valid JSON: {error.msg} ({self.where(error.pos)})") from error
            except (ValueError, RecursionError) as error:
                raise BadFileError("not JSON", f"is not usable JSON: {error} ({self.where()})") from error
            # A number at the end of the buffer may go on behind it.
            if end < len(self._buffer) or not self._more():
                self._start = end
                return value

    def entries(self) -> Iterator[Any]:
        """Take a list, yielding its entries."""
        self._start += 1
        if self.peek() == "]":
            self._start += 1
        else:
            while True:
                yield self.value()
                mark = self.peek()
                self._start += 1
                if mark == "]":
                    break
                if mark != ",":
                    self._start -= 1
                    raise BadFileError("not JSON", f"is not valid JSON: expected , or ] ({self.where()})")
        if self.peek():
            raise BadFileError("not JSON", f"is not valid JSON: more follows after the list ({self.where()})")

    def where(self, position: int | None = None) -> str:
        """Where in the file it stands."""
        return f"at character {self._before + (self._start if position is None else position) + 1:,}"

    def _more(self) -> bool:
        """Read on: as much again as is there, so that a long value is not tried too often."""
        held = len(self._buffer) - self._start
        if held > _LONGEST_CHARACTERS:
            raise BadFileError(
                "an entry too long",
                f"an entry is longer than {_LONGEST_CHARACTERS:,} characters; use JSON lines (.jsonl)",
            )
        chunk = self._file.read(max(_CHUNK_CHARACTERS, held))
        self._before += self._start
        self._buffer = self._buffer[self._start :] + chunk
        self._start = 0
        return bool(chunk)
