"""AdamW: decay groups, and a state that comes back whole."""

import pytest
import torch

from gpt2kit.errors import ModelError
from gpt2kit.model import GPT2, GPT2Config
from gpt2kit.training.optimizer import make_optimizer, optimizer_tensors, restore_optimizer


def tiny_model(seed: int = 0) -> GPT2:
    model = GPT2(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    model.initialise(torch.Generator().manual_seed(seed))
    return model.eval()  # without dropout


def take_steps(model: GPT2, optimizer: torch.optim.AdamW, number: int) -> None:
    ids_BT = torch.arange(8).view(2, 4)
    for _ in range(number):
        optimizer.zero_grad()
        model.loss(ids_BT, ids_BT).backward()
        optimizer.step()


def test_matrices_decay_and_vectors_do_not() -> None:
    model = tiny_model()
    optimizer = make_optimizer(model, learning_rate=0.1, betas=(0.9, 0.99), weight_decay=0.3)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert decay[id(parameter)] == (0.3 if parameter.dim() == 2 else 0.0), name
    assert len(decay) == len(list(model.parameters()))


def test_frozen_parameters_are_left_out() -> None:
    model = tiny_model()
    model.transformer.wte.requires_grad_(False)
    optimizer = make_optimizer(model, learning_rate=0.1, betas=(0.9, 0.99), weight_decay=0.0)
    assert all(p is not model.transformer.wte.weight for group in optimizer.param_groups for p in group["params"])


def test_a_restored_optimizer_goes_on_bit_for_bit() -> None:
    model = tiny_model()
    optimizer = make_optimizer(model, learning_rate=0.1, betas=(0.9, 0.99), weight_decay=0.1)
    take_steps(model, optimizer, 3)
    saved = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer, model).items()}
    other = tiny_model(1)
    other.load_state_dict(model.state_dict())
    restored = make_optimizer(other, learning_rate=0.1, betas=(0.9, 0.99), weight_decay=0.1)
    restore_optimizer(restored, other, saved)
    take_steps(model, optimizer, 2)
    take_steps(other, restored, 2)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_a_missing_moment_is_named() -> None:
    model = tiny_model()
    optimizer = make_optimizer(model, learning_rate=0.1, betas=(0.9, 0.99), weight_decay=0.1)
    take_steps(model, optimizer, 1)
    saved = optimizer_tensors(optimizer, model)
    saved.pop("transformer.wpe.weight/step")
    with pytest.raises(ModelError, match=r"lacks transformer\.wpe\.weight"):
        restore_optimizer(optimizer, model, saved)
