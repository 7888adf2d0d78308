"""The branches of blocks in memory laid out once: autograd's numbers, nothing overwritten, the same memory again."""

import pytest
import torch

from gpt2kit.model import products
from gpt2kit.model.arena import Arena
from gpt2kit.model.attention import first_seen
from gpt2kit.model.gpt2 import GPT2, AttentionMask, GPT2Config, attention_mask
from gpt2kit.model.lora import TARGETS, add_lora
from gpt2kit.model.operations import Operations, TorchOperations
from gpt2kit.native.step import has_step_kernel, step_operations


def small_model(
    dropout: float = 0.0, lora: tuple[str, ...] = (), lora_dropout: float = 0.0, activation: str = "gelu_new"
) -> GPT2:
    config = GPT2Config(
        activation_function=activation,
        vocab_size=211,
        n_positions=96,
        n_embd=48,
        n_layer=3,
        n_head=4,
        resid_pdrop=dropout,
        embd_pdrop=0.0,
        attn_pdrop=dropout,
    )
    model = GPT2(config)
    numbers = torch.Generator().manual_seed(3)
    model.initialise(numbers)
    if lora:
        add_lora(model, rank=4, alpha=6.0, dropout=lora_dropout, targets=lora, generator=numbers)
        for name, parameter in model.named_parameters():
            if name.endswith("lora_B"):
                torch.nn.init.normal_(parameter, std=0.1, generator=numbers)
    return model.train()


def batch(seed: int = 0, rows: int = 3) -> torch.Tensor:
    return torch.randint(211, (rows, 80), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=["pytorch", "kernel"])
def operations(request: pytest.FixtureRequest) -> Operations:
    if request.param == "pytorch":
        return TorchOperations()
    if not has_step_kernel():
        pytest.skip("the kernel does not run here")
    return step_operations()


@pytest.fixture(autouse=True, params=[False, True], ids=["mkl", "onednn"])
def with_onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "prefers_onednn", lambda: request.param)


@pytest.mark.parametrize("frozen", [(), ("h.0.", "h.1."), ("wte", "wpe", "h.0."), ("ln_1", "c_fc"), ("c_proj", "bias")])
@pytest.mark.parametrize("with_segments", [False, True])
@pytest.mark.parametrize("computed_again", [False, True])
def test_gradients_are_autograds(
    operations: Operations, frozen: tuple[str, ...], with_segments: bool, computed_again: bool
) -> None:
    ours, plain = small_model(), small_model()
    ours.gradient_checkpointing = computed_again
    for model in (ours, plain):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not any(part in name for part in frozen))
    assert_gradients_are_the_same(
        operations, ours, plain, (torch.arange(80) // 30).expand(3, 80) if with_segments else None
    )


@pytest.mark.parametrize("targets", [TARGETS, ("c_attn",), ("c_proj",), ("mlp.c_fc", "attn.c_proj")])
@pytest.mark.parametrize("biases_too", [False, True])
def test_gradients_of_updates_are_autograds(operations: Operations, targets: tuple[str, ...], biases_too: bool) -> None:
    ours, plain = small_model(lora=targets), small_model(lora=targets)
    for model in (ours, plain):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora" in name or (biases_too and ("bias" in name or "h.1.mlp.c_fc" in name)))
    assert_gradients_are_the_same(operations, ours, plain, None)


def assert_gradients_are_the_same(
    operations: Operations, ours: GPT2, plain: GPT2, segments: torch.Tensor | None
) -> None:
    memory = products.GradientMemory(ours.parameters(), operations)
    for seed in range(2):  # the second time in memory that has been used
        for parameter in (*ours.parameters(), *plain.parameters()):
            parameter.grad = None
        memory.arena.give_all()
        for part in (batch(seed), batch(seed + 10)):  # two parts are added up
            loss = ours.loss(part, part, segment_ids_BT=segments, gradient_scale=0.01, gradient_memory=memory)
            loss.mul(0.01).backward()
            expected = plain.loss(part, part, segment_ids_BT=segments)
            expected.mul(0.01).backward()
            torch.testing.assert_close(loss, expected)
        for (name, parameter), other in zip(ours.named_parameters(), plain.parameters(), strict=True):
            if other.requires_grad:
                torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-6, msg=name)
            else:
                assert parameter.grad is None, name


