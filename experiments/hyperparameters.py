"""What the settings of a training are worth: one at a time around the defaults, and the two that hang together.

python -m experiments.hyperparameters
"""

from pathlib import Path
from typing import Any

from experiments import plots
from experiments.runs import BEFORE, Maker, Record, Run, as_it_is, short
from experiments.study import Mean, Results, Study, by_seed, mean, paired, shown_bits, table
from experiments.texts import TALES, Text

SEEDS: tuple[int, ...] = (0, 1, 2)
DEFAULT = "default"
# What `gpt2kit train` does by itself on so small a text (the learning rate is that for a model of nano's size).
DEFAULTS: dict[str, Any] = {
    "learning_rate": 5e-4,
    "batch_size": 4,
    "epochs": 3.0,
    "dropout": 0.0,
    "weight_decay": 0.01,
    "warmup_ratio": 0.05,
    "optimizer": "adamw",
}
ONE_AT_A_TIME: dict[str, tuple[Any, ...]] = {
    "learning_rate": (1.25e-4, 2e-3, 8e-3),
    "batch_size": (2, 16),
    "epochs": (1.0, 6.0),
    "dropout": (0.3,),
    "weight_decay": (0.3,),
    "warmup_ratio": (0.3,),
}
# Learning rates to try with the other batch sizes, beside the default one.
OTHER_RATES = {16: (2e-3,)}
TEXT = Text("shakespeare", characters=16_000, test_characters=24_000)
TITLES = {
    "learning_rate": "learning rate",
    "batch_size": "batch size (rows)",
    "epochs": "epochs",
    "dropout": "dropout",
    "weight_decay": "weight decay",
    "warmup_ratio": "warm-up (share of the steps)",
}


def runs(*, quick: bool) -> list[Run]:
    """All runs: the defaults, each setting changed alone, learning rate with batch size, and Muon."""
    changes: list[dict[str, Any]] = [{}]
    changes += [{setting: value} for setting, values in ONE_AT_A_TIME.items() for value in values]
    changes += [{"learning_rate": rate, "batch_size": rows} for rows, rates in OTHER_RATES.items() for rate in rates]
    changes.append({"optimizer": "muon", "learning_rate": 3e-3})
    text, seeds = TEXT, SEEDS
    if quick:
        text, seeds = Text(TALES, characters=6_000, test_characters=4_000), SEEDS[:2]
        changes = [change | {"epochs": 0.5} for change in changes[:3]]
    made = []
    for seed in seeds:  # seed by seed, so that an unfinished study is whole for the first ones
        for change in changes:
            different = {name: value for name, value in change.items() if value != DEFAULTS[name]}
            made.append(Run(_name(different, quick=quick), text, DEFAULTS | change, seed))
    return [as_it_is(text), *{(run.name, run.seed): run for run in made}.values()]


def _name(change: dict[str, Any], *, quick: bool) -> str:
    shown = {name: value for name, value in change.items() if not (quick and name == "epochs")}
    return (
        ", ".join(f"{name} {value:g}" if name != "optimizer" else f"{value}" for name, value in shown.items())
        or DEFAULT
    )


def measure(maker: Maker, quick: bool) -> Results:
    """Make the runs."""
    return {"defaults": DEFAULTS, "runs": [short(record) for record in maker.make(runs(quick=quick))]}


def _bits(record: Record) -> float:
    return float(record["bits_per_byte"])


def _against_default(records: list[Record], name: str) -> Mean:
    """Bits per byte less those of the defaults at the same seeds; below 0 is better."""
    return paired(by_seed(records, name, _bits), by_seed(records, DEFAULT, _bits))


def tables(results: Results) -> dict[str, str]:
    """One setting at a time, the grid of the two, and what stands out."""
    records = results["runs"]
    before = next(record for record in records if record["name"] == BEFORE)
    records = [record for record in records if record["name"] != BEFORE]
    names = list(dict.fromkeys(record["name"] for record in records))
    rows = [[BEFORE, "0", f"{_bits(before):.3f}", ""]]
    for name in names:
        alone = name.count(",") == 0 or name.startswith("muon")
        if not alone:
            continue
        of_name = [record for record in records if record["name"] == name]
        gain = "" if name == DEFAULT else _against_default(records, name).show(sign=True)
        steps = of_name[0]["training"]["steps"]
        rows.append([name, str(steps), shown_bits(of_name), gain])
    grid = _grid(records)
    return {
        "settings": table(["setting", "steps", "bits per byte", "against the defaults"], rows),
        "grid": table(
            ["learning rate", *(f"{rows} rows" for rows in sorted(grid))],
            [
                [f"{rate:g}", *(shown_bits(grid[rows][rate]) if rate in grid[rows] else "" for rows in sorted(grid))]
                for rate in _rates()
            ],
        ),
        "findings": _findings(records, names),
    }


