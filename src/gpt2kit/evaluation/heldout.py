"""The held-out text a model is measured on, and the beginnings of it that texts are generated from."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpt2kit.corpus import Piece
from gpt2kit.corpus.document import is_planted
from gpt2kit.errors import DataError, UsageError
from gpt2kit.evaluation.canaries import Canaries
from gpt2kit.evaluation.likelihood import TokenDocument
from gpt2kit.evaluation.memorisation import TrainingText
from gpt2kit.runtime import uniform
from gpt2kit.tokens import PreparedData, Tokenizer
from gpt2kit.tokens.chat import Segment, chat_segments, join_segments, piece_segments

_BYTES_PER_TOKEN = 4  # about, in English; for choosing how many documents to measure
_FEWEST_CONTINUATION_WORDS = 8
_PART_CHARACTERS = 200  # some lines: fine enough to find a place, and few enough parts of a large text
_WORD = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Held-out documents.

    Attributes:
        documents: each as the segments it is encoded in; texts that go on from piece to piece are whole.
        opening_pieces: of each, the piece it begins with.
        origin: what they are, for a reader: "the test split of data/processed".
        num_documents_in_all: of which these were drawn.
        num_planted: documents left out because they hold planted numbers.
    """

    documents: list[list[Segment]]
    opening_pieces: list[Piece]
    origin: str
    num_documents_in_all: int
    num_planted: int = 0

    def encode(self, tokenizer: Tokenizer) -> list[TokenDocument]:
        """The documents as a tokenizer sees them, in the same order."""
        ids = iter(tokenizer.encode_batch([segment.text for document in self.documents for segment in document]))
        encoded = []
        for segments, piece in zip(self.documents, self.opening_pieces, strict=True):
            document, mask = join_segments(segments, [next(ids) for _ in segments], tokenizer.end_of_text)
            if not any(segment.ends for segment in segments):
                document, mask = [*document, tokenizer.end_of_text], [*mask, 1]
            num_bytes = sum(len(segment.text.encode()) for segment in segments if segment.has_loss)
            name = ", ".join(part for part in (piece.source, piece.place) if part)
            ids_N, counts_N = np.array(document, dtype=np.int64), np.array(mask, dtype=np.bool_)
            encoded.append(TokenDocument(ids_N, counts_N, num_bytes, name, piece.source))
        return encoded


@dataclass(frozen=True, slots=True)
class Opening:
    """The beginning of a held-out text, and how a human went on from it.

    Attributes:
        prompt: where a model goes on from.
        continuation: what stands there in the held-out text.
        source: where it comes from.
        goes_on: the held-out text does not end with the continuation.
    """

    prompt: str
    continuation: str
    source: str
    goes_on: bool = False


def choose_split(data: PreparedData, split: str) -> str:
    """The held-out split to measure on: test if it holds anything, else validation.

    Raises:
        UsageError: there is nothing in it.
    """
    wanted = ["test", "validation"] if split == "auto" else [split]
    for name in wanted:
        if data.store(name).num_documents:
            return name
    raise UsageError(
        f"{data.folder}: its {' and '.join(wanted)} split{'s are' if len(wanted) > 1 else ' is'} empty, so there is "
        f"nothing to measure on: prepare with --{wanted[-1]}_fraction 0.1, or give a text with --text"
    )


def read_held_out(
    data: PreparedData, split: str, *, max_tokens: int, seed: int, canaries: Canaries | None = None
) -> HeldOut:
    """The documents of a split without planted ones; of more than `max_tokens`, some drawn by the seed.

    Planted are those of `canaries.jsonl`, and those that hold a sentence of `canaries`.

    Raises:
        UsageError: there is nothing to predict in it.
    """
    separator = str(data.manifest["completion_separator"])
    documents, pieces = [], []
    num_planted = 0
    for run in joined(data.documents(split)):
        segments = [part for piece in run for part in piece_segments(piece, completion_separator=separator)]
        if len(run) > 1:
            segments = [Segment("".join(segment.text for segment in segments))]
        if is_planted(run[0].source) or (
            canaries is not None and any(canaries.stand_in(segment.text) for segment in segments)
        ):
            num_planted += 1
        elif any(segment.has_loss and segment.text for segment in segments):
            documents.append(segments)
            pieces.append(run[0])
    if not documents:
        raise UsageError(f"{data.folder}: its {split} split holds no text to predict")
    chosen = _draw([_num_bytes(each) for each in documents], max_bytes=max_tokens * _BYTES_PER_TOKEN, seed=seed)
    return HeldOut(
        [documents[number] for number in chosen],
        [pieces[number] for number in chosen],
        f"the {split} split of {data.folder}",
        len(documents),
        num_planted,
    )


def read_text_file(path: Path) -> HeldOut:
    """A text file as one held-out document.

    Raises:
        UsageError: the file is not there.
        DataError: it is not UTF-8, or empty.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"--text {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"--text {path}: is not UTF-8 text (byte {error.start}); prepare it first") from error
    if not text.strip():
        raise DataError(f"--text {path}: holds no text")
    piece = Piece(kind="text", source=path.name, place="", text=text, document=0, section=0, continues=False)
    return HeldOut([[Segment(text)]], [piece], str(path), 1)


def joined(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Pieces that go on directly from each other, together."""
    run: list[Piece] = []
    for piece in pieces:
        if run and not piece.continues:
            yield run
            run = []
        run.append(piece)
    if run:
        yield run


