"""The chunked head and loss against the plain one, and its memory."""

import math
from typing import Any

import pytest
import torch
from tiny_gpt2 import random_ids, tiny
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gpt2kit.model import loss as loss_module
from gpt2kit.model.loss import chunked_cross_entropy, chunked_token_losses


class LargestTensor(TorchDispatchMode):
    """Notes the largest tensor that any operation returns, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_TOKENS", 7)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("ignored", ["none", "some", "all but one", "all"])
def test_is_the_plain_cross_entropy(ignored: str) -> None:
    B, T, D, V = 3, 11, 16, 50
    generator = torch.Generator().manual_seed(0)
    hidden_BTD = torch.randn(B, T, D, generator=generator)
    weight_VD = torch.randn(V, D, generator=generator)
    targets_BT = random_ids(B, T, vocabulary=V)
    if ignored == "some":
        targets_BT[torch.rand(B, T, generator=generator) < 0.4] = -100
    elif ignored != "none":
        targets_BT.fill_(-100)
        targets_BT[1, 3] = 5 if ignored == "all but one" else -100

    plain = [tensor.clone().requires_grad_() for tensor in (hidden_BTD, weight_VD)]
    chunked = [tensor.clone().requires_grad_() for tensor in (hidden_BTD, weight_VD)]
    logits_NV = (plain[0] @ plain[1].T).flatten(0, 1)
    expected = F.cross_entropy(logits_NV, targets_BT.flatten(), ignore_index=-100, reduction="sum")
    (expected * 0.37).backward()
    nats = chunked_cross_entropy(*chunked, targets_BT)
    (nats * 0.37).backward()

    torch.testing.assert_close(nats, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(chunked, plain, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    per_token_BT = chunked_token_losses(hidden_BTD, weight_VD, targets_BT)
    each_BT = F.cross_entropy(logits_NV, targets_BT.flatten(), ignore_index=-100, reduction="none").view(B, T)
    torch.testing.assert_close(per_token_BT, each_BT.detach(), rtol=1e-5, atol=1e-5)
    assert not per_token_BT[targets_BT == -100].any()


@pytest.mark.usefixtures("small_chunks")
def test_chunks_only_change_the_order_of_sums() -> None:
    model = tiny()
    ids_BT, targets_BT = random_ids(3, 20), random_ids(3, 20, seed=2)
    small = model.loss(ids_BT, targets_BT)
    loss_module.CHUNK_TOKENS = 10_000
    torch.testing.assert_close(model.loss(ids_BT, targets_BT), small, rtol=1e-6, atol=0)


@pytest.mark.parametrize("trained", ["all", "without head"])
def test_the_logits_of_the_batch_are_never_made(trained: str) -> None:
    """4 chunks of tokens: no tensor reaches half of what the logits would be."""
    V, tokens = 3_000, 4 * loss_module.CHUNK_TOKENS
    model = tiny(vocab_size=V, n_positions=256, n_embd=16, n_head=2, n_layer=1)
    if trained == "without head":
        model.lm_head.weight.requires_grad_(False)
    ids_BT = random_ids(tokens // 256, 256)
    with LargestTensor() as largest:
        model.loss(ids_BT, ids_BT).backward()
        model.token_losses(ids_BT, ids_BT)
    assert largest.elements <= loss_module.CHUNK_TOKENS * (V + 63)  # rows begin at cache lines
    with LargestTensor() as plain:
        F.cross_entropy(model.logits(model(ids_BT)).flatten(0, 1), ids_BT.flatten()).backward()
    assert plain.elements == tokens * V  # the instrument sees what it should


def test_fp16_gradients_do_not_vanish() -> None:
    """The probability of an unlikely token (1.5e-8) is below fp16; times the loss scaler's factor it is not."""
    V, D, scale = 40, 4, 2.0**14
    hidden_ND = torch.zeros(3, D, dtype=torch.float16)
    hidden_ND[:, 0] = 1
    weight_VD = torch.zeros(V, D, dtype=torch.float16)
    weight_VD[7, 0] = 18
    weight_VD.requires_grad_()
    (chunked_cross_entropy(hidden_ND, weight_VD, torch.full((3,), 7)) * scale).backward()
    assert weight_VD.grad is not None
    unlikely = 1 / (math.exp(18) + V - 1)
    assert weight_VD.grad[3, 0].item() / scale == pytest.approx(3 * unlikely, rel=1e-2)


def test_a_second_backward_is_refused_rather_than_wrong() -> None:
    hidden_ND = torch.randn(4, 8, requires_grad=True)
    nats = chunked_cross_entropy(hidden_ND, torch.randn(9, 8), torch.tensor([1, 2, 3, 4]))
    (nats * 0.5).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        nats.backward()
