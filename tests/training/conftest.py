"""What training tests share: small settings, and a base model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2kit import PreparedData, TrainSettings
from gpt2kit.model import GPT2, GPT2Config, save_model

SMALL = {
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 32,
    "context": 32,
    "batch_size": 8,
    "max_steps": 12,
    "eval_every": 6,
    "sample_tokens": 0,
    "tensorboard": False,
    "device": "cpu",
}


@pytest.fixture
def settings(prepared: PreparedData, tmp_path: Path) -> Callable[..., TrainSettings]:
    """Makes settings of a small run from scratch; arguments override them."""

    def make(**values: Any) -> TrainSettings:
        return TrainSettings(**({"data_dir": prepared.folder, "model_output_dir": tmp_path / "model"} | SMALL | values))

    return make


@pytest.fixture
def base(prepared: PreparedData, tmp_path: Path) -> Path:
    """A base model with random weights and the tokenizer of the prepared data."""
    model = GPT2(GPT2Config(vocab_size=prepared.tokenizer.vocab_size, n_positions=64, n_embd=32, n_layer=2, n_head=2))
    model.initialise(torch.Generator().manual_seed(5))
    folder = tmp_path / "base"
    save_model(model, folder)
    prepared.tokenizer.save(folder)
    return folder


@pytest.fixture
def fine_tuning(settings: Callable[..., TrainSettings], base: Path) -> Callable[..., TrainSettings]:
    """Makes settings of a small fine-tuning run from `base`; arguments override them."""

    def make(**values: Any) -> TrainSettings:
        return settings(**({"base": str(base), "n_layer": None, "n_head": None, "n_embd": None} | values))

    return make
