"""What a training step computes between its matrix products, by the compiled kernel.

It runs on PyTorch's own threads, which are GCC's OpenMP's: with threads of its own the kernel would wait for those,
which go on looking for work for a while after each product. Where those of PyTorch have no such entry, or there is no
kernel, the operations are PyTorch's own (`gpt2kit.model.operations`, which says what each does).

Sums are made in one order whatever the number of threads, and what dropout drops is a function of a seed, of which
nothing need be kept: the backward pass asks again.

Shapes: N tokens, D width, F width of an MLP, C width of queries, keys and values together, B rows, T positions, H
heads, K width of a head.
"""

import ctypes
import functools
from collections.abc import Sequence
from ctypes import byref, c_void_p

import torch
from torch import Tensor

from gpt2kit.model.arena import Arena
from gpt2kit.model.noise import draw_seed
from gpt2kit.model.operations import Attending, Between, Dropout, Norm, Operations, TorchOperations
from gpt2kit.model.products import prefers_kernel
from gpt2kit.native.library import BLOCK, CHUNK, AttentionCall, ProductCall, RowsCall, best_isa, load_library

_GELU, _GELU_GRADIENT, _ADD_ONTO, _DROP_GRADIENT, _NORM, _NORM_GRADIENT, _CROSS_ENTROPY = range(7)
_ALIGNMENT = 16  # floats of a cache line
_SMALLEST = 32  # rows, columns and depth of a product of the kernel's
_TYPES = {"targets": torch.int64, "first": torch.int32}  # of what is no float32


def step_operations() -> Operations:
    """The kernel's operations where they run, else PyTorch's."""
    library, run = load_library(), _run_on_threads()
    return TorchOperations() if library is None or run is None else KernelOperations(library, run)


def has_step_kernel() -> bool:
    """Whether `step_operations` gives the kernel's."""
    return isinstance(step_operations(), KernelOperations)


@functools.cache
def _run_on_threads() -> int | None:
    """The address of the function that makes all of PyTorch's threads do something; None where there is none."""
    try:
        return ctypes.cast(ctypes.CDLL(torch._C.__file__).GOMP_parallel, c_void_p).value
    except (OSError, AttributeError):
        return None


