"""What tests share: the corpora, and a small prepared data set."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

from gpt2kit import PreparedData, PrepareSettings, prepare

_NOUNS = ("king", "fox", "miller", "river", "castle", "daughter", "wolf", "garden", "crown", "bird", "forest", "horse")
_VERBS = ("saw", "followed", "loved", "feared", "sold", "found", "carried", "called", "watched", "forgot")
_ADJECTIVES = ("old", "golden", "little", "wicked", "merry", "hungry", "clever", "silent", "poor", "great")

# How long an example takes is no property of ours: a busy machine is slow.
hypothesis.settings.register_profile("gpt2kit", deadline=None)
hypothesis.settings.load_profile("gpt2kit")


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of real texts named by GPT2KIT_CORPORA; tests that need it are skipped without it."""
    folder = os.environ.get("GPT2KIT_CORPORA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GPT2KIT_CORPORA does not name a folder of corpora")
    return Path(folder)


def _tale(seed: int, *, sentences: int) -> str:
    """A text of simple sentences that a small model can learn something from."""
    draw = random.Random(seed)
    return " ".join(
        f"The {draw.choice(_ADJECTIVES)} {draw.choice(_NOUNS)} {draw.choice(_VERBS)} the {draw.choice(_NOUNS)}."
        for _ in range(sentences)
    )


@pytest.fixture(scope="session")
def tale() -> Callable[..., str]:
    """Makes a text of simple sentences: `tale(seed, sentences=20)`."""
    return _tale


@pytest.fixture(scope="session")
def raw_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with forty short tales."""
    folder = tmp_path_factory.mktemp("raw")
    for number in range(40):
        (folder / f"tale-{number:02}.txt").write_text(_tale(number, sentences=20), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def prepared(raw_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The tales prepared from scratch: a tokenizer of 400 entries and three splits."""
    return _prepare_tales(raw_folder, tmp_path_factory, test_fraction=0.1)


@pytest.fixture(scope="session")
def prepared_for_tests_of_differences(raw_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The same with eight documents to measure on: of fewer than six no two models are told apart."""
    return _prepare_tales(raw_folder, tmp_path_factory, test_fraction=0.2)


def _prepare_tales(raw_folder: Path, factory: pytest.TempPathFactory, *, test_fraction: float) -> PreparedData:
    return prepare(
        PrepareSettings(
            input=raw_folder,
            data_dir=factory.mktemp("prepared") / "data",
            from_scratch=True,
            vocab_size=400,
            validation_fraction=0.1,
            test_fraction=test_fraction,
        )
    )
