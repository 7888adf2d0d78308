"""Staged pieces to the files of the splits."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from gpt2kit import console
from gpt2kit.console import Progress
from gpt2kit.corpus.document import SPLITS
from gpt2kit.corpus.report import SplitUnit
from gpt2kit.corpus.sections import cut_sections
from gpt2kit.corpus.split import NOWHERE, TRAIN, assign_splits
from gpt2kit.corpus.staging import PieceTable, Staging, staged_lines, staged_values
from gpt2kit.files import PARTIAL_SUFFIX

ENOUGH_UNITS = 20
_SHORTEST_SECTION_CHARS = 200
_SECTIONS_OF_SHORT_TEXT = 40
# Whole documents are split if every split gets at least this part of its share; a few long ones cannot do that.
_LEAST_OF_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Written:
    """What the files of the splits hold; see `CorpusReport` for the meaning of the fields."""

    num_documents: int
    duplicates: int
    documents: dict[str, int]
    pieces: dict[str, int]
    characters: dict[str, int]
    split_unit: SplitUnit
    section_chars: int


def write_splits(
    staging: Staging,
    folder: Path,
    *,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    section_chars: int,
) -> Written | None:
    """Drop duplicates, choose the split of every piece, and write `train.jsonl`, `validation.jsonl`, `test.jsonl`.

    Planted documents are training text. The others are split if there are enough of them for every split to get its
    share; sections of long texts otherwise. A text too short for that is cut into shorter sections.

    Args:
        staging: everything that was read.
        folder: where to write.
        validation_fraction: share of the characters for validation.
        test_fraction: share for the test.
        seed: of the hashes.
        section_chars: characters of the sections as they were cut.

    Returns:
        What was written; None if there is no text.
    """
    table = staging.table()
    if table.num_kept == 0:
        return None
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    duplicates = int(table.is_duplicate_D.sum())
    split_unit, split_P = _choose(table, **fractions)
    if split_unit == "section" and int(table.is_free_P.sum()) < ENOUGH_UNITS:
        shorter = max(
            int(table.document_chars_D[table.is_free_D].sum()) // _SECTIONS_OF_SHORT_TEXT, _SHORTEST_SECTION_CHARS
        )
        if shorter < section_chars:
            section_chars = shorter
            staging = _cut_again(staging, table, section_chars, seed=seed)
            table = staging.table()
            split_unit, split_P = _choose(table, **fractions)
    try:
        written = _write(staging.path, folder, table, split_P, split_unit, duplicates, section_chars)
    finally:
        staging.discard()
    for split, share in (("validation", validation_fraction), ("test", test_fraction)):
        if share > 0 and not written.pieces[split]:
            console.warn(f"too little text for a {split} split: it is empty; add text")
    return written


def _choose(
    table: PieceTable, *, validation_fraction: float, test_fraction: float
) -> tuple[SplitUnit, npt.NDArray[np.uint8]]:
    """What is split, and where each piece goes: NOWHERE for those of dropped documents, TRAIN for planted ones."""
    fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
    free_D = table.is_free_D
    split_D = np.where(table.is_kept_D, TRAIN, NOWHERE).astype(np.uint8)
    split_D[free_D] = assign_splits(table.document_keys_D[free_D], table.document_chars_D[free_D], **fractions)
    total = table.document_chars_D[free_D].sum()
    shares = {split: table.document_chars_D[split_D == split].sum() / max(total, 1) for split in (1, 2)}
    has_shares = all(
        shares[split] >= _LEAST_OF_SHARE * fraction
        for split, fraction in ((1, validation_fraction), (2, test_fraction))
    )
    holds_out = validation_fraction > 0 or test_fraction > 0
    if not holds_out or (int(free_D.sum()) >= ENOUGH_UNITS and has_shares):
        return "document", split_D[table.document_of_piece_P]
    free_P = table.is_free_P
    split_P = np.where(table.is_kept_P, TRAIN, NOWHERE).astype(np.uint8)
    split_P[free_P] = assign_splits(table.piece_keys_P[free_P], table.piece_chars_P[free_P], **fractions)
    return "section", split_P


def _cut_again(staging: Staging, table: PieceTable, section_chars: int, *, seed: int) -> Staging:
    """Stage the texts again in shorter sections; there are few pieces, so each document fits in memory."""
    again = Staging(staging.path.with_name("shorter" + PARTIAL_SUFFIX), seed=seed)
    try:
        documents: dict[int, list[dict[str, object]]] = {}
        lines = zip(
            table.document_of_piece_P.tolist(), table.is_kept_P.tolist(), staged_lines(staging.path), strict=True
        )
        for document, is_kept, line in lines:
            if is_kept:
                documents.setdefault(document, []).append(staged_values(line))
        for pieces in documents.values():
            first = pieces[0]
            source, place = str(first["source"]), str(first["place"])
            if first["kind"] == "text":
                again.add_text(source, place, cut_sections((str(piece["text"]) for piece in pieces), section_chars))
            else:
                again.add_values(first)
        again.close()
    except BaseException:
        again.discard()
        raise
    return again


def _write(
    staged: Path,
    folder: Path,
    table: PieceTable,
    split_P: npt.NDArray[np.uint8],
    split_unit: SplitUnit,
    duplicates: int,
    section_chars: int,
) -> Written:
    number_D = np.cumsum(table.is_kept_D) - 1
    documents_P = number_D[table.document_of_piece_P]
    follows_P = np.zeros(len(split_P), dtype=bool)
    follows_P[1:] = (table.section_P[1:] > 0) & (split_P[1:] == split_P[:-1])
    paths = [folder / f"{name}.jsonl" for name in SPLITS]
    partial = [path.with_name(path.name + PARTIAL_SUFFIX) for path in paths]
    files: list[IO[bytes]] = []
    try:
        files = [path.open("wb", buffering=1 << 20) for path in partial]
        rows = zip(split_P, documents_P, table.section_P, follows_P, staged_lines(staged), strict=True)
        with Progress("splitting", total=staged.stat().st_size, unit="B") as progress:
            for split, document, section, follows, line in rows:
                progress.advance(len(line))
                if split != NOWHERE:
                    continues = "true" if follows else "false"
                    head = f'{{"document": {document}, "section": {section}, "continues": {continues}, '
                    files[split].write(head.encode() + line)
        for file in files:
            file.close()
        for source, target in zip(partial, paths, strict=True):
            source.replace(target)
    finally:
        for file in files:
            with suppress(OSError):  # of a disk that is full
                file.close()
        for path in partial:
            path.unlink(missing_ok=True)
    splits = {name: split_P == number for number, name in enumerate(SPLITS, TRAIN)}
    return Written(
        num_documents=table.num_kept,
        duplicates=duplicates,
        documents={name: len(np.unique(documents_P[chosen_P])) for name, chosen_P in splits.items()},
        pieces={name: int(chosen_P.sum()) for name, chosen_P in splits.items()},
        characters={name: int(table.piece_chars_P[chosen_P].sum()) for name, chosen_P in splits.items()},
        split_unit=split_unit,
        section_chars=section_chars,
    )
