"""Texts cut into what is marked in them: copies of the training text, and the surprise of each token."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

# Nats from which a token is shaded one step darker; e^-7 is about one in a thousand.
SURPRISE_STEPS = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 9.0)
_LENGTH_STEPS = (13, 20, 50)  # words from which a copy is shaded one step darker
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}


@dataclass(frozen=True, slots=True)
class Footnote:
    """What a marked passage is a copy of.

    Attributes:
        number: counted from 1 in each text.
        kind: "exact" or "near".
        words: how long it is, in words for a reader.
        place: where it stands in the training text.
        training_text: how it reads there, of a near copy.
    """

    number: int
    kind: str
    words: str
    place: str
    training_text: str = ""

    @property
    def title(self) -> str:
        """The footnote as one line."""
        return f"{self.words} {self.place}"


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a text that is marked alike.

    Attributes:
        text: the stretch.
        kind: "exact", "near", "short" (too short a copy to count), or "" for no copy.
        level: 0 to 3, by the length of the longest copy it is in.
        title: what it is a copy of.
        ending: the footnotes of copies that end with it.
    """

    text: str
    kind: str = ""
    level: int = 0
    title: str = ""
    ending: tuple[Footnote, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A stretch of a text that one token is, or several that make one character.

    Attributes:
        text: the stretch.
        level: 0 to 7, by its surprise.
        title: the surprise in words.
    """

    text: str
    level: int
    title: str


def printable(text: str) -> str:
    """A text that HTML can hold, character for character: control characters as their pictures (U+2400 on)."""
    return "".join("\ufffd" if 0xD800 <= ord(each) <= 0xDFFF else each for each in text).translate(_VISIBLE)


def mark_copies(text: str, spans: Sequence[Mapping[str, Any]], *, shortest: int) -> tuple[list[Piece], list[Footnote]]:
    """Cut a text where copies begin and end.

    Args:
        text: the text.
        spans: its copies as `probes.copied_spans` gives them; they may overlap.
        shortest: words of the shortest exact copy that counts; shorter ones are marked lightly, without a footnote.

    Returns:
        The pieces, which joined are the text, and the footnotes.
    """
    notes: dict[int, Footnote] = {}
    for place, span in enumerate(spans):
        if span["kind"] == "near" or span["num_words"] >= shortest:
            notes[place] = _footnote(span, number=len(notes) + 1)
    cuts = sorted({0, len(text), *(span["start"] for span in spans), *(span["end"] for span in spans)})
    pieces = []
    for start, end in pairwise(cuts):
        here = [place for place, span in enumerate(spans) if span["start"] <= start and end <= span["end"]]
        pieces.append(_piece(printable(text[start:end]), [spans[place] for place in here], here, notes, end=end))
    return pieces, list(notes.values())


def _piece(
    text: str, spans: Sequence[Mapping[str, Any]], places: Sequence[int], notes: Mapping[int, Footnote], *, end: int
) -> Piece:
    if not spans:
        return Piece(text)
    counted = [(place, span) for place, span in zip(places, spans, strict=True) if place in notes]
    if not counted:
        longest = max(spans, key=lambda span: int(span["num_words"]))
        return Piece(text, "short", 0, _footnote(longest, number=0).title)
    is_exact = any(span["kind"] == "exact" for _, span in counted)
    return Piece(
        text,
        "exact" if is_exact else "near",
        max(_step(int(span["num_words"]), _LENGTH_STEPS) for _, span in counted),
        "; ".join(notes[place].title for place, _ in counted),
        tuple(notes[place] for place, span in counted if span["end"] == end),
    )


def _footnote(span: Mapping[str, Any], *, number: int) -> Footnote:
    place = ", ".join(printable(part) for part in (span["source"], span["place"]) if part) or "the training text"
    if span["kind"] == "exact":
        return Footnote(number, "exact", f"{span['num_words']} words, word for word in", place)
    edits = f"{span['edits']} word{'' if span['edits'] == 1 else 's'} changed"
    return Footnote(
        number, "near", f"{span['num_words']} words, {edits}, from", place, printable(span.get("training_text", ""))
    )


def mark_surprise(text: str, ends: Sequence[int], nats: Sequence[float]) -> list[Token]:
    """Cut a text into its tokens.

    Args:
        text: the text.
        ends: of each token, as `surprise.Surprise` has them.
        nats: its surprise.

    Returns:
        Tokens that joined are the text. The nats of tokens that make one character together are summed: so much did
        the character surprise.
    """
    tokens = []
    start, pending = 0, 0.0
    for end, each in zip(ends, nats, strict=True):
        pending += each
        if end > start:
            tokens.append(Token(printable(text[start:end]), _step(pending, SURPRISE_STEPS), _in_words(pending)))
            start, pending = end, 0.0
    return tokens


def _in_words(nats: float) -> str:
    share = math.exp(-nats)
    if share >= 0.1:
        return f"{nats:.2f} nats: expected with {100 * share:.0f}%"
    return f"{nats:.2f} nats: 1 in {1 / share:,.0f}" if nats < 14 else f"{nats:.2f} nats: less than 1 in a million"


def _step(value: float, steps: Sequence[float]) -> int:
    return sum(value >= step for step in steps)
