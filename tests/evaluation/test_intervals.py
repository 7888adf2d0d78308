"""95% intervals hold the true value in 93% to 97% of 1,000 repeats."""

import importlib.util
from pathlib import Path
from types import ModuleType

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
@pytest.mark.parametrize("number", range(8))
def test_ninety_five_per_cent_intervals_cover(number, units, tool):
    scenario = list(tool.SCENARIOS.values())[number]
    # 1.4 points are two standard errors of the simulation itself.
    assert 0.93 - 0.014 <= tool.coverage(scenario, units) <= 0.97 + 0.014


def test_every_kind_of_figure_is_simulated(tool):
    assert len(tool.SCENARIOS) == 8