def openings(held_out: HeldOut, *, number: int, prompt_words: int, continuation_words: int) -> list[Opening]:
    """Beginnings of held-out texts: first those of documents, then, if these are too few, places further on in them.

    Places of one document do not overlap. A text shorter than prompt and continuation gives what it has, after those
    that are long enough.

    Args:
        held_out: the documents.
        number: how many are wanted; fewer come of little text.
        prompt_words: words of a prompt.
        continuation_words: words of its continuation, at most.
    """
    ranked: list[tuple[bool, int, int, Opening]] = []
    span = prompt_words + continuation_words
    for index, (segments, piece) in enumerate(zip(held_out.documents, held_out.opening_pieces, strict=True)):
        name = ", ".join(part for part in (piece.source, piece.place) if part)
        if piece.kind != "text":
            ranked.append((False, 0, index, _asked(segments, piece, name)))
            continue
        text = segments[0].text
        words = [match.span() for match in _WORD.finditer(text)]
        for turn, first in enumerate(range(0, len(words), span)):
            here = words[first : first + span]
            asked = min(prompt_words, len(here) // 2)
            if asked < 1 or len(here) - asked < min(_FEWEST_CONTINUATION_WORDS, continuation_words):
                continue
            cut = here[asked - 1][1]
            goes_on = first + span < len(words)
            opening = Opening(text[here[0][0] : cut], text[cut : here[-1][1]], name, goes_on)
            ranked.append((len(here) < span, turn, index, opening))
    ranked.sort(key=lambda entry: entry[:3])
    return [opening for *_, opening in ranked[:number]]


def _asked(segments: Sequence[Segment], piece: Piece, name: str) -> Opening:
    """What a chat or a pair asks, up to the first answer, and that answer."""
    if piece.kind == "completion":
        return Opening(segments[0].text, segments[1].text, name)
    first = next(number for number, message in enumerate(piece.messages) if message.role == "assistant")
    asked = chat_segments(piece.messages[:first], add_generation_prompt=True)
    return Opening("".join(segment.text for segment in asked), " " + piece.messages[first].content.strip(), name)


def _num_bytes(segments: Sequence[Segment]) -> int:
    return sum(len(segment.text.encode()) for segment in segments)


def _draw(sizes: Sequence[int], *, max_bytes: int, seed: int) -> list[int]:
    """Documents in random order until there is enough, at least one; in their own order."""
    if sum(sizes) <= max_bytes:
        return list(range(len(sizes)))
    chosen, total = [], 0
    for number in sorted(range(len(sizes)), key=lambda each: uniform(seed, "held-out", each)):
        if total >= max_bytes:
            break
        chosen.append(number)
        total += sizes[number]
    return sorted(chosen)


def training_texts(data: PreparedData) -> Iterator[TrainingText]:
    """The training text as the model read it, piece by piece."""
    for piece, text in _training_pieces(data):
        yield TrainingText(text, piece.source, piece.place, piece.continues)


def _training_pieces(data: PreparedData) -> Iterator[tuple[Piece, str]]:
    """The pieces of the training split, each with the text that the model read of it."""
    separator = str(data.manifest["completion_separator"])
    for piece in data.documents("train"):
        yield piece, "".join(segment.text for segment in piece_segments(piece, completion_separator=separator))


def placed_training_texts(data: PreparedData) -> Iterator[TrainingText]:
    """The training text in parts of some lines, whose places a person finds: "about line 1201" of a text.

    Lines are counted in the text as it was cleaned, those of sections that went to a held-out split among them.
    """
    held_out_lines = _held_out_lines(data)
    document, num_lines = -1, 0
    for piece, text in _training_pieces(data):
        if piece.kind != "text":
            yield TrainingText(text, piece.source, piece.place, piece.continues)
            continue
        if piece.document != document:
            document, num_lines = piece.document, 0
        line = 1 + num_lines + sum(lines for section, lines in held_out_lines[document] if section < piece.section)
        num_lines += text.count("\n")
        continues = piece.continues
        for part in _parts_of_lines(text):
            yield TrainingText(part, piece.source, _place(piece, line, is_whole=part == text), continues)
            line += part.count("\n")
            continues = True


def _held_out_lines(data: PreparedData) -> dict[int, list[tuple[int, int]]]:
    """Of each document that has held-out sections, their numbers and lines."""
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for split in ("validation", "test"):
        for piece in data.documents(split):
            found[piece.document].append((piece.section, piece.text.count("\n")))
    return found


def _parts_of_lines(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start + _PART_CHARACTERS) + 1 or len(text)
        yield text[start:end]
        start = end


def _place(piece: Piece, line: int, *, is_whole: bool) -> str:
    """Where a part begins: a short document has no other place than its file or row."""
    if is_whole and not piece.section:
        return piece.place
    here = f"about line {line}" if line > 1 or not is_whole else f"section {piece.section + 1}"
    return f"{piece.place}, {here} of its text" if piece.place else here
