"""Token ids on disk: memory-mapped arrays with a header that says what they must be.

A store is a folder:

    store.json            the header: format, counts, dtype, tokenizer, size and hash of each array
    ids.npy               (N,) uint16 or uint32, the documents end to end, each ending with end-of-text
    document_starts.npy   (D+1,) int64, where each document begins, and N
    loss_mask.npy         (N,) uint8, 1 where the loss is taken; only when some token is left out

Legend of the shapes: N tokens, D documents.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from gpt2kit.errors import DataError, UsageError
from gpt2kit.files import (
    PARTIAL_SUFFIX,
    explained_disk_errors,
    read_json,
    sync_folder,
    to_json,
    write_atomically,
)

FORMAT = "gpt2kit tokens"
FORMAT_VERSION = 1
HEADER = "store.json"
_BLOCK = 1 << 20
_DTYPES = {"uint16": np.uint16, "uint32": np.uint32, "int64": np.int64, "uint8": np.uint8}

IdArray = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class TokenStore:
    """The tokens of one split, memory-mapped: opening costs nothing, and only what is used is read.

    Attributes:
        folder: where it lies.
        ids_N: the token ids.
        document_starts_D1: where each document begins in `ids_N`, and at the end N.
        loss_mask_N: 1 where a token is predicted with loss, 0 where it is only read; None when it is 1 everywhere.
        end_of_text: the id every document ends with.
        tokenizer_fingerprint: `Tokenizer.fingerprint` of the tokenizer that made the ids.
    """

    folder: Path
    ids_N: IdArray
    document_starts_D1: npt.NDArray[np.int64]
    loss_mask_N: npt.NDArray[np.uint8] | None
    end_of_text: int
    tokenizer_fingerprint: str

    @property
    def num_tokens(self) -> int:
        """Tokens, with each document's end-of-text."""
        return len(self.ids_N)

    @property
    def num_documents(self) -> int:
        """Documents."""
        return len(self.document_starts_D1) - 1

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a store and check, without reading it all, that its files are those the header speaks of.

        Raises:
            UsageError: there is no store.
            DataError: a file is missing, cut short, or of another kind than the header says.
        """
        folder = Path(folder)
        header = _read_header(folder)
        arrays = {name: _open_array(folder, name, entry) for name, entry in header["arrays"].items()}
        ids_N, starts_D1 = arrays["ids"], arrays["document_starts"]
        mask_N = arrays.get("loss_mask")
        if (
            len(ids_N) != header["num_tokens"]
            or len(starts_D1) != header["num_documents"] + 1
            or (starts_D1[0], starts_D1[-1]) != (0, len(ids_N))
            or (mask_N is not None and len(mask_N) != len(ids_N))
            or (len(ids_N) and ids_N[-1] != header["end_of_text"])
        ):
            raise DataError(f"{folder}: its arrays do not fit together; {_REMEDY}")
        return cls(folder, ids_N, starts_D1, mask_N, header["end_of_text"], header["tokenizer_fingerprint"])

    def verify(self) -> None:
        """Read everything and compare it with the hashes of the header, and the documents with their ends.

        Raises:
            DataError: something is not as it was written.
        """
        for name, entry in _read_header(self.folder)["arrays"].items():
            array = _open_array(self.folder, name, entry)
            digest = hashlib.sha256()
            for start in range(0, len(array), _BLOCK):
                digest.update(array[start : start + _BLOCK].tobytes())
            if digest.hexdigest() != entry["sha256"]:
                raise DataError(f"{self.folder / (name + '.npy')}: its content has changed; {_REMEDY}")
        ends_D = self.document_starts_D1[1:]
        if np.any(np.diff(self.document_starts_D1) < 1) or np.any(self.ids_N[ends_D - 1] != self.end_of_text):
            raise DataError(f"{self.folder}: a document does not end with end-of-text; {_REMEDY}")


_REMEDY = "prepare the data again (`gpt2kit prepare`)"


def _read_header(folder: Path) -> dict[str, Any]:
    if not (folder / HEADER).is_file():
        raise UsageError(f"{folder}: no token store here ({HEADER} is missing); make one with `gpt2kit prepare`")
    header = read_json(folder / HEADER, what="a token store's header")
    if header.get("format") != FORMAT:
        raise DataError(f"{folder / HEADER}: not the header of a token store; {_REMEDY}")
    if header.get("version") != FORMAT_VERSION:
        raise DataError(
            f"{folder / HEADER}: format version {header.get('version')}, and this gpt2kit reads {FORMAT_VERSION}; "
            f"{_REMEDY}"
        )
    counts = (header.get("num_tokens"), header.get("num_documents"), header.get("end_of_text"))
    arrays = header.get("arrays")
    if (
        not all(isinstance(count, int) and count >= 0 for count in counts)
        or not isinstance(header.get("tokenizer_fingerprint"), str)
        or not isinstance(arrays, dict)
        or not {"ids", "document_starts"} <= set(arrays) <= {"ids", "document_starts", "loss_mask"}
        or not all(isinstance(entry, dict) and {"dtype", "bytes", "sha256"} <= set(entry) for entry in arrays.values())
    ):
        raise DataError(f"{folder / HEADER}: an entry is missing or of the wrong kind; {_REMEDY}")
    return header


def _open_array(folder: Path, name: str, entry: dict[str, Any]) -> Any:
    path = folder / f"{name}.npy"
    if not path.is_file():
        raise DataError(f"{path}: is missing; {_REMEDY}")
    if path.stat().st_size != entry["bytes"]:
        raise DataError(f"{path}: has {path.stat().st_size:,} bytes and should have {entry['bytes']:,}; {_REMEDY}")
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version != (1, 0):
                raise ValueError(f"array format {version}")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if dtype != _DTYPES.get(entry["dtype"]) or len(shape) != 1:
                raise ValueError(f"holds {dtype} {shape} and should hold {entry['dtype']} in one row")
        # An empty file cannot be mapped.
        return np.load(path, mmap_mode="r" if shape[0] else None, allow_pickle=False)
    except ValueError as error:
        raise DataError(f"{path}: not the array it should be ({error}); {_REMEDY}") from error


class _ArrayWriter:
    """Appends to a one-dimensional .npy file whose length is not known before the end."""

    def __init__(self, path: Path, dtype: str) -> None:
        self.path = path
        self.dtype = dtype
        self.length = 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO = path.open("wb")
        try:
            self._write_header()
        except OSError:
            self.close()
            raise

    def _write_header(self) -> None:
        # numpy leaves room for the length to grow, so the header can be written again in its place.
        description = np.lib.format.dtype_to_descr(np.dtype(self.dtype))
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": description, "fortran_order": False, "shape": (self.length,)}
        )

    def append(self, values: npt.ArrayLike) -> None:
        data = np.asarray(values, dtype=self.dtype).tobytes()
        self._digest.update(data)
        self._file.write(data)
        self.length += len(data) // np.dtype(self.dtype).itemsize

    def close(self) -> None:
        # What could not be written to a full disk is still buffered, and would be tried once more.
        with contextlib.suppress(OSError):
            self._file.close()

    def finish(self) -> dict[str, Any]:
        """Complete and close the file; gives its entry of the header."""
        self._file.seek(0)
        self._write_header()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return {"dtype": self.dtype, "bytes": self.path.stat().st_size, "sha256": self._digest.hexdigest()}


class TokenStoreWriter:
    """Writes a token store document by document, in bounded memory; it appears, whole, when the `with` block ends.

    Args:
        folder: the store's folder; it must not exist yet.
        vocab_size: decides between 16 and 32 bits an id.
        end_of_text: the id every document ends with.
        tokenizer_fingerprint: of the tokenizer that makes the ids.

    Raises:
        UsageError: the folder exists.
        DiskError: the disk is full; nothing of the unfinished store is left.

    Example:
        with TokenStoreWriter(folder, vocab_size=50257, end_of_text=50256, tokenizer_fingerprint=...) as writer:
            writer.add([464, 3290])
    """

    def __init__(self, folder: str | Path, *, vocab_size: int, end_of_text: int, tokenizer_fingerprint: str) -> None:
        self.folder = Path(folder)
        if self.folder.exists():
            raise UsageError(f"{self.folder} exists already; a token store is written to a new folder")
        self.end_of_text = end_of_text
        self.tokenizer_fingerprint = tokenizer_fingerprint
        self.num_tokens = 0
        self.num_documents = 0
        self._partial = self.folder.with_name(self.folder.name + PARTIAL_SUFFIX)
        self._id_dtype = "uint16" if vocab_size <= 1 << 16 else "uint32"
        self._in_document = False
        self._arrays: dict[str, _ArrayWriter] = {}

    def __enter__(self) -> Self:
        try:
            with explained_disk_errors(self.folder):
                shutil.rmtree(self._partial, ignore_errors=True)
                self._partial.mkdir(parents=True)
                self._open("ids", self._id_dtype)
                self._open("document_starts", "int64").append([0])
        except BaseException:
            self._clean_up()
            raise
        return self

    def _open(self, name: str, dtype: str) -> _ArrayWriter:
        self._arrays[name] = _ArrayWriter(self._partial / f"{name}.npy", dtype)
        return self._arrays[name]

    def _clean_up(self) -> None:
        for array in self._arrays.values():
            array.close()
        shutil.rmtree(self._partial, ignore_errors=True)

    def add(self, ids: Sequence[int], *, loss_mask: Sequence[int] | None = None, ends_document: bool = True) -> None:
        """Append a document, or a part of one.

        Args:
            ids: its ids. End-of-text is put behind a document unless it ends with it.
            loss_mask: 1 for each token the loss is taken on, 0 for the others; all of them by default.
            ends_document: False when the rest of the document follows with the next call.
        """
        values = np.asarray(ids, dtype=self._id_dtype)
        mask = None if loss_mask is None else np.asarray(loss_mask, dtype=np.uint8)
        if mask is not None and len(mask) != len(values):
            raise ValueError(f"{len(values)} ids and {len(mask)} numbers in the loss mask")
        if ends_document and (len(values) == 0 or values[-1] != self.end_of_text):
            values = np.append(values, np.asarray([self.end_of_text], dtype=self._id_dtype))
            mask = None if mask is None else np.append(mask, np.uint8(1))
        with explained_disk_errors(self.folder):
            self._append_mask(mask, len(values))
            self._arrays["ids"].append(values)
            self.num_tokens += len(values)
            self._in_document = not ends_document
            if ends_document:
                self.num_documents += 1
                self._arrays["document_starts"].append([self.num_tokens])

    def _append_mask(self, mask: npt.NDArray[np.uint8] | None, length: int) -> None:
        if mask is not None and "loss_mask" not in self._arrays:
            # The first mask: everything before it counted in full.
            array = self._open("loss_mask", "uint8")
            for start in range(0, self.num_tokens, _BLOCK):
                array.append(np.ones(min(_BLOCK, self.num_tokens - start), dtype=np.uint8))
        if "loss_mask" in self._arrays:
            self._arrays["loss_mask"].append(np.ones(length, dtype=np.uint8) if mask is None else mask)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                if self._in_document:
                    self.add([])
                with explained_disk_errors(self.folder):
                    self._finish()
        finally:
            self._clean_up()

    def _finish(self) -> None:
        header = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "num_tokens": self.num_tokens,
            "num_documents": self.num_documents,
            "end_of_text": self.end_of_text,
            "tokenizer_fingerprint": self.tokenizer_fingerprint,
            "arrays": {name: array.finish() for name, array in self._arrays.items()},
        }
        write_atomically(self._partial / HEADER, to_json(header))
        self._partial.replace(self.folder)
        sync_folder(self.folder.parent)
