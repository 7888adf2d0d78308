"""The branches of a block in a training step on a CPU: the same numbers, in memory that is laid out once.

Left to autograd, each result is made anew and freed on its own, and the heap of a step is a quarter gaps: blocks that
were freed are a few bytes too small for the next of their size (docs/lab-log.md). Here results are taken from an arena
and given back when the backward pass has read them for the last time, and the gradients of matrices are made where
they lay. Norms and activations are computed again rather than kept: a token and layer leave 10 D numbers (D in front of
each branch, 3 D queries, keys and values, D attended, 4 D hidden).

Shapes: N tokens, D width, F width of an MLP, O output width of a layer.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gpt2kit.model.dropout import fill_with_noise
from gpt2kit.model.products import GradientMemory


class Layer(Protocol):
    """What is multiplied by: a weight (in, out) and a bias."""

    weight: nn.Parameter
    bias: nn.Parameter


def attention_onto(
    x_BTD: Tensor,
    norm: nn.LayerNorm,
    layer: Layer,
    projection: Layer,
    dropout: float,
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    memory: GradientMemory,
) -> Tensor:
    """`x + dropout(attend(q, k, v) W' + b')`, where q, k and v are `norm(x) W + b`: [B, T, D] -> [B, T, D].

    Args:
        x_BTD: the input.
        norm: in front of the branch.
        layer: makes queries, keys and values.
        projection: of what was attended to.
        dropout: behind it.
        attend: from queries, keys and values to what was attended to, each [B, T, D]; differentiable.
        memory: where results and gradients are made.
    """
    out_BTD: Tensor = _AttentionOnto.apply(  # type: ignore[no-untyped-call]
        x_BTD,
        *_parameters(norm, layer, projection),
        norm.eps,
        dropout,
        attend,
        memory,
    )
    return out_BTD


def mlp_onto(
    x_BTD: Tensor, norm: nn.LayerNorm, layer: Layer, projection: Layer, dropout: float, memory: GradientMemory
) -> Tensor:
    """`x + dropout(gelu(norm(x) W + b) W' + b')` with the tanh-approximated GELU: [B, T, D] -> [B, T, D]."""
    out_ND: Tensor = _MLPOnto.apply(  # type: ignore[no-untyped-call]
        x_BTD.flatten(0, 1),
        *_parameters(norm, layer, projection),
        norm.eps,
        dropout,
        memory,
    )
    return out_ND.view(x_BTD.shape)


def _parameters(norm: nn.LayerNorm, layer: Layer, projection: Layer) -> tuple[Tensor, ...]:
    return norm.weight, norm.bias, layer.weight, layer.bias, projection.weight, projection.bias


class _AttentionOnto(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_BTD: Tensor,
        gain_D: Tensor,
        shift_D: Tensor,
        weight_DC: Tensor,
        bias_C: Tensor,
        projection_DD: Tensor,
        bias_D: Tensor,
        epsilon: float,
        dropout: float,
        attend: Callable[[Tensor, Tensor, Tensor], Tensor],
        memory: GradientMemory,
    ) -> Tensor:
        x_ND = x_BTD.flatten(0, 1)
        ctx.norm = _Norm(x_ND, gain_D, shift_D, epsilon)
        ctx.weight_DC, ctx.projection_DD, ctx.memory = weight_DC, projection_DD, memory
        ctx.qkv_NC = memory.arena.take((x_ND.size(0), weight_DC.size(1)))
        torch.addmm(bias_C, ctx.norm.output(), weight_DC, out=ctx.qkv_NC)
        ctx.parts = [part.view(x_BTD.shape).requires_grad_() for part in _thirds(ctx.qkv_NC)]
        with torch.enable_grad():
            ctx.attended_BTD = attend(*ctx.parts)
        out_ND, ctx.dropped = _onto(
            x_ND, ctx.attended_BTD.detach().flatten(0, 1), projection_DD, bias_D, dropout, memory
        )
        return out_ND.view(x_BTD.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        *needs_norm, need_weight, need_bias, need_projection, need_bias_out = ctx.needs_input_grad[:7]
        memory, arena = ctx.memory, ctx.memory.arena
        attended_BTD, qkv_NC = ctx.attended_BTD, ctx.qkv_NC
        grad_ND = ctx.dropped.gradient(grad_outputs[0].contiguous().flatten(0, 1), memory)
        grad_bias_D = grad_ND.sum(0) if need_bias_out else None
        if need_projection:
            memory.add_product(ctx.projection_DD, attended_BTD.detach().flatten(0, 1), grad_ND)
        grad_attended_ND = torch.mm(grad_ND, ctx.projection_DD.T, out=arena.take(grad_ND.shape))
        ctx.dropped.give_back(grad_ND, memory)
        grad_parts = torch.autograd.grad(attended_BTD, ctx.parts, grad_attended_ND.view(attended_BTD.shape))
        del attended_BTD, ctx.attended_BTD, ctx.parts
        arena.give(grad_attended_ND)
        grad_NC = arena.take(qkv_NC.shape)
        for part_ND, grad_part_BTD in zip(_thirds(grad_NC), grad_parts, strict=True):
            part_ND.copy_(grad_part_BTD.flatten(0, 1))
        del grad_parts
        arena.give(qkv_NC)
        grad_bias_C = grad_NC.sum(0) if need_bias else None
        grad_x_ND, *grads_norm = ctx.norm.gradients(grad_NC, ctx.weight_DC, [need_weight, *needs_norm], memory)
        arena.give(grad_NC)
        arena.give(ctx.norm.x_ND)
        if grad_x_ND is not None:
            grad_x_ND = grad_x_ND.view(grad_outputs[0].shape).add_(grad_outputs[0])
        return grad_x_ND, *grads_norm, None, grad_bias_C, None, grad_bias_D, None, None, None, None


class _MLPOnto(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        gain_D: Tensor,
        shift_D: Tensor,
        weight_DF: Tensor,
        bias_F: Tensor,
        projection_FD: Tensor,
        bias_D: Tensor,
        epsilon: float,
        dropout: float,
        memory: GradientMemory,
    ) -> Tensor:
        ctx.norm = _Norm(x_ND, gain_D, shift_D, epsilon)
        ctx.weight_DF, ctx.projection_FD, ctx.memory = weight_DF, projection_FD, memory
        ctx.hidden_NF = memory.arena.take((x_ND.size(0), weight_DF.size(1)))
        torch.addmm(bias_F, ctx.norm.output(), weight_DF, out=ctx.hidden_NF)
        active_NF = _active(ctx.hidden_NF, memory)
        out_ND, ctx.dropped = _onto(x_ND, active_NF, projection_FD, bias_D, dropout, memory)
        memory.arena.give(active_NF)
        return out_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        *needs_norm, need_weight, need_bias, need_projection, need_bias_out = ctx.needs_input_grad[:7]
        memory, arena, hidden_NF = ctx.memory, ctx.memory.arena, ctx.hidden_NF
        grad_ND = ctx.dropped.gradient(grad_outputs[0].contiguous(), memory)
        grad_bias_D = grad_ND.sum(0) if need_bias_out else None
        if need_projection:
            active_NF = _active(hidden_NF, memory)
            memory.add_product(ctx.projection_FD, active_NF, grad_ND)
            arena.give(active_NF)
        grad_NF = torch.mm(grad_ND, ctx.projection_FD.T, out=arena.take(hidden_NF.shape))
        ctx.dropped.give_back(grad_ND, memory)
        torch.ops.aten.gelu_backward.grad_input(grad_NF, hidden_NF, approximate="tanh", grad_input=grad_NF)
        arena.give(hidden_NF)
        grad_bias_F = grad_NF.sum(0) if need_bias else None
        grad_x_ND, *grads_norm = ctx.norm.gradients(grad_NF, ctx.weight_DF, [need_weight, *needs_norm], memory)
        arena.give(grad_NF)
        arena.give(ctx.norm.x_ND)
        if grad_x_ND is not None:
            grad_x_ND += grad_outputs[0]
        return grad_x_ND, *grads_norm, None, grad_bias_F, None, grad_bias_D, None, None, None


class _Norm:
    """A layer norm of which only the input is kept."""

    def __init__(self, x_ND: Tensor, gain_D: Tensor, shift_D: Tensor, epsilon: float) -> None:
        self.x_ND, self.gain_D, self.shift_D, self.epsilon = x_ND, gain_D, shift_D, epsilon

    def output(self) -> Tensor:
        """norm(x), computed each time: [N, D]."""
        return self._output_and_statistics()[0]

    def _output_and_statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        return torch.native_layer_norm(self.x_ND, self.gain_D.shape, self.gain_D, self.shift_D, self.epsilon)

    def gradients(
        self, grad_NO: Tensor, weight_DO: Tensor, needed: Sequence[bool], memory: GradientMemory
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """From the gradient of `norm(x) W`: that of W into its `grad`; those of x, gain and shift, where needed."""
        need_weight, *needed_here = needed
        normed_ND, *statistics = self._output_and_statistics()
        if need_weight:
            memory.add_product(weight_DO, normed_ND, grad_NO)
        del normed_ND
        if not any(needed_here):
            return None, None, None
        grad_ND = torch.mm(grad_NO, weight_DO.T, out=memory.arena.take(self.x_ND.shape))
        grads: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_layer_norm_backward(
            grad_ND, self.x_ND, self.gain_D.shape, *statistics, self.gain_D, self.shift_D, needed_here
        )
        memory.arena.give(grad_ND)
        return grads


class _Dropped:
    """What a dropout did, for the backward pass; without dropout nothing."""

    def __init__(self, dropout: float, kept_ND: Tensor | None = None) -> None:
        self._factor, self._kept_ND = 1 / (1 - dropout), kept_ND

    def gradient(self, grad_ND: Tensor, memory: GradientMemory) -> Tensor:
        """The gradient in front of the dropout; in the arena, if there was one."""
        if self._kept_ND is None:
            return grad_ND
        before_ND = torch.mul(grad_ND, self._kept_ND, out=memory.arena.take(grad_ND.shape))
        return before_ND.mul_(self._factor)

    def give_back(self, grad_ND: Tensor, memory: GradientMemory) -> None:
        """Say that `gradient`'s result has been read."""
        if self._kept_ND is not None:
            memory.arena.give(grad_ND)
            memory.arena.give(self._kept_ND)


