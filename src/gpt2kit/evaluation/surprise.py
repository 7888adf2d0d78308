"""How much each token of a text surprises a model that reads it behind its prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt2kit.evaluation.likelihood import Protocol, TokenDocument, token_nats
from gpt2kit.generation import LanguageModel
from gpt2kit.tokens import Tokenizer

_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Surprise:
    """What a model makes of each token of a text.

    Attributes:
        ends: for each token, how many characters of the text are complete with it. A token that ends within a
            character has the same number as the one before.
        nats: for each token, -ln of the probability the model gave it.
    """

    ends: list[int]
    nats: list[float]

    def to_dict(self) -> dict[str, Any]:
        """The surprise as JSON values."""
        return {"token_ends": self.ends, "nats": [round(each, _DIGITS) for each in self.nats]}


def surprise_of(
    model: LanguageModel, prompts: Sequence[str], texts: Sequence[str], *, batch_size: int, what: str
) -> list[Surprise]:
    """Read texts behind their prompts, each from an end-of-text on, as documents were read in training.

    A prompt and its text are made into tokens apart, as they are when a model writes. Of what is longer than the
    context, each token is read with half a context or more before it.

    Args:
        model: who reads them.
        prompts: what each text goes on from; may be empty.
        texts: the texts.
        batch_size: full contexts at a time.
        what: what the progress bar says.
    """
    tokenizer = model.tokenizer
    before, behind = tokenizer.encode_batch(prompts), tokenizer.encode_batch(texts)
    documents = [
        TokenDocument(
            np.array([*prompt, *text], dtype=np.int64),
            np.repeat([False, True], [len(prompt), len(text)]),
            num_bytes=0,
        )
        for prompt, text in zip(before, behind, strict=True)
    ]
    context = model.config.n_positions
    nats = token_nats(
        model.model,
        documents,
        protocol=Protocol(context, max(context // 2, 1)),
        end_of_text=tokenizer.end_of_text,
        batch_size=batch_size,
        what=what,
    )
    return [
        Surprise(_ends(tokenizer, text), values[len(prompt) :].tolist())
        for prompt, text, values in zip(before, behind, nats, strict=True)
    ]


def _ends(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int]:
    decoder = tokenizer.stream_decoder()
    ends: list[int] = []
    for identifier in ids:
        ends.append((ends[-1] if ends else 0) + len(decoder.push(identifier)))
    return ends
