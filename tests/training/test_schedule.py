"""The learning rate is a pure function of the step, with known values."""

import pytest

from gpt2kit.training.schedule import Schedule, learning_rate_at


def rate(step: int, schedule: Schedule = "cosine", **changes: float) -> float:
    values = {"peak": 2.0, "total_steps": 111, "warmup_steps": 10, "final_ratio": 0.1} | changes
    return learning_rate_at(
        step,
        peak=values["peak"],
        total_steps=int(values["total_steps"]),
        warmup_steps=int(values["warmup_steps"]),
        schedule=schedule,
        final_ratio=values["final_ratio"],
    )


def test_warm_up_rises_in_equal_steps_to_the_peak() -> None:
    assert [rate(step) for step in range(11)] == pytest.approx([2 * (step + 1) / 11 for step in range(11)])


@pytest.mark.parametrize(
    ("schedule", "middle", "last"), [("cosine", 1.1, 0.2), ("linear", 1.1, 0.2), ("constant", 2, 2)]
)
def test_known_values_after_the_warm_up(schedule: Schedule, middle: float, last: float) -> None:
    assert rate(10, schedule) == pytest.approx(2.0)
    assert rate(60, schedule) == pytest.approx(middle)
    assert rate(110, schedule) == pytest.approx(last)
    assert rate(500, schedule) == pytest.approx(last)


def test_cosine_falls_slowly_first() -> None:
    assert rate(35, "cosine") > rate(35, "linear")
    assert rate(85, "cosine") < rate(85, "linear")


def test_a_run_of_one_step_has_the_peak() -> None:
    assert rate(0, total_steps=1, warmup_steps=0) == 2.0
