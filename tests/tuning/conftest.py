"""What tuning tests share: searches of very small trainings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpt2kit import PreparedData, TuneSettings

TINY = {"n_layer": 1, "n_head": 2, "n_embd": 16, "context": 32, "batch_size": 4, "max_steps": 6, "eval_every": 2}
SPACE = {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "dropout": [0.0, 0.1]}


@pytest.fixture
def settings(prepared: PreparedData, tmp_path: Path) -> Callable[..., TuneSettings]:
    """Makes settings of a small search; arguments override them."""

    def make(**values: Any) -> TuneSettings:
        given = {
            "data_dir": prepared.folder,
            "output_dir": tmp_path / "tuning",
            "trials": 3,
            "repeats": 0,
            "fixed": TINY,
            "space": SPACE,
            "device": "cpu",
        }
        return TuneSettings(**(given | values))

    return make
