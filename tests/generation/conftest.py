"""Small models with a tokenizer of their own, in memory and as folders, and one that has learned to answer."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from gpt2kit import PrepareSettings, TrainSettings, prepare, train
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


@pytest.fixture(scope="session")
def answers() -> dict[str, str]:
    """What `chat_folder` answers to what."""
    return {
        "Hello!": "Good morning, my friend.",
        "What is your name?": "My name is Finch.",
        "Goodbye!": "Come back soon.",
    }


@pytest.fixture(scope="session")
def chat_folder(answers: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned three answers by heart."""
    folder = tmp_path_factory.mktemp("chat")
    (folder / "raw").mkdir()
    names = list(answers)
    lines = []
    for number in range(48):
        asked = [names[(number + shift * (1 + number % 2)) % 3] for shift in range(1 + number % 4)]
        messages = [
            message
            for question in asked
            for message in (
                {"role": "user", "content": question},
                {"role": "assistant", "content": answers[question]},
            )
        ]
        lines.append(json.dumps({"id": number, "messages": messages}) + "\n")
    (folder / "raw" / "chats.jsonl").write_text("".join(lines))
    data = prepare(PrepareSettings(input=folder / "raw", data_dir=folder / "data", from_scratch=True, vocab_size=320))
    result = train(
        TrainSettings(
            data_dir=data.folder,
            model_output_dir=folder / "model",
            n_layer=2,
            n_head=2,
            n_embd=64,
            context=96,
            max_steps=150,
            learning_rate=5e-3,
            eval_every=50,
            patience=0,
            sample_tokens=0,
            tensorboard=False,
        )
    )
    return result.model_dir
