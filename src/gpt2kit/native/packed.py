"""Weights as the kernel reads them: packed into one block of memory, or, quantised, into a file beside the model.

The file `<model>/native/int8.bin` begins with a line of JSON, filled up with blanks to a page: what the weights were
made from (the size, time and SHA-256 of each file of the model), and a hash of the block that follows. A file that
is damaged, or of other weights, is made anew.
"""

import contextlib
import hashlib
import json
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ctypes import CDLL, byref, c_void_p
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2kit.console import warn
from gpt2kit.errors import DiskError, ModelError
from gpt2kit.files import PARTIAL_SUFFIX, explained_disk_errors, sha256_file
from gpt2kit.native.checkpoint import CONFIG, Checkpoint, Shape, read_shape, tensor_shapes, weight_files
from gpt2kit.native.library import FORMATS, GROUPS, PANEL, Linear, Weights
from gpt2kit.runtime import num_threads

CACHE_FOLDER = "native"
ROUNDED_HEAD = "head, rounded"  # of float32 weights; see pick.h
_VERSION = 3  # of the header, the layout and the way weights are rounded
_PAGE_BYTES = 4096
_ALIGNMENT_BYTES = 64
_HASHED_BYTES = 1 << 20
_MOST_READINGS = 3  # of files that a training replaces meanwhile


@dataclass(frozen=True)
class Part:
    """Where the numbers of one tensor lie in a block, in bytes from its beginning.

    Attributes:
        inputs, outputs: of a matrix; of a vector, `outputs` is its length and `inputs` 0.
        start: of the values.
        scales: of the scales of quantised values; None where there are none.
        end: behind the last byte.
        weights: how they are kept.
    """

    inputs: int
    outputs: int
    start: int
    scales: int | None
    end: int
    weights: Weights


def layout(shape: Shape, weights: Weights, *, is_tied: bool) -> dict[str, Part]:
    """Where each tensor of a model lies; the positions' embeddings and all vectors are float32."""
    parts: dict[str, Part] = {}
    end = 0
    for name, dims in tensor_shapes(shape, is_tied=is_tied).items():
        start = _aligned(end)
        if len(dims) == 1 or name == "transformer.wpe.weight":
            # A bias is read in whole panels.
            parts[name] = Part(0, int(np.prod(dims)), start, None, start + 4 * _up(int(np.prod(dims)), PANEL), "fp32")
        else:
            is_by_output = name in ("transformer.wte.weight", "lm_head.weight")
            inputs, outputs = dims[::-1] if is_by_output else dims
            parts[name] = _matrix(
                inputs, outputs, "int8" if weights == "int4" and is_by_output else weights, start=start
            )
        end = parts[name].end
        if weights == "fp32" and name == head_name(is_tied=is_tied):
            # Beside the head, so that its file is read once, and before most other memory is taken.
            parts[ROUNDED_HEAD] = _matrix(shape.n_embd, shape.vocab_size, "int8", start=_aligned(end))
            end = parts[ROUNDED_HEAD].end
    return parts


def head_name(*, is_tied: bool) -> str:
    """Of the matrix that scores are made with."""
    return "transformer.wte.weight" if is_tied else "lm_head.weight"


