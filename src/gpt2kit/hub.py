"""Base models by name: a local folder, a copy fetched before, or a download from the Hugging Face Hub.

The network is touched only by `fetch`, and by `resolve_base` for a Hub name that has no copy on this machine.
"""

import os
from pathlib import Path

from gpt2kit import console
from gpt2kit.errors import NetworkError, UsageError

# A name means one exact set of files: the commit each known model stood at when this release was made.
PINNED_REVISIONS = {
    "gpt2": "607a30d783dfa663caf39e06633721c8d4cfcd7e",
    "gpt2-medium": "6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
    "gpt2-large": "32b71b12589c2f8d625668d2335a01cac3249519",
    "gpt2-xl": "15ea56dee5df4983c59b2538573817e1667135e2",
    "distilgpt2": "2290a62682d06624634c1f46a6ad5be0f47f38aa",
}
# Data only: no pickles, no code.
ALLOWED_FILES = ["*.safetensors", "*.json", "*.txt"]
_OFFLINE_AFTER_SECONDS = 5


def resolve_base(name: str | Path) -> Path:
    """The folder of a base model.

    Args:
        name: a local folder (which wins over a Hub model of the same name), or a name on the Hub such as "gpt2".

    Raises:
        UsageError: it is neither a folder nor a possible name on the Hub.
        NetworkError: it is not on this machine, and the Hub cannot be reached.
    """
    folder = Path(name)
    if folder.is_dir():
        return folder
    text = str(name)
    if folder.exists():
        raise UsageError(f"{text} is a file; a base model is a folder, or a name on the Hub such as gpt2")
    if folder.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1 or not text:
        raise UsageError(f"{text or 'an empty name'}: no such folder; name a model's folder, or one on the Hub (gpt2)")
    return fetch(text)


def fetch(name: str, *, revision: str | None = None, output_dir: Path | None = None) -> Path:
    """Bring a model from the Hugging Face Hub, or find the copy that is here already.

    Args:
        name: its name there, e.g. "gpt2" or "owner/model".
        revision: a commit; by default the pinned one of a known model, else the newest.
        output_dir: write it to this folder instead of the shared cache.

    Returns:
        The folder that holds it.

    Raises:
        UsageError: the Hub has no such model.
        NetworkError: the Hub cannot be reached and there is no copy here.
    """
    import httpx2
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    commit = revision or PINNED_REVISIONS.get(name)
    if output_dir is None:
        try:
            return Path(snapshot_download(name, revision=commit, allow_patterns=ALLOWED_FILES, local_files_only=True))
        except HFValidationError as error:
            raise UsageError(f"{name!r}: no such folder, and no possible name of a model on the Hub") from error
        except LocalEntryNotFoundError:
            pass
    if os.environ.get("HF_HUB_OFFLINE", "").lower() not in ("1", "true", "yes", "on"):
        console.say(f"fetching {name} ({'revision ' + commit[:8] if commit else 'newest revision'}) from the Hub")
    try:
        return Path(
            snapshot_download(
                name,
                revision=commit,
                allow_patterns=ALLOWED_FILES,
                local_dir=output_dir,
                etag_timeout=_OFFLINE_AFTER_SECONDS,
            )
        )
    except (RepositoryNotFoundError, RevisionNotFoundError, GatedRepoError) as error:
        raise UsageError(
            f"the Hub has no open model {name!r}{f' at revision {commit}' if commit else ''}: check the name"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        raise NetworkError(
            f"{name} is not on this machine and the Hub cannot be reached: run `gpt2kit fetch {name}` where there is "
            "a network (it goes on where it stopped), or give a local model with --base FOLDER, or train your own "
            "with --from_scratch"
        ) from error
