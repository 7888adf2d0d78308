"""Divergence, overfitting and patience are judged from losses alone."""

import math

import pytest

from gpt2kit.training.guard import (
    Validation,
    divergence,
    memorising,
    out_of_patience,
    overfitting,
    worse_than_the_start,
)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_losses_and_gradients_that_are_no_numbers_are_divergence(value: float) -> None:
    assert divergence(value, 1.0, []) == f"the loss is {value}"
    assert divergence(1.0, value, []) == f"the norm of the gradient is {value}"


def test_a_spike_is_told_from_noise() -> None:
    history = [3.0 + 0.1 * (step % 5) for step in range(40)]
    assert divergence(3.6, 1.0, history) is None
    assert "jumped to 9.000 from about 3.2" in (divergence(9.0, 1.0, history) or "")


def test_a_young_run_may_jump_but_not_double() -> None:
    assert divergence(9.0, 1.0, []) is None
    assert divergence(9.0, 1.0, [7.0, 5.0, 4.0]) is None
    assert divergence(15.0, 1.0, [7.0, 5.0, 4.0]) == "the loss jumped to 15.000 from 7.000"


def test_a_falling_loss_is_no_spike() -> None:
    assert divergence(2.0, 1.0, [10.0 - 0.2 * step for step in range(40)]) is None


def validations(*losses: float, falling: bool = True) -> list[Validation]:
    return [
        Validation(step=10 * number, loss=loss, train_loss=4.0 - number * (0.3 if falling else 0.0))
        for number, loss in enumerate(losses)
    ]


def test_overfitting_is_said_in_words_with_the_figures() -> None:
    words = overfitting(validations(4.0, 3.0, 3.2, 3.5)) or ""
    assert "since step 10 the validation loss has risen from 3.000 to 3.500" in words
    assert "step 10 are kept" in words


@pytest.mark.parametrize("losses", [(4.0, 3.0), (4.0, 3.0, 3.2), (4.0, 3.5, 3.0), (4.0, 3.0, 3.005, 3.01)])
def test_a_wobble_is_no_overfitting(losses: tuple[float, ...]) -> None:
    assert overfitting(validations(*losses)) is None


def test_rising_on_both_sides_is_no_overfitting() -> None:
    assert overfitting(validations(4.0, 3.0, 3.2, 3.5, falling=False)) is None


def test_slow_divergence_is_told_from_overfitting() -> None:
    diverged = [Validation(0, 4.0, 4.0), Validation(10, 9.0, 8.0)]
    assert worse_than_the_start(diverged) == "the validation loss rose to 9.000 from 4.000 at the start"
    assert worse_than_the_start([Validation(0, 4.0, 4.0), Validation(10, 9.0, 0.5)]) is None
    assert worse_than_the_start(diverged[:1]) is None


def test_patience_counts_validations_without_improvement() -> None:
    assert not out_of_patience(validations(4.0, 3.0, 3.1), patience=2)
    assert out_of_patience(validations(4.0, 3.0, 3.1, 3.05), patience=2)
    assert not out_of_patience(validations(4.0, 3.0, 3.1, 2.9), patience=2)
    assert not out_of_patience(validations(4.0, 5.0, 6.0, 7.0), patience=0)


def gaps(*pairs: tuple[float, float]) -> list[Validation]:
    """Validations of (validation loss, training loss), after the one of the start."""
    trained = [Validation(10 * number, loss, train_loss) for number, (loss, train_loss) in enumerate(pairs, 1)]
    return [Validation(0, 4.0, 4.0), *trained]


def test_memorisation_is_said_while_the_validation_loss_still_falls() -> None:
    words = memorising(gaps((3.5, 3.4), (3.4, 3.0), (3.3, 2.5))) or ""
    assert "the training loss is 2.500 and the validation loss 3.300" in words
    assert "2.2 times as probable" in words  # exp(0.8)


@pytest.mark.parametrize(
    "pairs",
    [
        ((3.5, 1.0),),  # the first one is what others are measured by
        ((3.5, 3.4), (3.4, 2.9)),
        ((3.5, 2.5), (3.4, 2.0)),  # the two texts differ from the beginning
        ((3.5, 3.9), (3.4, 3.0)),
        ((3.5, 3.4), (4.5, 4.4)),
    ],
)
def test_a_small_or_old_gap_is_no_memorisation(pairs: tuple[tuple[float, float], ...]) -> None:
    assert memorising(gaps(*pairs)) is None


def test_a_rise_after_the_start_is_no_lost_patience_while_the_run_recovers() -> None:
    """nano on the README's tales, one epoch, seed 7: it stopped at step 30, just before it beat the start."""
    recovering = validations(3.411, 3.448, 3.452, 3.439, 3.424, 3.413)
    assert not out_of_patience(recovering, patience=5)
    assert not out_of_patience(recovering, patience=3)
    assert out_of_patience(recovering, patience=2)  # the two that got worse count


def test_a_run_that_only_gets_worse_or_stands_still_stops() -> None:
    assert out_of_patience(validations(4.0, 4.1, 4.2, 4.3), patience=3)
    assert out_of_patience(validations(4.0, 4.0, 4.0, 4.0), patience=3)
    assert not out_of_patience([], patience=3)


def test_after_the_first_improvement_a_recovery_counts() -> None:
    assert out_of_patience(validations(4.0, 3.0, 3.3, 3.2, 3.1), patience=3)
    assert not out_of_patience(validations(4.0, 4.2, 4.1, 3.9, 4.0), patience=3)
