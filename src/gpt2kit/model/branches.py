"""The branches of a block in a training step on a CPU: the same numbers, in memory that is laid out once.

Left to autograd, each result is made anew and freed on its own, and the heap of a step is a quarter gaps: blocks that
were freed are a few bytes too small for the next of their size (docs/lab-log.md). Here results are taken from an arena
and given back when the backward pass has read them for the last time, and the gradients of matrices are made where
they lay. Norms and activations are computed again rather than kept: a token and layer leave 10 D numbers (D in front of
each branch, 3 D queries, keys and values, D attended, 4 D hidden).

Shapes: N tokens, D width, F width of an MLP, I input width and O output width of a layer, R rank of an update.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gpt2kit.model.arena import Arena
from gpt2kit.model.dropout import fill_with_noise
from gpt2kit.model.products import GradientMemory


@dataclass(frozen=True)
class LowRank:
    """A trained update beside a layer's weight, `scaling · dropout(x) Aᵀ Bᵀ` (Hu et al. 2021).

    Attributes:
        a_RI: A.
        b_OR: B.
        scaling: what it is multiplied by.
        dropout: share of its inputs that become 0.
    """

    a_RI: nn.Parameter
    b_OR: nn.Parameter
    scaling: float
    dropout: float


class Layer(Protocol):
    """What is multiplied by: a weight (in, out) and a bias, and an update where there is one."""

    weight: nn.Parameter
    bias: nn.Parameter

    @property
    def update(self) -> LowRank | None:
        """What is added to the product."""


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
    between = _Attention(attend, x_BTD.shape, memory.arena)
    return _branch_onto(x_BTD, norm, layer, projection, dropout, between, memory)


def mlp_onto(
    x_BTD: Tensor, norm: nn.LayerNorm, layer: Layer, projection: Layer, dropout: float, memory: GradientMemory
) -> Tensor:
    """`x + dropout(gelu(norm(x) W + b) W' + b')` with the tanh-approximated GELU: [B, T, D] -> [B, T, D]."""
    return _branch_onto(x_BTD, norm, layer, projection, dropout, _Activation(memory.arena), memory)


def _branch_onto(
    x_BTD: Tensor,
    norm: nn.LayerNorm,
    layer: Layer,
    projection: Layer,
    dropout: float,
    between: "_Between",
    memory: GradientMemory,
) -> Tensor:
    # What autograd has to know that it is computed with: first the vectors, whose gradients it is given.
    vectors = norm.weight, norm.bias, layer.bias, projection.bias
    updates = [each.update for each in (layer, projection) if each.update]
    matrices = layer.weight, projection.weight, *(matrix for each in updates for matrix in (each.a_RI, each.b_OR))
    out_ND: Tensor = _BranchOnto.apply(  # type: ignore[no-untyped-call]
        x_BTD.flatten(0, 1), norm, layer, projection, dropout, between, memory, *vectors, *matrices
    )
    return out_ND.view(x_BTD.shape)


class _BranchOnto(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x_ND: Tensor,
        norm: nn.LayerNorm,
        layer: Layer,
        projection: Layer,
        dropout: float,
        between: "_Between",
        memory: GradientMemory,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.arena, ctx.between, ctx.num_matrices = memory.arena, between, len(parameters) - 4
        ctx.norm, ctx.dropout = _Norm(x_ND, norm), _Dropout(dropout, memory.arena)
        ctx.layer, ctx.projection = _Product(layer, memory), _Product(projection, memory)
        between.begin(ctx.layer.of(ctx.norm.output()))
        between_NI = between.output()
        out_ND = ctx.projection.of(between_NI)
        between.give(between_NI)
        ctx.dropout.draw(out_ND.shape)
        dropped_ND: Tensor = ctx.dropout.apply_to(out_ND)
        return dropped_ND.add_(x_ND)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        grad_out_ND = grad_outputs[0].contiguous()
        grad_ND = ctx.dropout.of(grad_out_ND)
        grad_bias_D = ctx.projection.backward(grad_ND)
        if ctx.projection.reads_input:
            between_NI = ctx.between.output()
            ctx.projection.add_gradients(between_NI)
            ctx.between.give(between_NI)
            del between_NI
        grad_NI = ctx.projection.input_gradient()
        ctx.projection.end()
        ctx.dropout.give(grad_ND)
        ctx.dropout.end()
        grads = _input_gradients(ctx, ctx.between.input_gradient(grad_NI), grad_out_ND)
        return grads[0], *(None,) * 6, *grads[1:], grad_bias_D, *(None,) * ctx.num_matrices


class _Between(Protocol):
    """What a branch computes between its two layers."""

    def begin(self, x_NO: Tensor) -> None:
        """Take over what the first layer made."""

    def output(self) -> Tensor:
        """What the second layer multiplies: [N, I]."""

    def give(self, output_NI: Tensor) -> None:
        """Say that `output`'s result has been read."""

    def input_gradient(self, grad_NI: Tensor) -> Tensor:
        """From the gradient of the output that of what the first layer made, and give back all else."""


