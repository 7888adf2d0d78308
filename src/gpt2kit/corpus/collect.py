"""From raw files to the documents of each split, in bounded memory.

Every file is looked at first (is it text, in which encoding?), so that all bad files are told at once. Then all are
read, cleaned and staged, exact duplicates are found, and the pieces go to their splits.
"""

import io
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from gpt2kit import console
from gpt2kit.console import Progress
from gpt2kit.corpus.account import Account, BadFileError, listed
from gpt2kit.corpus.clean import Cleaner
from gpt2kit.corpus.document import SPLITS, Document, Message
from gpt2kit.corpus.encoding import check_encoding, detect_encoding
from gpt2kit.corpus.fields import EMPTY, Row, read_rows
from gpt2kit.corpus.json_reader import json_entries, json_lines
from gpt2kit.corpus.raw import RawFile, list_files, open_bytes
from gpt2kit.corpus.report import CorpusReport
from gpt2kit.corpus.sections import cut_sections
from gpt2kit.corpus.staging import Staging
from gpt2kit.corpus.table_reader import csv_rows, parquet_rows
from gpt2kit.corpus.write import Written, write_splits
from gpt2kit.errors import DataError, UsageError
from gpt2kit.files import explained_disk_errors

_CHUNK_CHARACTERS = 1 << 20
EMPTY_FILE = "empty, or white space only"


@dataclass(frozen=True, slots=True)
class _Encoded:
    """A file whose encoding is known."""

    raw: RawFile
    encoding: str


def collect_documents(
    input_path: Path,
    output_folder: Path,
    *,
    validation_fraction: float = 0.05,
    test_fraction: float = 0.0,
    seed: int = 0,
    text_field: str | None = None,
    encoding: str | None = None,
    section_chars: int = 20_000,
    skip_bad_files: bool = False,
) -> CorpusReport:
    """Read a file or a folder, and write `train.jsonl`, `validation.jsonl` and `test.jsonl`.

    Args:
        input_path: the file or folder.
        output_folder: where to write; it must not hold such files yet.
        validation_fraction: share of the characters for validation, 0 to 1.
        test_fraction: share for the test; both together below 1.
        seed: another seed gives another split.
        text_field: column or field that holds the text in tables and JSON; found by its name if None.
        encoding: of text files that are not UTF-8; detected if None.
        section_chars: characters aimed at for the sections of long texts.
        skip_bad_files: leave out files and rows that cannot be read, and count them, instead of failing.

    Returns:
        What was read, changed, left out, and how it was split.

    Raises:
        UsageError: the input is not there, or a setting is wrong.
        DataError: files cannot be read (the first few are named), or there is no text in them.
        MissingExtraError: there are Parquet files and pyarrow is not installed.
        DiskError: the disk is full; nothing is left behind.

    Example:
        report = collect_documents(Path("data/raw"), Path("documents"), validation_fraction=0.1)
    """
    _check(output_folder, validation_fraction, test_fraction, section_chars)
    codec = None if encoding is None else check_encoding(encoding)
    account = Account(skip_bad_files)
    files = list_files(input_path, account)
    encoded = _detect_all(files, codec, account)
    account.check()
    if not encoded:
        raise DataError(f"--input {input_path}: holds no text{_why_not(account)}")
    reading = _Reading(account, Cleaner(), text_field, section_chars)
    with explained_disk_errors(output_folder):
        output_folder.mkdir(parents=True, exist_ok=True)
        staging = Staging(output_folder / "staged.partial", seed=seed)
        try:
            reading.read_all(encoded, staging)
            staging.close()
            account.warn_of_skipped_files()
            written = write_splits(
                staging,
                output_folder,
                validation_fraction=validation_fraction,
                test_fraction=test_fraction,
                seed=seed,
                section_chars=section_chars,
            )
        finally:
            staging.discard()
    if written is None:
        raise DataError(f"--input {input_path}: holds no text{_why_not(account)}")
    return _report(account, reading, written)


def _report(account: Account, reading: "_Reading", written: Written) -> CorpusReport:
    return CorpusReport(
        files_read=reading.files_read,
        num_documents=written.num_documents,
        documents=written.documents,
        pieces=written.pieces,
        characters=written.characters,
        split_unit=written.split_unit,
        section_chars=written.section_chars,
        duplicates=written.duplicates,
        encodings=dict(account.encodings),
        text_fields=dict(account.text_fields),
        kinds=dict(reading.kinds),
        skipped_files={reason: tuple(names) for reason, names in account.skipped_files.items()},
        skipped_rows=dict(account.skipped_rows),
        examples={reason: tuple(places) for reason, places in account.examples.items()},
        changes=dict(reading.cleaner.changes),
        changed_documents=dict(reading.cleaner.documents),
    )


