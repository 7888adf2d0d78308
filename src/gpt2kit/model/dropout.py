"""Dropout in training on a CPU, with noise from numpy, where autograd has the backward pass.

Shapes: G = B * H heads of all rows, T positions, Q queries of a block, S keys it sees, K width of a head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gpt2kit.model.noise import fill_with_noise
from gpt2kit.model.products import in_plain_fp32

QUERIES = 64  # of a block


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`, with noise from numpy where it can be."""

    @property
    def rate(self) -> float:
        """The probability that a number becomes 0: p in training, else 0."""
        return self.p if self.training else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Each number becomes 0 with probability p, the others are divided by 1 - p; in training only."""
        # With gradients or without: what is computed again has to drop the same.
        if self.training and 0 < self.p < 1 and in_plain_fp32(x):
            out: Tensor = _Dropped.apply(x, self.p)  # type: ignore[no-untyped-call]
            return out
        return super().forward(x)


def dropped_attention(
    q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, *, scale: float, dropout: float, allowed_B1TT: Tensor | None = None
) -> Tensor:
    """dropout(softmax(q kᵀ · scale)) v, each query seeing itself and the keys before it: [B, H, T, K].

    PyTorch's fused attention leaves dropout to a plain computation, which makes the scores of all queries and keys,
    half of which no query sees, goes over them a dozen times, and keeps three tensors of their size. Here a block of
    queries is scored against the keys up to its end, while its scores are in the cache, and one tensor is kept for the
    backward pass: the probabilities, with a minus in front of those that were dropped.

    Args:
        q_BHTK: queries.
        k_BHTK: keys.
        v_BHTK: values.
        scale: what products of queries and keys are multiplied by.
        dropout: share of the probabilities that become 0, the others being divided by what is left; below 1.
        allowed_B1TT: True where a query sees a key, besides; each has to see itself.
    """
    out_BHTK: Tensor = _DroppedAttention.apply(q_BHTK, k_BHTK, v_BHTK, scale, dropout, allowed_B1TT)  # type: ignore[no-untyped-call]
    return out_BHTK


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dropout: float) -> Tensor:
        kept = fill_with_noise(torch.empty(x.shape)) >= dropout
        ctx.save_for_backward(kept)
        ctx.factor = 1 / (1 - dropout)
        return (x * kept).mul_(ctx.factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (grad_outputs[0] * kept).mul_(ctx.factor), None


class _DroppedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_BHTK: Tensor,
        k_BHTK: Tensor,
        v_BHTK: Tensor,
        scale: float,
        dropout: float,
        allowed_B1TT: Tensor | None,
    ) -> Tensor:
        B, H, T, _ = q_BHTK.shape
        q_GTK = (q_BHTK * scale).flatten(0, 1)
        k_GTK, v_GTK = (each.reshape(B * H, T, -1) for each in (k_BHTK, v_BHTK))
        out_GTK = torch.empty_like(q_GTK)
        ahead_QQ = torch.ones(QUERIES, QUERIES, dtype=torch.bool, device=q_GTK.device).triu_(1)
        blocks = []
        for start in range(0, T, QUERIES):
            end = min(start + QUERIES, T)
            scores_GQS = torch.bmm(q_GTK[:, start:end], k_GTK[:, :end].transpose(1, 2))
            if allowed_B1TT is None:
                scores_GQS[:, :, start:].masked_fill_(ahead_QQ[: end - start, : end - start], -torch.inf)
            else:
                hidden_B1QS = ~allowed_B1TT[:, :, start:end, :end]
                scores_GQS.view(B, H, end - start, end).masked_fill_(hidden_B1QS, -torch.inf)
            probabilities_GQS = torch.softmax(scores_GQS, -1)
            signs_GQS = fill_with_noise(scores_GQS).sub_(dropout)
            signed_GQS = torch.copysign(probabilities_GQS, signs_GQS)
            torch.bmm(torch.clamp_min(signed_GQS, 0, out=probabilities_GQS), v_GTK[:, :end], out=out_GTK[:, start:end])
            blocks.append(signed_GQS)
        out_GTK.div_(1 - dropout)
        ctx.save_for_backward(q_GTK, k_GTK, v_GTK, out_GTK, *blocks)
        ctx.scale, ctx.dropout = scale, dropout
        return out_GTK.view(q_BHTK.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        q_GTK, k_GTK, v_GTK, out_GTK, *blocks = ctx.saved_tensors
        grad_GTK = grad_outputs[0].reshape(q_GTK.shape)
        # Σ p ∂p over the keys, which the softmax takes off, is Σ o ∂o (Dao et al. 2022, appendix B.2).
        common_GT1 = (grad_GTK * out_GTK).sum(-1, keepdim=True)
        grad_GTK = grad_GTK / (1 - ctx.dropout)
        grad_q_GTK, grad_k_GTK, grad_v_GTK = torch.empty_like(q_GTK), torch.zeros_like(k_GTK), torch.zeros_like(v_GTK)
        for number, signed_GQS in enumerate(blocks):
            start, end = number * QUERIES, number * QUERIES + signed_GQS.size(1)
            kept_GQS = signed_GQS.clamp_min(0)
            grad_v_GTK[:, :end].baddbmm_(kept_GQS.transpose(1, 2), grad_GTK[:, start:end])
            grad_GQS = torch.bmm(grad_GTK[:, start:end], v_GTK[:, :end].transpose(1, 2))
            grad_GQS.mul_(kept_GQS).addcmul_(signed_GQS.abs(), common_GT1[:, start:end], value=-1)
            torch.bmm(grad_GQS, k_GTK[:, :end], out=grad_q_GTK[:, start:end])
            grad_k_GTK[:, :end].baddbmm_(grad_GQS.transpose(1, 2), q_GTK[:, start:end])
        shape = grad_outputs[0].shape
        return grad_q_GTK.mul_(ctx.scale).view(shape), grad_k_GTK.view(shape), grad_v_GTK.view(shape), None, None, None
