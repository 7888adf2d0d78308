"""Which raw files a preparation read, and whether they are still the same."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpt2kit.console import Progress
from gpt2kit.files import sha256_file


@dataclass(frozen=True, slots=True)
class InputFile:
    """A raw file as it was when it was read.

    Attributes:
        file: where it is.
        name: its path relative to the input folder, or its name if the input is a file; bytes of it that are not
            UTF-8 are written as escapes.
        num_bytes: its size.
        modified_ns: when it was last changed, in nanoseconds since 1970.
        sha256: of its content; empty until it is asked for, and for a file that cannot be read.
    """

    file: Path
    name: str
    num_bytes: int
    modified_ns: int
    sha256: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, for the manifest."""
        return {
            "name": self.name,
            "num_bytes": self.num_bytes,
            "modified_ns": self.modified_ns,
            "sha256": self.sha256,
        }


def list_inputs(path: Path) -> list[InputFile]:
    """The files at or below a path, by name, without their hashes.

    Hidden files and folders, such as .gitkeep, are no text of the user's.
    """
    found = []
    for file in [path] if path.is_file() else _files_below(path):
        status = file.stat()
        name = os.fsencode(file.relative_to(path) if file != path else file.name)
        found.append(InputFile(file, name.decode(errors="backslashreplace"), status.st_size, status.st_mtime_ns))
    return sorted(found, key=lambda entry: entry.name)


def hash_inputs(listed: Sequence[InputFile]) -> list[InputFile]:
    """The same files with the hashes of their contents."""
    hashed = []
    with Progress("checking raw files", total=sum(entry.num_bytes for entry in listed), unit="B") as progress:
        for entry in listed:
            hashed.append(replace(entry, sha256=_hash(entry.file)))
            progress.advance(entry.num_bytes)
    return hashed


def same_inputs(listed: Sequence[InputFile], recorded: Sequence[Mapping[str, Any]]) -> bool:
    """Whether files are those of a manifest: by size and time of change, and where only the time differs by content."""
    if [(now.name, now.num_bytes) for now in listed] != [(then["name"], then["num_bytes"]) for then in recorded]:
        return False
    return all(
        now.modified_ns == then["modified_ns"] or _hash(now.file) == then["sha256"]
        for now, then in zip(listed, recorded, strict=True)
    )


def _hash(file: Path) -> str:
    """The hash of a file; empty for one that cannot be read, which is for the reader of the text to refuse."""
    try:
        return sha256_file(file)
    except OSError:
        return ""


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = Path(parent) / name
            if not name.startswith(".") and file.is_file():
                yield file
