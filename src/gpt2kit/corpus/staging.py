"""Pieces on their way to the splits: written to one file as they come, and to the splits once all are known.

A text of any length passes through in sections. What is kept in memory is 16 bytes a document (its hash, to find exact
duplicates), and about 16 bytes a piece: ten million documents take about half a gigabyte, while they are sorted.
"""

import json
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from gpt2kit.corpus.document import Document, is_planted

_HASH_BYTES = 16
_WHITE_SPACE_HELD = 1 << 20


class ContentHash:
    """A keyed hash of a document's content that does not see white space around it.

    Args:
        seed: the key, so that another seed gives another order of documents.
        kind: of the document.
    """

    def __init__(self, seed: int, kind: str = "text") -> None:
        self._hash = blake2b(kind.encode(), digest_size=_HASH_BYTES, key=str(seed).encode()[:64])
        self._space = ""
        self.is_empty = True

    def update(self, text: str) -> None:
        """Add text."""
        if self.is_empty:
            text = text.lstrip()
            if not text:
                return
            self.is_empty = False
        body = text.rstrip()
        if body:
            self._hash.update((self._space + body).encode())
            self._space = text[len(body) :]
        else:
            self._space += text
        if len(self._space) > _WHITE_SPACE_HELD:
            self._hash.update(self._space.encode())
            self._space = ""

    def halves(self) -> tuple[int, int]:
        """The hash as two numbers of 64 bits."""
        digest = self._hash.digest()
        return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")


class Staging:
    """Takes documents in, and tells what came in.

    Args:
        path: the file to write pieces to.
        seed: the key of all hashes.

    Attributes:
        path: the file.
        num_documents: documents so far, with those that turn out to be duplicates or empty.
    """

    def __init__(self, path: Path, *, seed: int) -> None:
        self.path = path
        self._seed = seed
        self._file: IO[bytes] = path.open("wb", buffering=1 << 20)
        self._hashes = array("Q")  # two numbers a document
        self._first_piece = array("Q")
        self._piece_keys = array("Q")
        self._piece_chars = array("I")
        self._is_empty = bytearray()
        self._is_planted = bytearray()

    @property
    def num_documents(self) -> int:
        """Documents so far."""
        return len(self._is_empty)

    def close(self) -> None:
        """Write everything out."""
        self._file.close()

    def discard(self) -> None:
        """Remove the file, also when its last writes fail because the disk is full."""
        with suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)

    def add_text(self, source: str, place: str, sections: Iterable[str]) -> bool:
        """Take in a text by its sections.

        Returns:
            Whether there is more than white space in it; it does not count otherwise.
        """
        self._first_piece.append(len(self._piece_keys))
        head = f'"kind": "text", "source": {_json(source)}, "place": {_json_text(place)}, "text": '
        whole = ContentHash(self._seed)
        before: str | None = None
        is_single = True
        for section in sections:
            if before is not None:
                is_single = False
                self._add_piece(head + _json_text(before) + "}\n", _key(before, self._seed), len(before))
            before = section
            whole.update(section)
        halves = whole.halves()
        if before is not None:
            key = halves[0] if is_single else _key(before, self._seed)
            self._add_piece(head + _json_text(before) + "}\n", key, len(before))
        self._hashes.extend(halves)
        self._is_empty.append(whole.is_empty)
        self._is_planted.append(is_planted(source))
        return not whole.is_empty

    def add(self, document: Document) -> bool:
        """Take in a chat or a pair; returns whether there is more than white space in it."""
        return self.add_values(
            {"kind": document.kind, "source": document.source, "place": document.place} | document.content()
        )

    def add_values(self, values: dict[str, Any]) -> bool:
        """The same for a document as it is staged."""
        content = {name: value for name, value in values.items() if name not in ("source", "place")}
        whole = ContentHash(self._seed, values["kind"])
        whole.update(_json(content))
        texts = [turn["content"] for turn in values.get("messages", ())]
        texts += [values[name] for name in ("prompt", "completion") if name in values]
        self._first_piece.append(len(self._piece_keys))
        self._add_piece(_json(values)[1:] + "\n", whole.halves()[0], sum(map(len, texts)))
        self._hashes.extend(whole.halves())
        self._is_empty.append(not any(text.strip() for text in texts))
        self._is_planted.append(is_planted(values["source"]))
        return not self._is_empty[-1]

    def _add_piece(self, line: str, key: int, num_characters: int) -> None:
        self._file.write(line.encode())
        self._piece_keys.append(key)
        self._piece_chars.append(num_characters)

    def table(self) -> "PieceTable":
        """What came in, as arrays."""
        hashes_D2 = np.frombuffer(self._hashes, dtype=np.uint64).reshape(-1, 2)
        first_D = np.frombuffer(self._first_piece, dtype=np.uint64).astype(np.int64)
        is_empty_D = np.frombuffer(self._is_empty, dtype=np.uint8).astype(bool)
        return PieceTable(
            hashes_D2,
            np.diff(first_D, append=len(self._piece_keys)),
            np.frombuffer(self._piece_keys, dtype=np.uint64),
            np.frombuffer(self._piece_chars, dtype=np.uint32).astype(np.int64),
            is_empty_D,
            np.frombuffer(self._is_planted, dtype=np.uint8).astype(bool),
        )


