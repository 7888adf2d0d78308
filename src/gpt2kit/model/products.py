"""Matrix products on a CPU, by the quicker of the two libraries that come with PyTorch, or by the kernel.

In fp32 PyTorch multiplies through MKL, which on processors that are not Intel's keeps to instructions half as wide as
those that many of them have by now. oneDNN, which PyTorch carries for other types and for compiled models, uses what is
there: twice the rate on an AMD EPYC with AVX-512 (docs/lab-log.md). On processors of others with AVX2 the kernel is
the quickest in a training step. The results differ by rounding only.

Shapes: N tokens, I input width, O output width.
"""

import contextlib
import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from gpt2kit.model.arena import Arena
from gpt2kit.model.operations import Operations, TorchOperations

LIBRARY_VARIABLE = "GPT2KIT_MATRIX_LIBRARY"
# Preparing a product for oneDNN takes longer than PyTorch's own for a token or two.
_FEWEST_ROWS = 32
_FEWEST_OUTPUTS = 64  # of a gradient that is made as it is
_out_of_memory = False


class GradientMemory:
    """Memory for gradients, for the head's scores and for the branches of blocks, the same from step to step.

    Gradients that autograd makes anew lie scattered between the activations of their step, and those of the next find
    no room of their size (docs/lab-log.md). Nothing is written before a gradient is, so what is never used takes no
    memory.

    Args:
        weights: those of their gradients that are vectors get room of their own.
        operations: what branches compute between their products; by default PyTorch's.

    Attributes:
        arena: where all else lies, on a CPU.
        operations: those.
    """

    def __init__(self, weights: Iterable[Tensor] = (), operations: Operations | None = None) -> None:
        self._vectors = {weight: torch.empty_like(weight) for weight in weights if weight.dim() < 2}
        self.operations: Operations = TorchOperations() if operations is None else operations
        self.arena = Arena()

    def of(self, weight: Tensor) -> Tensor:
        """The weight's gradient, to be added to; zeros where it has none yet."""
        if weight.grad is None:
            weight.grad = self._room(weight).zero_()
        return weight.grad

    def add_product(self, weight_IO: Tensor, x_NI: Tensor, grad_NO: Tensor) -> None:
        """Add `xᵀ g` to the weight's gradient, which it is where there is none yet: [N, I], [N, O]."""
        if weight_IO.size(1) < _FEWEST_OUTPUTS:  # where MKL takes up to six times as long as for the transpose
            self.of(weight_IO).add_(torch.mm(grad_NO.T, x_NI).T)
        elif by_onednn(x_NI):
            self.of(weight_IO).add_(weight_gradient(x_NI, grad_NO))
        elif weight_IO.grad is None:
            weight_IO.grad = self.operations.multiply(x_NI.T, grad_NO, self._room(weight_IO))
        else:
            self.operations.multiply(x_NI.T, grad_NO, weight_IO.grad, scale=1.0)

    def gather(self) -> None:
        """Move the gradients of vectors, which autograd made, to where there is room for them.

        They are small, and would lie between what the backward pass has freed.
        """
        for weight, room in self._vectors.items():
            if weight.grad is not None and weight.grad is not room:
                weight.grad = room.copy_(weight.grad)

    def _room(self, weight: Tensor) -> Tensor:
        return self.arena.take(weight.shape, weight.dtype) if weight.device.type == "cpu" else torch.empty_like(weight)


_memory: GradientMemory | None = None


@functools.cache
def prefers_onednn() -> bool:
    """Whether this machine's fp32 products go to oneDNN: AVX-512 in a processor that is not Intel's.

    The environment variable GPT2KIT_MATRIX_LIBRARY (`onednn`, `mkl` or `kernel`) decides otherwise. It is a rule rather
    than a trial run, because a run that goes on later must round as before.
    """
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):  # type: ignore[no-untyped-call]
        return False
    return _is_chosen("onednn", capability="AVX512")


@functools.cache
def prefers_kernel() -> bool:
    """The same for the kernel's own products, of a training step alone: AVX2 in a processor that is not Intel's."""
    return _is_chosen("kernel", capability="AVX2")


def _is_chosen(library: str, *, capability: str) -> bool:
    """Whether the user asks for a library, or, if for none, this processor has the capability and is not Intel's."""
    if wish := os.environ.get(LIBRARY_VARIABLE):
        return wish == library
    return torch.backends.cpu.get_cpu_capability() == capability and _vendor() not in ("", "GenuineIntel")


def _vendor() -> str:
    """The processor's maker as Linux tells it; empty where it does not."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


def leave_onednn() -> None:
    """Use PyTorch's own products from here on: once memory ran out, oneDNN makes no more of its own."""
    global _out_of_memory
    _out_of_memory = True


def by_onednn(x_NI: Tensor) -> bool:
    """Whether a product with these rows on the left goes to oneDNN."""
    return (
        x_NI.device.type == "cpu"
        and x_NI.dtype == torch.float32
        and x_NI.size(0) >= _FEWEST_ROWS
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not _out_of_memory
        and prefers_onednn()
    )


@contextlib.contextmanager
def gradients_added_in_place(memory: GradientMemory | None) -> Iterator[None]:
    """What is computed inside may add its weights' gradients to those in `grad` where it makes them.

    That saves writing each and reading it again, for all but the first micro-batch of a step. `torch.autograd.grad`,
    which has to leave `grad` alone, must not be used on it.

    Args:
        memory: where gradients are made; None leaves them to autograd.
    """
    global _memory
    before, _memory = _memory, memory
    try:
        yield
    finally:
        _memory = before


