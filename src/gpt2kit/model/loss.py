"""Cross-entropy of the tied head without the logits of the whole batch.

For N tokens and a vocabulary of V, the logits alone would take 4NV bytes (412 MB for 2,048 tokens of GPT-2), and their
gradient as much again. Here a chunk of C tokens is in memory at a time, and the gradients are made in the forward pass
while the chunk's probabilities are at hand:

    nats = Σ logsumexp(h Wᵀ) - (h Wᵀ)[target]      d nats / d(h Wᵀ) = softmax(h Wᵀ) - onehot(target) = E
    d nats / dh = E W                              d nats / dW = Eᵀ h

On an NVIDIA GPU a kernel turns scores into errors in place, and the vocabulary is filled up to a multiple of 64, since
products whose rows do not begin at such places take several times as long (GPT-2's has 50,257 entries).

Shapes: N tokens, C tokens of a chunk, D width, V vocabulary, P vocabulary filled up, S a slice of it.
"""

import math
from typing import Any

import torch
from torch import Tensor

from gpt2kit.model import kernels
from gpt2kit.model.operations import TorchOperations
from gpt2kit.model.products import GradientMemory, by_onednn, product, weight_gradient

IGNORED_TARGET = kernels.IGNORED_TARGET
CHUNK_TOKENS = 512  # at most
GPU_CHUNK_TOKENS, _GPU_MEASURED_TOKENS = 16_384, 2048  # in training; and where nothing is kept for a backward pass
_MULTIPLE = 64
SLICE_TOKENS = 6_400  # of the vocabulary, in the gradient of the head's weight
SCORED_TOKENS = 1_024  # the same, in the scores: a tenth quicker than all at once


def chunked_cross_entropy(
    hidden_BTD: Tensor,
    weight_VD: Tensor,
    target_ids_BT: Tensor,
    *,
    gradient_scale: float | None = None,
    memory: GradientMemory | None = None,
    places_N: Tensor | None = None,
) -> Tensor:
    """The sum of nats over all targets that are not -100.

    Args:
        hidden_BTD: hidden states.
        weight_VD: the head's weight.
        target_ids_BT: target ids, -100 where there is no target.
        gradient_scale: what the sum will be multiplied by before its backward pass. When it is given, the weight's
            gradient is added into `weight_VD.grad` here and now, which saves holding it a second time.
        memory: where that gradient is made; needed with `gradient_scale`.
        places_N: flat positions among which all targets are that count; an NVIDIA GPU spares itself the others.

    Returns:
        A float32 scalar, differentiable in the hidden states and the weight.
    """
    hidden_ND, targets_N, _ = _with_targets(hidden_BTD, target_ids_BT, places_N)
    nats: Tensor = _ChunkedCrossEntropy.apply(hidden_ND, weight_VD, targets_N, gradient_scale, memory)  # type: ignore[no-untyped-call]
    return nats


def _chunk_tokens(num_targets: int) -> int:
    """How many targets are in a chunk on a CPU, as many in each."""
    return math.ceil(num_targets / max(math.ceil(num_targets / CHUNK_TOKENS), 1)) or 1


def perplexity(nats_per_token: float) -> float:
    """exp(nats per token); infinity where that overflows."""
    try:
        return math.exp(nats_per_token)
    except OverflowError:
        return math.inf


@torch.no_grad()
def chunked_token_losses(
    hidden_BTD: Tensor, weight_VD: Tensor, target_ids_BT: Tensor, *, places_N: Tensor | None = None
) -> Tensor:
    """Nats of each target as [B, T] float32, 0 where the target is -100. See `chunked_cross_entropy`."""
    hidden_ND, targets_N, places_N = _with_targets(hidden_BTD, target_ids_BT, places_N)
    nats_BT = torch.zeros(target_ids_BT.numel(), device=hidden_BTD.device)
    if kernels.available(hidden_ND):
        h_ND = hidden_ND.to(_compute_dtype(hidden_ND))
        nats_BT[places_N] = _nats_on_gpu(h_ND, weight_VD, targets_N, chunk_tokens=_GPU_MEASURED_TOKENS)
        return nats_BT.view(target_ids_BT.shape)
    size = _chunk_tokens(targets_N.numel())
    for start in range(0, targets_N.numel(), size):
        chunk = slice(start, start + size)
        if by_onednn(hidden_ND):
            logits_CV = product(hidden_ND[chunk], weight_VD)
        else:
            logits_CV = (hidden_ND[chunk] @ weight_VD.to(hidden_ND.dtype).T).float()
        nats_C = torch.nn.functional.cross_entropy(logits_CV, targets_N[chunk], reduction="none")
        nats_BT[places_N[chunk]] = nats_C
    return nats_BT.view(target_ids_BT.shape)