def _check(output_folder: Path, validation_fraction: float, test_fraction: float, section_chars: int) -> None:
    for name, fraction in (("validation_fraction", validation_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise UsageError(f"--{name} {fraction}: should be at least 0 and below 1")
    if validation_fraction + test_fraction >= 1:
        raise UsageError(
            f"--validation_fraction {validation_fraction} and --test_fraction {test_fraction}: leave nothing to train "
            "on; together they should be below 1"
        )
    if section_chars < 1:
        raise UsageError(f"--section_chars {section_chars}: should be at least 1")
    for split in SPLITS:
        if (output_folder / f"{split}.jsonl").exists():
            raise UsageError(f"{output_folder / f'{split}.jsonl'} is there already; name another folder")


def _why_not(account: Account) -> str:
    """What was left out, for the message that nothing is left."""
    reasons = [f"{len(names):,} x {reason}" for reason, names in account.skipped_files.items()]
    reasons += [f"{number:,} rows x {reason}" for reason, number in account.skipped_rows.items()]
    return (
        f" ({'; '.join(reasons)})" if reasons else "; put text files into it (txt, md, csv, tsv, jsonl, json, parquet)"
    )


def _detect_all(files: list[RawFile], codec: str | None, account: Account) -> list[_Encoded]:
    """Look through every file for its encoding; bad ones are counted or noted as problems."""
    encoded = []
    guesses: dict[str, list[str]] = {}
    with Progress("checking encodings", total=sum(raw.num_bytes for raw in files), unit="B") as progress:
        for raw in files:
            if raw.format == "parquet":
                encoded.append(_Encoded(raw, ""))
                progress.advance(raw.num_bytes)
                continue
            try:
                with open_bytes(raw, progress.advance) as file:
                    found = detect_encoding(file, codec)
            except BadFileError as problem:
                if raw.is_guess:
                    account.skip_file(raw.shown, "no extension, and not text")
                else:
                    account.bad_file(raw.shown, problem)
                continue
            if found.is_empty:
                account.skip_file(raw.shown, EMPTY_FILE)
                continue
            encoded.append(_Encoded(raw, found.encoding))
            account.encodings[found.encoding.removesuffix("-sig")] += 1
            if found.is_guess:
                guesses.setdefault(found.encoding, []).append(raw.shown)
    for name, shown in guesses.items():
        console.warn(
            f"read as {name}, judged by the look of it: {listed(shown)}; if it is not, name it with --encoding"
        )
    return encoded


class _Reading:
    """Reads files, cleans their documents and stages them.

    Attributes:
        account: where to count what is left out.
        cleaner: cleans, and counts what it changes.
        files_read: files that gave at least one document.
        kinds: documents by kind, with duplicates.
    """

    def __init__(self, account: Account, cleaner: Cleaner, text_field: str | None, section_chars: int) -> None:
        self.account = account
        self.cleaner = cleaner
        self.files_read = 0
        self.kinds: Counter[str] = Counter()
        self._text_field = text_field
        self._section_chars = section_chars

    def read_all(self, files: list[_Encoded], staging: Staging) -> None:
        """Stage all documents of the files.

        Raises:
            DataError: there are bad files or rows, and they are not to be skipped.
        """
        with Progress("reading", total=sum(entry.raw.num_bytes for entry in files), unit="B") as progress:
            for entry in files:
                try:
                    with open_bytes(entry.raw, progress.advance) as file:
                        if entry.raw.format == "text":
                            count = self._stage_text(entry, file, staging)
                        else:
                            count = self._stage_rows(entry, file, staging)
                    self.files_read += count > 0
                except BadFileError as problem:
                    self.account.bad_file(entry.raw.shown, problem)
        self.account.check()

    def _stage_text(self, entry: _Encoded, file: IO[bytes], staging: Staging) -> int:
        text = io.TextIOWrapper(file, encoding=entry.encoding, newline="")
        self.cleaner.start_document()
        cleaned = self.cleaner.stream(iter(lambda: text.read(_CHUNK_CHARACTERS), ""))
        if staging.add_text(entry.raw.source, "", cut_sections(cleaned, self._section_chars)):
            self.kinds["text"] += 1
            return 1
        self.account.skip_file(entry.raw.shown, EMPTY_FILE)
        return 0

    def _stage_rows(self, entry: _Encoded, file: IO[bytes], staging: Staging) -> int:
        raw = entry.raw
        count = 0
        with tempfile.TemporaryFile(dir=staging.path.parent) as spool:
            rows = read_rows(
                self._rows(entry, file, spool),
                source=raw.source,
                shown=raw.shown,
                text_field=self._text_field,
                account=self.account,
            )
            for document in rows:
                self.cleaner.start_document()
                if document.kind == "text":
                    sections = cut_sections([self.cleaner.clean(document.text)], self._section_chars)
                    is_kept = staging.add_text(raw.source, document.place, sections)
                else:
                    is_kept = staging.add(_cleaned(document, self.cleaner.clean))
                if is_kept:
                    count += 1
                    self.kinds[document.kind] += 1
                else:
                    self.account.skip_row(f"{raw.shown}, {document.place}", EMPTY)
        return count

    def _rows(self, entry: _Encoded, file: IO[bytes], spool: IO[bytes]) -> Iterator[Row]:
        raw = entry.raw
        if raw.format == "parquet":
            if raw.compression:  # Parquet is read from its end
                shutil.copyfileobj(file, spool, _CHUNK_CHARACTERS)
                spool.seek(0)
                file = spool
            return parquet_rows(file, text_field=self._text_field)
        text = io.TextIOWrapper(file, encoding=entry.encoding, newline="" if raw.format in ("csv", "tsv") else "\n")
        if raw.format == "jsonl":
            return json_lines(text, shown=raw.shown, account=self.account)
        if raw.format == "json":
            return json_entries(text, shown=raw.shown, account=self.account)
        return csv_rows(
            text,
            shown=raw.shown,
            text_field=self._text_field,
            account=self.account,
            delimiter="\t" if raw.format == "tsv" else None,
        )


def _cleaned(document: Document, clean: Callable[[str], str]) -> Document:
    """A chat or a pair, with all its texts cleaned."""
    if document.kind == "chat":
        turns = tuple(Message(message.role, clean(message.content)) for message in document.messages)
        return replace(document, messages=turns)
    return replace(document, prompt=clean(document.prompt), completion=clean(document.completion))
