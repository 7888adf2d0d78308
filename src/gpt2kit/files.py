"""Files that are either whole or not there: atomic writes, hashes, JSON and JSON lines."""

import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gpt2kit.errors import DataError, DiskError, UsageError

PARTIAL_SUFFIX = ".partial"
# Large, because between two of them a thread that hashes beside others waits for Python's lock.
_HASH_BLOCK_BYTES = 16 << 20
_DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def explained_disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's write errors below `path` into a `DiskError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL_ERRNOS:
            raise DiskError(
                f"no space to write {path} ({error.strerror}; {free_bytes(path) / 1e9:.2f} GB free on that disk); "
                "what was there before is intact: free some space, or choose another folder, and run the same "
                "command again"
            ) from error
        if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise DiskError(
                f"not allowed to write {path} ({error.strerror}); choose a folder you may write to"
            ) from error
        raise


def free_bytes(path: Path) -> int:
    """Bytes free on the disk that holds `path` (or its nearest existing parent)."""
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `path` beside itself, flush it to the disk and rename it, so that readers see the old file or the new.

    Raises:
        DiskError: the disk is full or the folder is not writable; the old file is intact.
    """
    payload = data.encode("utf-8") if isinstance(data, str) else data
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    with explained_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)


def sync_file(path: Path) -> None:
    """Flush a file's contents to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut (POSIX; a no-op elsewhere)."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        block = memoryview(bytearray(min(_HASH_BLOCK_BYTES, os.fstat(file.fileno()).st_size + 1)))
        while length := file.readinto(block):
            digest.update(block[:length])
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hexadecimal SHA-256 of what `to_json` writes of a value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(_with_nulls(value), sort_keys=True, default=str).encode()).hexdigest()


def to_json(value: Any) -> str:
    """Readable JSON text, ending in a newline; paths become strings, and what is not finite, which JSON has not, null.

    Whoever writes a figure that may overflow writes its logarithm beside it.
    """
    return json.dumps(_with_nulls(value), indent=2, ensure_ascii=False, default=str, allow_nan=False) + "\n"


def _with_nulls(value: Any) -> Any:
    """A JSON value with None for infinity and NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _with_nulls(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(each) for each in value]
    return value


def read_json(path: Path, *, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: the file.
        what: what the file is to the user, for the error message, e.g. "the model's configuration".

    Raises:
        UsageError: the file is not there.
        DataError: it is not JSON, or not an object.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"{path} is not there; it should hold {what}") from error
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise DataError(f"{path} should hold {what}, and is not a JSON text file") from error
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: should hold {what}, and is not valid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        raise DataError(f"{path}: should hold {what}, and is not usable JSON: {error}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: should hold {what} as a JSON object, and holds a {type(value).__name__}")
    return value


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file that gpt2kit wrote; an unfinished last line (a kill) ends it.

    Raises:
        DataError: a line before the last is not a JSON object.
    """
    if not path.exists():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                if not line.endswith("\n"):
                    return
                raise DataError(f"{path}:{number}: not valid JSON: {error.msg}") from error
            yield value


def write_json_lines(path: Path, rows: list[Mapping[str, Any]]) -> None:
    """Write a small JSON-lines file atomically, one object a line."""
    write_atomically(path, "".join(json_line(row) for row in rows))


def json_line(row: Mapping[str, Any]) -> str:
    """An object as a line of JSON; what is no text, such as half a character, is escaped, what is not finite null."""
    return encodable(json.dumps(_with_nulls(row), ensure_ascii=False, default=str, allow_nan=False)) + "\n"


def encodable(text: str) -> str:
    """A text with an escape for each character that is half of one, as from an argument that is no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def claim_number(folder: Path, stem: str, suffix: str) -> Path:
    """Take the next free number in a folder: `stem-001.suffix`, empty so far, so that no other process takes it too.

    Args:
        folder: made if needed.
        stem: what the file's name begins with.
        suffix: what it ends with, such as ".md"; files of the same number with other suffixes count as well.

    Raises:
        DiskError: the folder cannot be written to.
    """

    def number_of(path: Path) -> int:
        digits = path.name.removeprefix(f"{stem}-").partition(".")[0]
        return int(digits) if digits.isascii() and digits.isdigit() else 0

    with explained_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        number = 1 + max((number_of(path) for path in folder.glob(f"{stem}-*.*")), default=0)
        while True:
            path = folder / f"{stem}-{number:03}{suffix}"
            try:
                path.open("x").close()
            except FileExistsError:
                number += 1
                continue
            return path


@contextmanager
def numbered_report(folder: Path, stem: str) -> Iterator[Path]:
    """Take the next free number for a report's files, and give it back when nothing was written.

    An empty report would look like a result.

    Args:
        folder: the setting `output_dir`; made if needed.
        stem: what the files' names begin with.

    Yields:
        Where the files go, without a suffix; the one with ".md" is there, empty, and the one with ".json" is what
        counts as written.

    Raises:
        UsageError: the folder is a file.
        DiskError: it cannot be written to.
    """
    try:
        page = claim_number(folder, stem, ".md")
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(f"--output_dir {folder}: is a file, or lies in one; name a folder") from error
    except DiskError as error:
        raise DiskError(f"--output_dir: {error}") from error
    except OSError as error:
        raise DiskError(f"--output_dir {folder}: cannot be written: {error.strerror}; name another folder") from error
    try:
        yield page.with_suffix("")
    except BaseException:
        if not page.with_suffix(".json").exists():
            page.unlink(missing_ok=True)
        raise
