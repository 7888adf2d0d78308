"""Fixtures of the model's tests."""

from pathlib import Path

import pytest
from tiny_gpt2 import SHAPES, Pair, make_theirs, tiny

from gpt2kit.model import load_model, save_model


@pytest.fixture(scope="session", params=SHAPES, ids=lambda name: name.replace(" ", "-").replace(",", ""))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("theirs")
    theirs = make_theirs(**SHAPES[request.param])
    theirs.save_pretrained(folder)
    return Pair(theirs=theirs, ours=load_model(folder), folder=folder)


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A saved tiny model of ours."""
    save_model(tiny(), tmp_path / "model")
    return tmp_path / "model"
