"""Attention with dropout: PyTorch's, given what was dropped, and gradients to match."""

import math

import pytest
import torch
from torch import Tensor

from gpt2kit.model.dropout import QUERIES, Dropout, dropped_attention

B, H = 2, 3


def inputs(T: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values as wide as they are many, so that a unit matrix as values shows the probabilities."""
    torch.manual_seed(0)
    return tuple(torch.randn(B, T, H, T).transpose(1, 2).requires_grad_() for _ in range(3))


def segments(T: int) -> Tensor:
    """Two documents in a row: a query sees the keys of its own."""
    number_T = (torch.arange(T) >= T // 3).long()
    causal_TT = torch.ones(T, T, dtype=torch.bool).tril()
    return (causal_TT & (number_T[:, None] == number_T[None, :])).expand(B, 1, T, T)


@pytest.mark.parametrize("T", [1, QUERIES, 2 * QUERIES + 3])
@pytest.mark.parametrize("in_segments", [False, True])
def test_outputs_and_gradients_are_those_of_the_plain_formula(T: int, in_segments: bool) -> None:
    q, k, v = inputs(T)
    scale, dropout = 1 / math.sqrt(T), 0.3
    allowed = segments(T) if in_segments else None
    torch.manual_seed(7)
    shown = dropped_attention(q, k, torch.eye(T).expand(B, H, T, T), scale=scale, dropout=dropout, allowed_B1TT=allowed)
    kept = shown.detach() > 0
    torch.manual_seed(7)
    found = dropped_attention(q, k, v, scale=scale, dropout=dropout, allowed_B1TT=allowed)

    seen = torch.ones(T, T, dtype=torch.bool).tril() if allowed is None else allowed
    scores = (q @ k.transpose(2, 3) * scale).masked_fill(~seen, -torch.inf)
    expected = (torch.softmax(scores, -1) * kept / (1 - dropout)) @ v
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    weights = torch.randn(B, H, T, T)
    gradients = torch.autograd.grad((found * weights).sum(), (q, k, v))
    for one, other in zip(gradients, torch.autograd.grad((expected * weights).sum(), (q, k, v)), strict=True):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_so_many_are_dropped_as_asked_and_nothing_is_lost_on_average() -> None:
    T = 200
    q, k, _ = inputs(T)
    values = torch.eye(T).expand(B, H, T, T)
    whole = torch.nn.functional.scaled_dot_product_attention(q, k, values, is_causal=True, scale=0.05)
    drawn = [dropped_attention(q, k, values, scale=0.05, dropout=0.2).detach() for _ in range(200)]
    seen = torch.ones(T, T, dtype=torch.bool).tril()
    dropped = torch.stack([(each == 0)[..., seen].float().mean() for each in drawn]).mean()
    assert dropped == pytest.approx(0.2, abs=1e-3)
    mean = torch.stack(drawn).mean(0)
    # Of a probability p the mean of 200 draws has the standard deviation p √(0.2 / 0.8 / 200).
    off = ((mean - whole)[..., seen] / whole[..., seen]).detach()
    assert off.std().item() == pytest.approx(math.sqrt(0.25 / 200), rel=0.02)
    assert off.mean().item() == pytest.approx(0.0, abs=1e-3)


def test_dropout_is_pytorchs_but_for_which_are_dropped() -> None:
    module = Dropout(0.3)
    x = torch.randn(100, 1000).requires_grad_()
    torch.manual_seed(1)
    out = module(x)
    kept = out != 0
    assert kept.float().mean().item() == pytest.approx(0.7, abs=5e-3)
    torch.testing.assert_close(out[kept], x[kept] / 0.7)
    [gradient] = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient, kept / 0.7)
    torch.manual_seed(1)
    assert torch.equal(module(x), out)
    assert not torch.equal(module(x), out)
    assert torch.equal(module.eval()(x), x)
