"""What tests of comparisons share: tiny models whose order is known."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gpt2kit import CompareSettings, PreparedData
from gpt2kit.model import GPT2, GPT2Config, save_model

SMALL = {"num_samples": 6, "sample_tokens": 30, "prompt_words": 6, "device": "cpu", "picture": False}


@pytest.fixture(scope="session")
def prepared(prepared_for_tests_of_differences: PreparedData) -> PreparedData:
    """Data with enough documents to tell models apart."""
    return prepared_for_tests_of_differences


@pytest.fixture
def model_folder(prepared: PreparedData, tmp_path: Path) -> Callable[..., Path]:
    """Makes model folders with the prepared data's tokenizer: `spread` 0 predicts all tokens alike, more is worse."""

    def make(name: str, *, spread: float, seed: int = 0, data: PreparedData = prepared) -> Path:
        folder = tmp_path / name
        shape = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}
        model = GPT2(GPT2Config(vocab_size=data.tokenizer.vocab_size, initializer_range=0.4, **shape))
        model.initialise(torch.Generator().manual_seed(seed))
        model.transformer.wte.weight.data *= spread
        save_model(model, folder)
        data.tokenizer.save(folder)
        return folder

    return make


@pytest.fixture
def settings(prepared: PreparedData, tmp_path: Path) -> Callable[..., CompareSettings]:
    """Makes settings of a small comparison."""

    def make(*models: Path | str, **values):
        given = {"data_dir": prepared.folder, "output_dir": tmp_path / "comparisons"} | SMALL | values
        return CompareSettings(models=tuple(map(str, models)), **given)

    return make
