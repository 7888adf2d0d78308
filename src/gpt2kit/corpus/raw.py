"""Raw files: which there are, what they should hold by their names, and their bytes, decompressed."""

import gzip
import io
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, cast

import zstandard

from gpt2kit.corpus.account import Account, BadFileError
from gpt2kit.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Format = Literal["text", "csv", "tsv", "jsonl", "json", "parquet"]
FORMATS: dict[str, Format] = {
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".markdown": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
_MARKUP = (".html", ".htm", ".xhtml", ".xml", ".epub")
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file to read.

    Attributes:
        path: where it is.
        source: its path relative to the input folder, with "/"; its name when the input is the file itself.
        shown: its path as the user would write it.
        format: what it should hold.
        compression: "gzip", "zstd" or "".
        is_guess: the name does not say that it is text, so that it may turn out not to be.
        num_bytes: its size on the disk.
    """

    path: Path
    source: str
    shown: str
    format: Format
    compression: str
    is_guess: bool
    num_bytes: int


def list_files(input_path: Path, account: Account) -> list[RawFile]:
    """The files at or below a path that can hold text, in the order of their names.

    Files whose names say that they hold something else are counted in the account. Files without an extension are
    taken for text until they are opened. Hidden files and folders are left out.

    Raises:
        UsageError: the path is not there, or is a single file that is not text.
    """
    if input_path.is_file():
        return [_single_file(input_path)]
    if not input_path.is_dir():
        raise UsageError(f"--input {input_path}: no such file or folder; put your texts there, or name where they are")
    found = []
    for path in _walk(input_path, account):
        source = printable(path.relative_to(input_path).as_posix())
        shown = printable(str(path))
        raw_format, compression, suffix = _format_of(path)
        if raw_format is None and suffix:
            account.skip_file(shown, _reason_not_read(suffix))
        else:
            is_guess = raw_format is None
            found.append(RawFile(path, source, shown, raw_format or "text", compression, is_guess, path.stat().st_size))
    return sorted(found, key=lambda raw: raw.source)


def printable(name: str) -> str:
    """A file's name as text that can be written: bytes that are not UTF-8 are shown as escapes."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace") if os.name == "posix" else name


def _single_file(path: Path) -> RawFile:
    raw_format, compression, suffix = _format_of(path)
    if raw_format is None and suffix in _MARKUP:
        raise UsageError(f"--input {path}: {_reason_not_read(suffix)}; save it as plain text (.txt) first")
    return RawFile(
        path, printable(path.name), printable(str(path)), raw_format or "text", compression, False, path.stat().st_size
    )


def _format_of(path: Path) -> tuple[Format | None, str, str]:
    """Format, compression, and the extension that names the format (empty when there is none)."""
    name = Path(path.name)
    compression = COMPRESSIONS.get(name.suffix.lower(), "")
    if compression:
        name = Path(name.stem)
    suffix = name.suffix.lower()
    return FORMATS.get(suffix), compression, suffix


def _reason_not_read(suffix: str) -> str:
    return f"{suffix} is markup, which is not read" if suffix in _MARKUP else f"{suffix} is no text format that is read"


def _walk(folder: Path, account: Account) -> Iterator[Path]:
    def unreadable(error: OSError) -> None:
        account.bad_file(printable(str(error.filename)), BadFileError("cannot be opened", f"{error.strerror}"))

    for parent, folders, names in os.walk(folder, onerror=unreadable):
        for name in [name for name in folders if not name.startswith(".")]:
            if (Path(parent) / name).is_symlink():
                account.skip_file(printable(str(Path(parent) / name)), "a link to a folder, which is not followed")
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent) / name for name in names if not name.startswith(".")):
            if path.is_file():
                yield path
            else:
                account.skip_file(printable(str(path)), "not a plain file")


@contextmanager
def open_bytes(raw: RawFile, on_read: Callable[[int], None]) -> Iterator[IO[bytes]]:
    """Open a file for its decompressed bytes.

    Args:
        raw: the file.
        on_read: called with the number of bytes that were read from the disk, for progress.

    Raises:
        BadFileError: inside the block too: it cannot be opened, or its compressed data are damaged or cut off.
    """
    try:
        with raw.path.open("rb", buffering=0) as file:
            counted = io.BufferedReader(_Counted(cast(io.RawIOBase, file), on_read), _BUFFER_BYTES)
            if raw.compression == "gzip":
                with gzip.GzipFile(fileobj=counted) as unpacked:
                    yield io.BufferedReader(cast(io.RawIOBase, unpacked), _BUFFER_BYTES)
            elif raw.compression == "zstd":
                yield io.BufferedReader(_Zstandard(counted), _BUFFER_BYTES)
            else:
                yield counted
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
        raise BadFileError("damaged compressed data", f"is not sound {raw.compression} data ({error})") from error
    except EOFError as error:
        raise BadFileError(
            "cut-off compressed data", f"its {raw.compression} data end too early; copy it again"
        ) from error
    except (PermissionError, FileNotFoundError) as error:
        raise BadFileError("cannot be opened", f"cannot be opened ({error.strerror})") from error


class _Counted(io.RawIOBase):
    """A raw file that tells how much was read from it."""

    def __init__(self, file: io.RawIOBase, on_read: Callable[[int], None]) -> None:
        self._file = file
        self._on_read = on_read

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        count = self._file.readinto(buffer) or 0
        self._on_read(count)
        return count


class _Zstandard(io.RawIOBase):
    """Decompressed zstd frames. Unlike the library's own reader it notices a frame that is cut off."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._rewind()

    def _rewind(self) -> None:
        self._file.seek(0)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._input = b""
        self._output = memoryview(b"")
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if (offset, whence) == (0, io.SEEK_SET):
            self._rewind()
        elif (offset, whence) != (self._position, io.SEEK_SET):
            raise io.UnsupportedOperation("only back to the beginning")
        return self._position

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        while not self._output:
            data = self._input or self._file.read(zstandard.DECOMPRESSION_RECOMMENDED_INPUT_SIZE)
            self._input = b""
            if not data:
                if self._frame is not None:
                    raise EOFError
                return 0
            if self._frame is None:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._output = memoryview(self._frame.decompress(data))
            if self._frame.eof:
                self._input = self._frame.unused_data
                self._frame = None
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._output))
        target[:count] = self._output[:count]
        self._output = self._output[count:]
        self._position += count
        return count