def _rates() -> list[float]:
    return sorted([DEFAULTS["learning_rate"], *ONE_AT_A_TIME["learning_rate"]])


def _grid(records: list[Record]) -> dict[int, dict[float, list[Record]]]:
    """Runs by batch size and learning rate, all else as by default."""
    grid: dict[int, dict[float, list[Record]]] = {}
    for record in records:
        settings = record["settings"]
        rate, rows = settings["learning_rate"], settings["batch_size"]
        others = set(DEFAULTS) - {"learning_rate", "batch_size"}
        if all(settings[name] == DEFAULTS[name] for name in others):
            grid.setdefault(rows, {}).setdefault(rate, []).append(record)
    return grid


def _findings(records: list[Record], names: list[str]) -> str:
    """Each change as a sentence, the largest gain first; apart those that left nano as it was in every seed."""
    best_steps = {name: [each["training"]["best_step"] for each in records if each["name"] == name] for name in names}
    untrained = [name for name in names if not any(best_steps[name])]
    names = [name for name in names if name not in untrained]
    changes = {name: _against_default(records, name) for name in names if name != DEFAULT}
    clear = sorted((name for name in changes if changes[name].is_clear), key=lambda name: changes[name].value)
    better = [f"{name} ({changes[name].show(sign=True)})" for name in clear if changes[name].value < 0]
    worse = [f"{name} ({changes[name].show(sign=True)})" for name in reversed(clear) if changes[name].value > 0]
    unclear = [name for name in changes if not changes[name].is_clear]
    return "\n".join(
        f"- {what}: {'; '.join(which) or 'none'}."
        for what, which in (
            ("Better than the defaults, the best first", better),
            ("Worse, the worst first", worse),
            ("Not to be told from the defaults with these seeds", unclear),
            ("Never better than nano on the validation text, in any seed, so that nano is what was kept", untrained),
        )
    )


def draw(results: Results, folder: Path) -> None:
    """A panel a setting, on the same scale, and the grid."""
    records = [record for record in results["runs"] if record["name"] != BEFORE]
    figure, panels = plots.page(3, 2)
    default = mean(list(by_seed(records, DEFAULT, _bits).values()))
    drawn = []
    for panel, setting in zip(
        panels, ("batch_size", "epochs", "dropout", "weight_decay", "warmup_ratio"), strict=False
    ):
        by_value = {DEFAULTS[setting]: default}
        for value in ONE_AT_A_TIME[setting]:
            values = by_seed(records, f"{setting} {value:g}", _bits)
            if values:
                by_value[value] = mean(list(values.values()))
        places = sorted(by_value)
        plots.line(panel, range(len(places)), [by_value[place] for place in places], number=1)
        plots.ticks(panel, range(len(places)), [f"{place:g}" for place in places])
        plots.level(panel, default.value, "default")
        plots.describe(panel, x=TITLES[setting], y="bits per byte (test)", title=f"default: {DEFAULTS[setting]:g}")
        drawn += list(by_value.values())
    low, high = min(each.value - each.half_width for each in drawn), max(each.value + each.half_width for each in drawn)
    for panel in panels[:5]:
        panel.set_ylim(low - 0.01, high + 0.01)
    grid = _grid(records)
    for number, rows in enumerate(sorted(grid)):
        rates = sorted(grid[rows])
        means = [mean([_bits(record) for record in grid[rows][rate]]) for rate in rates]
        plots.line(panels[5], rates, means, number=number, label=f"{rows} rows")
    panels[5].set_xscale("log")
    plots.ticks(panels[5], _rates(), [f"{rate:g}" for rate in _rates()])
    plots.describe(
        panels[5],
        x=TITLES["learning_rate"],
        y="bits per byte (test)",
        title="another scale; 16 rows at 0.002: nano, unchanged",
        legend=True,
    )
    plots.save(figure, folder / "hyperparameters.png")


STUDY = Study("hyperparameters", measure, tables, draw)

if __name__ == "__main__":
    STUDY.main()
