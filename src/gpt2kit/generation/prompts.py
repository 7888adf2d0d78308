"""Prompts from the command line, from stdin, or from a file."""

import csv
import io
import json
import os
import re
import select
import stat
import sys
from collections.abc import Sequence
from pathlib import Path

from gpt2kit.console import say, warn
from gpt2kit.errors import DataError, UsageError

STDIN = "-"
FIELD = "prompt"
_DASH = re.compile(r"\\+-")  # what stands for a prompt "-", and so on, each with a backslash more
_FORMATS = ".txt, .jsonl, .csv or .tsv"
_PIPE_WAIT_SECONDS = 1.0


def collect_prompts(given: Sequence[str], prompts_file: Path | None) -> list[str]:
    r"""All prompts that were asked for: those given, then those of the file; else what is piped in; else one empty one.

    Args:
        given: prompts; "-" stands for all of stdin, and `\-` for the prompt "-" itself (see `as_given`).
        prompts_file: a file of prompts, or "-" for stdin with one a line.

    Raises:
        UsageError: the file is not there or of no known kind, or stdin is asked for twice.
        DataError: the file is not UTF-8, or a line of it holds no prompt.
    """
    from_stdin = list(given).count(STDIN) + (str(prompts_file) == STDIN)
    if from_stdin > 1:
        raise UsageError("stdin (-) is asked for more than once; it can be read once only")
    prompts = [_without_line_end(_read_stdin()) if prompt == STDIN else _unescaped(prompt) for prompt in given]
    if prompts_file is not None:
        prompts += read_prompts(prompts_file)
    if prompts:
        for prompt in prompts:
            _warn_of_trailing_space(prompt)
        return prompts
    if prompts_file is not None:
        raise UsageError(f"--prompts_file {prompts_file}: holds no prompts")
    piped = _without_line_end(_read_stdin()) if _stdin_has_text() else ""
    return [piped]


def as_given(prompt: str) -> str:
    r"""A prompt as `--prompt` takes it: "-" alone would be read from stdin, and has a backslash before it."""
    return f"\\{prompt}" if prompt == STDIN or _DASH.fullmatch(prompt) else prompt


def _unescaped(prompt: str) -> str:
    return prompt[1:] if _DASH.fullmatch(prompt) else prompt


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file: each line of a .txt, the field `prompt` of a .jsonl, that column of a .csv or .tsv.

    Empty lines are left out, and counted; an empty field is a prompt: a text from the beginning.

    Raises:
        UsageError: it is not there, or of no known kind.
        DataError: it is not UTF-8, or a line of it holds no prompt.
    """
    if str(path) == STDIN:
        return _lines(_read_stdin(), "stdin")
    suffix = path.suffix.lower()
    if suffix not in (".txt", ".jsonl", ".csv", ".tsv"):
        raise UsageError(f"--prompts_file {path}: should be a {_FORMATS} file")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"--prompts_file {path}: there is no such file") from error
    except OSError as error:
        raise UsageError(f"--prompts_file {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{line}: is not UTF-8 text; save it as UTF-8") from error
    if suffix == ".txt":
        return _lines(text, str(path))
    if suffix == ".jsonl":
        return _json_lines(text, path)
    return _rows(text, path, delimiter="\t" if suffix == ".tsv" else ",")


def _lines(text: str, source: str) -> list[str]:
    lines = text.replace("\r\n", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    prompts = [line for line in lines if line.strip()]
    if len(prompts) < len(lines):
        say(f"{source}: left out {len(lines) - len(prompts)} empty lines")
    return prompts


def _json_lines(text: str, path: Path) -> list[str]:
    prompts = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: is not a line of JSON: {error}") from error
        if not isinstance(value, dict) or not isinstance(value.get(FIELD), str):
            raise DataError(f'{path}:{number}: should be an object with a text {FIELD!r}, as {{"{FIELD}": "..."}}')
        prompts.append(value[FIELD])
    return prompts


def _rows(text: str, path: Path, *, delimiter: str) -> list[str]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    prompts = []
    try:
        header = [name.strip() for name in next(reader, [])]
        if FIELD not in header:
            found = ", ".join(repr(name) for name in header) or "none"
            raise DataError(f"{path}:1: should have a column {FIELD!r} in its first line; it has {found}")
        column = header.index(FIELD)
        for row in reader:
            if not row:
                continue
            if len(row) <= column:
                raise DataError(f"{path}:{reader.line_num}: has no column {FIELD!r}, only {len(row)} fields")
            prompts.append(row[column])
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: {error}") from error
    return prompts


def _read_stdin() -> str:
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("stdin (-) is closed; there is nothing to read")
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"stdin: is not UTF-8 text (byte {error.start + 1})") from error


def _stdin_has_text() -> bool:
    """Whether someone pipes text in; a pipe that nobody writes to (as in some schedulers) must not make us wait."""
    try:
        descriptor = sys.stdin.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError, AttributeError):  # no stdin, or a stand-in for it
        return False
    if stat.S_ISREG(mode):
        return True
    if not stat.S_ISFIFO(mode) or sys.platform == "win32":
        return False
    if select.select([descriptor], [], [], _PIPE_WAIT_SECONDS)[0]:
        return True
    warn(f"stdin is a pipe, and nothing came through it in {_PIPE_WAIT_SECONDS:.0f} s: not read (--prompt - waits)")
    return False


def _without_line_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def _warn_of_trailing_space(prompt: str) -> None:
    if prompt.endswith(" "):
        shown = prompt if len(prompt) <= 40 else f"...{prompt[-36:]}"
        warn(
            f"the prompt {shown!r} ends with a space; GPT-2's words begin with theirs, so leave it out for better texts"
        )
