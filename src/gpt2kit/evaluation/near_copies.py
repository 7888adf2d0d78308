"""Passages that stand in the training text nearly word for word: a few words changed, added or left out.

Asking for exact copies only gives a false sense of safety (Ippolito et al. 2023). Here a word is its letters and digits
in one case, so that case, punctuation and white space do not count. A near copy is a stretch of a text

- of at least `shortest` words,
- whose edit similarity to a stretch of the training text, `1 - edits / words of the longer one`, is 0.8 or more; an
  edit changes, adds or leaves out a word (Lee et al. 2022 call texts of that similarity near duplicates).

How they are found (seed and extend, as in Altschul et al. 1990):

1. The training text streams by; hashes pick out where it shares a run of four words with a text.
2. numpy counts the words that both have around each such place, up to four words apart. Few places have enough.
3. There an alignment grows to both sides, +1 for a word that agrees and -3 for an edit, as far as that pays.

A copy of which no four words running are left is not found.

Legend of the shapes: T words of all texts, W words of a stretch of the training text, H places that share a run,
K words around such a place.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt2kit.console import Progress
from gpt2kit.evaluation.memorisation import TrainingText, batches_of_texts
from gpt2kit.evaluation.words import normalised

SHORTEST_NEAR_WORDS = 12
SMALLEST_SIMILARITY = 0.8
_SEED_WORDS = 4
_BAND = 4  # words that the two may be apart; in a stretch of 20 words, 4 edits are 0.8
_WIDE_BAND = 8  # likewise while an alignment grows: edits add up
# An alignment may lose a little on the way to a further stretch alike; with the second cost it never falls below 0.8.
_EDIT_COSTS = (3, 4)
_GIVE_UP = 4  # edits running end an alignment
_MOST_ALIGNED = 50  # places of the training text that are tried for one word of a text
_REMEMBERED = 64  # alignments just made, that a place may lie in
_PLACES_AT_ONCE = 20_000
_BLOCK_WORDS = 1 << 19
_MARGIN_WORDS = 1000  # of the training text on both sides of a place
_MOST_KNOWN_WORDS = 1 << 20
_TABLE_BITS = 24
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio
_SPAN = re.compile(r"\S+")
_UNKNOWN, _DROPPED, _BETWEEN_TEXTS, _BETWEEN_DOCUMENTS = 0, -1, -2, -3

Ids = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class NearCopy:
    """A stretch of a text that nearly is a stretch of the training text.

    Attributes:
        text_index: the text it is in, counted from 0.
        start: the character it begins with, counted from 0.
        end: the character behind it.
        num_words: its words.
        edits: words changed, added or left out; 0 when only case, punctuation or white space differ, if anything.
        similarity: 1 - edits / words of the longer stretch.
        text: the stretch as that text has it.
        training_text: its words in the training text.
        source: the training file.
        place: where in that file.
    """

    text_index: int
    start: int
    end: int
    num_words: int
    edits: int
    similarity: float
    text: str
    training_text: str
    source: str
    place: str

    @property
    def is_exact(self) -> bool:
        """Whether it is the training text word for word, with case and punctuation; signs that stand alone aside."""
        return not self.edits and [word for word in self.text.split() if normalised(word)] == self.training_text.split()

    def to_dict(self) -> dict[str, Any]:
        """The near copy as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class NearCopies:
    """What of one text is a near copy.

    Attributes:
        num_words: words of the text that have a letter or digit.
        num_copied: how many of them stand in a near copy, exact ones among them.
        copies: the near copies, those of most words first; of overlapping ones the longest.
    """

    num_words: int
    num_copied: int
    copies: list[NearCopy] = field(repr=False)


def find_near_copies(texts: Sequence[str], training: Iterable[TrainingText], *, shortest: int) -> list[NearCopies]:
    """Find what of each text is nearly copied from the training text.

    Args:
        texts: the texts.
        training: the training text, read once.
        shortest: words of the shortest near copy, at least 12.

    Returns:
        One for each text, in order.
    """
    search = _Search(texts, shortest=shortest)
    with Progress("looking for near copies of the training text", total=None, unit=" words") as progress:
        for block in _blocks(training, search.ids_of):
            search.read(block)
            progress.advance(block.end - block.start)
    return search.results()


def near_copies_of(
    texts: Sequence[str], open_training: Callable[[], Iterable[TrainingText]], *, shortest: int
) -> list[NearCopies]:
    """The same for many texts, in lots; each takes one reading of the training text.

    Args:
        texts: the texts.
        open_training: opens the training text.
        shortest: words of the shortest near copy.
    """
    lots = batches_of_texts(texts)
    return [each for lot in lots for each in find_near_copies(lot, open_training(), shortest=shortest)]


