"""Two models on the same held-out text, and what that says."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpt2kit.evaluation.likelihood import Likelihood, TokenDocument, document_sums
from gpt2kit.evaluation.statistics import SIGNIFICANCE, Figure, ratio_interval, sign_flip_p_value


@dataclass(frozen=True)
class Comparison:
    """How much better a model predicts the same text than another one; below 0 it predicts it worse.

    Attributes:
        bits_per_byte_saved: bits per byte of the other one minus its own.
        perplexity_drop: 1 - own perplexity / the other's, as a share; None when their tokenizers differ, for then the
            perplexities are of different things.
        num_units: documents, in pairs, which intervals and test are over.
        p_value: how often two equally good models would differ as much, by a sign-flip test over the same pairs; None
            of a single one.
    """

    bits_per_byte_saved: Figure
    perplexity_drop: Figure | None
    num_units: int
    p_value: float | None

    @property
    def is_clear(self) -> bool:
        """Whether chance is ruled out, by the test and by the interval; never of fewer than six documents."""
        interval = self.bits_per_byte_saved.interval
        leaves_out_0 = interval is not None and (interval[0] > 0 or interval[1] < 0)
        return leaves_out_0 and self.p_value is not None and self.p_value <= SIGNIFICANCE

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "bits_per_byte_saved": self.bits_per_byte_saved.to_dict(),
            "perplexity_drop": None if self.perplexity_drop is None else self.perplexity_drop.to_dict(),
            "unit": "document",
            "num_units": self.num_units,
            "p_value": self.p_value,
            "is_clear": self.is_clear,
        }


def compare(
    own: tuple[Likelihood, Sequence[TokenDocument]],
    other: tuple[Likelihood, Sequence[TokenDocument]],
    *,
    same_tokenizer: bool,
    seed: int,
) -> Comparison:
    """Compare two models in pairs: the difference of each document, then the interval of its sum.

    What makes a document hard makes it hard for both, so the difference is known far better than either figure. Windows
    of one document are alike, so they are never taken for independent pairs, however few the documents are.

    Args:
        own: a model's likelihood, and the documents as its tokenizer sees them.
        other: likewise of the model it is compared with, on the same documents in the same order.
        same_tokenizer: whether their tokens are the same.
        seed: of the bootstrap.
    """
    own_U3, other_U3 = (document_sums(documents, likelihood.token_nats) for likelihood, documents in (own, other))
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


def _share(nats_per_token_saved: float) -> float:
    """1 - own perplexity / the other's."""
    return -math.expm1(-nats_per_token_saved)