def memory_for_branches(x_BTD: Tensor) -> GradientMemory | None:
    """Where a block that gets this computes its branches in memory laid out once, or None where autograd does it.

    That is in a training step on a CPU in plain fp32.
    """
    return _memory if by_own_backward(x_BTD) else None


def by_own_backward(x: Tensor) -> bool:
    """Whether the backward pass of a product with this on the left is written here: on a CPU, in plain fp32."""
    return torch.is_grad_enabled() and in_plain_fp32(x)


def in_plain_fp32(x: Tensor) -> bool:
    """Whether what is computed with this runs on a CPU, in plain fp32."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def linear(x_NI: Tensor, weight_IO: Tensor, bias_O: Tensor) -> Tensor:
    """`x W + b`, differentiable: [N, I] -> [N, O]."""
    if by_onednn(x_NI) or (_memory is not None and by_own_backward(x_NI)):
        out_NO: Tensor = _Linear.apply(x_NI, weight_IO, bias_O, _memory)  # type: ignore[no-untyped-call]
        return out_NO
    return torch.addmm(bias_O, x_NI, weight_IO)


def gelu_linear(x_NI: Tensor, weight_IO: Tensor, bias_O: Tensor) -> Tensor:
    """`gelu(x) W + b` with the tanh-approximated GELU, where `by_own_backward` allows it: [N, I] -> [N, O].

    Only x is kept for the backward pass, which computes gelu(x) again: a quarter less to keep in all.
    """
    out_NO: Tensor = _GELULinear.apply(x_NI, weight_IO, bias_O, _memory)  # type: ignore[no-untyped-call]
    return out_NO


def product(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """`x Wᵀ + b` by oneDNN, without a gradient: [N, I] -> [N, O]; either matrix may be a transposed view."""
    out_NO: Tensor = torch.ops.mkldnn._linear_pointwise(x_NI, weight_OI, bias_O, "none", [], "")
    return out_NO


def weight_gradient(x_NI: Tensor, grad_NO: Tensor) -> Tensor:
    """`xᵀ g` by oneDNN: [N, I], [N, O] -> [I, O]."""
    # The operator's own roles would give [O, I]: with the two exchanged it gives the transpose.
    grad_IO, _ = torch.ops.aten.mkldnn_linear_backward_weights(
        x_NI.to_mkldnn(), grad_NO.to_mkldnn(), x_NI.new_empty(x_NI.size(1), grad_NO.size(1)), False
    )
    gradient: Tensor = grad_IO
    return gradient


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_IO: Tensor, bias_O: Tensor, memory: GradientMemory | None) -> Tensor:
        ctx.save_for_backward(x_NI if ctx.needs_input_grad[1] else None)
        ctx.weight_IO, ctx.memory = weight_IO, memory  # the parameter itself: checkpointing detaches what is saved
        return _forward(x_NI, weight_IO, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        (x_NI,), weight_IO = ctx.saved_tensors, ctx.weight_IO
        grad_NO = grad_outputs[0].contiguous()
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        return (
            _input_gradient(grad_NO, weight_IO) if need_x else None,
            _weight_gradient(x_NI, grad_NO, weight_IO, memory=ctx.memory) if need_weight else None,
            grad_NO.sum(0) if need_bias else None,
            None,
        )


class _GELULinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_IO: Tensor, bias_O: Tensor, memory: GradientMemory | None) -> Tensor:
        ctx.save_for_backward(x_NI)
        ctx.weight_IO, ctx.memory = weight_IO, memory
        return _forward(F.gelu(x_NI, approximate="tanh"), weight_IO, bias_O)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        (x_NI,), weight_IO = ctx.saved_tensors, ctx.weight_IO
        grad_NO = grad_outputs[0].contiguous()
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        grad_weight_IO = grad_x_NI = None
        if need_weight:
            active_NI = F.gelu(x_NI, approximate="tanh")
            grad_weight_IO = _weight_gradient(active_NI, grad_NO, weight_IO, memory=ctx.memory)
        if need_x:
            grad_x_NI = _input_gradient(grad_NO, weight_IO)
            torch.ops.aten.gelu_backward.grad_input(grad_x_NI, x_NI, approximate="tanh", grad_input=grad_x_NI)
        return grad_x_NI, grad_weight_IO, grad_NO.sum(0) if need_bias else None, None


def _forward(x_NI: Tensor, weight_IO: Tensor, bias_O: Tensor) -> Tensor:
    return product(x_NI, weight_IO.T, bias_O) if by_onednn(x_NI) else torch.addmm(bias_O, x_NI, weight_IO)


def _input_gradient(grad_NO: Tensor, weight_IO: Tensor) -> Tensor:
    return product(grad_NO, weight_IO) if by_onednn(grad_NO) else grad_NO @ weight_IO.T


def _weight_gradient(
    x_NI: Tensor, grad_NO: Tensor, weight_IO: Tensor, *, memory: GradientMemory | None
) -> Tensor | None:
    """`xᵀ g`, or None when it is already in the weight's `grad`."""
    if by_onednn(x_NI):
        return weight_gradient(x_NI, grad_NO)
    if memory is None or not weight_IO.is_leaf:
        return x_NI.T @ grad_NO
    memory.add_product(weight_IO, x_NI, grad_NO)
    return None
