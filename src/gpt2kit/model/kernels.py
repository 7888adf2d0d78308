"""Kernels for NVIDIA GPUs, in Triton, which comes with PyTorch's builds for them.

`available` says whether they can be used; this module can be imported anywhere, and loads Triton when it is needed.

Shapes: N tokens, V vocabulary, B rows, H heads, S columns of a cache, K width of a head.
"""

import functools
import math

import torch
from torch import Tensor

from gpt2kit.console import warn

IGNORED_TARGET = -100
_LARGEST_BLOCK = 4096  # of the vocabulary, at a time
_COLUMNS = 64  # of a cache, at a time


@functools.cache
def _run_on(index: int) -> bool:
    """Whether the kernels run on a GPU, which a small one is tried for: Triton needs a C compiler, for one."""
    if torch.version.hip is not None or torch.cuda.get_device_capability(index) < (8, 0):
        return False
    try:
        zeros_NV = torch.zeros(1, 8, device=torch.device("cuda", index))
        cross_entropy_(zeros_NV, torch.zeros(1, dtype=torch.int64, device=zeros_NV.device), vocabulary=8)
        torch.cuda.synchronize(index)
    except Exception as error:
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        warn(f"the kernels for GPUs cannot be used, which makes it slower: {reason}")
        return False
    return True


def power_of_2(number: int) -> int:
    """The least power of two that is no smaller."""
    return 1 << (number - 1).bit_length()


def available(x: Tensor) -> bool:
    """Whether the kernels run where a tensor is: an NVIDIA GPU of 2020 or later, with Triton and what that needs."""
    return x.device.type == "cuda" and _run_on(x.device.index or 0)


def cross_entropy_(logits_NV: Tensor, targets_N: Tensor, *, vocabulary: int, with_gradient: bool = True) -> Tensor:
    """Nats of each target, float32 [N]; the scores become the gradient of their sum, softmax - onehot.

    Every score is read twice and written once; the plain computation goes over them eight times, in float32.

    Args:
        logits_NV: scores, contiguous; beyond the vocabulary there may be columns of padding, whose gradient is 0.
        targets_N: ids; -100 gives 0 nats and no gradient.
        vocabulary: how many columns are scores.
        with_gradient: False leaves the scores as they are.
    """
    nats_N = torch.empty(targets_N.numel(), dtype=torch.float32, device=logits_NV.device)
    block = min(power_of_2(vocabulary), _LARGEST_BLOCK)
    from gpt2kit.model import triton_kernels

    triton_kernels.cross_entropy[(targets_N.numel(),)](
        logits_NV,
        targets_N,
        nats_N,
        logits_NV.stride(0),
        vocabulary,
        logits_NV.size(1),
        BLOCK=block,
        WITH_GRADIENT=with_gradient,
        num_warps=8 if block >= 2048 else 4,
    )
    return nats_N


def attend_to_cache(
    q_BHK: Tensor,
    k_BHK: Tensor,
    v_BHK: Tensor,
    keys_BHSK: Tensor,
    values_BHSK: Tensor,
    first_B: Tensor,
    column_1: Tensor,
    *,
    scale: float,
) -> Tensor:
    """Put a token's key and value into the cache, and attend from its query to all of its row: [B, H, K].

    Which columns are read is decided on the GPU, so that one CUDA graph serves texts of any length.

    Args:
        q_BHK: query of the new token of each row; the last dimension contiguous, as of all arguments.
        k_BHK: its key.
        v_BHK: its value.
        keys_BHSK: the cache's keys of a layer.
        values_BHSK: its values.
        first_B: the first column of each row, integers.
        column_1: the column that the new token takes, an integer; the last one that is attended to.
        scale: what products of queries and keys are multiplied by.
    """
    B, H, K = q_BHK.shape
    out_BHK = torch.empty(B, H, K, dtype=q_BHK.dtype, device=q_BHK.device)
    from gpt2kit.model import triton_kernels

    triton_kernels.attend[(B * H,)](
        q_BHK,
        k_BHK,
        v_BHK,
        keys_BHSK,
        values_BHSK,
        out_BHK,
        first_B,
        column_1,
        scale * 1.4426950408889634,  # powers of two are quicker than of e
        *q_BHK.stride()[:2],
        *k_BHK.stride()[:2],
        *v_BHK.stride()[:2],
        *keys_BHSK.stride()[:3],
        HEADS=H,
        WIDTH=K,
        PADDED_WIDTH=power_of_2(K),
        COLUMNS=_COLUMNS,
        num_warps=4,
    )
    return out_BHK


def choose_tokens(
    logits_BV: Tensor,
    bias_V: Tensor,
    keys_B: Tensor,
    ids_B: Tensor,
    told_2B: Tensor,
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
) -> None:
    """Choose each row's next token, as `generation.sampling` defines it, without leaving the GPU.

    Top-k and top-p are found by bisection: scores below the greatest one, as bits, are in the order of the numbers.

    Args:
        logits_BV: scores.
        bias_V: what is added to them first, float32: 0, or -inf for what is forbidden.
        keys_B: what the draw of each row is a function of, int64.
        ids_B: gets the tokens, int64.
        told_2B: gets the tokens and their log-probabilities in the model's own distribution, float64.
        temperature: 0 takes the greatest score.
        top_k: 0 keeps all.
        top_p: 1 keeps all.
        min_p: 0 keeps all.
    """
    B, V = logits_BV.shape
    from gpt2kit.model import triton_kernels

    triton_kernels.choose[(B,)](
        logits_BV,
        bias_V,
        keys_B,
        ids_B,
        told_2B,
        B,
        logits_BV.stride(0),
        V,
        temperature or 1.0,
        top_k,
        top_p,
        -math.log(min_p) if min_p > 0 else math.inf,
        GREEDY=temperature == 0,
        TOP_K=0 < top_k < V,
        TOP_P=top_p < 1,
        BLOCK=min(power_of_2(V), _LARGEST_BLOCK),
        num_warps=16,
    )
