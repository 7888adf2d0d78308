"""Which token comes next: pure functions over scores.

They are applied in this order:

    forbidden ids, no-repeat n-gram          scores become -inf
    repetition, frequency, presence penalty  scores are changed
    temperature                              scores are divided
    typical, then top-k, then top-p          scores become -inf
    min-p, by the most probable of all       scores become -inf
    the draw                                 argmax(scores + Gumbel noise)

Rounding. Floating-point sums depend on the shape of a batch, so the same row has scores that differ by some 1e-5 from
batch to batch, and a near-tie could fall differently. Each cut-off therefore takes a `slack` in nats: with a positive
one it keeps every token that it might keep if each score moved by as much, with a negative one only those it would
keep whatever happens. `choose` uses both to tell which choices could depend on the rounding; those are made again from
scores that are computed in one fixed way (see `decoding`).

The draw is argmax(score + noise), with Gumbel noise for each token as a pure function of a key and the token's id
(Gumbel 1954; Maddison et al. 2014, "A* Sampling"). It draws from softmax(scores) exactly, as inverting the cumulative
distribution would, but a change in the scores of the unlikely tokens cannot move the boundaries of all the others.

Shapes: B rows, V vocabulary, N selected scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2kit.generation.rules import CutoffRules

_MIX_1, _MIX_2, _GOLDEN = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15, -0x61C8864680B583EB
_HEADS = (512, 8192)  # how many of the greatest scores are sorted before all are


def forbid(scores_BV: Tensor, ids: Sequence[int]) -> Tensor:
    """Make some tokens impossible."""
    scores_BV = scores_BV.clone()
    scores_BV[:, list(ids)] = -torch.inf
    return scores_BV


def forbid_repeated_ngrams(scores_BV: Tensor, histories: Sequence[Sequence[int]], *, size: int) -> Tensor:
    """Make those tokens impossible that would complete a run of `size` tokens the row holds already.

    Source: Paulus et al. 2017, "A Deep Reinforced Model for Abstractive Summarization", section 2.5.

    Args:
        scores_BV: scores.
        histories: the tokens of each row so far, prompt included.
        size: length of the run; 1 forbids every token that has occurred.
    """
    scores_BV = scores_BV.clone()
    for row, history in enumerate(histories):
        start = tuple(history[len(history) - size + 1 :])
        if len(start) < size - 1:
            continue
        ends = [
            history[place + size - 1]
            for place in range(len(history) - size + 1)
            if tuple(history[place : place + size - 1]) == start
        ]
        if ends:
            scores_BV[row, ends] = -torch.inf
    return scores_BV


def repetition_penalty(scores_BV: Tensor, seen_BV: Tensor, *, penalty: float) -> Tensor:
    """Divide the positive scores of seen tokens by the penalty, and multiply the negative ones.

    Source: Keskar et al. 2019, "CTRL", section 4.1; for negative scores as `transformers` does.

    Args:
        scores_BV: scores.
        seen_BV: True for the tokens of the prompt and the text.
        penalty: above 1 discourages, below 1 encourages.
    """
    punished_BV = torch.where(scores_BV > 0, scores_BV / penalty, scores_BV * penalty)
    return torch.where(seen_BV, punished_BV, scores_BV)


def count_penalties(scores_BV: Tensor, counts_BV: Tensor, *, frequency: float, presence: float) -> Tensor:
    """Take `frequency` nats for each time that the text holds a token, and `presence` nats if it does at all.

    Source: OpenAI's API reference, "frequency and presence penalties": logit - count·frequency - [count > 0]·presence.

    Args:
        scores_BV: scores.
        counts_BV: how often the text behind the prompt holds each token.
        frequency: nats for each time.
        presence: nats once.
    """
    return scores_BV - counts_BV * frequency - (counts_BV > 0) * presence


def top_k(scores_BV: Tensor, k: int, *, slack: float = 0.0) -> Tensor:
    """Keep the k greatest scores, and those equal to the k-th.

    Source: Fan et al. 2018, "Hierarchical Neural Story Generation", section 5.
    """
    V = scores_BV.size(1)
    if k >= V:
        return scores_BV
    greatest_BK = scores_BV.topk(k + 1).values
    num_kept_B1 = torch.full_like(greatest_BK[:, :1], k, dtype=torch.long)
    return _keep_from(scores_BV, _cutoff(greatest_BK, num_kept_B1, gap=2 * slack))


def top_p(scores_BV: Tensor, p: float) -> Tensor:
    """Keep the most probable tokens: each one before which less than `p` of the probability lies.

    Source: Holtzman et al. 2019, "The Curious Case of Neural Text Degeneration", section 3.1 (nucleus sampling).
    """
    if p >= 1:
        return scores_BV
    log_total_B1 = scores_BV.logsumexp(dim=1, keepdim=True)
    limit_B1 = torch.full_like(log_total_B1, p)
    (cutoff_B1,) = _top_p_cutoffs(scores_BV, log_total_B1, [limit_B1], gaps=[0.0])
    return _keep_from(scores_BV, cutoff_B1)


def top_p_bounds(scores_BV: Tensor, p: float, *, slack: float, doubt_B1: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """What top-p might keep, and what it surely keeps: `top_p` with a positive and a negative slack, by one sorting.

    Args:
        scores_BV: scores.
        p: probability, above 0; 1 keeps all.
        slack: nats that the scores may be off by, positive.
        doubt_B1: probability of tokens that may not be there, relative to those that surely are.
    """
    if p >= 1:
        return scores_BV, scores_BV
    log_total_B1 = scores_BV.logsumexp(dim=1, keepdim=True)
    # If every score moves by at most `slack`, no sum of probabilities moves by more than slack / 2 (to first order).
    off_B1 = slack + doubt_B1 + torch.zeros_like(log_total_B1)
    possible_B1, sure_B1 = _top_p_cutoffs(
        scores_BV, log_total_B1, [p + off_B1, p - off_B1], gaps=[2 * slack, -2 * slack]
    )
    return _keep_from(scores_BV, possible_B1), _keep_from(scores_BV, sure_B1)


def _top_p_cutoffs(
    scores_BV: Tensor, log_total_B1: Tensor, limits_B1: Sequence[Tensor], *, gaps: Sequence[float], step: int = 0
) -> list[Tensor]:
    """The least score to keep, for each limit. The whole vocabulary is sorted only for rows that need it."""
    V = scores_BV.size(1)
    size = min(_HEADS[step], V) if step < len(_HEADS) else V
    greatest_BK = scores_BV.topk(size).values
    p_BK = (greatest_BK - log_total_B1).exp()
    before_BK = p_BK.cumsum(dim=1) - p_BK
    kept_B1 = [(before_BK < limit_B1).sum(dim=1, keepdim=True).clamp(min=1) for limit_B1 in limits_B1]
    cutoffs_B1 = [_cutoff(greatest_BK, num_B1, gap=gap) for num_B1, gap in zip(kept_B1, gaps, strict=True)]
    short_B = torch.stack(kept_B1).amax(dim=0).squeeze(1) == size
    if size < V and short_B.any():
        longer = _top_p_cutoffs(
            scores_BV[short_B],
            log_total_B1[short_B],
            [limit_B1[short_B] for limit_B1 in limits_B1],
            gaps=gaps,
            step=step + 1,
        )
        for cutoff_B1, longer_B1 in zip(cutoffs_B1, longer, strict=True):
            cutoff_B1[short_B] = longer_B1
    return cutoffs_B1


def min_p(scores_BV: Tensor, share: float, *, slack: float = 0.0) -> Tensor:
    """Keep the tokens at least `share` times as probable as the most probable one.

    Source: Nguyen et al. 2024, "Turning Up the Heat: Min-p Sampling", section 3.
    """
    if share <= 0:
        return scores_BV
    greatest_B1 = scores_BV.amax(dim=1, keepdim=True)
    cutoff_B1 = greatest_B1 + torch.tensor(share).log().to(scores_BV.device) - 2 * slack
    return _keep_from(scores_BV, cutoff_B1.minimum(greatest_B1))


def typical(scores_BV: Tensor, mass: float, *, slack: float = 0.0) -> Tensor:
    """Keep the tokens whose surprise is nearest to the expected one, until they hold `mass` of the probability.

    Sorted by |-log p - H|, with H the entropy of the distribution.

    Source: Meister et al. 2022, "Locally Typical Sampling", section 4.
    """
    if mass >= 1:
        return scores_BV
    log_p_BV = scores_BV.log_softmax(dim=1)
    entropy_B1 = -(log_p_BV.exp() * log_p_BV).nansum(dim=1, keepdim=True)
    distance_BV = (-log_p_BV - entropy_B1).abs()
    nearest_BV, order_BV = distance_BV.sort(dim=1)
    p_BV = log_p_BV.gather(1, order_BV).exp()
    until_BV = p_BV.cumsum(dim=1)
    if not slack:
        num_kept_B1 = (until_BV - p_BV < mass).sum(dim=1, keepdim=True).clamp(min=1)
        return scores_BV.masked_fill(distance_BV > nearest_BV.gather(1, num_kept_B1 - 1), -torch.inf)
    # log p moves by at most 2 slack, and H by slack · E|log p + H|: two distances come nearer by at most `gap` (with a
    # tenth for the second order). What lies before a token is then at least what is nearer by more than that, and at
    # most what is not farther by more.
    spread_B1 = (p_BV * nearest_BV).nansum(dim=1, keepdim=True)
    gap_B1 = 2.2 * slack * (2 + spread_B1)
    place_BV = torch.searchsorted(nearest_BV, nearest_BV - gap_B1)
    if slack > 0:
        before_BV = torch.nn.functional.pad(until_BV, (1, 0)).gather(1, place_BV)
    else:
        before_BV = until_BV.gather(1, place_BV - 1) - p_BV
    is_kept_BV = torch.zeros_like(scores_BV, dtype=torch.bool).scatter(1, order_BV, before_BV < mass + slack)
    return scores_BV.masked_fill(~is_kept_BV, -torch.inf)


def _cutoff(sorted_BK: Tensor, num_kept_B1: Tensor, *, gap: float) -> Tensor:
    """The least score to keep, when the first `num_kept` of descending ones are and two may come nearer by `gap`.

    With a negative gap, a score is surely kept if it lies by that much above the first one that may not be.
    """
    if gap >= 0:
        return sorted_BK.gather(1, num_kept_B1 - 1) - gap
    first_dropped_B1 = sorted_BK.gather(1, num_kept_B1.clamp(max=sorted_BK.size(1) - 1)) - gap
    return torch.where(num_kept_B1 < sorted_BK.size(1), first_dropped_B1, sorted_BK[:, -1:])


def _keep_from(scores_BV: Tensor, cutoff_B1: Tensor) -> Tensor:
    return scores_BV.masked_fill(scores_BV < cutoff_B1, -torch.inf)


@dataclass(frozen=True)
class Cutoffs(CutoffRules):
    """The rules, applied to tensors."""

    def apply(self, scores_BV: Tensor) -> Tensor:
        """Scores divided by the temperature, -inf where they are cut off."""
        scores_BV = self._heated(scores_BV)
        kept_BV = top_k(typical(scores_BV, self.typical_p), self.top_k or scores_BV.size(1))
        kept_BV = top_p(kept_BV, self.top_p)
        probable_BV = kept_BV.minimum(min_p(scores_BV, self.min_p))
        # Typical may have taken away all that min-p would leave; then the most probable of its tokens stays.
        is_empty_B1 = (probable_BV == -torch.inf).all(dim=1, keepdim=True)
        return torch.where(is_empty_B1, top_k(kept_BV, 1), probable_BV)

    def _heated(self, scores_BV: Tensor) -> Tensor:
        """Divided by the temperature, the greatest first made 0, or the smallest temperatures would give infinities."""
        return (scores_BV - scores_BV.amax(dim=1, keepdim=True)) / self.temperature

    def bounds(self, scores_BV: Tensor, *, slack: float) -> tuple[Tensor, Tensor, Tensor]:
        """What `apply` could give if the scores were off by up to `slack` nats.

        Returns:
            possible_BV: scores, -inf where they are cut off whatever happens.
            sure_BV: the same, -inf where they might be cut off.
            is_unclear_B: rows of which nothing can be said.
        """
        scores_BV, slack = self._heated(scores_BV), slack / self.temperature
        k = self.top_k or scores_BV.size(1)
        possible_BV = typical(scores_BV, self.typical_p, slack=slack)
        sure_BV = typical(scores_BV, self.typical_p, slack=-slack)
        is_unclear_B = torch.zeros_like(scores_BV[:, 0], dtype=torch.bool)
        if self.typical_p < 1 and (self.top_k or self.top_p < 1):
            # Typical may take away the most probable tokens, and with them what the others are measured against.
            is_unclear_B = ((possible_BV > -torch.inf) != (sure_BV > -torch.inf)).any(dim=1)
        sure_BV = sure_BV.minimum(top_k(possible_BV, k, slack=-slack))
        possible_BV = top_k(possible_BV, k, slack=slack)
        doubt_B1: Tensor | float = 0.0
        if self.top_k:
            log_possible_B1, log_sure_B1 = (x_BV.logsumexp(dim=1, keepdim=True) for x_BV in (possible_BV, sure_BV))
            doubt_B1 = (log_possible_B1 - log_sure_B1).expm1()
        possible_BV, nucleus_BV = top_p_bounds(possible_BV, self.top_p, slack=slack, doubt_B1=doubt_B1)
        sure_BV = sure_BV.minimum(nucleus_BV).minimum(min_p(scores_BV, self.min_p, slack=-slack))
        possible_BV = possible_BV.minimum(min_p(scores_BV, self.min_p, slack=slack))
        # Where nothing is sure, all may be cut off, and then the most probable that typical leaves stays (see apply).
        is_unclear_B |= (sure_BV == -torch.inf).all(dim=1)
        return possible_BV, sure_BV, is_unclear_B


@dataclass(frozen=True)
class Choice:
    """The tokens chosen, and whether rounding of the scores might have made it another one."""

    ids_B: Tensor
    is_close_B: Tensor


def choose(scores_BV: Tensor, cutoffs: Cutoffs | None, *, keys: Sequence[int], slack: float = 0.0) -> Choice:
    """Choose one token a row.

    Args:
        scores_BV: scores after penalties.
        cutoffs: how to draw; None takes the greatest score.
        keys: what the draw of each row is a function of.
        slack: nats that scores may be off by; with 0, no choice counts as close.
    """
    if cutoffs is None:
        greatest_B1, ids_B1 = scores_BV.max(dim=1, keepdim=True)
        is_close_B = (scores_BV >= greatest_B1 - 2 * slack).sum(dim=1) > 1
        return Choice(ids_B1.squeeze(1), is_close_B if slack else torch.zeros_like(is_close_B))
    if not slack:
        ids_B = _with_noise(cutoffs.apply(scores_BV), keys).argmax(dim=1)
        return Choice(ids_B, torch.zeros_like(ids_B, dtype=torch.bool))
    possible_BV, sure_BV, is_close_B = cutoffs.bounds(scores_BV, slack=slack)
    noisy_BV = _with_noise(possible_BV, keys)
    greatest_B1, ids_B1 = noisy_BV.max(dim=1, keepdim=True)
    is_close_B |= (noisy_BV >= greatest_B1 - 2 * slack / cutoffs.temperature).sum(dim=1) > 1
    is_close_B |= sure_BV.gather(1, ids_B1).squeeze(1) == -torch.inf
    return Choice(ids_B1.squeeze(1), is_close_B)


def _with_noise(scores_BV: Tensor, keys: Sequence[int]) -> Tensor:
    rows_N, ids_N = torch.nonzero(scores_BV > -torch.inf, as_tuple=True)
    keys_B = torch.tensor(list(keys), dtype=torch.int64, device=scores_BV.device)
    noise_N = gumbel_noise(keys_B[rows_N], ids_N)
    noisy_BV = torch.full_like(scores_BV, -torch.inf)
    noisy_BV[rows_N, ids_N] = scores_BV[rows_N, ids_N] + noise_N
    return noisy_BV


def gumbel_noise(keys_N: Tensor, ids_N: Tensor) -> Tensor:
    """-log(-log u) with u uniform in (0, 1), a pure function of key and id: the finaliser of SplitMix64 over both.

    Source: Steele, Lea & Flood 2014, "Fast Splittable Pseudorandom Number Generators", section 3.

    Args:
        keys_N: int64 keys.
        ids_N: int64 token ids.

    Returns:
        noise_N, float32.
    """
    bits_N = keys_N + (ids_N + 1) * _GOLDEN  # int64 wraps around as 64-bit arithmetic should
    bits_N = (bits_N ^ _shifted_right(bits_N, 30)) * _MIX_1
    bits_N = (bits_N ^ _shifted_right(bits_N, 27)) * _MIX_2
    bits_N = bits_N ^ _shifted_right(bits_N, 31)
    # One bit fewer than the type holds, or u would round to 1 and the noise be infinite. MPS has no float64.
    exact = torch.float32 if bits_N.device.type == "mps" else torch.float64
    bits = 23 if exact == torch.float32 else 52
    uniform_N = (_shifted_right(bits_N, 64 - bits).to(exact) + 0.5) / (1 << bits)
    return -(-uniform_N.log()).log().float()


def _shifted_right(bits_N: Tensor, places: int) -> Tensor:
    """A logical shift; torch's own keeps the sign."""
    return (bits_N >> places) & ((1 << (64 - places)) - 1)
