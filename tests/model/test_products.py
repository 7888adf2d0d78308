"""Both libraries' products, and gradients added in place, against PyTorch's own operators."""

from collections.abc import Iterator

import pytest
import torch
from tiny_gpt2 import random_ids, randomise, tiny
from torch import Tensor

from gpt2kit.model import GPT2, add_lora, products
from gpt2kit.model import loss as loss_module

CLOSE = {"rtol": 2e-5, "atol": 2e-5}


@pytest.fixture(params=["onednn", "mkl"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv(products.LIBRARY_VARIABLE, request.param)
    products.prefers_onednn.cache_clear()
    if products.prefers_onednn() != (request.param == "onednn"):
        pytest.skip("this PyTorch has no oneDNN")
    yield request.param
    monkeypatch.undo()
    products.prefers_onednn.cache_clear()


@pytest.mark.parametrize("rows", [1, 31, 32, 257])
@pytest.mark.parametrize("frozen", [False, True])
def test_linear_is_addmm(library: str, rows: int, frozen: bool) -> None:
    generator = torch.Generator().manual_seed(rows)
    values = [torch.randn(*shape, generator=generator) for shape in ((rows, 48), (48, 70), (70,))]
    outgoing = torch.randn(rows, 70, generator=generator)

    def run(function: str) -> list[Tensor]:
        x, weight, bias = (value.clone().requires_grad_() for value in values)
        if frozen:
            weight.requires_grad_(False)
            bias.requires_grad_(False)
        out = products.linear(x, weight, bias) if function == "ours" else torch.addmm(bias, x, weight)
        (out * outgoing).sum().backward()
        return [out.detach(), *(each.grad for each in (x, weight, bias) if each.grad is not None)]

    expected, found = run("torch"), run("ours")
    assert len(found) == len(expected) == (2 if frozen else 4)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("rows", [3, 40])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_gelu_linear_is_gelu_and_addmm(library: str, rows: int, frozen: bool, in_place: bool) -> None:
    generator = torch.Generator().manual_seed(rows)
    values = [torch.randn(*shape, generator=generator) for shape in ((rows, 48), (48, 70), (70,))]
    outgoing = torch.randn(rows, 70, generator=generator)

    def run(function: str) -> list[Tensor]:
        x, weight, bias = (value.clone().requires_grad_() for value in values)
        if frozen:
            weight.requires_grad_(False)
            bias.requires_grad_(False)
        for _ in range(2):  # the second time there is a gradient to add to
            if function == "ours":
                with products.gradients_added_in_place(products.GradientMemory() if in_place else None):
                    out = products.gelu_linear(x, weight, bias)
            else:
                out = torch.addmm(bias, torch.nn.functional.gelu(x, approximate="tanh"), weight)
            (out * outgoing).sum().backward()
        return [out.detach(), *(each.grad for each in (x, weight, bias) if each.grad is not None)]

    expected, found = run("torch"), run("ours")
    assert len(found) == len(expected) == (2 if frozen else 4)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)


def test_the_gradient_is_added_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "by_onednn", lambda _: False)
    x, weight = torch.ones(2, 3), torch.ones(3, 4, requires_grad=True)
    with products.gradients_added_in_place(products.GradientMemory()):
        out = products.linear(x, weight, torch.zeros(4))
    weight.grad = torch.ones(3, 4)
    place = weight.grad.data_ptr()
    out.sum().backward()
    assert weight.grad.data_ptr() == place
    assert torch.equal(weight.grad, torch.full((3, 4), 3.0))  # 1 before, and 1 from each of two rows
    alone = products.linear(x, weight, torch.zeros(4))  # outside, autograd's rule holds: grad is left alone
    (gradient,) = torch.autograd.grad(alone.sum(), weight)
    assert torch.equal(gradient, torch.full((3, 4), 2.0))
    assert torch.equal(weight.grad, torch.full((3, 4), 3.0))


def trained_model(kind: str) -> GPT2:
    model = tiny(tie_word_embeddings=kind != "untied")
    randomise(model, scale=0.05)
    if kind == "LoRA":
        add_lora(model, rank=4, alpha=8, dropout=0.0, targets=["c_attn", "c_fc"])
        randomise(model, scale=0.05)
    if kind == "frozen embedding":
        model.transformer.wte.weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("kind", ["tied", "untied", "frozen embedding", "LoRA"])
@pytest.mark.parametrize("slices", ["whole", "sliced"])
def test_gradients_added_in_place_are_autograds(
    library: str, kind: str, slices: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss_module, "CHUNK_TOKENS", 40)
    if slices == "sliced":
        monkeypatch.setattr(loss_module, "SLICE_TOKENS", 30)
    ids_BT, targets_BT, scale = random_ids(6, 20), random_ids(6, 20, seed=1), 1 / 120
    targets_BT[2, 3:9] = -100
    plain, in_place = trained_model(kind), trained_model(kind)
    (plain.loss(ids_BT, targets_BT) * scale).backward()
    for rows in (slice(0, 4), slice(4, 6)):
        loss = in_place.loss(ids_BT[rows], targets_BT[rows], gradient_scale=scale)
        (loss * scale).backward()
    found = dict(in_place.named_parameters())
    for name, parameter in plain.named_parameters():
        if parameter.grad is None:
            assert found[name].grad is None, name
        else:
            torch.testing.assert_close(found[name].grad, parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_gradients_are_made_in_the_same_memory_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "by_onednn", lambda _: False)
    model, plain = trained_model("tied"), trained_model("tied")
    weights = {name: weight for name, weight in model.named_parameters() if "wpe" not in name}
    memory = products.GradientMemory(weights.values())
    places: list[list[int]] = []
    for step in range(2):  # the second must not find what the first left
        ids_BT = random_ids(3, 20, seed=step)
        for parameter in (*model.parameters(), *plain.parameters()):
            parameter.grad = None
        memory.arena.give_all()
        model.loss(ids_BT, ids_BT, gradient_scale=1 / 60, gradient_memory=memory).mul(1 / 60).backward()
        memory.gather()
        plain.loss(ids_BT, ids_BT).mul(1 / 60).backward()
        places.append([weight.grad.data_ptr() for weight in weights.values() if weight.grad is not None])
        for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert places[0] == places[1]
    assert len(places[0]) == len(weights)


def test_gradients_are_the_same_bits_again(library: str) -> None:
    """A run that goes on later must find what it would have found."""

    def gradients() -> list[Tensor]:
        model = trained_model("tied")
        ids_BT = random_ids(6, 20) % 5  # many rows for one token, whose order of adding would show
        model.loss(ids_BT, ids_BT, gradient_scale=1 / 120).mul(1 / 120).backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    for first, second in zip(gradients(), gradients(), strict=True):
        assert torch.equal(first, second)


def test_after_memory_ran_out_pytorchs_own_products_serve(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x_NI = torch.ones(64, 64)
    assert products.by_onednn(x_NI) == (library == "onednn")
    monkeypatch.setattr(products, "_out_of_memory", False)
    products.leave_onednn()
    assert not products.by_onednn(x_NI)


def test_what_onednn_does_not_take_is_left_to_pytorch(library: str) -> None:
    assert not products.by_onednn(torch.ones(64, 64, dtype=torch.float64))
    assert not products.by_onednn(torch.ones(1, 64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not products.by_onednn(torch.ones(64, 64))
