"""A folder that is replaced as a whole: built beside, swapped in by renaming, and recovered after a kill.

Beside a folder `processed` there may stand, only while it is being replaced or after a kill:

    processed.partial    what is being built
    processed.previous   what stood there before, between the two renames and until it is removed
"""

import errno
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gpt2kit.errors import DiskError, UsageError
from gpt2kit.files import PARTIAL_SUFFIX, explained_disk_errors, sync_file, sync_folder

PREVIOUS_SUFFIX = ".previous"
_MARKER = ".gpt2kit-partial"  # says that an unfinished folder is ours to remove


@contextmanager
def locked(folder: Path, *, wait_seconds: float = 0) -> Iterator[None]:
    """Keep other processes of this machine from replacing a folder.

    Raises:
        UsageError: another process is at it, and was not done within `wait_seconds`.
    """
    # The locks lie among the temporary files, so that nothing is left beside the user's data.
    locks = Path(tempfile.gettempdir()) / f"gpt2kit-locks-{Path.home().name}"
    locks.mkdir(exist_ok=True)
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    lock = FileLock(locks / f"{name}.lock", timeout=wait_seconds)
    try:
        lock.acquire()
    except Timeout as error:
        raise UsageError(f"{folder}: another gpt2kit is writing to it; wait for it to end") from error
    try:
        yield
    finally:
        lock.release()


def recover(folder: Path, *, whole: str) -> None:
    """Bring a folder and its surroundings in order after a kill.

    Args:
        folder: the folder that is replaced as a whole.
        whole: the name of a file that a finished one holds.

    Raises:
        UsageError: something beside it bears a name that is needed, and is not ours.
    """
    folder = folder.resolve()
    partial, previous = _beside(folder, PARTIAL_SUFFIX), _beside(folder, PREVIOUS_SUFFIX)
    if partial.exists():
        if not (partial / _MARKER).is_file() and not is_free(partial):
            raise UsageError(f"{partial} is in the way and was not made by gpt2kit; move it elsewhere")
        _remove(partial)
    if folder.is_dir():
        (folder / _MARKER).unlink(missing_ok=True)
    if not previous.exists():
        return
    if not any((previous / name).is_file() for name in (whole, _MARKER)) and not is_free(previous):
        raise UsageError(f"{previous} is in the way and was not made by gpt2kit; move it elsewhere")
    if (folder / whole).is_file():
        _retire(previous, folder)
        return
    # Killed between the two renames: the old one comes back.
    if folder.exists():
        if any(folder.iterdir()):
            raise UsageError(f"{folder} was about to be replaced and its old content is {previous}: remove one of them")
        folder.rmdir()
    previous.rename(folder)


def is_free(folder: Path) -> bool:
    """Whether a path is a folder with nothing in it but hidden files, such as the .gitkeep of a repository."""
    return folder.is_dir() and all(entry.name.startswith(".") for entry in folder.iterdir())


def was_interrupted(folder: Path) -> bool:
    """Whether a folder is missing because a kill fell between the two renames, so that `recover` brings it back."""
    return not folder.exists() and _beside(folder, PREVIOUS_SUFFIX).is_dir()


@contextmanager
def replacing(folder: Path, *, whole: str) -> Iterator[Path]:
    """Build a folder beside itself; it takes the place of the old one when the `with` block ends without an error.

    Entries of the old folder that the new one does not have (a .gitkeep, a user's notes) are kept.

    Args:
        folder: the folder to replace; it need not exist.
        whole: the name of a file that a finished one holds.

    Yields:
        The folder to build in, empty but for a hidden marker.

    Raises:
        DiskError: the disk is full; the old folder is intact.
    """
    recover(folder, whole=whole)
    folder = folder.resolve()  # behind a symbolic link, the folder itself is replaced
    partial = _beside(folder, PARTIAL_SUFFIX)
    try:
        with explained_disk_errors(folder):
            partial.mkdir(parents=True)
            (partial / _MARKER).touch()
            yield partial
            _swap(partial, folder)
    finally:
        if partial.exists():
            _remove(partial)


def _swap(partial: Path, folder: Path) -> None:
    for path in sorted(partial.rglob("*")):
        if path.is_dir():
            sync_folder(path)
        else:
            sync_file(path)
    previous = _beside(folder, PREVIOUS_SUFFIX)
    try:
        if folder.exists():
            folder.rename(previous)
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.EXDEV):
            raise DiskError(
                f"{folder} is where a disk is mounted and cannot be replaced; name a folder in it"
            ) from error
        raise
    partial.rename(folder)
    sync_folder(folder.parent)
    (folder / _MARKER).unlink()
    if previous.exists():
        _retire(previous, folder)


def _retire(previous: Path, folder: Path) -> None:
    """Remove what was replaced, after moving over what is not ours."""
    if not (previous / _MARKER).is_file():
        for entry in previous.iterdir():
            if not (folder / entry.name).exists():
                entry.rename(folder / entry.name)
        (previous / _MARKER).touch()
    _remove(previous)


def _remove(folder: Path) -> None:
    """Remove a folder of ours, its marker last, so that after a kill it is still known to be ours."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != _MARKER:
            entry.unlink()
    (folder / _MARKER).unlink(missing_ok=True)
    folder.rmdir()


def _beside(folder: Path, suffix: str) -> Path:
    folder = folder.resolve()
    return folder.with_name(folder.name + suffix)
