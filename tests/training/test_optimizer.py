"""AdamW's decay groups, Muon's updates, and a state that comes back whole."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from gpt2kit.errors import ModelError
from gpt2kit.model import GPT2, GPT2Config
from gpt2kit.training.optimizer import Muon, Optimizers, orthogonalised
from gpt2kit.training.settings import OptimizerKind


def tiny_model(seed: int = 0) -> GPT2:
    model = GPT2(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    model.initialise(torch.Generator().manual_seed(seed))
    return model.eval()  # without dropout


def tiny_optimizers(model: GPT2, kind: OptimizerKind = "adamw", *, weight_decay: float = 0.1) -> Optimizers:
    return Optimizers(model, betas=(0.9, 0.99), weight_decay=weight_decay, kind=kind)


def take_steps(model: GPT2, optimizers: Optimizers, number: int) -> None:
    ids_BT = torch.arange(8).view(2, 4)
    for _ in range(number):
        model.zero_grad()
        model.loss(ids_BT, ids_BT).backward()
        optimizers.step(0.1)


def steps_without_gradient(model: GPT2, optimizers: Optimizers) -> dict[str, Tensor]:
    """How a step changes each parameter when every gradient is 0: by the decay alone."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizers.step(0.1)
    return {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", ["adamw", "muon", "adafactor"])
def test_matrices_decay_and_vectors_do_not(kind: OptimizerKind) -> None:
    model = tiny_model()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 2.0)
    changes = steps_without_gradient(model, tiny_optimizers(model, kind, weight_decay=0.3))
    for name, parameter in model.named_parameters():
        expected = -2.0 * 0.1 * 0.3 if parameter.dim() == 2 else 0.0
        torch.testing.assert_close(changes[name], torch.full_like(parameter, expected), msg=name)


@pytest.mark.parametrize("kind", ["adamw", "muon", "adafactor"])
def test_frozen_parameters_stay(kind: OptimizerKind) -> None:
    model = tiny_model()
    model.transformer.wte.requires_grad_(False)
    model.transformer.h[0].mlp.c_fc.weight.requires_grad_(False)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    take_steps(model, tiny_optimizers(model, kind), 1)
    unchanged = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert unchanged == {"transformer.wte.weight", "transformer.h.0.mlp.c_fc.weight"}


@pytest.mark.parametrize("kind", ["adamw", "muon", "adafactor"])
def test_a_restored_optimizer_goes_on_bit_for_bit(kind: OptimizerKind) -> None:
    model = tiny_model()
    optimizers = tiny_optimizers(model, kind)
    take_steps(model, optimizers, 3)
    saved = {name: tensor.clone() for name, tensor in optimizers.tensors().items()}
    other = tiny_model(1)
    other.load_state_dict(model.state_dict())
    restored = tiny_optimizers(other, kind)
    restored.restore(saved)
    take_steps(model, optimizers, 2)
    take_steps(other, restored, 2)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("adamw", "transformer.wpe.weight/step"),
        ("adamw", "transformer.wpe.weight/exp_avg_sq"),
        ("muon", "transformer.h.0.attn.c_attn.weight/momentum"),
        ("adafactor", "transformer.wpe.weight/row_var"),
    ],
)
def test_a_missing_moment_is_named(kind: OptimizerKind, missing: str) -> None:
    model = tiny_model()
    optimizers = tiny_optimizers(model, kind)
    take_steps(model, optimizers, 1)
    saved = optimizers.tensors()
    saved.pop(missing)
    with pytest.raises(ModelError, match=f"lacks {missing}"):
        optimizers.restore(saved)


def test_muon_has_the_blocks_matrices_and_adamw_the_rest() -> None:
    model = tiny_model()
    optimizers = tiny_optimizers(model, "muon")
    take_steps(model, optimizers, 1)
    by_muon = {name.removesuffix("/momentum") for name in optimizers.tensors() if name.endswith("/momentum")}
    block = "transformer.h.0."
    assert by_muon == {f"{block}{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")}


