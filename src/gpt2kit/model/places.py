"""What lies in a model's folder, found without reading weights (and so without torch)."""

from collections.abc import Mapping
from pathlib import Path

from gpt2kit.files import sha256_file

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, rather than a whole model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / CONFIG).is_file()


def file_hashes(folder: Path, *, known: Mapping[str, str] | None = None) -> dict[str, str]:
    """The SHA-256 of each file in a folder that a model's numbers depend on: weights, configuration, tokenizer.

    Args:
        folder: the model's.
        known: hashes of some files that need not be computed again.
    """
    return {
        path.name: (known or {}).get(path.name) or sha256_file(path)
        for path in sorted(folder.iterdir())
        if path.is_file()
        and (path.suffix in (".safetensors", ".bin") or path.name in (CONFIG, ADAPTER_CONFIG, "tokenizer.json"))
    }
