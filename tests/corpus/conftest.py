"""A small harness: raw files in, documents and report out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gpt2kit.corpus import CorpusReport, Piece, collect_documents, read_pieces

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Collected:
    """What came out of a collection.

    Attributes:
        report: its report.
        pieces: by split.
    """

    report: CorpusReport
    pieces: dict[str, list[Piece]]

    def texts(self) -> dict[tuple[str, str], str]:
        """The whole texts by (source, place), put together from their sections over all splits."""
        found: dict[tuple[str, str], dict[int, str]] = {}
        for pieces in self.pieces.values():
            for piece in pieces:
                found.setdefault((piece.source, piece.place), {})[piece.section] = piece.text
        return {key: "".join(parts[number] for number in sorted(parts)) for key, parts in found.items()}

    def in_order(self) -> list[Piece]:
        """All pieces in the order of the input."""
        return sorted(
            (piece for pieces in self.pieces.values() for piece in pieces), key=lambda p: (p.document, p.section)
        )


Collect = Callable[..., Collected]


@pytest.fixture
def collect(tmp_path: Path) -> Collect:
    """Collects the documents of a path, or of files given by name and content."""
    runs = 0

    def run(raw: Path | dict[str, str | bytes], **settings: Any) -> Collected:
        nonlocal runs
        runs += 1
        if isinstance(raw, dict):
            folder = tmp_path / f"raw-{runs}"
            for name, content in raw.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content.encode() if isinstance(content, str) else content)
            raw = folder
        output = tmp_path / f"documents-{runs}"
        report = collect_documents(raw, output, **settings)
        assert sorted(path.name for path in output.iterdir()) == sorted(f"{split}.jsonl" for split in SPLITS)
        return Collected(report, {split: list(read_pieces(output / f"{split}.jsonl")) for split in SPLITS})

    return run
