"""The tables of bench-quality."""

from benchmarks.core.page import figure
from benchmarks.core.program import Results, records_of
from benchmarks.core.rounds import Record
from benchmarks.tables.common import NOTHING, circumstances, contestants_table

_TRAINER = "Trainer, defaults"
_PICTURE = "![Validation loss over time: the Trainer and gpt2kit](images/benchmark-quality.svg)"
Curve = list[list[float]]


def best_loss(curve: Curve) -> float:
    """The lowest loss of a curve of (seconds, loss)."""
    return min(loss for _, loss in curve)


def seconds_to(curve: Curve, loss: float) -> float | None:
    """When a curve first was at `loss` or below; None where it never was."""
    return next((seconds for seconds, found in curve if found <= loss), None)


def tables(results: Results) -> dict[str, str]:
    """The parts of docs/benchmarks.md."""
    trainer = records_of(results).get(_TRAINER, Record())
    target = best_loss(trainer.rounds[0]["curve"]) if trainer.rounds else None

    def cells(_: str, record: Record) -> list[str]:
        values = record.rounds[0]
        curve: Curve = values["curve"]
        reached = seconds_to(curve, target) if target is not None else None
        return [
            f"{curve[0][1]:.3f}",
            f"{best_loss(curve):.3f}",
            f"{values['total_seconds']:.0f}",
            f"{values['steps']:,}",
            f"{values['tokens'] / values['total_seconds']:,.0f}",
            NOTHING if reached is None else f"{reached:.0f}",
        ]

    header = [
        "contestant",
        "loss before",
        "lowest loss",
        "whole run, s",
        "steps",
        "tokens/s of the whole run",
        "s to the Trainer's lowest loss",
    ]
    body = f"{circumstances(results)}\n\n{contestants_table(results, header, cells)}\n\n{_PICTURE}"
    return {"quality": body}


def readme_rows(results: Results) -> list[list[str]]:
    """Rows for README.md: what, ours, the best other."""
    records = records_of(results)
    trainer = records.get(_TRAINER, Record())
    if not trainer.rounds:
        return []
    target = best_loss(trainer.rounds[0]["curve"])
    theirs = seconds_to(trainer.rounds[0]["curve"], target)
    ours = [
        (seconds, name)
        for name, record in records.items()
        if name != _TRAINER and record.rounds and (seconds := seconds_to(record.rounds[0]["curve"], target)) is not None
    ]
    if not ours or theirs is None:
        return []
    seconds, name = min(ours)
    what = f"nano on tiny Shakespeare to {target:.2f} nats, s"
    return [[what, f"{seconds:.0f} ({name})", f"{theirs:.0f} ({_TRAINER})", figure(theirs / seconds), NOTHING]]