class _Attention:
    """Attention, whose output is kept."""

    def __init__(
        self, attend: Callable[[Tensor, Tensor, Tensor], Tensor], shape_BTD: Sequence[int], arena: Arena
    ) -> None:
        self._attend, self._shape_BTD, self._arena = attend, shape_BTD, arena

    def begin(self, x_NO: Tensor) -> None:
        self._qkv_NC = x_NO
        self._parts = [part_ND.view(*self._shape_BTD).requires_grad_() for part_ND in x_NO.chunk(3, dim=1)]
        with torch.enable_grad():
            self._attended_BTD = self._attend(*self._parts)

    def output(self) -> Tensor:
        return self._attended_BTD.detach().flatten(0, 1)

    def give(self, output_NI: Tensor) -> None:
        pass  # it is not from the arena

    def input_gradient(self, grad_NI: Tensor) -> Tensor:
        grad_parts = torch.autograd.grad(self._attended_BTD, self._parts, grad_NI.view(*self._shape_BTD))
        del self._attended_BTD, self._parts  # autograd keeps this until the whole backward pass is over
        self._arena.give(grad_NI)
        grad_NC = self._arena.take(self._qkv_NC.shape)
        for part_ND, grad_part_BTD in zip(grad_NC.chunk(3, dim=1), grad_parts, strict=True):
            part_ND.copy_(grad_part_BTD.flatten(0, 1))
        self._arena.give(self._qkv_NC)
        return grad_NC


class _Activation:
    """The tanh-approximated GELU, computed each time."""

    def __init__(self, arena: Arena) -> None:
        self._arena = arena

    def begin(self, x_NO: Tensor) -> None:
        self._hidden_NF = x_NO

    def output(self) -> Tensor:
        active_NF = self._arena.take(self._hidden_NF.shape)
        return torch.ops.aten.gelu.out(self._hidden_NF, approximate="tanh", out=active_NF)  # type: ignore[no-any-return]

    def give(self, output_NI: Tensor) -> None:
        self._arena.give(output_NI)

    def input_gradient(self, grad_NI: Tensor) -> Tensor:
        torch.ops.aten.gelu_backward.grad_input(grad_NI, self._hidden_NF, approximate="tanh", grad_input=grad_NI)
        self._arena.give(self._hidden_NF)
        return grad_NI