@dataclass(frozen=True, slots=True)
class _Block:
    """A stretch of the training text: its words with letters, and a margin on both sides of those to look at.

    Attributes:
        ids_W: their ids, 0 for words that no text has.
        words: as the training text has them.
        first: number of the first word in the whole.
        start: where the places to look at begin in `ids_W`.
        end: where they end.
        piece_starts: where pieces begin in the whole.
        pieces: their sources and places.
    """

    ids_W: Ids
    words: list[str]
    first: int
    start: int
    end: int
    piece_starts: list[int]
    pieces: list[tuple[str, str]]


class _WordIds(dict[str, int]):
    """Ids of words as they stand in texts, by what is left of them when case and punctuation are dropped."""

    def __init__(self) -> None:
        super().__init__({"": _BETWEEN_DOCUMENTS})
        self._by_content: dict[str, int] = {}
        self._is_open = True

    def __missing__(self, word: str) -> int:
        content = normalised(word)
        if not content:
            identifier = _DROPPED
        elif self._is_open:
            identifier = self._by_content.setdefault(content, len(self._by_content) + 1)
        else:
            identifier = self._by_content.get(content, _UNKNOWN)
        if len(self) < _MOST_KNOWN_WORDS:
            self[word] = identifier
        return identifier

    def close(self) -> None:
        """From here on no new ids are given."""
        self._is_open = False


def _blocks(training: Iterable[TrainingText], ids_of: _WordIds) -> Iterator[_Block]:
    words: list[str] = []
    ids = np.zeros(0, dtype=np.int32)
    new: list[str] = []
    first = start = 0
    piece_starts: list[int] = []
    pieces: list[tuple[str, str]] = []

    def take_in() -> None:
        nonlocal ids
        new_W = np.fromiter(map(ids_of.__getitem__, new), dtype=np.int32, count=len(new))
        kept = np.flatnonzero(new_W != _DROPPED)
        # Pieces begin at raw words so far; count only those that are kept.
        for number in range(bisect_right(piece_starts, first + len(ids) - 1), len(piece_starts)):
            piece_starts[number] = (
                first + len(ids) + int(np.searchsorted(kept, piece_starts[number] - first - len(ids)))
            )
        words.extend([new[place] for place in kept.tolist()])
        ids = np.concatenate([ids, new_W[kept]])
        new.clear()

    for piece in training:
        if not piece.continues:
            new.append("")
        piece_starts.append(first + len(ids) + len(new))
        pieces.append((piece.source, piece.place))
        new += piece.text.split()
        if len(new) >= _BLOCK_WORDS:
            take_in()
            end = max(len(ids) - _MARGIN_WORDS, start)
            yield _Block(ids, words, first, start, end, piece_starts, pieces)
            cut = max(end - _MARGIN_WORDS, 0)
            kept_piece = max(bisect_right(piece_starts, first + cut) - 1, 0)
            piece_starts, pieces = piece_starts[kept_piece:], pieces[kept_piece:]
            words, ids = words[cut:], ids[cut:]
            first, start = first + cut, end - cut
    take_in()
    yield _Block(ids, words, first, start, len(ids), piece_starts, pieces)


@dataclass(frozen=True, slots=True)
class _Found:
    """An alignment: words `start` to `end` of all texts, and its near copy as far as it is known."""

    start: int
    end: int
    edits: int
    similarity: float
    training_text: str
    source: str
    place: str


