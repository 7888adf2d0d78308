"""Fixtures that every part's tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def corpora() -> Path:
    """The folder of test corpora named by GPT2KIT_CORPORA; tests that need it are skipped without it."""
    folder = os.environ.get("GPT2KIT_CORPORA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("GPT2KIT_CORPORA does not name a folder of corpora")
    return Path(folder)