@pytest.mark.parametrize(("lora", "name"), [((), "mlp.c_fc.weight"), (TARGETS, "mlp.c_fc.lora_A")])
def test_dropout_drops_the_same_in_both_passes(operations: Operations, lora: tuple[str, ...], name: str) -> None:
    """The gradient in a direction is what a step in it changes, with the same numbers drawn."""
    model, memory, tokens = small_model(0.2, lora, lora_dropout=0.3), products.GradientMemory((), operations), batch()

    def loss() -> torch.Tensor:
        torch.manual_seed(5)
        return model.loss(tokens, tokens, gradient_scale=1.0, gradient_memory=memory)

    weight = model.transformer.h[1].get_parameter(name)
    loss().backward()
    assert weight.grad is not None
    direction = weight.grad / weight.grad.norm()
    slope, step = float((weight.grad * direction).sum()), 1e-2
    weight.data += step * direction
    above = float(loss().detach())
    weight.data -= 2 * step * direction
    below = float(loss().detach())
    assert (above - below) / (2 * step) == pytest.approx(slope, rel=0.02)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("with_checkpointing", [False, True])
def test_dropout_drops_what_autograds_layers_do(lora: bool, with_checkpointing: bool) -> None:
    """Computed again or not, with everything dropped or not, the loss is the same bits."""
    for dropout in (0.2, 1.0):
        losses = []
        for with_memory in (False, True):
            model = small_model(dropout, TARGETS if lora else (), lora_dropout=0.3)
            model.gradient_checkpointing = with_checkpointing and not with_memory
            torch.manual_seed(5)
            scale = 1.0 if with_memory or with_checkpointing else None
            losses.append(model.loss(batch(), batch(), gradient_scale=scale).item())
        assert losses[0] == losses[1]


@pytest.mark.parametrize("lora", [(), TARGETS, ("c_attn",)])
def test_nothing_is_left_over_after_a_step(operations: Operations, lora: tuple[str, ...]) -> None:
    model, memory = small_model(0.1, lora, lora_dropout=0.1), products.GradientMemory((), operations)
    for _ in range(3):
        tokens = batch()
        model.loss(tokens, tokens, gradient_scale=1.0, gradient_memory=memory).backward()
    gradients = {parameter.grad.data_ptr() for parameter in model.parameters() if parameter.grad is not None}
    # What goes into the last norm and the loss is read by autograd, which does not give back.
    assert len(set(memory.arena._taken) - gradients) <= 3


@pytest.mark.parametrize("activation", ["gelu_new", "relu"])
def test_computed_again_gives_the_same_bits_and_keeps_less(operations: Operations, activation: str) -> None:
    gradients, sizes = [], []
    for again in (False, True):
        model = small_model(0.1, TARGETS, lora_dropout=0.1, activation=activation)
        memory, tokens = products.GradientMemory((), operations), batch()
        model.gradient_checkpointing = again
        torch.manual_seed(3)
        loss = model.loss(tokens, tokens, gradient_scale=1.0, gradient_memory=memory)
        sizes.append(sum(end - start for _, start, end in memory.arena._taken.values()))
        loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters() if "lora" in name})
        own = {parameter.grad.data_ptr() for parameter in model.parameters() if parameter.grad is not None}
        assert len(set(memory.arena._taken) - own) <= 1
    for name, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][name]), name
    assert sizes[1] < sizes[0] / 3 or products.prefers_onednn()  # which makes its results elsewhere


def test_a_mask_by_the_first_position_is_the_explicit_one() -> None:
    model, x_BTD = small_model().eval(), torch.randn(2, 20, 48, generator=torch.Generator().manual_seed(1))
    segments_BT = torch.tensor([[0] * 7 + [1] * 13, [0] * 19 + [-1]])
    explicit = attention_mask(segments_BT, past=0, segment_ids_BT=segments_BT, key_mask_BS=None)
    with torch.no_grad():
        expected = model.transformer.h[0](x_BTD, explicit)
        ours = model.transformer.h[0](x_BTD, AttentionMask(first_seen_BT=first_seen(segments_BT)))
    assert torch.equal(ours, expected)


def test_pieces_do_not_overlap_and_grow_together_again() -> None:
    arena = Arena()
    first, second, third = (arena.take((1000,)).fill_(number) for number in range(3))
    assert (first == 0).all()
    assert (second == 1).all()
    assert (third == 2).all()
    places = first.data_ptr(), second.data_ptr()
    arena.give(second)
    arena.give(first)
    arena.give(torch.ones(5))  # is none of its own
    larger = arena.take((1900,))
    assert larger.data_ptr() == places[0]
    larger.fill_(7)
    assert (third == 2).all()
    arena.give_all()
    assert arena.take((10,), torch.bool).data_ptr() == places[0]
