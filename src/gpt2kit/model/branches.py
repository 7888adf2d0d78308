"""The branches of a block in a training step on a CPU: the same numbers, in memory that is laid out once.

Left to autograd, each result is made anew and freed on its own, and the heap of a step is a quarter gaps: blocks that
were freed are a few bytes too small for the next of their size (docs/lab-log.md). Here results are taken from an arena
and given back when the backward pass has read them for the last time, and the gradients of matrices are made where
they lay (where oneDNN multiplies, it makes its results itself). Norms and activations are computed again rather than
kept: a token and layer leave 10 D numbers (D in front of each branch, 3 D queries, keys and values, D attended, 4 D
hidden).

Shapes: N tokens, D width, F width of an MLP, I input width and O output width of a layer, R rank of an update.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gpt2kit.model.operations import Attending, Between, InputDropout
from gpt2kit.model.products import GradientMemory, by_onednn, gradients_added_in_place, product


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
    attending: Attending,
    memory: GradientMemory,
) -> Tensor:
    """`x + dropout(attend(q, k, v) W' + b')`, where q, k and v are `norm(x) W + b`: [B, T, D] -> [B, T, D].

    Args:
        x_BTD: the input.
        norm: in front of the branch.
        layer: makes queries, keys and values.
        projection: of what was attended to.
        dropout: behind it.
        attending: how it is attended.
        memory: where results and gradients are made, and what makes them.
    """
    between = memory.operations.attention(x_BTD.shape, attending, memory.arena)
    return _branch_onto(x_BTD, norm, layer, projection, dropout, between, memory)


def mlp_onto(
    x_BTD: Tensor, norm: nn.LayerNorm, layer: Layer, projection: Layer, dropout: float, memory: GradientMemory
) -> Tensor:
    """`x + dropout(gelu(norm(x) W + b) W' + b')` with the tanh-approximated GELU: [B, T, D] -> [B, T, D]."""
    between = memory.operations.activation(layer.bias, memory.arena)
    return _branch_onto(x_BTD, norm, layer, projection, dropout, between, memory)


def computed_again(
    compute: Callable[[Tensor], Tensor], x_BTD: Tensor, parameters: Iterable[nn.Parameter], memory: GradientMemory
) -> Tensor:
    """What branches make of the input, of which only the input is kept: the backward pass computes it again.

    Args:
        compute: from the input to the output, by branches in this memory.
        x_BTD: the input.
        parameters: all that it is computed with.
        memory: where it is computed.
    """
    parameters = list(parameters)
    if not (x_BTD.requires_grad or any(parameter.requires_grad for parameter in parameters)):
        return compute(x_BTD)
    out_BTD: Tensor = _Again.apply(x_BTD, compute, memory, *parameters)  # type: ignore[no-untyped-call]
    return out_BTD


class _Again(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x_BTD: Tensor, compute: Callable[[Tensor], Tensor], memory: GradientMemory, *parameters: Tensor
    ) -> Tensor:
        ctx.x_BTD, ctx.compute, ctx.memory, ctx.num_parameters = x_BTD, compute, memory, len(parameters)
        ctx.random_state = torch.get_rng_state()
        return compute(x_BTD.clone())  # branches give their input back to the arena

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        arena, state = ctx.memory.arena, torch.get_rng_state()
        torch.set_rng_state(ctx.random_state)  # what was dropped is dropped again
        with torch.enable_grad(), gradients_added_in_place(ctx.memory):
            x_BTD = ctx.x_BTD.detach().clone().requires_grad_(ctx.needs_input_grad[0])
            out_BTD = ctx.compute(x_BTD)
        torch.set_rng_state(state)
        torch.autograd.backward(out_BTD, grad_outputs[0])
        arena.give(out_BTD)
        arena.give(ctx.x_BTD)
        return x_BTD.grad, None, None, *(None,) * ctx.num_parameters


def _branch_onto(
    x_BTD: Tensor,
    norm: nn.LayerNorm,
    layer: Layer,
    projection: Layer,
    dropout: float,
    between: Between,
    memory: GradientMemory,
) -> Tensor:
    # What autograd has to know that it is computed with: first the vectors, whose gradients it is given.
    vectors = norm.weight, norm.bias, layer.bias, projection.bias
    updates = [each.update for each in (layer, projection) if each.update]
    matrices = layer.weight, projection.weight, *(matrix for each in updates for matrix in (each.a_RI, each.b_OR))
    keeps = torch.is_grad_enabled()  # which it is not in `forward`
    out_ND: Tensor = _BranchOnto.apply(  # type: ignore[no-untyped-call]
        x_BTD.flatten(0, 1), norm, layer, projection, dropout, between, memory, keeps, *vectors, *matrices
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
        between: Between,
        memory: GradientMemory,
        keeps: bool,
        *parameters: Tensor,
    ) -> Tensor:
        operations, arena = memory.operations, memory.arena
        ctx.arena, ctx.between, ctx.x_ND, ctx.num_matrices = arena, between, x_ND, len(parameters) - 4
        ctx.norm, ctx.dropout = operations.norm(x_ND, norm, arena), operations.dropout(dropout, arena)
        ctx.layer, ctx.projection = _Product(layer, memory), _Product(projection, memory)
        normed_ND = ctx.norm.output()
        first_NO = ctx.layer.of(normed_ND, with_bias=not between.adds_bias)
        ctx.norm.give(normed_ND)
        between_NI = between.begin(first_NO)
        out_ND: Tensor = ctx.projection.of(between_NI, with_bias=False)
        between.give(between_NI)
        ctx.dropout.onto(out_ND, projection.bias, x_ND)
        if not (keeps and any(ctx.needs_input_grad)):
            _end(ctx)
        return out_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        arena, norm, layer, projection, between = ctx.arena, ctx.norm, ctx.layer, ctx.projection, ctx.between
        # Beside x: gain, shift, and the biases of the two layers.
        needs_x, (needs_gain, needs_shift, needs_first, needs_last) = (
            ctx.needs_input_grad[0],
            ctx.needs_input_grad[8:12],
        )
        grad_out_ND = grad_outputs[0].contiguous()
        grad_ND, grad_last_D = ctx.dropout.gradient(grad_out_ND, needs_bias=needs_last)
        projection.begin_backward(grad_ND)
        grad_NO, grad_first_O = between.backward(projection.input_gradient(), needs_bias=needs_first)
        if projection.reads_input:
            projection.add_gradients(between.output_again())
        ctx.dropout.give(grad_ND)
        layer.begin_backward(grad_NO)
        if layer.reads_input:
            normed_ND = norm.output()
            layer.add_gradients(normed_ND)
            norm.give(normed_ND)
        grads: tuple[Tensor | None, Tensor | None, Tensor | None] = (None, None, None)
        if needs_x or needs_gain or needs_shift:
            grads = norm.gradients(layer.input_gradient(), grad_out_ND, needed=(needs_x, needs_gain, needs_shift))
        arena.give(grad_NO)
        arena.give(grad_out_ND)  # which this branch alone reads, where another has made it
        grad_x_ND = grads[0]
        if grad_x_ND is not None and grad_x_ND in arena and ctx.x_ND not in arena:
            arena.give(grad_x_ND)
            grad_x_ND = grad_x_ND.clone()  # for autograd, which gives nothing back
        _end(ctx)
        return grad_x_ND, *(None,) * 7, *grads[1:], grad_first_O, grad_last_D, *(None,) * ctx.num_matrices


def _end(ctx: Any) -> None:
    """Give back what a branch holds, and hold it no longer: autograd keeps the context until all branches are done."""
    for part in (ctx.between, ctx.layer, ctx.projection, ctx.dropout):
        part.end()
    ctx.arena.give(ctx.x_ND)
    ctx.between = ctx.layer = ctx.projection = ctx.dropout = ctx.norm = ctx.x_ND = None


class _Product:
    """A layer of a branch in one step: what it makes, in the arena where the library of products takes memory, and the
    gradients of what it is made of.
    """

    def __init__(self, layer: Layer, memory: GradientMemory) -> None:
        self._weight_IO, self._bias_O, self._update, self._memory = layer.weight, layer.bias, layer.update, memory
        self._dropout = InputDropout(layer.update.dropout if layer.update else 0.0, memory.arena)
        self._grad_NO: Tensor | None = None

    @property
    def reads_input(self) -> bool:
        """Whether `add_gradients` has anything to do."""
        return self._weight_IO.requires_grad or self._update is not None

    def of(self, x_NI: Tensor, *, with_bias: bool) -> Tensor:
        """`x W`, what the update adds, and b if it shall be: [N, I] -> [N, O]."""
        arena, update = self._memory.arena, self._update
        shape = x_NI.size(0), self._weight_IO.size(1)
        if by_onednn(x_NI):  # which makes its results anew; to give them back is no harm
            out_NO = product(x_NI, self._weight_IO.T, self._bias_O if with_bias else None)
        else:
            bias_O = self._bias_O if with_bias else None
            out_NO = self._memory.operations.multiply(x_NI, self._weight_IO, arena.take(shape), bias_O=bias_O)
        if update is not None:
            self._dropout.draw(x_NI.shape)
            dropped_NI = self._dropout.of(x_NI)
            self._low_NR = torch.mm(dropped_NI, update.a_RI.T, out=arena.take((x_NI.size(0), update.a_RI.size(0))))
            self._dropout.give(dropped_NI)
            out_NO.addmm_(self._low_NR, update.b_OR.T, alpha=update.scaling)
        return out_NO

    def begin_backward(self, grad_NO: Tensor) -> None:
        """Take the gradient of what was made, without its bias."""
        self._grad_NO, update = grad_NO, self._update
        if update is not None:
            self._memory.add_product(update.b_OR, grad_NO, self._low_NR.mul_(update.scaling))
            b_OR = update.b_OR.T.contiguous().T  # half the time, for columns in a row
            torch.mm(grad_NO, b_OR, out=self._low_NR).mul_(update.scaling)  # from here on the gradient of it

    def add_gradients(self, x_NI: Tensor) -> None:
        """Add those of the matrices that multiply the input to their `grad`, where needed."""
        assert self._grad_NO is not None
        if self._weight_IO.requires_grad:
            self._memory.add_product(self._weight_IO, x_NI, self._grad_NO)
        if self._update is not None:
            dropped_NI = self._dropout.of(x_NI)
            self._memory.add_product(self._update.a_RI, self._low_NR, dropped_NI)
            self._dropout.give(dropped_NI)

    def input_gradient(self) -> Tensor:
        """The gradient of the input: [N, I]."""
        assert self._grad_NO is not None
        arena, update = self._memory.arena, self._update
        shape = self._grad_NO.size(0), self._weight_IO.size(0)
        if by_onednn(self._grad_NO):
            grad_NI = product(self._grad_NO, self._weight_IO)
        else:
            grad_NI = self._memory.operations.multiply(self._grad_NO, self._weight_IO.T, arena.take(shape))
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
        self._grad_NO = None
        self._dropout.end()
        if self._update is not None:
            self._memory.arena.give(self._low_NR)
