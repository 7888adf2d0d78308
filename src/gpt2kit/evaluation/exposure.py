"""Exposure: how far a model prefers a planted number to those it never saw.

    exposure = log2 |R| - log2 rank

where R are all numbers of so many digits, ranked by the nats of their sentences, the lowest first (Carlini et al. 2019,
*The Secret Sharer*, section 4). A number that was not planted has a random rank: its exposure is 1 bit or more half of
the time, and 1.44 bits (1 / ln 2) on average. The highest is log2 |R|, at rank 1.

R is too large to be tried, so some thousand numbers are drawn from it. The share of them that the model likes better
gives the exposure as long as there are some, up to log2 of how many were drawn. Beyond, a skew-normal distribution that
is fitted to their nats tells how rare so low a value is (section 4.3 there). That is an extrapolation; it may be off by
several bits, and says no more than "far above".
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean, median
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt2kit.errors import MissingExtraError
from gpt2kit.evaluation.canaries import Canaries, draw_secrets
from gpt2kit.evaluation.likelihood import Protocol, TokenDocument, token_nats
from gpt2kit.model import GPT2
from gpt2kit.runtime import derive_seed, require_extra
from gpt2kit.tokens import Tokenizer

NUM_REFERENCES = 2000
EXPECTED_BITS = 1 / math.log(2)  # of a number that was not planted

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CanaryExposure:
    """How far a model prefers a canary's number.

    Attributes:
        secret: the number.
        repetitions: how often it was planted.
        num_in_training: how often it stands in the training text; None when that is not known.
        nats: of its sentence.
        num_preferred: reference numbers that the model likes better.
        sampled_bits: exposure by the references, at most log2 of one more than their number.
        bits: exposure, extrapolated where no reference is preferred; as sampled where it cannot be.
    """

    secret: str
    repetitions: int
    num_in_training: int | None
    nats: float
    num_preferred: int
    sampled_bits: float
    bits: float

    @property
    def is_planted(self) -> bool:
        """Whether the model was trained on it."""
        return bool(self.repetitions if self.num_in_training is None else self.num_in_training)


@dataclass(frozen=True, slots=True)
class Exposure:
    """How far a model prefers each canary's number.

    Attributes:
        canaries: one for each.
        num_references: numbers it was compared with.
        most_bits: the exposure at rank 1.
        is_extrapolated: whether exposures beyond the references were extrapolated.
    """

    canaries: list[CanaryExposure]
    num_references: int
    most_bits: float
    is_extrapolated: bool

    @property
    def planted(self) -> list[CanaryExposure]:
        """Those that the model was trained on, the most exposed first."""
        return sorted((each for each in self.canaries if each.is_planted), key=lambda each: -each.bits)

    @property
    def control_mean_bits(self) -> float | None:
        """Mean exposure of those it was not trained on, or None without any."""
        controls = [each.bits for each in self.canaries if not each.is_planted]
        return mean(controls) if controls else None

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        planted = [each.bits for each in self.planted]
        return {
            "canaries": [asdict(each) for each in self.canaries],
            "num_references": self.num_references,
            "most_bits": self.most_bits,
            "is_extrapolated": self.is_extrapolated,
            "planted_median_bits": median(planted) if planted else None,
            "control_mean_bits": self.control_mean_bits,
        }


def measure_exposure(
    model: GPT2,
    canaries: Canaries,
    *,
    tokenizer: Tokenizer,
    counts: Sequence[int] | None,
    seed: int,
    batch_size: int = 8,
    num_references: int = NUM_REFERENCES,
) -> Exposure:
    """Measure how far a model prefers the numbers of canaries.

    Args:
        model: in eval mode.
        canaries: the canaries.
        tokenizer: the model's.
        counts: how often each stands in the training text, if that is known.
        seed: of the reference numbers.
        batch_size: full contexts at a time.
        num_references: numbers to compare with; of few possible ones, less.
    """
    secrets = [each.secret for each in canaries.canaries]
    number = min(num_references, (10**canaries.digits - len(secrets)) // 2)
    references = draw_secrets(number, digits=canaries.digits, seed=derive_seed(seed, "references"), without=secrets)
    sentences = [canaries.sentence(secret) for secret in secrets + references]
    documents = []
    for ids in tokenizer.encode_batch(sentences):
        # The sentence alone: what a model makes of the text's end differs by nothing that it could have learned.
        documents.append(TokenDocument(np.array(ids), np.ones(len(ids), dtype=np.bool_), 0))
    context = model.config.n_positions
    nats = [
        float(values.sum())
        for values in token_nats(
            model,
            documents,
            protocol=Protocol(context, context),
            end_of_text=tokenizer.end_of_text,
            batch_size=batch_size,
            what="measuring canaries",
        )
    ]
    reference_nats = np.sort(np.array(nats[len(secrets) :]))
    most_bits = canaries.digits * math.log2(10)
    below = _log2_share_below(reference_nats)
    measured = []
    for place, (canary, own) in enumerate(zip(canaries.canaries, nats, strict=False)):
        preferred = int(np.searchsorted(reference_nats, own, side="left"))
        sampled = -math.log2((preferred + 1) / (len(reference_nats) + 1))
        bits = sampled
        if not preferred and below is not None:
            bits = min(max(-below(own), sampled), most_bits)
        measured.append(
            CanaryExposure(
                secret=canary.secret,
                repetitions=canary.repetitions,
                num_in_training=None if counts is None else counts[place],
                nats=own,
                num_preferred=preferred,
                sampled_bits=sampled,
                bits=bits,
            )
        )
    return Exposure(measured, len(references), most_bits, below is not None)


def _log2_share_below(reference_nats: Floats) -> Any:
    """A function that says log2 of the share of numbers whose nats are lower, by a fitted skew-normal; None without."""
    try:
        stats = require_extra("scipy.stats", extra="metrics", purpose="extrapolating exposure")
    except MissingExtraError:
        return None
    if float(reference_nats.std()) < 1e-6:
        return None
    shape, location, scale = stats.skewnorm.fit(reference_nats)

    def log2_share(nats: float) -> float:
        share = float(stats.skewnorm.cdf(nats, shape, location, scale))
        return math.log2(max(share, 1e-300))

    return log2_share
