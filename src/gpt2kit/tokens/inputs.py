"""Which raw files a preparation read, and whether they are still the same."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from gpt2kit.console import Progress
from gpt2kit.files import sha256_file


@dataclass(frozen=True, slots=True)
class RawFile:
    """A raw file as it was when it was read.

    Attributes:
        path: relative to the input folder; its name if the input is a file.
        bytes: its size.
        modified_ns: when it was last changed, in nanoseconds since 1970.
        sha256: of its content; empty until it is needed.
    """

    path: str
    bytes: int
    modified_ns: int
    sha256: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """From the JSON values of `to_dict`."""
        return cls(**values)


def list_inputs(path: Path) -> list[RawFile]:
    """The files at or below a path, by name, without their hashes."""
    found = []
    for file in _files(path):
        status = file.stat()
        name = file.relative_to(path).as_posix() if file != path else file.name
        found.append(RawFile(name, status.st_size, status.st_mtime_ns))
    return sorted(found, key=lambda raw: raw.path)


def hash_inputs(path: Path, listed: Sequence[RawFile]) -> list[RawFile]:
    """The same files with the hashes of their contents."""
    with Progress("checking raw files", total=sum(raw.bytes for raw in listed), unit="B") as progress:
        hashed = []
        for raw in listed:
            hashed.append(replace(raw, sha256=_hash(_locate(path, raw))))
            progress.advance(raw.bytes)
    return hashed


def same_inputs(path: Path, listed: Sequence[RawFile], recorded: Sequence[RawFile]) -> bool:
    """Whether files are those recorded: by size and time of change, and where only the time differs by content."""
    if [(raw.path, raw.bytes) for raw in listed] != [(raw.path, raw.bytes) for raw in recorded]:
        return False
    return all(
        now.modified_ns == then.modified_ns or _hash(_locate(path, now)) == then.sha256
        for now, then in zip(listed, recorded, strict=True)
    )


def _hash(file: Path) -> str:
    """The hash of a file; empty for one that cannot be read, which is for the reader of the text to refuse."""
    try:
        return sha256_file(file)
    except OSError:
        return ""


def _locate(path: Path, raw: RawFile) -> Path:
    return path if path.is_file() else path / raw.path


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for file in path.rglob("*"):
        # Hidden files, such as .gitkeep, are no text of the user's.
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
            yield file
