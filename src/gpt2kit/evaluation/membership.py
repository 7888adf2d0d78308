"""How much better a model predicts the text it was trained on than held-out text, and whether one can tell by that.

The gap is held-out minus training nats per token. The attack of Yeom et al. 2018, *Privacy Risk in Machine Learning*,
calls a document a member of the training data when its loss is below a threshold; the area under the curve (AUC) of
that decision is the chance that a training document has a lower loss than a held-out one: 0.5 is guessing. Some texts
are easy for every model; so the attack is also made with how far the loss fell below the base model's, which tells
members far better (Watson et al. 2022, *On the Importance of Difficulty Calibration in Membership Inference Attacks*).

Legend of the shapes: M units (documents or windows) of the training text, H of the held-out text.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpt2kit.evaluation.statistics import Figure, Interval, ratio_interval

Floats = npt.NDArray[np.float64]
_NORMAL_QUANTILE = 1.959964  # 97.5%


@dataclass(frozen=True, slots=True)
class Membership:
    """What separates training text from held-out text in a model's eyes.

    Attributes:
        gap: held-out minus training nats per token.
        base_gap: the same in the base model's eyes, which saw neither: what the two texts differ by anyway. None
            without a base model of the same tokenizer.
        gap_beyond_base: gap minus base_gap, its interval from how far each unit fell below the base model's loss, for
            what makes a text hard makes it hard for both; None where there is no base_gap.
        auc: of the attack by the loss.
        calibrated_auc: of the attack by how far the loss per byte fell below the base model's; None without one.
        train_nats_per_token: mean loss of the training text.
        held_out_nats_per_token: mean loss of the held-out text.
        unit: what was told apart: "document" or "window".
        num_members: units of training text.
        num_others: units of held-out text.
    """

    gap: Figure
    base_gap: Figure | None
    gap_beyond_base: Figure | None
    auc: Figure
    calibrated_auc: Figure | None
    train_nats_per_token: float
    held_out_nats_per_token: float
    unit: str
    num_members: int
    num_others: int

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "gap": self.gap.to_dict(),
            "base_gap": None if self.base_gap is None else self.base_gap.to_dict(),
            "gap_beyond_base": None if self.gap_beyond_base is None else self.gap_beyond_base.to_dict(),
            "auc": self.auc.to_dict(),
            "calibrated_auc": None if self.calibrated_auc is None else self.calibrated_auc.to_dict(),
            "train_nats_per_token": self.train_nats_per_token,
            "held_out_nats_per_token": self.held_out_nats_per_token,
            "unit": self.unit,
            "num_members": self.num_members,
            "num_others": self.num_others,
        }


def membership(
    members_M3: Floats,
    others_H3: Floats,
    *,
    base: tuple[Floats, Floats] | None,
    same_tokenizer: bool,
    unit: str,
    seed: int,
) -> Membership:
    """Compare training text with held-out text.

    Args:
        members_M3: nats, tokens and bytes of each unit of training text, as `likelihood.units` gives them.
        others_H3: likewise of held-out text.
        base: likewise both in the base model's eyes, of the same units in the same order; None without one.
        same_tokenizer: whether the base model's tokens are the same.
        unit: what the units are.
        seed: of the intervals.
    """
    calibrated = base_gap = beyond = None
    if base is not None:
        if same_tokenizer:
            base_gap = _gap(*base, seed=seed)
            beyond = _gap(_beyond(members_M3, base[0]), _beyond(others_H3, base[1]), seed=seed)
        calibrated = area_under_curve(_fallen(members_M3, base[0]), _fallen(others_H3, base[1]))
    return Membership(
        gap=_gap(members_M3, others_H3, seed=seed),
        base_gap=base_gap,
        gap_beyond_base=beyond,
        auc=area_under_curve(-_rates(members_M3), -_rates(others_H3)),
        calibrated_auc=calibrated,
        train_nats_per_token=_mean(members_M3),
        held_out_nats_per_token=_mean(others_H3),
        unit=unit,
        num_members=len(members_M3),
        num_others=len(others_H3),
    )


def area_under_curve(scores_M: Floats, scores_H: Floats) -> Figure:
    """The chance that a member's score is above another's, ties counting half, with its interval.

    The standard error is DeLong's (DeLong et al. 1988); the interval is made on the logit scale, which keeps it between
    0 and 1. Where the scores separate perfectly, no interval can be had.

    Args:
        scores_M: of members, higher for what looks more like one.
        scores_H: of others.
    """
    ordered_H, ordered_M = np.sort(scores_H), np.sort(scores_M)
    below_M = (
        (np.searchsorted(ordered_H, scores_M, "left") + np.searchsorted(ordered_H, scores_M, "right"))
        / 2
        / len(scores_H)
    )
    above_H = 1 - (
        np.searchsorted(ordered_M, scores_H, "left") + np.searchsorted(ordered_M, scores_H, "right")
    ) / 2 / len(scores_M)
    area = float(below_M.mean())
    if min(len(scores_M), len(scores_H)) < 2 or not 0 < area < 1:
        return Figure(area)
    error = math.sqrt(below_M.var(ddof=1) / len(scores_M) + above_H.var(ddof=1) / len(scores_H))
    centre, half = math.log(area / (1 - area)), _NORMAL_QUANTILE * error / (area * (1 - area))
    low, high = (1 / (1 + math.exp(-min(max(bound, -500.0), 500.0))) for bound in (centre - half, centre + half))
    return Figure(area, (low, high))


def _gap(members_M3: Floats, others_H3: Floats, *, seed: int) -> Figure:
    """The difference of two means of independent units; its interval from theirs (Zou and Donner 2008, MOVER)."""
    ours, theirs = _mean(members_M3), _mean(others_H3)
    gap = theirs - ours
    of_ours, of_theirs = _interval(members_M3, seed=seed), _interval(others_H3, seed=seed)
    if of_ours is None or of_theirs is None:
        return Figure(gap)
    low = gap - math.hypot(theirs - of_theirs[0], of_ours[1] - ours)
    high = gap + math.hypot(of_theirs[1] - theirs, ours - of_ours[0])
    return Figure(gap, (low, high))


def _interval(units_U3: Floats, *, seed: int) -> Interval | None:
    return ratio_interval(units_U3[:, 0], units_U3[:, 1], seed=seed)


def _mean(units_U3: Floats) -> float:
    return float(units_U3[:, 0].sum() / units_U3[:, 1].sum())


def _rates(units_U3: Floats) -> Floats:
    """Nats per token of each unit."""
    rates: Floats = units_U3[:, 0] / units_U3[:, 1]
    return rates


def _beyond(units_U3: Floats, base_U3: Floats) -> Floats:
    """The units with the nats that the model needs more than the base model."""
    return np.column_stack([units_U3[:, 0] - base_U3[:, 0], units_U3[:, 1:]])


def _fallen(units_U3: Floats, base_U3: Floats) -> Floats:
    """How many nats per byte the loss of each unit lies below the base model's."""
    fallen: Floats = (base_U3[:, 0] - units_U3[:, 0]) / np.maximum(units_U3[:, 2], 1)
    return fallen