@pytest.mark.parametrize("shape", [(16, 16), (16, 64), (64, 16)])
def test_orthogonalised_keeps_the_singular_vectors_and_evens_out_the_values(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    left, values, right = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    values = torch.linspace(0.05, 1, len(values))
    made = orthogonalised(left @ values.diag() @ right, dtype=torch.float32)
    in_its_basis = left.T @ made @ right.T
    assert ((in_its_basis.diag() > 0.6) & (in_its_basis.diag() < 1.3)).all()
    torch.testing.assert_close(in_its_basis, in_its_basis.diag().diag(), atol=1e-4, rtol=0)


def test_adamw_is_pytorchs_own_bit_for_bit() -> None:
    ours, theirs = tiny_model(), tiny_model()
    optimizers = tiny_optimizers(ours, weight_decay=0.3)
    matrices = [parameter for parameter in theirs.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in theirs.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.3}, {"params": vectors, "weight_decay": 0.0}]
    pytorchs = torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.99), fused=True)
    take_steps(ours, optimizers, 3)
    ids_BT = torch.arange(8).view(2, 4)
    for _ in range(3):
        theirs.zero_grad()
        theirs.loss(ids_BT, ids_BT).backward()
        pytorchs.step()
    saved = optimizers.tensors()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other), name
        for key, value in pytorchs.state[other].items():
            assert torch.equal(saved[f"{name}/{key}"], value), (name, key)


def test_a_step_loads_no_compiler() -> None:
    program = (
        "import sys, torch\n"
        "from gpt2kit.model import GPT2, GPT2Config\n"
        "from gpt2kit.training.optimizer import Optimizers\n"
        "model = GPT2(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=2))\n"
        "model.loss(torch.ones(1, 4, dtype=torch.long), torch.ones(1, 4, dtype=torch.long)).backward()\n"
        "Optimizers(model, betas=(0.9, 0.99), weight_decay=0.1).step(0.1)\n"
        "sys.exit('torch._dynamo' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_muon_step_is_pytorchs_own() -> None:
    """The same update as `torch.optim.Muon`, which computes in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    start, *gradients = (torch.randn(24, 40, generator=generator) for _ in range(4))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = Muon([ours], [], learning_rate=0.02, weight_decay=0.1, dtype=torch.float32)
    reference = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        reference.step()
    moved = float((theirs - start).detach().norm())
    assert float((ours - theirs).detach().norm()) < 0.02 * moved


def test_queries_keys_and_values_are_orthogonalised_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    gradient = torch.randn(8, 24, generator=generator)
    joint = nn.Parameter(torch.zeros(8, 24))
    apart = [nn.Parameter(torch.zeros(8, 8)) for _ in range(3)]
    joint.grad = gradient.clone()
    for parameter, part in zip(apart, gradient.chunk(3, dim=1), strict=True):
        parameter.grad = part.contiguous()
    Muon([], [joint], learning_rate=1.0, weight_decay=0.0, dtype=torch.float32).step()
    Muon(apart, [], learning_rate=1.0, weight_decay=0.0, dtype=torch.float32).step()
    torch.testing.assert_close(joint.detach(), torch.cat([p.detach() for p in apart], dim=1), atol=1e-5, rtol=1e-4)


def test_restored_moments_take_no_memory_of_their_own() -> None:
    model = tiny_model()
    optimizers = tiny_optimizers(model)
    take_steps(model, optimizers, 1)
    before = {name: tensor.data_ptr() for name, tensor in optimizers.tensors().items() if "exp_avg" in name}
    optimizers.restore({name: tensor.clone() for name, tensor in optimizers.tensors().items()})
    after = {name: tensor.data_ptr() for name, tensor in optimizers.tensors().items() if "exp_avg" in name}
    assert after == before