class _Search:
    """The texts, and the near copies found of them so far."""

    def __init__(self, texts: Sequence[str], *, shortest: int) -> None:
        self.ids_of = _WordIds()
        self._texts = texts
        self._shortest = shortest
        self._spans: list[list[tuple[int, int]]] = []
        self._firsts: list[int] = []  # where each text begins among the words of all
        # Between texts stand as many marks as the filter looks ahead, so that it never looks into the next.
        margin = [_BETWEEN_TEXTS] * (shortest + _BAND)
        ids = list(margin)
        for text in texts:
            found = [(match.span(), self.ids_of[match.group()]) for match in _SPAN.finditer(text)]
            kept = [(span, identifier) for span, identifier in found if identifier > 0]
            self._firsts.append(len(ids))
            self._spans.append([span for span, _ in kept])
            ids += [identifier for _, identifier in kept] + margin
        self.ids_of.close()
        self._ids_T = np.array(ids, dtype=np.int32)
        hashes = _hashes(self._ids_T)
        self._places = np.argsort(hashes, kind="stable")
        self._places = self._places[(self._ids_T[self._places[:, None] + np.arange(_SEED_WORDS)] > 0).all(axis=1)]
        self._sorted_hashes = hashes[self._places]
        self._table = np.zeros(1 << _TABLE_BITS, dtype=np.bool_)
        self._table[self._sorted_hashes >> np.uint64(64 - _TABLE_BITS)] = True
        self._times_aligned_T = np.zeros(len(ids), dtype=np.int32)
        self._found: list[_Found] = []

    def read(self, block: _Block) -> None:
        """Look for near copies in a block."""
        hashes = _hashes(block.ids_W)[: block.end]
        hits = np.flatnonzero(self._table[hashes >> np.uint64(64 - _TABLE_BITS)])
        hits = hits[hits >= block.start]
        low = np.searchsorted(self._sorted_hashes, hashes[hits], side="left")
        counts = np.searchsorted(self._sorted_hashes, hashes[hits], side="right") - low
        margin = self._shortest + 2 * _BAND
        padded_W = np.pad(block.ids_W, margin, constant_values=_BETWEEN_DOCUMENTS)
        recent: list[tuple[int, int, int, int]] = []
        for part in _parts(counts):
            here_H = np.repeat(hits[part], counts[part])
            within = np.arange(len(here_H)) - np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
            there_H = self._places[np.repeat(low[part], counts[part]) + within]
            promising = self._is_promising(padded_W, here_H + margin, there_H)
            for here, there in zip(here_H[promising].tolist(), there_H[promising].tolist(), strict=True):
                if self._times_aligned_T[there] >= _MOST_ALIGNED or _lies_in(here, there, recent):
                    continue
                recent.append(self._align(block, here, there))
                del recent[:-_REMEMBERED]

    def _is_promising(self, padded_W: Ids, here_H: npt.NDArray[np.int64], there_H: npt.NDArray[np.int64]) -> Any:
        """Whether some stretch of the shortest length around a place shares enough words for a near copy."""
        reach = self._shortest - _SEED_WORDS
        around_K = np.arange(-reach, reach + _SEED_WORDS)
        text_HK = self._ids_T[there_H[:, None] + around_K]
        shared_HK = np.zeros(text_HK.shape, dtype=np.bool_)
        places_HK = here_H[:, None] + around_K
        for apart in range(-_BAND, _BAND + 1):
            shared_HK |= padded_W[places_HK + apart] == text_HK
        sums_HK = np.pad(shared_HK.cumsum(axis=1, dtype=np.int32), ((0, 0), (1, 0)))
        most_H = (sums_HK[:, self._shortest :] - sums_HK[:, : -self._shortest]).max(axis=1, initial=0)
        return most_H >= SMALLEST_SIMILARITY * self._shortest - 1e-9

    def _align(self, block: _Block, here: int, there: int) -> tuple[int, int, int, int]:
        """Let an alignment grow from a shared run; returns its first and last places in the block and the texts."""
        for edit_cost in _EDIT_COSTS:
            grown, edits = self._grow(block, here, there, edit_cost=edit_cost)
            first, last, start, end = grown
            similarity = 1 - edits / max(end - start, last - first)
            if end - start < self._shortest or similarity >= SMALLEST_SIMILARITY - 1e-9:
                break
        self._times_aligned_T[start:end] += 1
        if end - start >= self._shortest and similarity >= SMALLEST_SIMILARITY - 1e-9:
            piece = max(bisect_right(block.piece_starts, block.first + first) - 1, 0)
            source, place = block.pieces[piece]
            words = " ".join(filter(None, block.words[first:last]))
            self._found.append(_Found(start, end, edits, round(similarity, 4), words, source, place))
        return grown

    def _grow(self, block: _Block, here: int, there: int, *, edit_cost: int) -> tuple[tuple[int, int, int, int], int]:
        """The alignment around a shared run, as `_align` returns it, and its edits."""
        text, around, reach = self._ids_T, block.ids_W, _MARGIN_WORDS
        right = _extend(
            text[there + _SEED_WORDS : there + _SEED_WORDS + reach].tolist(),
            _to_border(around[here + _SEED_WORDS : here + _SEED_WORDS + reach].tolist()),
            edit_cost=edit_cost,
        )
        left = _extend(
            text[max(there - reach, 0) : there][::-1].tolist(),
            _to_border(around[max(here - reach, 0) : here][::-1].tolist()),
            edit_cost=edit_cost,
        )
        grown = here - left[1], here + _SEED_WORDS + right[1], there - left[0], there + _SEED_WORDS + right[0]
        return grown, left[2] + right[2]

    def results(self) -> list[NearCopies]:
        """What was found, text by text."""
        by_text: list[list[_Found]] = [[] for _ in self._texts]
        for found in self._found:
            by_text[bisect_right(self._firsts, found.start) - 1].append(found)
        return [self._result(number, of_text) for number, of_text in enumerate(by_text)]

    def _result(self, number: int, of_text: list[_Found]) -> NearCopies:
        spans, first, text = self._spans[number], self._firsts[number], self._texts[number]
        is_copied_W = np.zeros(len(spans), dtype=np.bool_)
        copies = []
        for found in sorted(of_text, key=lambda each: (each.start - each.end, each.edits, each.start)):
            stretch = slice(found.start - first, found.end - first)
            if is_copied_W[stretch].all():
                continue
            is_copied_W[stretch] = True
            start, end = spans[stretch.start][0], spans[stretch.stop - 1][1]
            copies.append(
                NearCopy(
                    text_index=number,
                    start=start,
                    end=end,
                    num_words=found.end - found.start,
                    edits=found.edits,
                    similarity=found.similarity,
                    text=text[start:end],
                    training_text=found.training_text,
                    source=found.source,
                    place=found.place,
                )
            )
        return NearCopies(len(spans), int(is_copied_W.sum()), copies)


