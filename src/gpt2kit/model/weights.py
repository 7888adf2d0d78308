"""Safetensors files: read with suspicion, written beside and renamed."""

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gpt2kit.errors import ModelError
from gpt2kit.files import PARTIAL_SUFFIX, explained_disk_errors, sync_file, sync_folder

_LARGEST_HEADER_BYTES = 100_000_000  # the library's own limit
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "F64": torch.float64}


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, each tensor into fresh memory of its own.

    The library would map the file instead: the tensors then begin at any address, and a model that is copied from there
    is in memory twice for a while.

    Raises:
        ModelError: it is truncated, garbled, or another format under this name.
    """
    try:
        with safe_open(
            path, framework="pt"
        ) as file:  # the library checks the header: types, shapes, no gaps, no overlap
            return _read_tensors(path, library=file)
    except SafetensorError as error:
        cause = " ".join(str(error).split())
        raise ModelError(f"{path}: {_why_not_safetensors(path, cause)} ({cause}); fetch or save it again") from error


def _read_tensors(path: Path, *, library: Any) -> dict[str, Tensor]:
    """The tensors of a file whose header is known to be sound; those of rarer types by the library."""
    tensors = {}
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(header_bytes))
        for name in library.keys():  # noqa: SIM118 (not a dict)
            if (dtype := _DTYPES.get(header[name]["dtype"])) is None:
                tensors[name] = library.get_tensor(name)
                continue
            begin, end = header[name]["data_offsets"]
            content = torch.empty(end - begin, dtype=torch.uint8)
            file.seek(8 + header_bytes + begin)
            if file.readinto(content.numpy().data) != end - begin:
                raise SafetensorError("incomplete: the file became shorter while it was read")
            tensors[name] = content.view(dtype).view(header[name]["shape"])
    return tensors


def _why_not_safetensors(path: Path, cause: str) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return "is a pickle under the name of a safetensors file, and is not opened"
    if len(start) < 8:
        return "is cut short"
    (header_bytes,) = struct.unpack("<Q", start)
    if header_bytes > _LARGEST_HEADER_BYTES:
        return "is not a safetensors file"
    cut = 8 + header_bytes > path.stat().st_size or "incomplete" in cause.lower()
    return "is cut short" if cut else "is damaged"


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Write tensors as safetensors (metadata `format: pt`), beside the old file and then renamed over it.

    Raises:
        DiskError: the disk is full; the old file is intact.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    with explained_disk_errors(path):
        try:
            _save_file(weights, partial)
            sync_file(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)


def _save_file(weights: dict[str, Tensor], path: Path) -> None:
    contiguous = {name: tensor.detach().to("cpu").contiguous() for name, tensor in weights.items()}
    try:
        save_file(contiguous, path, metadata={"format": "pt"})
    except SafetensorError as error:
        if "os error" in str(error):  # the library hides the number that says the disk is full
            raise OSError(_os_error_number(str(error)), str(error)) from error
        raise


def _os_error_number(message: str) -> int:
    digits = message.rpartition("os error ")[2].partition(")")[0]
    return int(digits) if digits.isdigit() else 0