def _with_targets(
    hidden_BTD: Tensor, target_ids_BT: Tensor, places_N: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The hidden states that have a target, their targets, and their flat positions.

    A GPU would have to be waited for to find them: there it is all that are given, whether they have one or not.
    """
    hidden_ND = hidden_BTD.reshape(-1, hidden_BTD.size(-1))
    targets_N = target_ids_BT.reshape(-1)
    if not kernels.available(hidden_ND):
        places_N = torch.nonzero(targets_N != IGNORED_TARGET).squeeze(1)
    elif places_N is None:  # the kernel leaves out what does not count
        places_N = torch.arange(targets_N.numel(), device=targets_N.device)
    if places_N.numel() == targets_N.numel():
        return hidden_ND, targets_N, places_N
    return hidden_ND.index_select(0, places_N), targets_N[places_N], places_N


def _compute_dtype(hidden_ND: Tensor) -> torch.dtype:
    device_type = hidden_ND.device.type
    dtype = torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else hidden_ND.dtype
    # softmax - onehot goes down to 1e-9, below fp16's range; its gradient is made in fp32 instead.
    return torch.float32 if dtype == torch.float16 else dtype


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        weight_VD: Tensor,
        targets_N: Tensor,
        gradient_scale: float | None,
        memory: GradientMemory | None,
    ) -> Tensor:
        dtype = _compute_dtype(hidden_ND)
        need_hidden, need_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        with torch.autocast(hidden_ND.device.type, enabled=False):
            h_ND = hidden_ND.to(dtype)
            grad_hidden_ND = torch.empty_like(h_ND) if need_hidden else None
            grad_weight_VD, scale = None, 1.0 if gradient_scale is None else gradient_scale
            if need_weight and gradient_scale is None:
                grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32)
            elif need_weight:
                assert memory is not None
                grad_weight_VD = memory.of(weight_VD)
            if kernels.available(h_ND):
                nats = _nats_on_gpu(
                    h_ND,
                    weight_VD,
                    targets_N,
                    grad_hidden_ND=grad_hidden_ND,
                    grad_weight_VD=grad_weight_VD,
                    scale=scale,
                ).sum()
            else:
                nats = _in_chunks(
                    h_ND, weight_VD.to(dtype), targets_N, grad_hidden_ND, grad_weight_VD, scale=scale, memory=memory
                )
        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD if gradient_scale is None else None)
        ctx.dtypes = (hidden_ND.dtype, weight_VD.dtype)
        return nats

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        (grad_nats,) = grad_outputs
        grad_hidden_ND, grad_weight_VD = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        # In fp16 the loss scaler's factor arrives with grad_nats: multiply before rounding down.
        if grad_hidden_ND is not None:
            # And never round the factor itself to bf16: it would be off by up to 0.4%, here and not in the weight's.
            grad_hidden_ND = grad_hidden_ND.float().mul_(grad_nats).to(hidden_dtype)
        if grad_weight_VD is not None:
            grad_weight_VD = grad_weight_VD.mul_(grad_nats).to(weight_dtype)
        return grad_hidden_ND, grad_weight_VD, None, None, None


def _in_chunks(
    h_ND: Tensor,
    w_VD: Tensor,
    targets_N: Tensor,
    grad_hidden_ND: Tensor | None,
    grad_weight_VD: Tensor | None,
    *,
    scale: float,
    memory: GradientMemory | None,
) -> Tensor:
    """The sum of nats; the gradients, where they are wanted, are written (hidden) and added to (weight)."""
    N, V = targets_N.numel(), w_VD.size(0)
    is_float32, onednn = h_ND.dtype == torch.float32, by_onednn(h_ND)
    nats = torch.zeros((), device=h_ND.device)
    # Two buffers for every chunk: fresh pages for 100 MB cost as much as the product itself.
    size = _chunk_tokens(N)
    arena = memory.arena if memory is not None and h_ND.device.type == "cpu" and not onednn else None
    # Rows that begin at a cache line: products with 50,257 scores of GPT-2's in a row take a tenth longer.
    P, scored = (math.ceil(V / _MULTIPLE) * _MULTIPLE, SCORED_TOKENS) if h_ND.device.type == "cpu" else (V, V)
    buffer_CP = h_ND.new_empty(0 if onednn else size, P) if arena is None else arena.take((size, P), h_ND.dtype)
    logits_buffer_CV = buffer_CP[:, :V]
    scores_buffer_CV = logits_buffer_CV if is_float32 else logits_buffer_CV.float()
    operations = TorchOperations() if memory is None else memory.operations
    for start in range(0, N, size):
        chunk = slice(start, min(start + size, N))
        if onednn:
            scores_CV = product(h_ND[chunk], w_VD)
        else:
            logits_CV = logits_buffer_CV[: chunk.stop - start]
            for first in range(0, V, scored):
                part = slice(first, first + scored)
                operations.multiply(h_ND[chunk], w_VD[part].T, logits_CV[:, part])
            scores_CV = scores_buffer_CV[: chunk.stop - start]
            if not is_float32:
                scores_CV.copy_(logits_CV)
        nats += operations.cross_entropy_(scores_CV, targets_N[chunk])
        if grad_hidden_ND is None and grad_weight_VD is None:
            continue
        error_CV = scores_CV
        if not is_float32:
            error_CV = logits_CV.copy_(error_CV)
        if grad_hidden_ND is not None and onednn:
            grad_hidden_ND[chunk] = product(error_CV, w_VD.T)
        elif grad_hidden_ND is not None:
            operations.multiply(error_CV, w_VD, grad_hidden_ND[chunk])
        if grad_weight_VD is not None and onednn:
            _add_weight_gradient(grad_weight_VD, error_CV, h_ND[chunk], scale)
        elif grad_weight_VD is not None and is_float32:
            operations.multiply(error_CV.T, h_ND[chunk], grad_weight_VD, scale=scale)
        elif grad_weight_VD is not None:
            grad_weight_VD.add_(error_CV.T @ h_ND[chunk], alpha=scale)
    if arena is not None:
        arena.give(buffer_CP)
    return nats


def _nats_on_gpu(
    h_ND: Tensor,
    weight_VD: Tensor,
    targets_N: Tensor,
    *,
    grad_hidden_ND: Tensor | None = None,
    grad_weight_VD: Tensor | None = None,
    scale: float = 1.0,
    chunk_tokens: int = GPU_CHUNK_TOKENS,
) -> Tensor:
    """Nats of each target; the gradients of their sum as `_in_chunks` makes them, by a kernel."""
    w_PD, V = _filled_up(weight_VD, h_ND.dtype), weight_VD.size(0)
    with_gradient = grad_hidden_ND is not None or grad_weight_VD is not None
    nats_N = torch.empty(targets_N.numel(), device=h_ND.device)
    for start in range(0, targets_N.numel(), chunk_tokens):
        chunk = slice(start, start + chunk_tokens)
        scores_CP = h_ND[chunk] @ w_PD.T
        nats_N[chunk] = kernels.cross_entropy_(scores_CP, targets_N[chunk], vocabulary=V, with_gradient=with_gradient)
        if grad_hidden_ND is not None:
            torch.mm(scores_CP, w_PD, out=grad_hidden_ND[chunk])
        if grad_weight_VD is not None:
            grad_weight_VD.add_((scores_CP.T @ h_ND[chunk])[:V], alpha=scale)
    return nats_N


def _filled_up(weight_VD: Tensor, dtype: torch.dtype) -> Tensor:
    """The head's weight in a type, with rows of zeros up to a multiple of 64."""
    V, D = weight_VD.shape
    filled_PD = weight_VD.new_empty(-(-V // _MULTIPLE) * _MULTIPLE, D, dtype=dtype)
    filled_PD[:V] = weight_VD
    filled_PD[V:] = 0
    return filled_PD


def _add_weight_gradient(total_VD: Tensor, error_CV: Tensor, hidden_CD: Tensor, scale: float) -> None:
    """`total += scale · Eᵀ h` by oneDNN, a slice of the vocabulary at a time, since each makes copies."""
    for start in range(0, total_VD.size(0), SLICE_TOKENS):
        part = slice(start, start + SLICE_TOKENS)
        total_VD[part].add_(weight_gradient(error_CV[:, part].contiguous(), hidden_CD), alpha=scale)