def _matrix(inputs: int, outputs: int, weights: Weights, *, start: int) -> Part:
    padded_inputs, padded_outputs = _up(inputs, GROUPS[weights]), _up(outputs, PANEL)
    size = padded_inputs * padded_outputs
    if weights == "fp32":
        return Part(inputs, outputs, start, None, start + 4 * size, weights)
    scales = _aligned(start + (size // 2 if weights == "int4" else size))
    return Part(inputs, outputs, start, scales, scales + 2 * size // GROUPS[weights], weights)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _aligned(number: int) -> int:
    return _up(number, _ALIGNMENT_BYTES)


@dataclass(frozen=True)
class PackedWeights:
    """A model's weights for the kernel.

    Attributes:
        shape: the model's.
        weights: how they are kept.
        parts: where each tensor lies.
        block: all of them.
        is_tied: whether the head is the embedding.
        hashes: the SHA-256 of those of the model's files for which it is known.
    """

    shape: Shape
    weights: Weights
    parts: dict[str, Part]
    block: NDArray[np.uint8]
    is_tied: bool
    hashes: dict[str, str] = field(default_factory=dict)

    def address(self, name: str) -> int:
        """Of a tensor's first number."""
        return int(self.block.ctypes.data) + self.parts[name].start

    def linear(self, name: str, *, bias: str | None) -> Linear:
        """A matrix and its bias as the kernel takes them."""
        part = self.parts[name]
        scales = None if part.scales is None else int(self.block.ctypes.data) + part.scales
        return Linear(
            part.inputs,
            part.outputs,
            FORMATS[part.weights],
            self.address(name),
            scales,
            None if bias is None else self.address(bias),
        )


def open_weights(folder: Path, weights: Weights, *, library: CDLL, pool: int) -> PackedWeights:
    """Pack a model's weights; quantised ones are taken from the file beside it, which is made if needed.

    Args:
        folder: the model's.
        weights: "fp32", or how to quantise.
        library: the kernel.
        pool: its threads.

    Raises:
        ModelError: the folder's files are damaged or do not agree.
    """
    path = folder / CACHE_FOLDER / f"{weights}.bin"
    kept = None if weights == "fp32" else _read_kept(path, folder, weights)
    if kept is not None:
        return kept
    for _ in range(_MOST_READINGS):
        sources = _sources(folder)
        packed = _pack(Checkpoint(folder), weights, library=library, pool=pool)
        hashes = {} if weights == "fp32" else {name: sha256_file(folder / name) for name in sources}
        if _sources(folder) == sources:
            break
    else:
        raise ModelError(f"{folder}: its files are replaced while they are read; wait until that has ended")
    if weights == "fp32":
        return packed
    try:
        _keep(path, packed, {name: {**about, "sha256": hashes[name]} for name, about in sources.items()})
    except (DiskError, OSError) as error:
        warn(f"the {weights} weights are not kept, and will be made again the next time: {error}")
    return packed


def _pack(checkpoint: Checkpoint, weights: Weights, *, library: CDLL, pool: int) -> PackedWeights:
    parts = layout(checkpoint.shape, weights, is_tied=checkpoint.is_tied)
    memory = _new_memory(max(part.end for part in parts.values()))
    packed = PackedWeights(
        checkpoint.shape, weights, parts, np.frombuffer(memory, dtype=np.uint8), is_tied=checkpoint.is_tied
    )
    for name, part in parts.items():
        source = head_name(is_tied=checkpoint.is_tied) if name == ROUNDED_HEAD else name
        values = checkpoint.read(source)
        if weights != "fp32" and not np.isfinite(values.sum()):  # rounded, it would pass for a number
            raise ModelError(f"{checkpoint.folder}: {name} holds numbers that are infinite or none (NaN)")
        if part.inputs == 0:
            target = packed.block[part.start : part.start + 4 * part.outputs].view(np.float32)
            target[:] = values.reshape(-1)
            continue
        is_by_output = values.shape == (part.outputs, part.inputs) and source.endswith(("wte.weight", "lm_head.weight"))
        steps = (1, part.inputs) if is_by_output else (part.outputs, 1)
        linear = packed.linear(name, bias=None)
        library.gk_pack(c_void_p(pool), byref(linear), c_void_p(values.ctypes.data), *steps)
    return packed


def _new_memory(size: int) -> mmap.mmap:
    """Memory in large pages where the system has them: fewer page faults now and address look-ups later."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return mmap.mmap(-1, size)
    # Of the process alone: shared memory, which is the default, gets no large pages on most systems.
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # which the system may refuse
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _sources(folder: Path) -> dict[str, dict[str, int]]:
    """The size and time of the files that a model's numbers come from."""
    found = {}
    for path in (folder / CONFIG, *weight_files(folder)):
        about = path.stat()
        found[path.name] = {"bytes": about.st_size, "time_ns": about.st_mtime_ns}
    return found


def _keep(path: Path, packed: PackedWeights, sources: dict[str, dict[str, Any]]) -> None:
    """Write quantised weights beside the file and rename."""
    header = {
        "kind": "gpt2kit native weights",
        "version": _VERSION,
        "weights": packed.weights,
        "is_tied": packed.is_tied,
        "shape": asdict(packed.shape),
        "sources": sources,
        "digest": _digest_of(lambda start, length: packed.block[start : start + length].data, packed.block.size),
    }
    line = json.dumps(header).encode() + b"\n"
    partial = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    with explained_disk_errors(path):
        path.parent.mkdir(exist_ok=True)
        try:
            with partial.open("wb") as file:
                file.write(line.ljust(_up(len(line), _PAGE_BYTES)))
                file.write(packed.block.data)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _read_kept(path: Path, folder: Path, weights: Weights) -> PackedWeights | None:
    """The weights of a file, if it is whole and made from this model."""
    try:
        with path.open("rb") as file:
            line = file.readline(1 << 20)
            header = json.loads(line)
            shape = Shape(**header["shape"])
            is_tied = bool(header["is_tied"])
            if (header["version"], header["weights"], shape) != (_VERSION, weights, read_shape(folder)):
                return None
            if not _is_of(header["sources"], folder):
                return None
            parts = layout(shape, weights, is_tied=is_tied)
            start = _up(len(line), _PAGE_BYTES)
            size = max(part.end for part in parts.values())
            if os.fstat(file.fileno()).st_size != start + size:
                return None
            memory = _new_memory(size)  # not the file's own, whose pages are small
            block = memoryview(memory)
            digest = _digest_of(
                lambda begin, length: _read_part(path, start + begin, block[begin : begin + length]), size
            )
            recorded = header["digest"]
            hashes = {name: str(about["sha256"]) for name, about in header["sources"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if digest != recorded:
        warn(f"{path}: is damaged, and made anew")
        return None
    return PackedWeights(shape, weights, parts, np.frombuffer(memory, dtype=np.uint8), is_tied=is_tied, hashes=hashes)


def _read_part(path: Path, start: int, into: memoryview) -> memoryview:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        return into[: file.readinto(into)]


def _digest_of(part: Callable[[int, int], memoryview], size: int) -> str:
    """A hash of the hashes of parts, which threads make at the same time: a text waits for it.

    Args:
        part: gives, from a place on, so many bytes.
        size: bytes in all.
    """

    def of_part(start: int) -> bytes:
        return hashlib.blake2b(part(start, min(_HASHED_BYTES, size - start))).digest()

    with ThreadPoolExecutor(num_threads()) as threads:
        return hashlib.blake2b(b"".join(threads.map(of_part, range(0, size, _HASHED_BYTES)))).hexdigest()


def _is_of(recorded: dict[str, Any], folder: Path) -> bool:
    """Whether files are those recorded: by size and time, or where the time has changed by what they hold."""
    present = _sources(folder)
    if set(present) != set(recorded):
        return False
    for name, about in present.items():
        known = recorded[name]
        if known["bytes"] != about["bytes"]:
            return False
        if known["time_ns"] != about["time_ns"] and known["sha256"] != sha256_file(folder / name):
            return False
    return True