class KernelOperations:
    """The operations by the kernel.

    Args:
        library: the kernel.
        run: the address of `GOMP_parallel`.
        isa: the instruction set; by default the best.
    """

    sees_from_first = True

    def __init__(self, library: ctypes.CDLL, run: int, isa: int | None = None) -> None:
        self._library, self._run, self._isa = library, run, best_isa(library) if isa is None else isa
        self._scratch = torch.empty(0)

    def attention(self, shape_BTD: Sequence[int], attending: Attending, arena: Arena) -> Between:
        """Some queries at a time against the keys that they see; probabilities are computed again, not kept."""
        if attending.is_masked:
            return TorchOperations().attention(shape_BTD, attending, arena)
        return _Attention(self, shape_BTD, attending, arena)

    def activation(self, bias_F: Tensor, arena: Arena) -> Between:
        """In one pass each way; the gradient's leaves the activations where their inputs were."""
        return _Activation(self, bias_F, arena)

    def dropout(self, rate: float, arena: Arena) -> Dropout:
        """In one pass with the bias and what it is added to; nothing is kept."""
        return _Residual(self, rate, arena)

    def norm(self, x_ND: Tensor, norm: torch.nn.LayerNorm, arena: Arena) -> Norm:
        """In the arena, and its gradient in place."""
        return _Norm(self, x_ND, norm, arena)

    def cross_entropy_(self, scores_CV: Tensor, targets_C: Tensor) -> Tensor:
        """A row at a time, while it is in the cache."""
        targets_C = targets_C.long()
        if len(targets_C) and not 0 <= int(targets_C.min()) <= int(targets_C.max()) < scores_CV.size(1):
            raise IndexError(f"a target is outside the vocabulary of {scores_CV.size(1)} tokens")
        nats_C2 = torch.empty(len(targets_C), 2)
        self.on_rows(_CROSS_ENTROPY, scores_CV, y=scores_CV, targets=targets_C, statistics=nats_C2)
        return nats_C2[:, 0].sum()

    def multiply(
        self, a_NI: Tensor, b_IO: Tensor, out_NO: Tensor, *, bias_O: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        """By the kernel where that is the quickest here and the matrices are large, else by PyTorch's library."""
        rows, depth, columns = *a_NI.shape, b_IO.size(1)
        is_plain = a_NI.dtype == b_IO.dtype == out_NO.dtype == torch.float32
        if not (is_plain and prefers_kernel()) or min(rows, depth, columns) < _SMALLEST:
            return TorchOperations().multiply(a_NI, b_IO, out_NO, bias_O=bias_O, scale=scale)
        threads = torch.get_num_threads()
        rows_laid, columns_laid = self._room_for(self._library.gk_product_room(rows, depth), threads * BLOCK)
        call = ProductCall(
            rows=rows,
            columns=columns,
            depth=depth,
            a_row=a_NI.stride(0),
            a_column=a_NI.stride(1),
            b_row=b_IO.stride(0),
            b_column=b_IO.stride(1),
            c_row=out_NO.stride(0),
            adds=scale is not None,
            scale=1.0 if scale is None else scale,
            a=a_NI.data_ptr(),
            b=b_IO.data_ptr(),
            rows_laid=rows_laid,
            columns_laid=columns_laid,
            **_addresses({"c": out_NO, "bias": bias_O}),
        )
        self._library.gk_multiply(self._run, threads, self._isa, byref(call))
        return out_NO

    def on_rows(
        self,
        operation: int,
        like: Tensor,
        *,
        epsilon: float = 0.0,
        dropout: float = 0.0,
        seed: int = 0,
        **tensors: Tensor | None,
    ) -> None:
        """An operation on all rows of a matrix; what it does with which tensors is said in step.h."""
        call = RowsCall(
            operation=operation,
            num_rows=like.size(0),
            width=like.size(1),
            stride=like.stride(0),
            epsilon=epsilon,
            dropout=dropout,
            seed=seed,
            **_addresses(tensors),
        )
        self._library.gk_rows(self._run, torch.get_num_threads(), self._isa, byref(call))

    def with_column_sums(
        self, operation: int, like: Tensor, *, needed: bool, dropout: float = 0.0, seed: int = 0, **tensors: Tensor
    ) -> Tensor | None:
        """Such an operation, and the sums over all rows that it makes, where needed."""
        sums = self.sums_for(like) if needed else None
        self.on_rows(operation, like, epsilon=0.0, dropout=dropout, seed=seed, sums=sums, **tensors)
        return None if sums is None else sums[:, 0].sum(0)

    def sums_for(self, like: Tensor) -> Tensor:
        """Room for the two kinds of sums over the rows of each chunk of a matrix."""
        return torch.empty(-(-like.size(0) // CHUNK), 2, like.size(1))

    def attend(self, shape_BTHK: Sequence[int], attending: Attending, seed: int, **tensors: Tensor | None) -> None:
        """Attention, forward, or backward where `grad_out` is given."""
        B, T, H, K = shape_BTHK
        threads, room = torch.get_num_threads(), self._library.gk_attention_scratch(T, K)
        stride = -(-room // _ALIGNMENT) * _ALIGNMENT
        (scratch,) = self._room_for(threads * stride)
        call = AttentionCall(
            rows=B,
            length=T,
            heads=H,
            width=K,
            scale=attending.scale,
            dropout=attending.dropout,
            seed=seed,
            scratch=scratch,
            stride_scratch=stride,
            **_addresses(tensors | {"first": attending.first_seen_BT}),
        )
        self._library.gk_attend(self._run, threads, self._isa, byref(call))

    def _room_for(self, *sizes: int) -> list[int]:
        """Addresses of scratch memory for so many floats each, at cache lines; the same for every call."""
        sizes = tuple(-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes)
        if self._scratch.numel() < sum(sizes) + _ALIGNMENT:
            self._scratch = torch.empty(sum(sizes) + _ALIGNMENT)
        start = self._scratch.data_ptr()
        start += -start % (4 * _ALIGNMENT)
        return [start + 4 * sum(sizes[:number]) for number in range(len(sizes))]


def _addresses(tensors: dict[str, Tensor | None]) -> dict[str, int]:
    present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    for name, tensor in present.items():
        assert tensor.dtype == _TYPES.get(name, torch.float32)
        assert tensor.stride(-1) == 1
        assert tensor.device.type == "cpu"
    return {name: tensor.data_ptr() for name, tensor in present.items()}


class _Attention:
    """Attention, whose output is kept, and for each head and query the log of its sum."""

    adds_bias = False

    def __init__(self, operations: KernelOperations, shape_BTD: Sequence[int], how: Attending, arena: Arena) -> None:
        self._operations, self._attending, self._arena = operations, how, arena
        B, T, D = shape_BTD
        self._shape_BTHK = B, T, how.heads, D // how.heads
        self._seed = draw_seed() if how.dropout > 0 else 0

    def _attend(self, **gradients: Tensor) -> None:
        kept = {"qkv": self._qkv_NC, "out": self._attended_ND, "log_sums": self._log_sums}
        self._operations.attend(self._shape_BTHK, self._attending, self._seed, **kept, **gradients)

    def begin(self, x_NO: Tensor) -> Tensor:
        B, T, H, K = self._shape_BTHK
        self._qkv_NC = x_NO
        self._attended_ND, self._log_sums = self._arena.take((B * T, H * K)), self._arena.take((B * H * T,))
        self._attend()
        return self._attended_ND

    def give(self, output_NI: Tensor) -> None:
        pass  # it is read again

    def backward(self, grad_NI: Tensor, *, needs_bias: bool) -> tuple[Tensor, Tensor | None]:
        grad_NC = self._arena.take(self._qkv_NC.shape)
        self._attend(grad_out=grad_NI, grad_qkv=grad_NC)
        self._arena.give(grad_NI)
        return grad_NC, _column_sums(self._operations, grad_NC) if needs_bias else None

    def output_again(self) -> Tensor:
        return self._attended_ND

    def end(self) -> None:
        for piece in (self._qkv_NC, self._attended_ND, self._log_sums):
            self._arena.give(piece)


class _Activation:
    """The tanh-approximated GELU; in the backward pass the activations come where their inputs were."""

    adds_bias = True

    def __init__(self, operations: KernelOperations, bias_F: Tensor, arena: Arena) -> None:
        self._operations, self._bias_F, self._arena = operations, bias_F, arena

    def begin(self, x_NO: Tensor) -> Tensor:
        self._hidden_NF = x_NO
        active_NF = self._arena.take(x_NO.shape)
        self._operations.on_rows(_GELU, x_NO, x=x_NO, y=active_NF, bias=self._bias_F)
        return active_NF

    def give(self, output_NI: Tensor) -> None:
        self._arena.give(output_NI)

    def backward(self, grad_NI: Tensor, *, needs_bias: bool) -> tuple[Tensor, Tensor | None]:
        grad_bias_F = self._operations.with_column_sums(
            _GELU_GRADIENT, grad_NI, needed=needs_bias, x=self._hidden_NF, y=grad_NI
        )
        return grad_NI, grad_bias_F

    def output_again(self) -> Tensor:
        return self._hidden_NF

    def end(self) -> None:
        self._arena.give(self._hidden_NF)


class _Residual:
    """The dropout of a branch, with what is added before and after it."""

    def __init__(self, operations: KernelOperations, rate: float, arena: Arena) -> None:
        self._operations, self._rate, self._arena = operations, rate, arena
        self._seed = draw_seed() if rate > 0 else 0

    def onto(self, out_ND: Tensor, bias_D: Tensor, x_ND: Tensor) -> None:
        self._operations.on_rows(
            _ADD_ONTO, out_ND, input=x_ND, y=out_ND, bias=bias_D, dropout=self._rate, seed=self._seed
        )

    def gradient(self, grad_ND: Tensor, *, needs_bias: bool) -> tuple[Tensor, Tensor | None]:
        if self._rate == 0:
            return grad_ND, _column_sums(self._operations, grad_ND) if needs_bias else None
        dropped_ND = self._arena.take(grad_ND.shape)
        grad_bias_D = self._operations.with_column_sums(
            _DROP_GRADIENT,
            grad_ND,
            needed=needs_bias,
            input=grad_ND,
            y=dropped_ND,
            dropout=self._rate,
            seed=self._seed,
        )
        return dropped_ND, grad_bias_D

    def give(self, grad_ND: Tensor) -> None:
        if self._rate > 0:
            self._arena.give(grad_ND)

    def end(self) -> None:
        pass  # what is dropped is asked again


def _column_sums(operations: KernelOperations, x_ND: Tensor) -> Tensor | None:
    return operations.with_column_sums(_DROP_GRADIENT, x_ND, needed=True, input=x_ND)


class _Norm:
    """A layer norm of which only the input is kept, and for each token two numbers."""

    def __init__(self, operations: KernelOperations, x_ND: Tensor, norm: torch.nn.LayerNorm, arena: Arena) -> None:
        self._operations, self._x_ND, self._norm, self._arena = operations, x_ND, norm, arena
        self._statistics_N2 = torch.empty(len(x_ND), 2)

    def output(self) -> Tensor:
        normed_ND = self._arena.take(self._x_ND.shape)
        self._operations.on_rows(
            _NORM,
            normed_ND,
            input=self._x_ND,
            y=normed_ND,
            gain=self._norm.weight,
            bias=self._norm.bias,
            statistics=self._statistics_N2,
            epsilon=self._norm.eps,
        )
        return normed_ND

    def give(self, output_ND: Tensor) -> None:
        self._arena.give(output_ND)

    def gradients(
        self, grad_ND: Tensor, grad_out_ND: Tensor, *, needed: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        needs_x, needs_gain, needs_shift = needed
        sums = self._operations.sums_for(grad_ND) if needs_gain or needs_shift else None
        self._operations.on_rows(
            _NORM_GRADIENT,
            grad_ND,
            input=self._x_ND,
            x=grad_out_ND,
            y=grad_ND,
            gain=self._norm.weight,
            statistics=self._statistics_N2,
            sums=sums,
        )
        totals_2D = None if sums is None else sums.sum(0)
        if not needs_x:
            self._arena.give(grad_ND)
        return (
            grad_ND if needs_x else None,  # the branch below gives it back
            totals_2D[0] if totals_2D is not None and needs_gain else None,
            totals_2D[1] if totals_2D is not None and needs_shift else None,
        )
