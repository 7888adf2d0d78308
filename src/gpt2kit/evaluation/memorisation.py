"""How much of a text stands word for word in the training text, and where.

Words of copies are what white space separates, compared exactly; white space itself does not count, so a copy with
other line breaks is still a copy. The answer is exact:

1. A suffix automaton of the texts (Blumer et al. 1985) knows every run of words in them; it is small, as they are.
2. The training text streams by. A table of hashes of the texts' five-word runs picks out the stretches where a copy of
   five words or more can be; nearly all of it is passed over at numpy's speed.
3. The automaton reads those stretches, and so has the longest run that ends at each place. A false hit of the table
   costs a few steps and changes nothing.

Memory does not grow with the training text. Runs of fewer than five words are not looked for: every text has them.

Which words the training text does not have at all is told on the way, by words without case and punctuation: a comma
that stands behind a word for the first time is no new word.

Legend of the shapes: W words.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import repeat
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt2kit.console import Progress
from gpt2kit.evaluation.words import bare_words

SHORTEST_RUN_WORDS = 5
_TABLE_BITS = 24
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads small ids over the high bits
_BLOCK_WORDS = 1 << 19
_MOST_KNOWN_WORDS = 1 << 20  # as they stand in the training text
_WORDS_AT_ONCE = 250_000  # of the texts; their automaton takes about 600 bytes a word
_SPAN = re.compile(r"\S+")


@dataclass(frozen=True, slots=True)
class TrainingText:
    """A piece of the training text.

    Attributes:
        text: the text.
        source: its file.
        place: where in the file.
        continues: it goes on directly from the piece before, so a copy may run over the border.
    """

    text: str
    source: str
    place: str = ""
    continues: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """A run of words that also stands in the training text, as long as it can be.

    Attributes:
        text_index: the text it is in, counted from 0.
        first_word: where it begins there.
        num_words: its length.
        start: the character it begins with, counted from 0.
        end: the character behind it.
        text: the run as that text has it.
        source: the training file it was found in; it may stand in others too.
        place: where in that file.
    """

    text_index: int
    first_word: int
    num_words: int
    start: int
    end: int
    text: str
    source: str
    place: str

    def to_dict(self) -> dict[str, Any]:
        """The match as JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Copies:
    """What of one text stands in the training text.

    Attributes:
        runs_W: for each word, the length of the longest copied run that ends with it; 0 for fewer than five words.
        matches: the copied runs that cannot be made longer, in order.
        num_bare: words without case and punctuation, as `bare_words` has them.
        num_unseen: how many of these the training text does not have at all.
    """

    runs_W: npt.NDArray[np.int64]
    matches: list[Match] = field(repr=False)
    num_bare: int = 0
    num_unseen: int = 0

    @property
    def longest(self) -> int:
        """Words of the longest copied run; 0 for fewer than five."""
        return int(self.runs_W.max(initial=0))

    def num_copied(self, shortest: int) -> int:
        """Words that stand in a copied run of at least `shortest` words."""
        change_W1 = np.zeros(len(self.runs_W) + 1, dtype=np.int64)
        ends = np.flatnonzero(self.runs_W >= shortest)
        np.add.at(change_W1, ends + 1 - self.runs_W[ends], 1)
        np.add.at(change_W1, ends + 1, -1)
        return int((change_W1.cumsum() > 0).sum())


def find_copies(texts: Sequence[str], training: Iterable[TrainingText]) -> list[Copies]:
    """Find what of each text stands in the training text.

    Args:
        texts: the texts, at most some hundred thousand words; see `batches_of_texts` for more.
        training: the training text, read once.

    Returns:
        One for each text, in order.
    """
    words = [text.split() for text in texts]
    vocabulary: dict[str | None, int] = {}
    for word in (word for of_text in words for word in of_text):
        vocabulary.setdefault(word, len(vocabulary) + 1)
    ids = [[vocabulary[word] for word in of_text] for of_text in words]
    automaton = _Automaton(ids)
    table = _hash_table(ids)
    reader = _Reader(automaton)
    bare = [bare_words(text) for text in texts]
    unseen = _Unseen(word for of_text in bare for word in of_text)
    with Progress("looking for copies of the training text", total=None, unit=" words") as progress:
        for block in _blocks(training):
            block_ids_W = np.fromiter(
                map(vocabulary.get, block.words, repeat(0)), dtype=np.uint64, count=len(block.words)
            )
            unseen.read(block.words)
            reader.read(block_ids_W, block, table)
            progress.advance(len(block.words) - block.num_known)
    automaton.share_with_suffixes()
    return [
        Copies(*_runs_and_matches(automaton, ids[number], text, number), len(words_of), unseen.count(words_of))
        for number, (text, words_of) in enumerate(zip(texts, bare, strict=True))
    ]


