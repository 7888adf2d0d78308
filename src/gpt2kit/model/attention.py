"""Attention inside the segments of packed rows, one after the other, by the kernel that takes them so.

An explicit mask says the same, but is as large as all queries times all keys, and no quick kernel takes one.

Shapes: B rows, H heads, T positions of a row, K width of a head, S segments and the end of the last.
"""

import functools

import torch
from torch import Tensor

_WIDTHS = range(8, 193, 8)  # of a head, that FlashAttention trains on all of them


@functools.cache
def _has_flash_attention(index: int) -> bool:
    return torch.backends.cuda.is_flash_attention_available() and torch.cuda.get_device_capability(index) >= (8, 0)


def takes_segments(weight: Tensor, head_width: int) -> bool:
    """Whether `attention_in_segments` runs in a model with such weights: on a GPU of 2020 or later, in bf16 or fp16."""
    if weight.device.type != "cuda" or head_width not in _WIDTHS or not _has_flash_attention(weight.device.index or 0):
        return False
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else weight.dtype
    return dtype in (torch.bfloat16, torch.float16)


def segment_starts(segment_ids_BT: Tensor) -> Tensor:
    """Where each segment begins in the flattened rows, and the length of these: int32 [S]."""
    starts_S = torch.nonzero(_begins(segment_ids_BT).flatten()).squeeze(1)
    return torch.nn.functional.pad(starts_S, (0, 1), value=segment_ids_BT.numel()).int()


def _begins(segment_ids_BT: Tensor) -> Tensor:
    """Whether a segment begins at each position: [B, T]."""
    begins_BT = torch.ones_like(segment_ids_BT, dtype=torch.bool)
    begins_BT[:, 1:] = segment_ids_BT[:, 1:] != segment_ids_BT[:, :-1]
    return begins_BT


def first_seen(segment_ids_BT: Tensor) -> Tensor:
    """The first position of its row that belongs to each position's segment: int32 [B, T]."""
    positions_T = torch.arange(segment_ids_BT.size(1), dtype=torch.int32, device=segment_ids_BT.device)
    return (positions_T * _begins(segment_ids_BT)).cummax(dim=1).values.to(torch.int32)


def seen_from(first_seen_BT: Tensor) -> Tensor:
    """The explicit mask that says the same: True where a query sees a key, [B, 1, T, T]."""
    positions_T = torch.arange(first_seen_BT.size(1), device=first_seen_BT.device)
    seen_BTT = (positions_T <= positions_T[:, None]) & (positions_T >= first_seen_BT[:, :, None])
    return seen_BTT[:, None]


def attention_in_segments(
    q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, segment_starts_S: Tensor, *, scale: float, dropout: float
) -> Tensor:
    """dropout(softmax(q kᵀ · scale)) v, each query seeing itself and the keys before it in its segment: [B, H, T, K].

    FlashAttention 2 (Dao 2023), as PyTorch has it for sequences of different lengths.

    Args:
        q_BHTK: queries, bf16 or fp16.
        k_BHTK: keys.
        v_BHTK: values.
        segment_starts_S: where segments begin in the flattened rows, and where the last one ends; int32.
        scale: what products of queries and keys are multiplied by.
        dropout: share of the probabilities that become 0.
    """
    B, _, T, _ = q_BHTK.shape
    q_NHK, k_NHK, v_NHK = (each.transpose(1, 2).flatten(0, 1) for each in (q_BHTK, k_BHTK, v_BHTK))
    out_NHK = torch.ops.aten._flash_attention_forward(
        q_NHK, k_NHK, v_NHK, segment_starts_S, segment_starts_S, T, T, dropout, True, False, scale=scale
    )[0]
    out_BTHK: Tensor = out_NHK.unflatten(0, (B, T))
    return out_BTHK.transpose(1, 2)
