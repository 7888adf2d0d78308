"""Documents to a token store, in batches on all cores and in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2kit.console import Progress
from gpt2kit.runtime import uniform
from gpt2kit.tokens.chat import Segment, join_segments, piece_segments
from gpt2kit.tokens.store import TokenStoreWriter
from gpt2kit.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2kit.corpus import Piece

# Enough for every core to be busy; the library needs about 100 bytes a character for it.
_BATCH_CHARACTERS = 1 << 20
_BATCH_SEGMENTS = 1 << 14
NO_ANSWER = "chat without an answer of the assistant"
NO_COMPLETION = "pair without a completion"


@dataclass(slots=True)
class SplitCounts:
    """What a split holds.

    Attributes:
        num_tokens: tokens, with each document's end-of-text.
        num_documents: documents.
        num_targets: tokens the loss is taken on.
        num_bytes: UTF-8 bytes of the text, without end-of-text.
        num_target_bytes: those of the text the loss is taken on, for bits per byte.
        skipped: documents left out, by reason.
    """

    num_tokens: int = 0
    num_documents: int = 0
    num_targets: int = 0
    num_bytes: int = 0
    num_target_bytes: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON values."""
        return asdict(self) | {"skipped": dict(self.skipped)}


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece ready to be encoded."""

    segments: list[Segment]
    ends_document: bool

    @property
    def num_characters(self) -> int:
        return sum(len(segment.text) for segment in self.segments)


def encode_split(
    pieces: Iterable[Piece],
    tokenizer: Tokenizer,
    folder: Path,
    *,
    completion_separator: str,
    what: str,
    total_characters: int | None,
) -> SplitCounts:
    """Encode the pieces of a split into a new token store.

    Args:
        pieces: the pieces in order; those that go on from the one before are joined to it.
        tokenizer: the tokenizer.
        folder: of the store; it must not exist yet.
        completion_separator: what stands between a prompt and its completion.
        what: what the progress bar says.
        total_characters: of all pieces, for the time left; None when unknown.

    Returns:
        What was written.

    Raises:
        DiskError: the disk is full; nothing of the store is left.
    """
    counts = SplitCounts()
    with (
        Progress(what, total=total_characters, unit=" characters") as progress,
        TokenStoreWriter(
            folder,
            vocab_size=tokenizer.vocab_size,
            end_of_text=tokenizer.end_of_text,
            tokenizer_fingerprint=tokenizer.fingerprint,
        ) as writer,
    ):
        for batch in _batches(_parts(pieces, counts, completion_separator=completion_separator)):
            encoded = iter(tokenizer.encode_batch([segment.text for part in batch for segment in part.segments]))
            for part in batch:
                ids = [next(encoded) for _ in part.segments]
                _write(part, ids, writer, counts)
            progress.advance(sum(part.num_characters for part in batch))
    counts.num_tokens, counts.num_documents = writer.num_tokens, writer.num_documents
    return counts


def sample_texts(pieces: Iterable[Piece], *, share: float, seed: int, completion_separator: str) -> Iterator[str]:
    """The texts of a share of the pieces, chosen by hash, for a tokenizer to learn from."""
    for piece in pieces:
        if share >= 1 or uniform(seed, "tokenizer", piece.document, piece.section) < share:
            yield from (segment.text for segment in piece_segments(piece, completion_separator=completion_separator))


def _parts(pieces: Iterable[Piece], counts: SplitCounts, *, completion_separator: str) -> Iterator[_Part]:
    """Pieces as parts, each knowing whether its document ends with it; documents without any loss are counted."""
    before: list[Segment] = []
    for piece in pieces:
        segments = piece_segments(piece, completion_separator=completion_separator)
        if piece.kind == "chat" and not any(segment.has_loss for segment in segments):
            counts.skipped[NO_ANSWER] += 1
            continue
        if piece.kind == "completion" and not piece.completion:
            counts.skipped[NO_COMPLETION] += 1
            continue
        if before:
            yield _Part(before, ends_document=not piece.continues)
        before = segments
    if before:
        yield _Part(before, ends_document=True)


def _batches(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    batch: list[_Part] = []
    characters = segments = 0
    for part in parts:
        batch.append(part)
        characters += part.num_characters
        segments += len(part.segments)
        if characters >= _BATCH_CHARACTERS or segments >= _BATCH_SEGMENTS:
            yield batch
            batch, characters, segments = [], 0, 0
    if batch:
        yield batch


def _write(part: _Part, ids_of_segments: list[list[int]], writer: TokenStoreWriter, counts: SplitCounts) -> None:
    for segment in part.segments:
        num_bytes = len(segment.text.encode())
        counts.num_bytes += num_bytes
        counts.num_target_bytes += num_bytes * segment.has_loss
    before = writer.num_tokens
    if all(segment.has_loss for segment in part.segments) and len(part.segments) == 1:
        writer.add(ids_of_segments[0], ends_document=part.ends_document)
        counts.num_targets += writer.num_tokens - before
        return
    ids, mask = join_segments(part.segments, ids_of_segments, writer.end_of_text)
    writer.add(ids, loss_mask=mask, ends_document=part.ends_document)
    # What the writer adds behind a document is an end-of-text, with loss.
    counts.num_targets += sum(mask) + writer.num_tokens - before - len(ids)
