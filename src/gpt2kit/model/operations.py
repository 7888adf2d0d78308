"""What a training step on a CPU computes between its matrix products, by PyTorch.

The package's kernel does the same in fewer passes over memory (`gpt2kit.native.step`); this is what runs without it.
All tensors are float32, and results are made in place or in an arena, see `gpt2kit.model.branches`.

Shapes: N tokens, C chunk of them, D width, F width of an MLP, V vocabulary, B rows, T positions, H heads.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gpt2kit.model.arena import Arena
from gpt2kit.model.noise import fill_with_noise

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Attending:
    """How a layer attends.

    Attributes:
        heads: how many.
        scale: what products of queries and keys are multiplied by.
        dropout: share of the probabilities that become 0.
        first_seen_BT: the first position of its row that a query sees, int32; None: 0. It sees all up to itself.
        is_masked: whether an explicit mask says more than that, which `attend` alone knows.
        attend: the same for autograd, from queries, keys and values to what was attended to, [B, T, D] each.
    """

    heads: int
    scale: float
    dropout: float
    first_seen_BT: Tensor | None
    is_masked: bool
    attend: Attend


class Between(Protocol):
    """What a branch computes between its two layers, in one step."""

    adds_bias: bool  # that of the first layer, in `begin`; otherwise the product has it

    def begin(self, x_NO: Tensor) -> Tensor:
        """Take over what the first layer made; gives what the second layer multiplies: [N, I]."""

    def give(self, output_NI: Tensor) -> None:
        """Say that `begin`'s result has been read."""

    def backward(self, grad_NI: Tensor, *, needs_bias: bool) -> tuple[Tensor, Tensor | None]:
        """From the gradient of the output that of what the first layer made, and that of its bias, where needed."""

    def output_again(self) -> Tensor:
        """After `backward`: what the second layer multiplied."""

    def end(self) -> None:
        """Give back all but the gradient."""


class Dropout(Protocol):
    """A dropout that knows in the backward pass what it dropped; at a rate of 0 nothing is dropped."""

    def onto(self, out_ND: Tensor, bias_D: Tensor, x_ND: Tensor) -> None:
        """`out = dropout(out + bias) + x`."""

    def gradient(self, grad_ND: Tensor, *, needs_bias: bool) -> tuple[Tensor, Tensor | None]:
        """From the gradient of `out` that of what was `out` before, and that of the bias, where needed."""

    def give(self, grad_ND: Tensor) -> None:
        """Say that that gradient has been read."""

    def end(self) -> None:
        """Give back all else."""


