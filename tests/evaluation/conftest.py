"""What evaluation tests share: tiny models in their folders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gpt2kit import EvaluateSettings, Evaluation, PreparedData, evaluate
from gpt2kit.model import GPT2, GPT2Config, save_model

HOSTILE = (
    "</p><script>alert(1)</script> & \"double\" 'single' <img src=x onerror=alert(2)>\n\n"
    "\u202eright to left\u202c \u200bzero\u200dwidth \U0001f600 \u05e9\u05dc\u05d5\u05dd {{ 7 * 7 }} \x00\x1b end"
)
TINY = {"n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 2}


def make_random_model(vocab_size: int, *, seed: int = 0, **shape: int) -> GPT2:
    """A model whose random weights are large enough for its predictions to differ from place to place."""
    model = GPT2(GPT2Config(**({"vocab_size": vocab_size} | TINY | shape), initializer_range=0.4))
    model.initialise(torch.Generator().manual_seed(seed))
    return model.eval()


@pytest.fixture(scope="session")
def prepared(prepared_for_tests_of_differences: PreparedData) -> PreparedData:
    """Data with enough documents to tell models apart."""
    return prepared_for_tests_of_differences


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


@pytest.fixture(scope="session")
def reported(prepared: PreparedData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Evaluation, dict[str, Any]]:
    """An evaluation of a random model beside another, of texts with planted copies and of a hostile one.

    With it what was planted: `copied` and `near` from the file `source`, and the `samples`.
    """
    root = tmp_path_factory.mktemp("page")
    for name, seed in (("model", 0), ("base", 1)):
        save_model(make_random_model(prepared.tokenizer.vocab_size, seed=seed), root / name)
        prepared.tokenizer.save(root / name)
    (root / "model" / "training").mkdir()
    curve = [{"step": 0, "kind": "validation", "validation_loss": 5.0}]
    curve += [{"step": step, "kind": "train", "loss": 5.0 - step / 100} for step in range(1, 11)]
    curve += [
        {"step": 5, "kind": "validation", "validation_loss": 4.25},
        {"step": 7, "kind": "event", "reason": "step 8: the loss is <not> finite; going back"},
        {"step": 10, "kind": "validation", "validation_loss": 4.5},
    ]
    lines = "".join(json.dumps(record) + "\n" for record in curve)
    (root / "model" / "training" / "metrics.jsonl").write_text(lines)
    piece = next(iter(prepared.documents("train")))
    words = piece.text.split()
    copied, changed = " ".join(words[10:24]), words[40:64]
    changed[8] = "purple"
    near = " ".join(changed)
    text = f" It is said: {copied} qqq and then, zzz: {near} xxx. \U0001f600\U0001f680 caf\u00e9"
    samples = [{"prompt": "The <b>old</b> & wise", "text": HOSTILE}, {"prompt": "Once", "text": text}]
    samples += [{"prompt": "", "text": "The fox saw the wolf. " * 40}]
    (root / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    found = evaluate(
        EvaluateSettings(
            model_dir=str(root / "model"),
            compare_with=str(root / "base"),
            data_dir=prepared.folder,
            output_dir=root / "metrics",
            samples=root / "samples.jsonl",
            extraction=4,
            extraction_prompt_tokens=(8,),
            extraction_tokens=4,
            membership=True,
            device="cpu",
            picture=False,
        )
    )
    return found, {"copied": copied, "near": near, "source": piece.source, "samples": samples}