def _to_border(ids: list[int]) -> list[int]:
    """Words up to the end of their document: what stands in two is no passage of the training text."""
    return ids[: ids.index(_BETWEEN_DOCUMENTS)] if _BETWEEN_DOCUMENTS in ids else ids


def _extend(text: Sequence[int], training: Sequence[int], *, edit_cost: int) -> tuple[int, int, int]:
    """How far two runs of words go on alike: words of the first, words of the second, edits.

    The alignment whose score (+1 for a word that agrees, minus the cost for an edit) is the highest, by dynamic
    programming in a band; it ends where the score has fallen too far below the best one.
    """
    common = 0
    shorter = min(len(text), len(training))
    while common < shorter and text[common] == training[common]:
        common += 1  # beginning with all words that agree is always best
    text, training = text[common:], training[common:]
    best, best_at = 0, (0, 0, 0)
    # For each number of words of the training text: score and edits of the best alignment with the text so far.
    row = {other: (-edit_cost * other, other) for other in range(min(_WIDE_BAND, len(training)) + 1)}
    for done, word in enumerate(text, 1):
        below: dict[int, tuple[int, int]] = {}
        for other in range(max(done - _WIDE_BAND, 0), min(done + _WIDE_BAND, len(training)) + 1):
            options = []
            if other in row:
                options.append((row[other][0] - edit_cost, row[other][1] + 1))
            if other - 1 in below:
                options.append((below[other - 1][0] - edit_cost, below[other - 1][1] + 1))
            if other - 1 in row:
                score, edits = row[other - 1]
                agrees = training[other - 1] == word
                options.append((score + 1, edits) if agrees else (score - edit_cost, edits + 1))
            if options and (top := max(options))[0] >= best - _GIVE_UP * edit_cost:
                below[other] = top
                if top[0] > best:
                    best, best_at = top[0], (done, other, top[1])
        if not below:
            break
        row = below
    return common + best_at[0], common + best_at[1], best_at[2]


def _lies_in(here: int, there: int, alignments: Iterable[tuple[int, int, int, int]]) -> bool:
    return any(first <= here < last and start <= there < end for first, last, start, end in alignments)


def _parts(counts: npt.NDArray[np.int64]) -> Iterator[slice]:
    """Slices of places with so many pairs together as are compared at once, each at least one place."""
    totals = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = int(totals[start - 1]) if start else 0
        end = max(int(np.searchsorted(totals, before + _PLACES_AT_ONCE, side="right")), start + 1)
        yield slice(start, end)
        start = end


def _hashes(ids_W: Ids) -> npt.NDArray[np.uint64]:
    """The hash of the run of four words that begins at each place: a polynomial modulo 2^64."""
    num_runs = max(len(ids_W) + 1 - _SEED_WORDS, 0)
    ids = ids_W.astype(np.int64).view(np.uint64)
    hashes = np.zeros(num_runs, dtype=np.uint64)
    for place in range(_SEED_WORDS):
        hashes *= _MULTIPLIER
        hashes += ids[place : place + num_runs]
    hashes *= _MULTIPLIER
    return hashes
