"""What was read, what was changed, what was left out and why, and how it was split."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SplitUnit = Literal["document", "section"]


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """The account of a corpus.

    Attributes:
        files_read: files that gave documents.
        encodings: number of text files by encoding.
        text_fields: number of files by the columns or fields that were taken for the text.
        skipped_files: names of the files that were left out, by reason.
        skipped_rows: number of rows or documents that were left out, by reason.
        examples: for each reason in `skipped_rows`, the first few places.
        duplicates: documents that were dropped because the same content came before.
        changes: number of characters (or lines) that were changed, by what was done to them.
        changed_documents: number of documents changed, by the same.
        kinds: number of documents by kind, with the duplicates.
        num_documents: documents kept.
        documents: documents in each split; when sections are split, a document counts in each split it reaches.
        pieces: pieces (lines of the file) in each split.
        characters: characters in each split.
        split_unit: what was split: whole documents, or sections of long texts because there are too few documents.
        section_chars: characters aimed at for a section of a long text.
    """

    files_read: int
    num_documents: int
    documents: Mapping[str, int]
    pieces: Mapping[str, int]
    characters: Mapping[str, int]
    split_unit: SplitUnit
    section_chars: int
    duplicates: int = 0
    encodings: Mapping[str, int] = field(default_factory=dict)
    text_fields: Mapping[str, int] = field(default_factory=dict)
    kinds: Mapping[str, int] = field(default_factory=dict)
    skipped_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    skipped_rows: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    changes: Mapping[str, int] = field(default_factory=dict)
    changed_documents: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    def summary_lines(self) -> list[str]:
        """The report in a few lines for the terminal; files left out are not in it, as each is warned of by name."""
        encodings = ", ".join(f"{name} {number:,}" for name, number in sorted(self.encodings.items()))
        lines = [
            f"{_counted(self.num_documents, 'document')} from {_counted(self.files_read, 'file')}"
            + (f" ({encodings})" if set(self.encodings) - {"utf-8"} else "")
        ]
        if self.text_fields:
            fields = ", ".join(f"{name!r} ({_counted(number, 'file')})" for name, number in self.text_fields.items())
            lines.append(f"text taken from the fields {fields}")
        if self.duplicates:
            lines.append(f"{_counted(self.duplicates, 'exact duplicate')} dropped")
        for what, number in self.changes.items():
            lines.append(f"{number:,} {what} in {_counted(self.changed_documents[what], 'document')}")
        for reason, number in self.skipped_rows.items():
            lines.append(f"left out {_counted(number, 'row')}: {reason} ({', '.join(self.examples[reason])})")
        shares = ", ".join(f"{split} {number:,}" for split, number in self.characters.items() if number)
        unit = "documents" if self.split_unit == "document" else f"sections of about {self.section_chars:,} characters"
        lines.append(f"split by {unit}: {shares} characters")
        return lines


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
