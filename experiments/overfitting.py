"""What the guards are worth on a few pages of text: trained far too long, with and without them.

python -m experiments.overfitting
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from experiments import plots
from experiments.runs import BEFORE, Maker, Record, Run, as_it_is, short
from experiments.study import Mean, Results, Study, mean, shown_bits, table
from experiments.texts import TALES, Text
from gpt2kit.training.guard import WINDOW, Validation, memorising, out_of_patience, overfitting

SEEDS: tuple[int, ...] = (0, 1, 2)
EPOCHS = 12
PATIENCE = 3
RATE = 5e-4  # the default for a model of this size
UNTIL_THE_END = "all epochs"
LAST = "no guard: the last weights"
ARMS: dict[str, dict[str, Any]] = {
    UNTIL_THE_END: {},
    "dropout 0.3": {"dropout": 0.3},
    "LoRA, rank 8": {"method": "lora", "learning_rate": 3e-3},
}


def runs(*, quick: bool) -> list[Run]:
    """A run for each arm and seed; the one that goes on to the end is measured as it ends, too."""
    text = Text("doyle", characters=32_000, validation_fraction=0.5, test_characters=24_000)
    seeds, epochs, arms = SEEDS, EPOCHS, ARMS
    if quick:
        text = Text(TALES, characters=6_000, validation_fraction=0.5, test_characters=4_000)
        seeds, epochs, arms = SEEDS[:2], 1, dict(list(ARMS.items())[:2])
    shared = {"epochs": epochs, "learning_rate": RATE, "batch_size": 4, "eval_every": 4}
    trained = [
        Run(name, text, shared | changes, seed, memory=True, last=name == UNTIL_THE_END)
        for seed in seeds
        for name, changes in arms.items()
    ]
    return [as_it_is(text), *trained]


def measure(maker: Maker, quick: bool) -> Results:
    """Make the runs."""
    return {"runs": [short(record, losses=True) for record in maker.make(runs(quick=quick))]}


def _rows(results: Results) -> tuple[float, dict[str, list[Record]]]:
    """Nano's bits per byte, and what was measured of each set of weights, by its name for a reader."""
    records = results["runs"]
    before = next(record["bits_per_byte"] for record in records if record["name"] == BEFORE)
    names = list(dict.fromkeys(record["name"] for record in records if record["name"] != BEFORE))
    ends = [record["last"] | {"training": record["training"]} for record in records if record["last"]]
    found = {LAST: ends}
    for name in names:
        title = "best checkpoint" if name == UNTIL_THE_END else f"best checkpoint, {name}"
        found[title] = [record for record in records if record["name"] == name]
    return before, found


def history(record: Record) -> list[Validation]:
    """A run's validations as the guards see them: with the mean loss of the latest steps, at step 0 with its own."""
    losses = record["train_losses"]
    found = []
    for step, loss in record["validations"]:
        recent = [each for number, each in losses if number <= step][-WINDOW:]
        found.append(Validation(step, loss, mean(recent).value if recent else loss))
    return found


def first_step(record: Record, said: Callable[[Sequence[Validation]], object]) -> int | None:
    """The step at which a guard speaks for the first time, or None."""
    validations = history(record)
    lengths = range(1, len(validations) + 1)
    return next((validations[length - 1].step for length in lengths if said(validations[:length])), None)


def _guards(results: Results) -> str:
    """When the guards speak, and what early stopping would have saved: a run is the same without it until it stops."""
    runs = [record for record in results["runs"] if record["name"] == UNTIL_THE_END]
    guards: dict[str, Callable[[Sequence[Validation]], object]] = {
        "memorisation": memorising,
        "overfitting": overfitting,
        f"stopping by `--patience {PATIENCE}`": lambda seen: out_of_patience(seen, patience=PATIENCE),
    }
    rows = []
    for name, said in guards.items():
        steps = [step for step in (first_step(run, said) for run in runs) if step is not None]
        rows.append([name, f"{len(steps)} of {len(runs)}", ", ".join(map(str, steps))])
    rows.append(["(the best weights)", "", ", ".join(str(run["training"]["best_step"]) for run in runs)])
    rows.append(["(the end)", "", ", ".join(str(run["training"]["steps"]) for run in runs)])
    return table(["guard", "runs in which it speaks", "at step, by seed"], rows)


