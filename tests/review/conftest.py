"""What review tests share: a report with texts of three contestants."""

import json
import random
from pathlib import Path

import pytest

NAMES = ("models/alpha-7", "models/beta-9", "gamma")
_WORDS = "the king saw a fox and went over river to find his daughter who had long been gone".split()


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """A report such as `gpt2kit compare` writes: six prompts, three contestants and a human."""
    draw = random.Random(5)
    prompts = [f"Once <upon> a time & {number}" for number in range(6)]
    samples = {
        name: {
            "prompts": prompts,
            "texts": [f" {' '.join(draw.choices(_WORDS, k=draw.randint(12, 20)))} <i>&" for _ in prompts],
        }
        for name in (*NAMES, "human")
    }
    path = tmp_path / "comparison-001.json"
    path.write_text(json.dumps({"format": "gpt2kit comparison", "samples": samples}), encoding="utf-8")
    return path
