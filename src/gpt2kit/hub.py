"""Base models by name: a local folder, a copy fetched before, or a download from the Hugging Face Hub.

The network is touched only by `fetch`, and by `resolve_base` for a Hub name that has no copy on this machine. Copies
lie in the Hub's own cache, where `transformers` finds them too. Weights are downloaded here and not by
`huggingface_hub`, which throws a broken download away: ours goes on where it stopped and is checked by its SHA-256.
"""

import contextlib
import fnmatch
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from gpt2kit.console import Progress, say
from gpt2kit.errors import ModelError, NetworkError, UsageError
from gpt2kit.files import PARTIAL_SUFFIX, explained_disk_errors, sha256_file, sync_file

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

# A name means one exact set of files: the commit each known model stood at when this release was made.
PINNED_REVISIONS = {
    "gpt2": "607a30d783dfa663caf39e06633721c8d4cfcd7e",
    "gpt2-medium": "6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
    "gpt2-large": "32b71b12589c2f8d625668d2335a01cac3249519",
    "gpt2-xl": "15ea56dee5df4983c59b2538573817e1667135e2",
    "distilgpt2": "2290a62682d06624634c1f46a6ad5be0f47f38aa",
}
# Data only: no pickles, no code; and only from the model's own folder, not its exports for other programs.
ALLOWED_FILES = ("*.safetensors", "*.json", "*.txt")
# The small base model that lies in the package itself; its card says how it was made.
BUILT_IN = "nano"
_BUILT_IN_FOLDER = Path(__file__).parent / BUILT_IN
_SUBFOLDERS = "*/*"
_NEEDED_FILES = (("config.json",), ("*.safetensors",), ("tokenizer.json", "vocab.json"))
_ANSWER_SECONDS = 5.0  # a Hub that has not answered by then counts as out of reach
_RETRIES = 5  # in a row, without a new byte
_RETRY_SECONDS = 1.0
_BLOCK_BYTES = 1 << 20


def resolve_base(name: str | Path) -> Path:
    """The folder of a base model.

    Args:
        name: a local folder (which wins over other models of the same name), "nano" for the small model in the
            package, or a name on the Hub such as "gpt2".

    Raises:
        UsageError: it is neither a folder nor a possible name on the Hub.
        NetworkError: it is not on this machine, and the Hub cannot be reached.
    """
    folder, text = Path(name), str(name)
    if text and folder.is_dir():
        return folder
    if text and folder.exists():
        raise UsageError(f"{text} is a file; a base model is a folder, nano, or a name on the Hub such as gpt2")
    looks_like_a_path = folder.is_absolute() or text.startswith((".", "~")) or text.endswith("/") or text.count("/") > 1
    if looks_like_a_path or not text or ("/" in text and folder.parent.is_dir()):
        raise UsageError(
            f"{text or 'an empty name'}: no such folder; name a model's folder, nano, or one on the Hub (gpt2)"
        )
    return fetch(text)


def fetch(name: str, *, revision: str | None = None, output_dir: Path | None = None) -> Path:
    """Bring a model from the Hugging Face Hub, or find the copy that is here already.

    Args:
        name: its name there, e.g. "gpt2" or "owner/model"; or "nano", which is in the package.
        revision: a commit, branch or tag; by default the pinned commit of a known model, else the newest.
        output_dir: copy it to this folder as well; files of other contents there are refused, never replaced.

    Returns:
        The folder that holds it.

    Raises:
        UsageError: the Hub has no such model, or `output_dir` holds another one.
        ModelError: the model has no weights as safetensors, or they arrived damaged.
        NetworkError: the Hub cannot be reached and there is no copy here.
        DiskError: there is no room for it.
    """
    if name == BUILT_IN and revision is not None:
        raise UsageError(f"--revision {revision}: {BUILT_IN} comes with gpt2kit and has no other revisions")
    wanted = revision or PINNED_REVISIONS.get(name)
    folder = cached_copy(name, revision=wanted) or _download(name, wanted)
    return folder if output_dir is None else _copy(folder, output_dir)


def cached_copy(name: str, *, revision: str | None = None) -> Path | None:
    """The folder of a whole copy that was fetched before, or None; never touches the network.

    Args:
        name: its name on the Hub, or "nano", which is always here.
        revision: a commit, branch or tag; by default the pinned commit of a known model, else the newest fetched.

    Raises:
        UsageError: no model on the Hub can have such a name.
    """
    if name == BUILT_IN:
        return _BUILT_IN_FOLDER
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    wanted = revision or PINNED_REVISIONS.get(name)
    try:
        folder = Path(
            snapshot_download(
                name,
                revision=wanted,
                allow_patterns=list(ALLOWED_FILES),
                ignore_patterns=_SUBFOLDERS,
                local_files_only=True,
            )
        )
    except HFValidationError as error:
        raise UsageError(f"{name!r}: no such folder, and no possible name of a model on the Hub") from error
    except LocalEntryNotFoundError:
        return None
    # Another program may have fetched only some of the files.
    whole = all(any(any(folder.glob(pattern)) for pattern in choice) for choice in _NEEDED_FILES)
    return folder if whole else None


@dataclass(frozen=True)
class _Weights:
    """A large file on the Hub: where it is, its size, its hash, and where it goes."""

    name: str
    url: str
    size: int
    sha256: str
    path: Path


