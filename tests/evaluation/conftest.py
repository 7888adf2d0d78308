"""What evaluation tests share: tiny models in their folders."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gpt2kit import PreparedData
from gpt2kit.model import GPT2, GPT2Config, save_model

TINY = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}


def make_random_model(vocab_size: int, *, seed: int = 0, **shape: int) -> GPT2:
    """A model whose random weights are large enough for its predictions to differ from place to place."""
    model = GPT2(GPT2Config(**({"vocab_size": vocab_size} | TINY | shape), initializer_range=0.4))
    model.initialise(torch.Generator().manual_seed(seed))
    return model.eval()


@pytest.fixture
def random_model() -> Callable[..., GPT2]:
    """Makes random models of a vocabulary."""
    return make_random_model


@pytest.fixture
def model_folder(prepared: PreparedData, tmp_path: Path) -> Callable[..., Path]:
    """Makes folders of random models with the prepared data's tokenizer."""

    def make(name: str = "model", *, seed: int = 0, vocab_size: int = prepared.tokenizer.vocab_size) -> Path:
        folder = tmp_path / name
        save_model(make_random_model(vocab_size, seed=seed), folder)
        prepared.tokenizer.save(folder)
        return folder

    return make