def _thirds(qkv_NC: Tensor) -> list[Tensor]:
    """Queries, keys and values, or their gradients, each [N, D]."""
    return list(qkv_NC.chunk(3, dim=1))


def _active(hidden_NF: Tensor, memory: GradientMemory) -> Tensor:
    active_NF: Tensor = torch.ops.aten.gelu.out(hidden_NF, approximate="tanh", out=memory.arena.take(hidden_NF.shape))
    return active_NF


def _onto(
    x_ND: Tensor, in_NI: Tensor, weight_ID: Tensor, bias_D: Tensor, dropout: float, memory: GradientMemory
) -> tuple[Tensor, _Dropped]:
    """`x + dropout(in W + b)`, in the arena."""
    out_ND = memory.arena.take(x_ND.shape)
    if dropout == 0:
        return torch.addmm(bias_D, in_NI, weight_ID, out=out_ND).add_(x_ND), _Dropped(dropout)
    noise_ND = fill_with_noise(memory.arena.take(x_ND.shape))
    kept_ND = torch.ge(noise_ND, dropout, out=memory.arena.take(x_ND.shape, torch.bool))
    memory.arena.give(noise_ND)
    torch.addmm(bias_D, in_NI, weight_ID, out=out_ND).mul_(kept_ND).mul_(1 / (1 - dropout)).add_(x_ND)
    return out_ND, _Dropped(dropout, kept_ND)