def _extracted(records: Sequence[Record]) -> str:
    """Stretches given back, per cent, with Wilson's interval.

    All seeds are asked for the same stretches, so that more seeds do not narrow it; where they differ it spans theirs.
    """
    found = [record["memory"]["extraction"]["training"]["extracted"] for record in records]
    low, high = min(each["interval"][0] for each in found), max(each["interval"][1] for each in found)
    return f"{100 * mean([each['value'] for each in found]).value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def _gap(record: Record) -> float:
    return float(record["memory"]["membership"]["gap"]["value"])


def tables(results: Results) -> dict[str, str]:
    """Each set of weights on text it has not seen, and what it knows by heart."""
    before, found = _rows(results)
    rows = [[BEFORE, "0", "0", f"{before:.3f}", "", ""]]
    for name, records in found.items():
        is_last = name == LAST
        of_steps = [record["training"]["steps" if is_last else "best_step"] for record in records]
        rows.append(
            [
                name,
                f"{mean(of_steps).value:.0f}",
                f"{mean([record['training']['steps'] for record in records]).value:.0f}",
                mean([record["bits_per_byte"] for record in records]).show() if is_last else shown_bits(records),
                _extracted(records),
                mean([_gap(record) for record in records]).show(2),
            ]
        )
    columns = [
        "weights", "of step", "steps trained", "bits per byte", "given back word for word (%)", "gap (nats per token)",
    ]  # fmt: skip
    return {"guards": table(columns, rows), "early": _guards(results)}


def _curve(records: list[Record], name: str) -> tuple[list[float], list[Mean], list[Mean]]:
    """Epochs, validation and training loss (the mean of the steps since the validation before) over the seeds."""
    of_name = [record for record in records if record["name"] == name]
    last = min(len(record["validations"]) for record in of_name)
    steps = [step for step, _ in of_name[0]["validations"][:last]]
    validation = [mean([record["validations"][place][1] for record in of_name]) for place in range(last)]
    training = [mean([_mean_loss(record, low, high) for record in of_name]) for low, high in pairwise(steps)]
    a_epoch = of_name[0]["training"]["total_steps"] / of_name[0]["settings"]["epochs"]
    return [step / a_epoch for step in steps], validation, training


def _mean_loss(record: Record, low: int, high: int) -> float:
    losses = [loss for step, loss in record["train_losses"] if low < step <= high]
    return mean(losses).value


def draw(results: Results, folder: Path) -> None:
    """The two curves that part, the guards' validation losses, and what is known by heart."""
    records = results["runs"]
    _, found = _rows(results)
    figure, panels = plots.page(3)
    epochs, validation, training = _curve(records, UNTIL_THE_END)
    plots.line(panels[0], epochs, validation, number=1, label="validation text")
    plots.line(panels[0], epochs[1:], training, number=0, label="training text")
    plots.describe(panels[0], x="epochs", y="nats per token", title="trained too long: the curves part", legend=True)
    for number, name in enumerate(dict.fromkeys(record["name"] for record in records if record["name"] != BEFORE)):
        epochs, validation, _ = _curve(records, name)
        plots.line(panels[1], epochs, validation, number=number, label=name)
    plots.describe(panels[1], x="epochs", y="nats per token of validation text", title="what helps", legend=True)
    for number, (name, of_name) in enumerate(found.items()):
        gap, bits = mean([_gap(each) for each in of_name]), mean([each["bits_per_byte"] for each in of_name])
        panels[2].errorbar(
            gap.value, bits.value, xerr=gap.half_width, yerr=bits.half_width, color=plots.COLOURS[number],
            marker=plots.MARKERS[number], capsize=3, linestyle="none", label=name,
        )  # fmt: skip
    plots.describe(
        panels[2], x="gap: held-out less training loss (nats per token)", y="bits per byte (test)",
        title="down and to the left is better", legend=True,
    )  # fmt: skip
    plots.save(figure, folder / "overfitting.png")


STUDY = Study("overfitting", measure, tables, draw)

if __name__ == "__main__":
    STUDY.main()