def _download(name: str, revision: str | None) -> Path:
    from huggingface_hub import HfApi, hf_hub_url, snapshot_download
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name

    with _explained_hub_errors(name, revision):
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=_ANSWER_SECONDS)
        files = [file for file in info.siblings or () if _is_wanted(file.rfilename)]
        _check_weights(name, [file.rfilename for file in info.siblings or ()], files)
        megabytes = sum(file.size or 0 for file in files) / 1e6
        say(f"fetching {name} ({megabytes:,.0f} MB, revision {str(info.sha)[:8]}) from the Hub")
        blobs = Path(HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type="model"), "blobs")
        for file in files:
            if file.lfs is not None:
                url = hf_hub_url(name, file.rfilename, revision=info.sha)
                # The cache's layout: a file in blobs/ bears its hash as name, and the snapshot links to it.
                blob = blobs / file.lfs.sha256
                _download_weights(_Weights(file.rfilename, url, file.lfs.size, file.lfs.sha256, blob))
        with _quiet_hub():  # what is left is small
            folder = snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(ALLOWED_FILES),
                ignore_patterns=_SUBFOLDERS,
                etag_timeout=_ANSWER_SECONDS,
            )
        return Path(folder)


def _is_wanted(filename: str) -> bool:
    return "/" not in filename and any(fnmatch.fnmatch(filename, pattern) for pattern in ALLOWED_FILES)


def _check_weights(name: str, present: list[str], wanted: "list[RepoSibling]") -> None:
    if any(file.rfilename.endswith(".safetensors") for file in wanted):
        return
    pickles = [filename for filename in present if filename.endswith((".bin", ".pt", ".pth", ".ckpt"))]
    found = f"only {pickles[0]}, a pickle, which can run any code when it is read" if pickles else "no weights at all"
    raise ModelError(f"{name} on the Hub has no weights as safetensors ({found}): choose another model")


def _download_weights(file: _Weights) -> None:
    """Download a large file to its place, going on where an earlier download stopped."""
    partial = file.path.with_name(file.path.name + PARTIAL_SUFFIX)
    with explained_disk_errors(file.path):
        file.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.path.with_name(file.path.name + ".lock")):
            if file.path.exists():
                return
            have = partial.stat().st_size if partial.exists() else 0
            if have:
                say(f"going on with {file.name} at {have / 1e6:,.0f} of {file.size / 1e6:,.0f} MB")
            with Progress(f"fetching {file.name}", total=file.size, unit="B", initial=have) as progress:
                _append_until_whole(file, partial, progress)
            if sha256_file(partial) != file.sha256:
                partial.unlink()
                raise NetworkError(f"{file.name} arrived damaged (its SHA-256 differs) and was removed: fetch it again")
            sync_file(partial)
            partial.replace(file.path)


def _append_until_whole(file: _Weights, partial: Path, progress: Progress) -> None:
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    failures = 0
    while (have := partial.stat().st_size if partial.exists() else 0) != file.size:
        try:
            _append(file, partial, have, progress=progress)
        except httpx.TransportError:
            failures = 0 if partial.exists() and partial.stat().st_size > have else failures + 1
            if failures > _RETRIES:
                raise
            time.sleep(_RETRY_SECONDS)


def _append(file: _Weights, partial: Path, have: int, *, progress: Progress) -> None:
    """One request for what is missing from byte `have` on; from the start if the server sends it so."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    if have > file.size:
        partial.unlink()
        progress.advance(-have)
        have = 0
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    session = get_session()
    with session.stream("GET", file.url, headers=headers, follow_redirects=True, timeout=2 * _ANSWER_SECONDS) as answer:
        hf_raise_for_status(answer)
        goes_on = answer.status_code == 206
        if have and not goes_on:
            progress.advance(-have)
        with partial.open("ab" if goes_on else "wb") as target:
            for block in answer.iter_raw(_BLOCK_BYTES):
                target.write(block)
                progress.advance(len(block))


@contextlib.contextmanager
def _explained_hub_errors(name: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    unreachable: tuple[Any, ...] = (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError)
    try:
        yield
    except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError) as error:
        at = f" at revision {revision}" if revision else ""
        raise UsageError(f"the Hub has no open model {name!r}{at}: check the name, or name a folder") from error
    except unreachable as error:
        why = "HF_HUB_OFFLINE is set" if isinstance(error, OfflineModeIsEnabled) else type(error).__name__
        raise NetworkError(
            f"{name} is no folder here nor a model fetched before, and the Hub cannot be reached ({why}): run "
            f"`gpt2kit fetch {name}` where there is a network (it goes on where it stopped), or name a local model's "
            "folder, or nano, the small model in this package"
        ) from error


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars  # type: ignore[attr-defined]

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _copy(folder: Path, output_dir: Path) -> Path:
    """Copy a model's files; what is there with the same contents stays, other contents are refused beforehand."""
    if output_dir.exists() and not output_dir.is_dir():
        raise UsageError(f"--output_dir {output_dir} is a file; name a folder")
    sources = sorted(file for file in folder.iterdir() if _is_wanted(file.name))
    missing = []
    for source in sources:
        target = output_dir / source.name
        if not target.exists():
            missing.append((source, target))
        elif target.stat().st_size != source.stat().st_size or sha256_file(target) != sha256_file(source):
            raise UsageError(f"--output_dir {output_dir} holds another {target.name}; choose a new folder")
    with explained_disk_errors(output_dir):
        output_dir.mkdir(parents=True, exist_ok=True)
        for source, target in missing:
            partial = target.with_name(target.name + PARTIAL_SUFFIX)
            try:
                shutil.copyfile(source, partial)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
    return output_dir