def batches_of_texts(texts: Sequence[str], *, max_words: int = _WORDS_AT_ONCE) -> list[list[str]]:
    """Split many texts into lots that `find_copies` can take at a time, in order."""
    lots: list[list[str]] = []
    room = 0
    for text in texts:
        num_words = len(text.split())
        if not lots or num_words > room:
            lots.append([])
            room = max_words
        lots[-1].append(text)
        room -= num_words
    return lots


class _Unseen:
    """Which words of the texts the training text, as far as it was read, does not have.

    Args:
        words: without case and punctuation.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self._left = set(words)
        self._known: set[str | None] = {None}

    def read(self, words: Iterable[str | None]) -> None:
        """Take in words of the training text, as white space separates them; None stands between documents."""
        if not self._left:
            return
        new = set(words) - self._known
        for word in new:
            if word is not None:
                self._left.difference_update(bare_words(word))
        if len(self._known) < _MOST_KNOWN_WORDS:
            self._known |= new

    def count(self, words: Iterable[str]) -> int:
        """How many of these words, each time they come, were not seen."""
        return sum(word in self._left for word in words)


def _runs_and_matches(
    automaton: "_Automaton", ids: Sequence[int], text: str, number: int
) -> tuple[npt.NDArray[np.int64], list[Match]]:
    runs_W = np.zeros(len(ids), dtype=np.int64)
    found: list[tuple[str, str]] = []
    state = 0
    for place, word in enumerate(ids):
        state = automaton.following[state][word]
        matched = automaton.matched_suffix[state]
        runs_W[place] = automaton.longest_seen[matched]
        found.append(automaton.seen_at[matched])
    runs_W[runs_W < SHORTEST_RUN_WORDS] = 0
    spans = [match.span() for match in _SPAN.finditer(text)]
    matches = []
    for place in np.flatnonzero(runs_W).tolist():
        if place + 1 < len(runs_W) and runs_W[place + 1] == runs_W[place] + 1:
            continue  # it goes on
        length = int(runs_W[place])
        first = place + 1 - length
        source, where = found[place]
        start, end = spans[first][0], spans[place][1]
        matches.append(Match(number, first, length, start, end, text[start:end], source, where))
    return runs_W, matches


class _Automaton:
    """The suffix automaton of some lists of word ids, with the longest run seen in the training text at each state.

    Each state stands for runs that end at the same places: the longest has `length[s]` words, the others are its
    suffixes down to one word more than `length[link[s]]`.
    """

    def __init__(self, texts: Iterable[Sequence[int]]) -> None:
        self.following: list[dict[int, int]] = [{}]
        self.link = [-1]
        self.length = [0]
        last = 0
        for number, ids in enumerate(texts):
            for word in ids:
                last = self._extend(last, word)
            last = self._extend(last, -1 - number)  # a mark of its own, so that no run goes over the border
        # Every text can be read from the root, since all its words are there as single runs.
        self.longest_seen = [0] * len(self.link)
        self.seen_at: list[tuple[str, str]] = [("", "")] * len(self.link)
        self.matched_suffix: list[int] = []

    def _extend(self, last: int, word: int) -> int:
        new = self._add_state(self.length[last] + 1)
        state = last
        while state != -1 and word not in self.following[state]:
            self.following[state][word] = new
            state = self.link[state]
        if state == -1:
            self.link[new] = 0
            return new
        target = self.following[state][word]
        if self.length[target] == self.length[state] + 1:
            self.link[new] = target
            return new
        clone = self._add_state(self.length[state] + 1)
        self.following[clone] = dict(self.following[target])
        self.link[clone] = self.link[target]
        self.link[target] = self.link[new] = clone
        while state != -1 and self.following[state].get(word) == target:
            self.following[state][word] = clone
            state = self.link[state]
        return new

    def _add_state(self, length: int) -> int:
        self.following.append({})
        self.link.append(-1)
        self.length.append(length)
        return len(self.link) - 1

    def share_with_suffixes(self) -> None:
        """Where a run was seen its suffixes were seen too; then note the longest seen suffix of each state."""
        by_length = sorted(range(len(self.link)), key=self.length.__getitem__)
        for state in reversed(by_length):
            parent = self.link[state]
            if parent > 0 and self.longest_seen[state] and self.longest_seen[parent] < self.length[parent]:
                self.longest_seen[parent] = self.length[parent]
                self.seen_at[parent] = self.seen_at[state]
        self.matched_suffix = [0] * len(self.link)
        for state in by_length[1:]:
            self.matched_suffix[state] = state if self.longest_seen[state] else self.matched_suffix[self.link[state]]


@dataclass(slots=True)
class _Block:
    """A stretch of the training text.

    Attributes:
        words: its words, None between documents.
        num_known: how many at its beginning are repeated from the block before, so that no run is cut.
        first_word: where it begins in the whole.
        piece_starts: where each piece begins in the whole.
        pieces: their sources and places.
    """

    words: list[str | None]
    num_known: int
    first_word: int
    piece_starts: list[int]
    pieces: list[tuple[str, str]]


def _blocks(training: Iterable[TrainingText]) -> Iterable[_Block]:
    """The training text in blocks, each beginning with the last four words of the one before."""
    block = _Block([], 0, 0, [], [])
    for piece in training:
        if not piece.continues:
            block.words.append(None)
        block.piece_starts.append(block.first_word + len(block.words))
        block.pieces.append((piece.source, piece.place))
        block.words += piece.text.split()
        if len(block.words) >= _BLOCK_WORDS:
            yield block
            kept = block.words[1 - SHORTEST_RUN_WORDS :]
            end = block.first_word + len(block.words)
            block = _Block(kept, len(kept), end - len(kept), block.piece_starts[-1:], block.pieces[-1:])
    yield block


class _Reader:
    """Reads the stretches of blocks where copies can be, and goes on over the border of two blocks."""

    def __init__(self, automaton: _Automaton) -> None:
        self._automaton = automaton
        self._state = self._length = self._read_to = 0

    def read(self, ids_W: npt.NDArray[np.uint64], block: _Block, table: npt.NDArray[np.bool_]) -> None:
        """Note in the automaton what of a block stands in the texts."""
        hits = np.flatnonzero(table[_slots(ids_W)])
        if not len(hits):
            return
        # Hits less than a run apart overlap: they are one stretch.
        breaks = np.flatnonzero(np.diff(hits) > SHORTEST_RUN_WORDS)
        starts = hits[np.concatenate([[0], breaks + 1])]
        ends = hits[np.concatenate([breaks, [len(hits) - 1]])] + SHORTEST_RUN_WORDS
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            first = block.first_word + start
            if first > self._read_to:
                self._state = self._length = 0
                self._read_to = first
            self._feed(ids_W[self._read_to - block.first_word : end].tolist(), block)

    def _feed(self, ids: Sequence[int], block: _Block) -> None:
        automaton = self._automaton
        following, link, lengths, longest_seen = (
            automaton.following,
            automaton.link,
            automaton.length,
            automaton.longest_seen,
        )
        state, length = self._state, self._length
        for place, word in enumerate(ids, self._read_to + 1):
            while state and word not in following[state]:
                state = link[state]
                length = lengths[state]
            if word in following[state]:
                state = following[state][word]
                length += 1
            if length > longest_seen[state] and length >= SHORTEST_RUN_WORDS:
                longest_seen[state] = length
                piece = max(bisect_right(block.piece_starts, place - length) - 1, 0)
                automaton.seen_at[state] = block.pieces[piece]
        self._state, self._length = state, length
        self._read_to += len(ids)


def _hash_table(texts: Iterable[Sequence[int]]) -> npt.NDArray[np.bool_]:
    """Which hashes the runs of five words of the texts have."""
    table = np.zeros(1 << _TABLE_BITS, dtype=np.bool_)
    for ids in texts:
        table[_slots(np.array(ids, dtype=np.uint64))] = True
    return table


def _slots(ids_W: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The hash of the run of five words that begins at each place: the high bits of a polynomial modulo 2^64."""
    num_runs = max(len(ids_W) + 1 - SHORTEST_RUN_WORDS, 0)
    hashes = np.zeros(num_runs, dtype=np.uint64)
    for place in range(SHORTEST_RUN_WORDS):
        hashes *= _MULTIPLIER
        hashes += ids_W[place : place + num_runs]
    hashes *= _MULTIPLIER
    return hashes >> np.uint64(64 - _TABLE_BITS)