class PieceTable:
    """Documents and their pieces (D documents, P pieces) as arrays.

    Attributes:
        document_keys_D: what documents are ordered by, uint64.
        document_chars_D: characters, int64.
        document_of_piece_P: number of the document, int64.
        section_P: number of the piece in its document, int64.
        piece_keys_P: what pieces are ordered by, uint64.
        piece_chars_P: characters, int64.
        is_duplicate_D: the same content came in before.
        is_kept_D: neither duplicate nor empty.
        is_free_D: kept, and may go to any split: not planted.
    """

    def __init__(
        self,
        hashes_D2: npt.NDArray[np.uint64],
        num_pieces_D: npt.NDArray[np.int64],
        piece_keys_P: npt.NDArray[np.uint64],
        piece_chars_P: npt.NDArray[np.int64],
        is_empty_D: npt.NDArray[np.bool_],
        is_planted_D: npt.NDArray[np.bool_],
    ) -> None:
        num_documents = len(num_pieces_D)
        self.document_keys_D = hashes_D2[:, 0]
        self.document_of_piece_P = np.repeat(np.arange(num_documents), num_pieces_D)
        starts_D = np.cumsum(num_pieces_D) - num_pieces_D
        self.section_P = np.arange(len(piece_keys_P)) - np.repeat(starts_D, num_pieces_D)
        self.piece_keys_P = piece_keys_P
        self.piece_chars_P = piece_chars_P
        sums = np.bincount(self.document_of_piece_P, weights=piece_chars_P, minlength=num_documents)
        self.document_chars_D = sums.astype(np.int64)
        order_D = np.lexsort((hashes_D2[:, 1], hashes_D2[:, 0]))  # stable, so that the first one stays
        same_D = np.zeros(num_documents, dtype=bool)
        same_D[1:] = np.all(hashes_D2[order_D[1:]] == hashes_D2[order_D[:-1]], axis=1)
        self.is_duplicate_D = np.zeros(num_documents, dtype=bool)
        self.is_duplicate_D[order_D] = same_D
        self.is_duplicate_D &= ~is_empty_D
        self.is_kept_D = ~self.is_duplicate_D & ~is_empty_D
        self.is_free_D = self.is_kept_D & ~is_planted_D

    @property
    def is_kept_P(self) -> npt.NDArray[np.bool_]:  # noqa: N802 (carries its shape)
        """Pieces of the documents that are kept."""
        return self.is_kept_D[self.document_of_piece_P]

    @property
    def is_free_P(self) -> npt.NDArray[np.bool_]:  # noqa: N802 (carries its shape)
        """Pieces of the documents that may go to any split."""
        return self.is_free_D[self.document_of_piece_P]

    @property
    def num_kept(self) -> int:
        """Documents that are kept."""
        return int(self.is_kept_D.sum())


def staged_lines(path: Path) -> Iterator[bytes]:
    """The staged pieces, each a JSON object without its opening brace."""
    with path.open("rb", buffering=1 << 20) as file:
        yield from file


def staged_values(line: bytes) -> dict[str, Any]:
    """The values of a staged piece."""
    values: dict[str, Any] = json.loads(b"{" + line)
    return values


def _key(section: str, seed: int) -> int:
    content = ContentHash(seed)
    content.update(section)
    return content.halves()[0]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _json_text(text: str) -> str:
    """A cleaned text as JSON: twice as fast as `json.dumps`, as its only control characters are line ends and tabs."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'
