"""95% intervals hold the true value in 93% to 97% of 1,000 repeats."""

import pytest

from tools.measure_intervals import SCENARIOS, UNITS, coverage


@pytest.mark.slow
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("title", SCENARIOS)
def test_ninety_five_per_cent_intervals_cover(title, units):
    # 1.4 points are two standard errors of the simulation itself.
    assert 0.93 - 0.014 <= coverage(SCENARIOS[title], units) <= 0.97 + 0.014
