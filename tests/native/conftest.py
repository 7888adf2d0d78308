"""Small random models in folders, of shapes that do not fit the kernel's panels."""

from pathlib import Path

import pytest
import torch

from gpt2kit.model import GPT2, GPT2Config, save_model
from gpt2kit.native.library import load_library

pytestmark = pytest.mark.skipif(load_library() is None, reason="the kernel was not compiled")

SHAPES = {
    "odd": {"vocab_size": 300, "n_positions": 64, "n_embd": 40, "n_layer": 3, "n_head": 5},
    "untied": {
        "vocab_size": 257,
        "n_positions": 70,
        "n_embd": 72,
        "n_layer": 2,
        "n_head": 3,
        "n_inner": 50,
        "tie_word_embeddings": False,
        "scale_attn_by_inverse_layer_idx": True,
        "layer_norm_epsilon": 1e-3,
    },
    "unscaled": {
        "vocab_size": 64,
        "n_positions": 40,
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 1,
        "scale_attn_weights": False,
    },
}


def make_network(sizes: dict) -> GPT2:
    """Random weights, with biases and norms that do something."""
    network = GPT2(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))
    generator = torch.Generator().manual_seed(0)
    network.initialise(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3).add_(0.03 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


@pytest.fixture(scope="session", params=SHAPES)
def network(request) -> GPT2:
    return make_network(SHAPES[request.param])


@pytest.fixture(scope="session")
def folder(network: GPT2, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(network, folder)
    return folder
