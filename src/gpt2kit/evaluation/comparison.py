"""Two models on the same held-out text, and what that says."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt2kit.evaluation.likelihood import Likelihood, Protocol, TokenDocument, units
from gpt2kit.evaluation.statistics import Figure, ratio_interval, sign_flip_p_value


@dataclass(frozen=True)
class Comparison:
    """How much better a model predicts the same text than another one; below 0 it predicts it worse.

    Attributes:
        bits_per_byte_saved: bits per byte of the other one minus its own.
        perplexity_drop: 1 - own perplexity / the other's, as a share; None when their tokenizers differ, for then the
            perplexities are of different things.
        num_units: documents (or windows) the intervals were made over, in pairs.
        p_value: how often two equally good models would differ as much, by a sign-flip test over the same pairs; None
            of a single one.
    """

    bits_per_byte_saved: Figure
    perplexity_drop: Figure | None
    num_units: int
    p_value: float | None

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the difference leaves out 0."""
        interval = self.bits_per_byte_saved.interval
        return interval is not None and (interval[0] > 0 or interval[1] < 0)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "bits_per_byte_saved": self.bits_per_byte_saved.to_dict(),
            "perplexity_drop": None if self.perplexity_drop is None else self.perplexity_drop.to_dict(),
            "num_units": self.num_units,
            "p_value": self.p_value,
            "is_clear": self.is_clear,
        }


def compare(
    own: tuple[Likelihood, Sequence[TokenDocument]],
    other: tuple[Likelihood, Sequence[TokenDocument]],
    *,
    protocol: Protocol,
    same_tokenizer: bool,
    seed: int,
) -> Comparison:
    """Compare two models in pairs: the difference of each document (or window), then the interval of its sum.

    What makes a document hard makes it hard for both, so the difference is known far better than either figure.

    Args:
        own: a model's likelihood, and the documents as its tokenizer sees them.
        other: likewise of the model it is compared with, on the same documents in the same order.
        protocol: of both.
        same_tokenizer: whether their tokens are the same.
        seed: of the bootstrap.
    """
    own_U3 = units(own[1], own[0].token_nats, protocol=protocol)[1]
    other_U3 = units(other[1], other[0].token_nats, protocol=protocol)[1]
    if not same_tokenizer:
        # Windows of different tokenizers do not pair, even if there are as many; documents do.
        own_U3, other_U3 = _by_document(*own), _by_document(*other)
    saved_U = other_U3[:, 0] - own_U3[:, 0]
    bits = saved_U / math.log(2)
    saved = Figure(other[0].bits_per_byte - own[0].bits_per_byte, ratio_interval(bits, own_U3[:, 2], seed=seed))
    drop = None
    if same_tokenizer:
        interval = ratio_interval(saved_U, own_U3[:, 1], seed=seed)
        drop = Figure(
            _share(float(saved_U.sum() / own_U3[:, 1].sum())), interval and (_share(interval[0]), _share(interval[1]))
        )
    return Comparison(saved, drop, len(saved_U), sign_flip_p_value(saved_U, seed=seed))


def _by_document(likelihood: Likelihood, documents: Sequence[TokenDocument]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(
        [
            (nats.sum(), document.counts_N.sum(), document.num_bytes)
            for document, nats in zip(documents, likelihood.token_nats, strict=True)
        ],
        dtype=np.float64,
    )


def _share(nats_per_token_saved: float) -> float:
    """1 - own perplexity / the other's."""
    return -math.expm1(-nats_per_token_saved)