class Norm(Protocol):
    """A layer norm of which only the input is kept."""

    def output(self) -> Tensor:
        """norm(x), computed each time: [N, D]."""

    def give(self, output_ND: Tensor) -> None:
        """Say that `output`'s result has been read."""

    def gradients(
        self, grad_ND: Tensor, grad_out_ND: Tensor, *, needed: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Those of x, gain and shift, where needed; to that of x `grad_out_ND` is added. `grad_ND` is given back."""


class Operations(Protocol):
    """Makes those of one step."""

    sees_from_first: bool  # whether attention goes by `first_seen_BT` rather than by an explicit mask

    def attention(self, shape_BTD: Sequence[int], attending: Attending, arena: Arena) -> Between:
        """Attention of queries, keys and values that lie side by side."""

    def activation(self, bias_F: Tensor, arena: Arena) -> Between:
        """The tanh-approximated GELU, after a bias."""

    def dropout(self, rate: float, arena: Arena) -> Dropout:
        """What is behind a branch."""

    def norm(self, x_ND: Tensor, norm: torch.nn.LayerNorm, arena: Arena) -> Norm:
        """What is in front of it."""

    def multiply(
        self, a_NI: Tensor, b_IO: Tensor, out_NO: Tensor, *, bias_O: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        """`out = a b + bias`, or with a scale `out += scale · a b`; a and b may be transposed views. Returns `out`."""

    def cross_entropy_(self, scores_CV: Tensor, targets_C: Tensor) -> Tensor:
        """The sum of the targets' nats; scores become their gradients, `softmax(scores) - onehot(target)`."""


class TorchOperations:
    """The operations by PyTorch's own functions."""

    sees_from_first = False

    def attention(self, shape_BTD: Sequence[int], attending: Attending, arena: Arena) -> Between:
        """By autograd, whose results are copied into the arena."""
        return _Attention(attending.attend, shape_BTD, arena)

    def activation(self, bias_F: Tensor, arena: Arena) -> Between:
        """By two of PyTorch's functions, and in place where nothing is read again."""
        return _Activation(bias_F, arena)

    def dropout(self, rate: float, arena: Arena) -> Dropout:
        """With noise from numpy, of which is kept what was dropped."""
        return _Residual(rate, arena)

    def norm(self, x_ND: Tensor, norm: torch.nn.LayerNorm, arena: Arena) -> Norm:
        """By PyTorch's layer norm, outside the arena."""
        return _Norm(x_ND, norm, arena)

    def multiply(
        self, a_NI: Tensor, b_IO: Tensor, out_NO: Tensor, *, bias_O: Tensor | None = None, scale: float | None = None
    ) -> Tensor:
        """By the library that PyTorch multiplies with."""
        if scale is not None:
            return out_NO.addmm_(a_NI, b_IO, alpha=scale)
        return torch.mm(a_NI, b_IO, out=out_NO) if bias_O is None else torch.addmm(bias_O, a_NI, b_IO, out=out_NO)

    def cross_entropy_(self, scores_CV: Tensor, targets_C: Tensor) -> Tensor:
        """By the softmax, term by term."""
        targets_C1 = targets_C[:, None]
        highest_C1 = scores_CV.amax(dim=1, keepdim=True)
        target_scores_C1 = scores_CV.gather(1, targets_C1)
        exponentials_CV = scores_CV.sub_(highest_C1).exp_()
        total_C1 = exponentials_CV.sum(dim=1, keepdim=True)
        nats = (total_C1.log() + highest_C1 - target_scores_C1).sum()
        exponentials_CV.div_(total_C1).scatter_add_(1, targets_C1, torch.full_like(total_C1, -1.0))
        return nats


class _Attention:
    """Attention, whose output is kept."""

    adds_bias = False

    def __init__(self, attend: Attend, shape_BTD: Sequence[int], arena: Arena) -> None:
        self._attend, self._shape_BTD, self._arena = attend, shape_BTD, arena

    def begin(self, x_NO: Tensor) -> Tensor:
        self._qkv_NC = x_NO
        self._parts = [part_ND.view(*self._shape_BTD).requires_grad_() for part_ND in x_NO.chunk(3, dim=1)]
        with torch.enable_grad():
            self._attended_BTD = self._attend(*self._parts)
        return self.output_again()

    def give(self, output_NI: Tensor) -> None:
        pass  # it is not from the arena

    def backward(self, grad_NI: Tensor, *, needs_bias: bool) -> tuple[Tensor, Tensor | None]:
        grad_parts = torch.autograd.grad(self._attended_BTD, self._parts, grad_NI.view(*self._shape_BTD))
        self._arena.give(grad_NI)
        grad_NC = self._arena.take(self._qkv_NC.shape)
        for part_ND, grad_part_BTD in zip(grad_NC.chunk(3, dim=1), grad_parts, strict=True):
            part_ND.copy_(grad_part_BTD.flatten(0, 1))
        return grad_NC, grad_NC.sum(0) if needs_bias else None

    def output_again(self) -> Tensor:
        return self._attended_BTD.detach().flatten(0, 1)

    def end(self) -> None:
        del self._attended_BTD, self._parts  # autograd keeps this until the whole backward pass is over
        self._arena.give(self._qkv_NC)


class _Activation:
    """The tanh-approximated GELU, computed each time."""

    adds_bias = True

    def __init__(self, bias_F: Tensor, arena: Arena) -> None:
        self._bias_F, self._arena = bias_F, arena

    def begin(self, x_NO: Tensor) -> Tensor:
        self._hidden_NF = x_NO.add_(self._bias_F)
        active_NF = self._arena.take(x_NO.shape)
        return torch.ops.aten.gelu.out(x_NO, approximate="tanh", out=active_NF)  # type: ignore[no-any-return]

    def give(self, output_NI: Tensor) -> None:
        self._arena.give(output_NI)

    def backward(self, grad_NI: Tensor, *, needs_bias: bool) -> tuple[Tensor, Tensor | None]:
        hidden_NF = self._hidden_NF
        torch.ops.aten.gelu_backward.grad_input(grad_NI, hidden_NF, approximate="tanh", grad_input=grad_NI)
        torch.ops.aten.gelu.out(hidden_NF, approximate="tanh", out=hidden_NF)
        return grad_NI, grad_NI.sum(0) if needs_bias else None

    def output_again(self) -> Tensor:
        return self._hidden_NF

    def end(self) -> None:
        self._arena.give(self._hidden_NF)


class InputDropout:
    """Dropout of what is multiplied; what it keeps is in the arena. At a rate of 0 nothing is done."""

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


class _Residual:
    """The dropout of a branch, with what is added before and after it."""

    def __init__(self, rate: float, arena: Arena) -> None:
        self._dropout = InputDropout(rate, arena)

    def onto(self, out_ND: Tensor, bias_D: Tensor, x_ND: Tensor) -> None:
        self._dropout.draw(out_ND.shape)
        self._dropout.apply_to(out_ND.add_(bias_D)).add_(x_ND)

    def gradient(self, grad_ND: Tensor, *, needs_bias: bool) -> tuple[Tensor, Tensor | None]:
        grad_ND = self._dropout.of(grad_ND)
        return grad_ND, grad_ND.sum(0) if needs_bias else None

    def give(self, grad_ND: Tensor) -> None:
        self._dropout.give(grad_ND)

    def end(self) -> None:
        self._dropout.end()


class _Norm:
    def __init__(self, x_ND: Tensor, norm: torch.nn.LayerNorm, arena: Arena) -> None:
        self._x_ND, self._norm, self._arena = x_ND, norm, arena

    def output(self) -> Tensor:
        norm = self._norm
        normed_ND, *self._statistics = torch.native_layer_norm(
            self._x_ND, norm.weight.shape, norm.weight, norm.bias, norm.eps
        )
        return normed_ND

    def give(self, output_ND: Tensor) -> None:
        pass  # it is not from the arena

    def gradients(
        self, grad_ND: Tensor, grad_out_ND: Tensor, *, needed: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        gain_D = self._norm.weight
        grads: tuple[Tensor | None, Tensor | None, Tensor | None] = torch.ops.aten.native_layer_norm_backward(
            grad_ND, self._x_ND, gain_D.shape, *self._statistics, gain_D, self._norm.bias, needed
        )
        self._arena.give(grad_ND)
        if grads[0] is not None:
            grads[0].add_(grad_out_ND)
        return grads
