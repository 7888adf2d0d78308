"""Merging: an adapter and its base model become one plain model folder, which every tool reads."""

import shutil
import tempfile
from pathlib import Path

from gpt2kit.console import warn
from gpt2kit.errors import UsageError
from gpt2kit.files import explained_disk_errors, sync_folder
from gpt2kit.model.adapters import ADAPTER_CONFIG, is_adapter, tokenizer_folder
from gpt2kit.model.folder import load_model, save_model

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)


def merge_adapter(adapter: Path, output: Path, *, allow_pickle: bool = False) -> Path:
    """Write an adapter and its base model as one plain Hugging Face folder, with the tokenizer.

    Args:
        adapter: a folder with `adapter_config.json` and `adapter_model.safetensors`, from gpt2kit or from `peft`.
        output: the folder to make; it appears when it is complete.
        allow_pickle: read the base model's `pytorch_model.bin` when it has no safetensors.

    Returns:
        `output`.

    Raises:
        UsageError: `adapter` is not an adapter's folder, its base model is not there, or `output` holds something.
        ModelError: the files are damaged, or do not agree with each other.
        DiskError: the disk is full; nothing is at `output`.
    """
    adapter, output = Path(adapter), Path(output)
    if not adapter.is_dir():
        raise UsageError(f"{adapter}: there is no such adapter folder")
    if not is_adapter(adapter):
        raise UsageError(f"{adapter}: is no adapter's folder (a folder with {ADAPTER_CONFIG} and without config.json)")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} exists and holds something; name a new folder for the merged model")
    model = load_model(adapter, allow_pickle=allow_pickle)
    with explained_disk_errors(output):
        parent = output.absolute().parent
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=f".{output.name}-") as beside:
            merged = Path(beside) / output.name
            save_model(model, merged)
            _copy_tokenizer(adapter, merged)
            merged.replace(output)
        sync_folder(parent)
    return output


def _copy_tokenizer(adapter: Path, target: Path) -> None:
    folder = tokenizer_folder(adapter)
    names = [name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not names:
        warn(f"{adapter}: neither it nor its base model has a tokenizer to copy; the merged model has none")
    for name in names:
        shutil.copyfile(folder / name, target / name)
