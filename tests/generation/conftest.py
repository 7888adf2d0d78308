"""Small models with a tokenizer of their own, in memory and as folders."""

from pathlib import Path

import pytest
import torch
import transformers

from gpt2kit.generation import LanguageModel
from gpt2kit.model import GPT2, GPT2Config, save_model
from gpt2kit.tokens import Tokenizer, train_tokenizer

TEXT = "The king saw the old fox. The fox ran to the river, and the king followed the fox — größer, 狐, 🦊! "


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT * 3], vocab_size=300)


def random_model(tokenizer: Tokenizer, *, n_positions: int = 48, seed: int = 1, unused_ids: int = 0, **sizes) -> GPT2:
    """A random model whose next tokens are neither all alike nor all certain."""
    config = GPT2Config(
        vocab_size=tokenizer.vocab_size + unused_ids,
        n_positions=n_positions,
        n_embd=sizes.get("n_embd", 32),
        n_layer=sizes.get("n_layer", 2),
        n_head=sizes.get("n_head", 4),
        initializer_range=0.3,
        bos_token_id=tokenizer.end_of_text,
        eos_token_id=tokenizer.end_of_text,
    )
    model = GPT2(config)
    model.initialise(torch.Generator().manual_seed(seed))
    return model.eval()


@pytest.fixture(scope="session")
def make_model():
    return random_model


@pytest.fixture(scope="session")
def model(tokenizer: Tokenizer, tmp_path_factory) -> LanguageModel:
    return LanguageModel(random_model(tokenizer), tokenizer, tmp_path_factory.mktemp("nothing"))


@pytest.fixture(scope="session")
def model_folder(model: LanguageModel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    save_model(model.model, folder)
    model.tokenizer.save(folder)
    return folder


@pytest.fixture(scope="session")
def peer(model_folder: Path) -> transformers.GPT2LMHeadModel:
    """The same model in `transformers`."""
    return transformers.GPT2LMHeadModel.from_pretrained(model_folder).eval()
