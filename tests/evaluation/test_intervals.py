"""95% intervals hold the true value in 93% to 97% of 1,000 repeats, where few documents decide in 89% or more."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "measure_intervals.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    specification = importlib.util.spec_from_file_location("measure_intervals", TOOL)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("units", [10, 20, 50, 200])
@pytest.mark.parametrize("number", range(10))
def test_ninety_five_per_cent_intervals_cover(number, units, tool):
    scenario = list(tool.SCENARIOS.values())[number]
    lowest = 0.89 if scenario in (tool.longer_is_far_easier, tool.few_are_hard) else 0.93
    # 1.4 points are two standard errors of the simulation itself.
    assert lowest - 0.014 <= tool.coverage(scenario, units) <= 0.97 + 0.014


def test_every_kind_of_figure_is_simulated(tool):
    assert len(tool.SCENARIOS) == 10


@pytest.mark.parametrize("name", ["longer_is_easier", "longer_is_far_easier", "few_are_hard"])
def test_the_true_value_is_that_of_very_many_documents(name, tool, monkeypatch):
    monkeypatch.setattr(tool, "ratio_interval", lambda nats_U, tokens_U, **_: nats_U.sum() / tokens_U.sum())
    found, value = getattr(tool, name)(np.random.default_rng(0), 2_000_000)
    assert found == pytest.approx(value, abs=0.01)
