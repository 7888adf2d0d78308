"""Greedy search and sampling, for a batch of texts.

What a text depends on. In fp32, a text written by greedy search or sampling is a function of the model, its prompt, its
settings and its seed, and not of what else is in the batch. Scores of the same row differ from batch to batch by
rounding, but any choice that this could sway (`sampling.choose` tells which, for differences of up to `SLACK_NATS`) is
made from scores that are computed from the row alone, without batch, padding or cache. So either no batch could have
chosen otherwise, or all choose by the same numbers. That costs one extra pass for about one token in a thousand.

Shapes: B rows, D model width, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2kit.errors import ModelError
from gpt2kit.generation.reader import Reader
from gpt2kit.generation.rules import PenaltyRules
from gpt2kit.generation.sampling import (
    Choice,
    Cutoffs,
    choose,
    count_penalties,
    forbid,
    forbid_repeated_ngrams,
    repetition_penalty,
)
from gpt2kit.generation.writing import Writing
from gpt2kit.model import GPT2
from gpt2kit.runtime import derive_seed

# The greatest differences seen between batches are 5e-6 for random weights of the 124M shape; trained weights, whose
# scores are ten times as large, have ten times that.
SLACK_NATS = 5e-4
# Rows are left out of the cache, which copies it, when this share of them has ended.
_SHARE_ENDED = 0.125
SCORES_BROKEN = (
    "the model's scores are not numbers (NaN or infinite): its weights are damaged, or the precision is too narrow for "
    "them; try --precision fp32"
)


@dataclass(frozen=True, kw_only=True)
class Penalties(PenaltyRules):
    """The rules, applied to tensors."""

    def apply(self, scores_BV: Tensor, prompts: Sequence[Sequence[int]], texts: Sequence[Sequence[int]]) -> Tensor:
        """Change the scores, given the tokens of each row's prompt and of its text so far.

        Where everything is forbidden, the text has to end: end-of-text gets the only score.
        """
        if self.repetition != 1.0:
            seen_BV = _counts(scores_BV, prompts, texts) > 0
            scores_BV = repetition_penalty(scores_BV, seen_BV, penalty=self.repetition)
        if self.frequency or self.presence:
            counts_BV = _counts(scores_BV, texts)
            scores_BV = count_penalties(scores_BV, counts_BV, frequency=self.frequency, presence=self.presence)
        if self.no_repeat_ngram_size:
            histories = [[*prompt, *text] for prompt, text in zip(prompts, texts, strict=True)]
            scores_BV = forbid_repeated_ngrams(scores_BV, histories, size=self.no_repeat_ngram_size)
        if self.forbidden:
            scores_BV = forbid(scores_BV, self.forbidden)
        if early := [row for row, text in enumerate(texts) if len(text) < self.min_new_tokens]:
            scores_BV = scores_BV.clone()
            scores_BV[early, self.end_of_text] = -torch.inf
        if self.no_repeat_ngram_size:
            is_empty_B = scores_BV.amax(dim=1) == -torch.inf
            scores_BV = scores_BV.clone()
            scores_BV[is_empty_B, self.end_of_text] = 0.0
        return scores_BV

    @property
    def slack_factor(self) -> float:
        """By how much the penalties can enlarge a difference between scores."""
        return max(self.repetition, 1 / self.repetition)


def _counts(scores_BV: Tensor, *texts: Sequence[Sequence[int]]) -> Tensor:
    """How often each row holds each token."""
    counts_BV = torch.zeros(scores_BV.shape, dtype=torch.int32, device=scores_BV.device)
    for row, parts in enumerate(zip(*texts, strict=True)):
        ids_N = torch.tensor([identifier for part in parts for identifier in part], dtype=torch.int64)
        counts_BV[row] = torch.bincount(ids_N, minlength=scores_BV.size(1)).to(counts_BV)
    return counts_BV


def next_logits(model: GPT2, hidden_BD: Tensor) -> Tensor:
    """The scores [B, V] of what comes behind some hidden states.

    Raises:
        ModelError: they are not numbers.
    """
    logits_BV = model.logits(hidden_BD)
    if not torch.isfinite(logits_BV.sum()):
        raise ModelError(SCORES_BROKEN)
    return logits_BV


@torch.inference_mode()
def decode(
    model: GPT2, writings: Sequence[Writing], *, penalties: Penalties, cutoffs: Cutoffs | None, keep: float
) -> Iterator[tuple[Writing, str]]:
    """Write texts, one token of each at a time.

    Args:
        model: the network, in eval mode.
        writings: the texts, not begun.
        penalties: what is done to the scores.
        cutoffs: how to draw; None for greedy search.
        keep: share of the context that stays when it is full.

    Yields:
        Each text with its new characters, for each token; it is finished when its `finish_reason` is set.
    """
    rows = list(writings)  # of the reader's cache, also those that have ended but are still in there
    reader = Reader(
        model,
        [writing.job.prompt_ids for writing in rows],
        max_new_tokens=max(writing.max_new_tokens for writing in rows),
        keep=keep,
    )
    chooser = _Chooser(model, penalties, cutoffs)
    while True:
        ids, logprobs = chooser.next_tokens(reader, rows)
        for writing, identifier, logprob in zip(rows, ids, logprobs, strict=True):
            if writing.finish_reason is None:
                yield writing, writing.push(identifier, logprob)
        going_on = [row for row, writing in enumerate(rows) if writing.finish_reason is None]
        if not going_on:
            return
        if len(rows) - len(going_on) >= max(_SHARE_ENDED * len(rows), 1):
            reader.select(going_on)
            rows = [rows[row] for row in going_on]
            ids = [ids[row] for row in going_on]
        reader.step(ids)


@dataclass(frozen=True)
class _Chooser:
    model: GPT2
    penalties: Penalties
    cutoffs: Cutoffs | None

    def next_tokens(self, reader: Reader, rows: Sequence[Writing]) -> tuple[list[int], list[float]]:
        """Each row's next token and its log-probability in the model's own distribution."""
        logits_BV = next_logits(self.model, reader.hidden_BD)
        is_exact = self.model.transformer.wte.weight.dtype == torch.float32
        slack = SLACK_NATS * self.penalties.slack_factor if is_exact else 0.0
        choice = self._choose(logits_BV, rows, slack=slack)
        ids_B = choice.ids_B
        for row in torch.nonzero(choice.is_close_B).flatten().tolist():
            if rows[row].finish_reason is None:
                alone_1V = next_logits(self.model, reader.read_alone(row))
                ids_B[row] = self._choose(alone_1V, [rows[row]], slack=0.0).ids_B[0]
        logprobs_B = logits_BV.gather(1, ids_B[:, None]).squeeze(1) - logits_BV.logsumexp(dim=1)
        return ids_B.tolist(), logprobs_B.tolist()

    def _choose(self, logits_BV: Tensor, rows: Sequence[Writing], *, slack: float) -> Choice:
        scores_BV = self.penalties.apply(
            logits_BV, [writing.job.prompt_ids for writing in rows], [writing.ids for writing in rows]
        )
        keys = [derive_seed(writing.job.key, len(writing.ids)) for writing in rows] if self.cutoffs else []
        return choose(scores_BV, self.cutoffs, keys=keys, slack=slack)
