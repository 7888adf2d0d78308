"""Our arithmetic against the recorded activations of gpt-nano-sort, a model trained and recorded by someone else."""

import base64
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gpt2kit.model import GPT2, load_model
from gpt2kit.model.gpt2 import AttentionMask, Block
from gpt2kit.model.reading import attention_weights, read_blocks

pytestmark = pytest.mark.corpora
# The recording was made on another machine, in fp32: the same sums in another order.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


@pytest.fixture
def model(corpora: Path) -> GPT2:
    return load_model(corpora / "gpt-nano-sort")


@pytest.fixture
def recorded(corpora: Path) -> dict[str, Tensor]:
    text = (corpora / "gpt-nano-sort" / "activations.json").read_text(encoding="utf-8")
    arrays = {name: value for name, value in json.loads(text).items() if name != "config"}
    return {
        name: torch.from_numpy(
            np.frombuffer(base64.b64decode(value["data"]), dtype="<f4").reshape(value["shape"]).copy()
        )
        for name, value in arrays.items()
    }


def first_block(model: GPT2) -> Block:
    block = model.transformer.h[0]
    assert isinstance(block, Block)
    return block


@torch.no_grad()
def test_outputs(model: GPT2, recorded: dict[str, Tensor]) -> None:
    ids_BT = recorded["idx"].long()
    hidden_BTD = model(ids_BT)
    torch.testing.assert_close(hidden_BTD, recorded["ln_f"], **CLOSE)
    torch.testing.assert_close(model.logits(hidden_BTD), recorded["lm_head"], **CLOSE)
    torch.testing.assert_close(model.logits(hidden_BTD).softmax(-1), recorded["probs"], **CLOSE)


@torch.no_grad()
def test_every_block(model: GPT2, recorded: dict[str, Tensor]) -> None:
    for row, ids_T in enumerate(recorded["idx"].long()):
        streams, _ = read_blocks(model, ids_T)
        torch.testing.assert_close(streams[0], recorded["x"][row], **CLOSE)
        for layer in range(3):
            torch.testing.assert_close(streams[layer + 1], recorded[f"block{layer}"][row], **CLOSE)


@torch.no_grad()
def test_inside_the_first_block(model: GPT2, recorded: dict[str, Tensor]) -> None:
    block, x_BTD = first_block(model), recorded["x"]
    normed_BTD = block.ln_1(x_BTD)
    torch.testing.assert_close(normed_BTD, recorded["ln1"], **CLOSE)
    for name, tensor_BHTK in zip("qkv", block.attn.queries_keys_values(normed_BTD), strict=True):
        torch.testing.assert_close(tensor_BHTK, recorded[name].view(tensor_BHTK.shape), **CLOSE)
    torch.testing.assert_close(attention_weights(block.attn, normed_BTD), recorded["attSm"], **CLOSE)
    attended_BTD = block.attn(normed_BTD, AttentionMask(is_causal=True))
    torch.testing.assert_close(attended_BTD, recorded["yProj"], **CLOSE)
    torch.testing.assert_close(x_BTD + attended_BTD, recorded["attnResid"], **CLOSE)
    torch.testing.assert_close(block.ln_2(recorded["attnResid"]), recorded["ln2"], **CLOSE)
    torch.testing.assert_close(block.mlp.c_fc(recorded["ln2"]), recorded["fc"], **CLOSE)
    torch.testing.assert_close(block.mlp.activation(recorded["fc"]), recorded["gelu"], **CLOSE)
    torch.testing.assert_close(block.mlp(recorded["ln2"]), recorded["mlp"], **CLOSE)


@torch.no_grad()
def test_it_still_sorts(model: GPT2) -> None:
    """What the model was trained for: six letters, then the same in order, chosen greedily."""
    generator = torch.Generator().manual_seed(0)
    letters_BT = torch.randint(3, (50, 6), generator=generator)
    ids_BT = letters_BT
    for _ in range(6):
        ids_BT = torch.cat([ids_BT, model.logits(model(ids_BT)[:, -1:]).argmax(-1)], dim=1)
    right = (ids_BT[:, 6:] == letters_BT.sort(dim=1).values).all(dim=1)
    assert right.float().mean().item() > 0.9


def test_gelu_is_the_tanh_approximation() -> None:
    """GPT-2's own formula, and its distance to the exact GELU (4.7e-4 at most)."""
    from gpt2kit.model.gpt2 import ACTIVATIONS

    x = torch.linspace(-6, 6, 20_001, dtype=torch.float64)
    formula = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    torch.testing.assert_close(ACTIVATIONS["gelu_new"](x), formula, rtol=1e-12, atol=1e-12)
    distance = (ACTIVATIONS["gelu_new"](x) - F.gelu(x)).abs().max().item()
    assert 4.6e-4 < distance < 4.8e-4
