"""Judgements about a run from its losses alone: has it diverged, does it overfit, should it stop."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

WINDOW = 40
MIN_HISTORY = 20
_LARGE_GAP_NATS = 0.5  # training text is then 1.65 times as probable, token by token, as held-out text


def divergence(loss: float, gradient_norm: float, history: Sequence[float]) -> str | None:
    """Why a step's loss or gradient cannot be trusted, or None.

    A loss is a spike when it is above the recent median by more than half of it and by more than ten robust standard
    deviations (1.4826 times the median absolute deviation). Ordinary noise of small batches stays far below both. In a
    young run, whose losses fall too fast for that, it is one that is more than twice the highest so far.

    Args:
        loss: mean nats per token of the step.
        gradient_norm: norm of its gradient before clipping.
        history: losses of the steps before, latest last.
    """
    if not math.isfinite(loss):
        return f"the loss is {loss}"
    if not math.isfinite(gradient_norm):
        return f"the norm of the gradient is {gradient_norm}"
    recent = list(history)[-WINDOW:]
    if len(recent) < MIN_HISTORY:
        highest = max(recent, default=math.inf)
        return f"the loss jumped to {loss:.3f} from {highest:.3f}" if loss > 2 * highest else None
    median = statistics.median(recent)
    deviation = 1.4826 * statistics.median(abs(value - median) for value in recent)
    if loss > 1.5 * median and loss > median + 10 * deviation:
        return f"the loss jumped to {loss:.3f} from about {median:.3f}"
    return None


@dataclass(frozen=True)
class Validation:
    """One validation: after `step` steps, on the fixed validation set, in nats per token."""

    step: int
    loss: float
    train_loss: float


def worse_than_the_start(history: Sequence[Validation]) -> str | None:
    """Say that validation has doubled since the start while training is worse too: slow divergence, no overfitting."""
    first, latest = history[0], history[-1]
    if latest.loss > 2 * first.loss and latest.train_loss > first.train_loss:
        return f"the validation loss rose to {latest.loss:.3f} from {first.loss:.3f} at the start"
    return None


def overfitting(history: Sequence[Validation]) -> str | None:
    """Say in words when validation has got worse for two validations running while the training loss still falls.

    Both have to have moved by more than 1% since the best validation, or noise would be taken for it.
    The training loss is a mean over recent steps, and has to be below the validation loss.
    """
    if len(history) < 3:
        return None
    best = min(history, key=lambda validation: validation.loss)
    before, middle, latest = history[-3:]
    rising = before.loss < middle.loss < latest.loss and latest.loss > 1.01 * best.loss
    if not (rising and latest.train_loss < min(0.99 * best.train_loss, latest.loss)):
        return None
    return (
        f"overfitting: since step {best.step} the validation loss has risen from {best.loss:.3f} to {latest.loss:.3f} "
        f"while the training loss fell to {latest.train_loss:.3f}; the model is learning its training texts by heart. "
        f"The weights of step {best.step} are kept as the best. More text, fewer epochs, dropout or LoRA help."
    )


def memorising(history: Sequence[Validation]) -> str | None:
    """Say in words when training text has become far easier to the model than held-out text.

    That is so when the gap between validation and training loss has grown by more than half a nat per token since the
    first validation after the start. It may come before the validation loss rises (see `overfitting`), and also while
    it still falls. What the two texts differ by from the beginning does not count, nor does what is learned before
    that first validation.
    """
    trained = [validation for validation in history if validation.step > 0]
    if len(trained) < 2:
        return None
    first, latest = trained[0], trained[-1]
    gap = latest.loss - latest.train_loss
    if gap <= max(first.loss - first.train_loss, 0.0) + _LARGE_GAP_NATS:
        return None
    return (
        f"memorisation: the training loss is {latest.train_loss:.3f} and the validation loss {latest.loss:.3f}: the "
        f"model finds its training texts {math.exp(gap):.1f} times as probable, token by token, as others of the kind. "
        "Fewer epochs, more text, dropout or LoRA help; `gpt2kit evaluate --extraction 200 --membership` tells how "
        "much it gives back word for word."
    )


def out_of_patience(history: Sequence[Validation], *, patience: int) -> bool:
    """Whether `patience` validations since the best one brought nothing new; 0 is never.

    A base model often gets worse in its first steps, and then comes back. So long as no validation has beaten
    the first one, one that is lower than the one before it does not count: the run is recovering.
    """
    if patience == 0 or not history:
        return False
    best, failures, improved = history[0].loss, 0, False
    for before, latest in pairwise(history):
        if latest.loss < best:
            best, failures, improved = latest.loss, 0, True
        elif improved or latest.loss >= before.loss:
            failures += 1
    return failures >= patience
