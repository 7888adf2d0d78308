"""The text of bench-data: so many bytes of books, as files for those that read files, and as strings for the others."""

import json
from pathlib import Path

SECTION_CHARACTERS = 20_000


def make_texts(books: list[str], folder: Path) -> None:
    """Write the books as one file each (`txt/`), and all of them as JSON lines in two files (`jsonl/`)."""
    for name in ("txt", "jsonl"):
        (folder / name).mkdir(parents=True)
    for number, book in enumerate(books):
        (folder / "txt" / f"{number:04}.txt").write_text(book, encoding="utf-8")
    for half in range(2):  # one for each process
        lines = (
            json.dumps({"id": str(number), "text": book}) for number, book in enumerate(books) if number % 2 == half
        )
        (folder / "jsonl" / f"{half}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_sections(folder: Path) -> list[str]:
    """All text in pieces of about 20,000 characters, cut at paragraphs: what tokenizers are fed with."""
    sections: list[str] = []
    for path in sorted((folder / "txt").glob("*.txt")):
        piece: list[str] = []
        length = 0
        for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
            piece.append(paragraph)
            length += len(paragraph)
            if length >= SECTION_CHARACTERS:
                sections.append("\n\n".join(piece))
                piece, length = [], 0
        sections.append("\n\n".join(piece))
    return sections


def num_bytes(folder: Path) -> int:
    """Bytes of all text."""
    return sum(path.stat().st_size for path in (folder / "txt").glob("*.txt"))
