"""From raw files to the documents of each split."""

import hashlib
import json
from pathlib import Path

from gpt2kit.corpus.document import SPLITS, Document, Message
from gpt2kit.corpus.report import CorpusReport
from gpt2kit.errors import DataError, UsageError


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
    """Read a file or folder and write `train.jsonl`, `validation.jsonl` and `test.jsonl` (first, simple version)."""
    if not input_path.exists():
        raise UsageError(f"--input {input_path}: no such file or folder")
    paths = [input_path] if input_path.is_file() else sorted(path for path in input_path.rglob("*") if path.is_file())
    documents: list[Document] = []
    for path in paths:
        source = path.name if path == input_path else path.relative_to(input_path).as_posix()
        text = path.read_text(encoding=encoding or "utf-8")
        if path.suffix == ".txt":
            documents.append(Document("text", source, "", text=text))
        if path.suffix == ".jsonl":
            for number, line in enumerate(text.splitlines(), 1):
                row = json.loads(line)
                place = f"line {number}"
                if "messages" in row:
                    turns = tuple(Message(turn["role"], turn["content"]) for turn in row["messages"])
                    documents.append(Document("chat", source, place, messages=turns))
                elif "prompt" in row:
                    pair = {"prompt": row["prompt"], "completion": row["completion"]}
                    documents.append(Document("completion", source, place, **pair))
                else:
                    documents.append(Document("text", source, place, text=row[text_field or "text"]))
    if not documents:
        raise DataError(f"--input {input_path}: holds no documents")
    ranked = sorted(documents, key=lambda document: hashlib.sha256(f"{seed}{document.content()}".encode()).digest())
    num_validation, num_test = round(len(ranked) * validation_fraction), round(len(ranked) * test_fraction)
    split_of = {id(document): "train" for document in ranked}
    split_of |= {id(document): "validation" for document in ranked[:num_validation]}
    split_of |= {id(document): "test" for document in ranked[len(ranked) - num_test :]}
    output_folder.mkdir(parents=True, exist_ok=True)
    characters = dict.fromkeys(SPLITS, 0)
    counts = dict.fromkeys(SPLITS, 0)
    for split in SPLITS:
        with (output_folder / f"{split}.jsonl").open("w", encoding="utf-8") as file:
            for number, document in enumerate(documents):
                if split_of[id(document)] == split:
                    row = {"document": number, "section": 0, "continues": False, "kind": document.kind}
                    row |= {"source": document.source, "place": document.place} | document.content()
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    characters[split] += document.num_characters
                    counts[split] += 1
    return CorpusReport(len(paths), len(documents), counts, dict(counts), characters, "document", section_chars)