def _input_gradients(ctx: Any, grad_NO: Tensor, grad_out_ND: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of a branch's input, its norm's gain and shift, and its first layer's bias, where needed.

    Args:
        ctx: of the branch; what it holds of the input is given back.
        grad_NO: the gradient of what the first layer made; given back.
        grad_out_ND: the gradient of what the branch made.
    """
    arena, norm, layer = ctx.arena, ctx.norm, ctx.layer
    needed = ctx.needs_input_grad[0], norm.gain_D.requires_grad, norm.shift_D.requires_grad
    grad_bias_O = layer.backward(grad_NO)
    normed_ND, *statistics = norm.output_and_statistics()
    layer.add_gradients(normed_ND)
    del normed_ND
    grad_x_ND = grad_gain_D = grad_shift_D = None
    if any(needed):
        grad_normed_ND = layer.input_gradient()
        grad_x_ND, grad_gain_D, grad_shift_D = norm.gradients(grad_normed_ND, *statistics, needed=needed)
        arena.give(grad_normed_ND)
    layer.end()
    arena.give(grad_NO)
    arena.give(norm.x_ND)
    if grad_x_ND is not None:
        grad_x_ND.add_(grad_out_ND)
    return grad_x_ND, grad_gain_D, grad_shift_D, grad_bias_O


class _Norm:
    """A layer norm of which only the input is kept."""

    def __init__(self, x_ND: Tensor, norm: nn.LayerNorm) -> None:
        self.x_ND, self.gain_D, self.shift_D, self._epsilon = x_ND, norm.weight, norm.bias, norm.eps

    def output(self) -> Tensor:
        """norm(x), computed each time: [N, D]."""
        return self.output_and_statistics()[0]

    def output_and_statistics(self) -> tuple[Tensor, Tensor, Tensor]:
        """norm(x), and what `gradients` asks for besides: [N, D], [N, 1], [N, 1]."""
        return torch.native_layer_norm(self.x_ND, self.gain_D.shape, self.gain_D, self.shift_D, self._epsilon)

    def gradients(
        self, grad_ND: Tensor, mean_N1: Tensor, deviation_N1: Tensor, *, needed: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Those of x, gain and shift, where needed."""
        grads: tuple[Tensor | None, Tensor | None, Tensor | None] = torch.ops.aten.native_layer_norm_backward(
            grad_ND, self.x_ND, self.gain_D.shape, mean_N1, deviation_N1, self.gain_D, self.shift_D, needed
        )
        return grads


class _Product:
    """A layer of a branch in one step: what it makes, in the arena, and the gradients of what it is made of."""

    def __init__(self, layer: Layer, memory: GradientMemory) -> None:
        self._weight_IO, self._bias_O, self._update, self._memory = layer.weight, layer.bias, layer.update, memory
        self._dropout = _Dropout(layer.update.dropout if layer.update else 0.0, memory.arena)

    @property
    def reads_input(self) -> bool:
        """Whether `add_gradients` has anything to do."""
        return self._weight_IO.requires_grad or self._update is not None

    def of(self, x_NI: Tensor) -> Tensor:
        """`x W + b`, and what the update adds: [N, I] -> [N, O]."""
        arena, update = self._memory.arena, self._update
        out_NO = arena.take((x_NI.size(0), self._weight_IO.size(1)))
        torch.addmm(self._bias_O, x_NI, self._weight_IO, out=out_NO)
        if update is not None:
            self._dropout.draw(x_NI.shape)
            dropped_NI = self._dropout.of(x_NI)
            self._low_NR = torch.mm(dropped_NI, update.a_RI.T, out=arena.take((x_NI.size(0), update.a_RI.size(0))))
            self._dropout.give(dropped_NI)
            out_NO.addmm_(self._low_NR, update.b_OR.T, alpha=update.scaling)
        return out_NO

    def backward(self, grad_NO: Tensor) -> Tensor | None:
        """Begin with the gradient of what was made; gives that of the bias, where needed."""
        self._grad_NO, update = grad_NO, self._update
        if update is not None:
            self._memory.add_product(update.b_OR, grad_NO, self._low_NR.mul_(update.scaling))
            torch.mm(grad_NO, update.b_OR, out=self._low_NR).mul_(update.scaling)  # from here on the gradient of it
        return grad_NO.sum(0) if self._bias_O.requires_grad else None

    def add_gradients(self, x_NI: Tensor) -> None:
        """Add those of the matrices that multiply the input to their `grad`, where needed."""
        if self._weight_IO.requires_grad:
            self._memory.add_product(self._weight_IO, x_NI, self._grad_NO)
        if self._update is not None:
            dropped_NI = self._dropout.of(x_NI)
            self._memory.add_product(self._update.a_RI, self._low_NR, dropped_NI)
            self._dropout.give(dropped_NI)

    def input_gradient(self) -> Tensor:
        """The gradient of the input, in the arena: [N, I]."""
        arena, update = self._memory.arena, self._update
        shape = self._grad_NO.size(0), self._weight_IO.size(0)
        grad_NI = torch.mm(self._grad_NO, self._weight_IO.T, out=arena.take(shape))
        if update is None:
            return grad_NI
        if update.dropout == 0:
            return grad_NI.addmm_(self._low_NR, update.a_RI)
        part_NI = torch.mm(self._low_NR, update.a_RI, out=arena.take(shape))
        grad_NI.add_(self._dropout.apply_to(part_NI))
        arena.give(part_NI)
        return grad_NI

    def end(self) -> None:
        """Say that no more gradients are asked for."""
        del self._grad_NO  # autograd keeps this until the whole backward pass is over
        self._dropout.end()
        if self._update is not None:
            self._memory.arena.give(self._low_NR)


class _Dropout:
    """A dropout that knows in the backward pass what it dropped; at a rate of 0 nothing is done."""

    def __init__(self, rate: float, arena: Arena) -> None:
        self._rate, self._arena = rate, arena
        self._factor = 1 / (1 - rate) if rate < 1 else 0.0

    def draw(self, shape: Sequence[int]) -> None:
        """Choose which numbers are dropped."""
        if self._rate > 0:
            noise = fill_with_noise(self._arena.take(shape))
            self._kept = torch.ge(noise, self._rate, out=self._arena.take(shape, torch.bool))
            self._arena.give(noise)

    def apply_to(self, x: Tensor) -> Tensor:
        """Drop those numbers of x, in place."""
        return x if self._rate == 0 else x.mul_(self._kept).mul_(self._factor)

    def of(self, x: Tensor) -> Tensor:
        """The numbers of x without those, beside it; x itself at a rate of 0."""
        if self._rate == 0:
            return x
        return torch.mul(x, self._kept, out=self._arena.take(x.shape)).mul_(self._factor)

    def give(self, dropped: Tensor) -> None:
        """Give back what `of` made."""
        if self._rate > 0:
            self._arena.give(dropped)

    def end(self) -> None:
        """Say that nothing more is dropped."""
        if self._rate > 0:
            self._arena.give(self._kept)
