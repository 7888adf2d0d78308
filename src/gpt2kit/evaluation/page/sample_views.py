"""Samples as they are shown: each prompt with what went on from it, marked in two ways."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt2kit.evaluation.page.passages import Footnote, Piece, Token, mark_copies, mark_surprise, printable


@dataclass(frozen=True, slots=True)
class Continuation:
    """A text that goes on from a prompt.

    Attributes:
        role: whose it is.
        name: the same for a reader.
        pieces: the text with its copies marked.
        notes: the footnotes of these.
        tokens: the text with the surprise of its tokens; empty when that was not measured.
        nats_per_token: the mean surprise; None when that was not measured.
    """

    role: str
    name: str
    pieces: list[Piece]
    notes: list[Footnote]
    tokens: list[Token]
    nats_per_token: float | None


@dataclass(frozen=True, slots=True)
class SampleView:
    """A prompt and its continuations.

    Attributes:
        prompt: the prompt; empty when the texts begin from nothing.
        source: where it comes from.
        continuations: the texts.
    """

    prompt: str
    source: str
    continuations: list[Continuation]


def sample_views(values: Mapping[str, Any], names: Mapping[str, str]) -> list[SampleView]:
    """The first samples: those whose surprise was measured."""
    sets: Mapping[str, Any] = values["samples"]
    if "model" not in sets:
        return []
    model = sets["model"]
    views = []
    for number in range(min(len(model["surprise"]), len(model["texts"]))):
        continuations = [
            _continuation(role, names[role], each, number, shortest=int(values["settings"]["copy_words"]))
            for role, each in sets.items()
            if number < len(each["texts"]) and each["prompts"][number] == model["prompts"][number]
        ]
        # Texts of a file have prompts of their own, and no human went on from them.
        source = model["sources"][number] if number < len(model["sources"]) else ""
        views.append(SampleView(printable(model["prompts"][number]), printable(source), continuations))
    return views


def _continuation(role: str, name: str, of_set: Mapping[str, Any], number: int, *, shortest: int) -> Continuation:
    text = of_set["texts"][number]
    spans = of_set["copies"][number] if of_set["copies"] else []
    pieces, notes = mark_copies(text, spans, shortest=shortest)
    if number >= len(of_set["surprise"]):
        return Continuation(role, name, pieces, notes, [], None)
    surprise = of_set["surprise"][number]
    nats = surprise["nats"]
    tokens = mark_surprise(text, surprise["token_ends"], nats)
    return Continuation(role, name, pieces, notes, tokens, sum(nats) / len(nats) if nats else None)
