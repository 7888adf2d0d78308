"""How probable a model finds a continuation of a context, for many at once.

A context and its continuation are cut into tokens as lm-eval does: white space at the context's end goes to the
continuation, both are encoded as one text, and what lies behind the context's own tokens is the continuation. An empty
context is an end-of-text.

Contexts that several continuations share (the choices of a question) are read once, and those of one length together;
the keys and values of a context then serve all its continuations. A continuation of one token costs nothing more.

Where a context and its continuation are more tokens than a model can look back on, the context's beginning is not read,
as in lm-eval. At a continuation that alone is more, lm-eval ends with an error: here it is read in pieces, the windows
that lm-eval reads a long text in (`loglikelihood_rolling`), with the context's last token where a text would have its
end-of-text. Up to the longest continuation that lm-eval scores, the figures are its own.

Legend of the shapes: G contexts of one length, C their tokens; R continuations, T their tokens at most.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gpt2kit.console import Progress, warn
from gpt2kit.model import GPT2
from gpt2kit.model.cache import KVCache
from gpt2kit.tokens import Tokenizer

Pair = tuple[Sequence[int], Sequence[int]]  # token ids of a context and of its continuation

_LOGITS_AT_ONCE = 512  # places; 100 MB of GPT-2's vocabulary


@dataclass(frozen=True, slots=True)
class Scored:
    """What a model makes of a continuation.

    Attributes:
        nats: minus its log-probability.
        is_greedy: whether each of its tokens is the likeliest at its place, so that greedy search would write it.
    """

    nats: float
    is_greedy: bool


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """A context and its continuation as token ids; the continuation has at least one of them if it has any text."""
    if not context:
        return [tokenizer.end_of_text], tokenizer.encode(continuation, allow_special=True)
    bare = context.rstrip()
    if not bare:
        return [tokenizer.end_of_text], tokenizer.encode(context + continuation, allow_special=True)
    context_ids = tokenizer.encode(bare, allow_special=True)
    whole = tokenizer.encode(bare + context[len(bare) :] + continuation, allow_special=True)
    return context_ids, whole[len(context_ids) :]


@torch.inference_mode()
def score(model: GPT2, pairs: Sequence[Pair], *, batch_size: int = 16, what: str = "scoring") -> list[Scored]:
    """Score continuations.

    Args:
        model: in eval mode.
        pairs: token ids of a context (one at least) and of its continuation. Of those that are more than the model
            can look back on the beginning is not read, and a warning says how many they are.
        batch_size: contexts, or continuations, computed at a time.
        what: what the progress bar says.

    Returns:
        One for each pair, in their order; a continuation without tokens has 0 nats.
    """
    limit = model.config.n_positions
    if num_cut := sum(len(context) + len(continuation) > limit + 1 for context, continuation in pairs):
        warn(
            f"{what}: {num_cut:,} of {len(pairs):,} texts are longer than the {limit:,} tokens that the model can look "
            "back on: their beginnings are not read"
        )
    owners, pieces = [], list[Pair]()
    for number, (context, continuation) in enumerate(pairs):
        own = _pieces(context, continuation, limit=limit)
        owners += [number] * len(own)
        pieces += own
    scored: list[list[Scored]] = [[] for _ in pairs]
    for number, of_piece in zip(owners, _score_pieces(model, pieces, batch_size=batch_size, what=what), strict=True):
        scored[number].append(of_piece)
    return [Scored(math.fsum(each.nats for each in own), all(each.is_greedy for each in own)) for own in scored]


def _pieces(context: Sequence[int], continuation: Sequence[int], *, limit: int) -> list[Pair]:
    """A continuation in pieces that the model can read, each behind as much as it can then look back on: mostly one."""
    whole = [*context, *continuation]
    pieces = list[Pair]()
    for start in range(len(context), len(whole), limit):
        piece = whole[start : start + limit]
        pieces.append((whole[max(start - (limit + 1 - len(piece)), 0) : start], piece))
    return pieces


def _score_pieces(model: GPT2, pairs: Sequence[Pair], *, batch_size: int, what: str) -> list[Scored]:
    """Score pairs, each of which fits into the model's context."""
    results = [Scored(0.0, True)] * len(pairs)
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, (context, _) in enumerate(pairs):
        groups[tuple(context)].append(number)
    by_length: dict[int, list[tuple[int, ...]]] = defaultdict(list)
    for context_ids in groups:
        by_length[len(context_ids)].append(context_ids)
    with Progress(what, total=len(pairs), unit=" texts") as progress:
        for length in sorted(by_length, reverse=True):  # what does not fit in memory fails at once
            contexts = by_length[length]
            for start in range(0, len(contexts), batch_size):
                chosen = contexts[start : start + batch_size]
                rows = [(row, number) for row, each in enumerate(chosen) for number in groups[each]]
                _score_group(model, chosen, rows, pairs, results, batch_size=batch_size)
                progress.advance(len(rows))
    return results


def _score_group(
    model: GPT2,
    contexts: Sequence[Sequence[int]],
    rows: Sequence[tuple[int, int]],
    pairs: Sequence[Pair],
    results: list[Scored],
    *,
    batch_size: int,
) -> None:
    """Read contexts of one length, then their continuations; `rows` are (place of the context, number of the pair)."""
    longest = max(len(pairs[number][1]) for _, number in rows)
    cache = None
    if longest > 1:
        cache = KVCache(
            model.config,
            batch_size=len(contexts),
            max_length=len(contexts[0]) + longest - 1,
            device=model.device,
            dtype=model.transformer.wte.weight.dtype,
        )
    hidden_GCD = model(torch.tensor(contexts, device=model.device), cache=cache)
    for start in range(0, len(rows), batch_size):
        part = rows[start : start + batch_size]
        here_R = torch.tensor([row for row, _ in part], device=model.device)
        continuations = [pairs[number][1] for _, number in part]
        T = max(map(len, continuations))
        # Behind a shorter one anything may stand: causal attention does not look there.
        ids_RT = torch.tensor([[*each, *[0] * (T - len(each))] for each in continuations], device=model.device)
        hidden_RTD = hidden_GCD[here_R, -1:]
        if T > 1 and cache is not None:
            of_part = copy.copy(cache)
            of_part.select(here_R)
            hidden_RTD = torch.cat([hidden_RTD, model(ids_RT[:, :-1], cache=of_part)], dim=1)
        mask_RT = torch.arange(T, device=model.device)[None] < torch.tensor(
            [[len(each)] for each in continuations], device=model.device
        )
        nats_N, is_best_N = _nats_and_best(model, hidden_RTD[mask_RT], ids_RT[mask_RT])
        ends = np.cumsum([len(each) for each in continuations])
        for (_, number), nats, is_best in zip(
            part, np.split(nats_N, ends[:-1]), np.split(is_best_N, ends[:-1]), strict=True
        ):
            results[number] = Scored(float(nats.sum()), bool(is_best.all()))


def _nats_and_best(
    model: GPT2, hidden_ND: Tensor, ids_N: Tensor
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Nats of each token, and whether it is the likeliest at its place."""
    nats, is_best = [], []
    for start in range(0, len(ids_N), _LOGITS_AT_ONCE):
        targets_C = ids_N[start : start + _LOGITS_AT_ONCE]
        logits_CV = model.logits(hidden_ND[start : start + _LOGITS_AT_ONCE])
        nats.append(torch.nn.functional.cross_entropy(logits_CV, targets_C, reduction="none").double())
        is_best.append(logits_CV.argmax(dim=1) == targets_C)
    return torch.cat(nats).cpu().numpy(), torch.cat(is_best).cpu().numpy()
