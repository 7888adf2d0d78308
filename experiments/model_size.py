"""Small models and large ones from scratch: for the same tokens, and for the same time.

python -m experiments.model_size
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import plots
from experiments.runs import COMMON, Maker, Record, Run, short
from experiments.study import Results, Study, by_seed, mean, table
from experiments.texts import TALES, Text

SEEDS: tuple[int, ...] = (0, 1, 2)
SECONDS = 40  # of training steps at the rate measured alone, in which the middle model sees TOKENS
ROWS = 16
TRIAL_STEPS = 6


@dataclass(frozen=True)
class Shape:
    """A model's shape; all have nano's tokenizer."""

    name: str
    layers: int
    heads: int
    width: int

    @property
    def settings(self) -> dict[str, Any]:
        """As `gpt2kit train` takes it; Muon at a rate that suits short runs."""
        return {
            "base": None,
            "from_scratch": True,
            "n_layer": self.layers,
            "n_head": self.heads,
            "n_embd": self.width,
            "optimizer": "muon",
            "learning_rate": 1e-2,
            "batch_size": ROWS,
        }


SHAPES: tuple[Shape, ...] = (
    Shape("2 layers of 64", 2, 2, 64),
    Shape("4 layers of 192", 4, 3, 192),
    Shape("4 layers of 320 (as nano)", 4, 5, 320),
    Shape("6 layers of 448", 6, 7, 448),
)
MIDDLE = SHAPES[2]
TEXT = Text("andersen", test_characters=24_000)


def timed_runs(*, quick: bool) -> list[Run]:
    """A few steps of each shape, alone on the machine: how fast it goes, and what memory it takes."""
    text = Text(TALES, characters=60_000, test_characters=4_000)
    steps = {"max_steps": 2 if quick else TRIAL_STEPS, "eval_every": 1000}
    return [Run(shape.name, text, shape.settings | steps, timed=True, test=False) for shape in SHAPES]


def runs(rates: dict[str, float], *, quick: bool) -> list[Run]:
    """Each shape for as many tokens as the middle one sees in the time, and for the time.

    Args:
        rates: tokens a second of each shape.
        quick: a small trial.
    """
    text, seeds, seconds, shapes = TEXT, SEEDS, float(SECONDS), SHAPES
    if quick:
        text, seeds, seconds = Text(TALES, characters=60_000, test_characters=4_000), SEEDS[:2], 0.5
        shapes = SHAPES[:2]
    a_step = ROWS * COMMON["context"]
    tokens = seconds * rates[(shapes[-1] if quick else MIDDLE).name]
    made = []
    for seed in seeds:
        for shape in shapes:
            for what, wanted in (("tokens", tokens), ("time", seconds * rates[shape.name])):
                steps = {"max_steps": max(round(wanted / a_step), 1), "eval_every": 1000}
                made.append(Run(f"{shape.name}, equal {what}", text, shape.settings | steps, seed))
    return made


def measure(maker: Maker, quick: bool) -> Results:
    """Measure the rates, then make the runs that they settle the steps of."""
    timed = maker.make(timed_runs(quick=quick)[: 2 if quick else None])
    rates = {record["name"]: record["training"]["tokens_per_second"] for record in timed}
    return {
        "seconds": SECONDS,
        "timed": [short(record) for record in timed],
        "runs": [short(record) for record in maker.make(runs(rates, quick=quick))],
    }


def _bits(record: Record) -> float:
    return float(record["bits_per_byte"])


def tables(results: Results) -> dict[str, str]:
    """Each shape: size, speed, memory, and how well it predicts."""
    rows = []
    for timed in results["timed"]:
        name, training = timed["name"], timed["training"]
        cells = [name, f"{training['parameters'] / 1e6:.2f} M", f"{training['tokens_per_second']:,.0f}"]
        cells.append(f"{timed['peak_memory_bytes'] / 1e6:,.0f}")
        for what in ("tokens", "time"):
            of_name = [record for record in results["runs"] if record["name"] == f"{name}, equal {what}"]
            cells.append(f"{of_name[0]['training']['tokens_seen']:,}" if of_name else "")
            cells.append(mean([_bits(record) for record in of_name]).show() if of_name else "")
        rows.append(cells)
    columns = [
        "model", "parameters", "tokens per second", "peak memory (MB)", "tokens seen", "bits per byte, equal tokens",
        "tokens seen in the time", "bits per byte, equal time",
    ]  # fmt: skip
    return {"sizes": table(columns, rows)}


def draw(results: Results, folder: Path) -> None:
    """Quality over size, for equal tokens and for equal time; and what a size costs."""
    figure, panels = plots.page(2)
    sizes = {record["name"]: record["training"]["parameters"] / 1e6 for record in results["timed"]}
    for number, what in enumerate(("tokens", "time")):
        found = {name: by_seed(results["runs"], f"{name}, equal {what}", _bits) for name in sizes}
        means = [mean(list(values.values())) for values in found.values() if values]
        plots.line(panels[0], list(sizes.values()), means, number=number, label=f"equal {what}")
    plots.describe(
        panels[0],
        x="parameters (millions)",
        y="bits per byte (test)",
        title="from scratch: lower is better",
        legend=True,
    )
    speeds = [record["training"]["tokens_per_second"] for record in results["timed"]]
    panels[1].plot(list(sizes.values()), speeds, color=plots.COLOURS[2], marker=plots.MARKERS[2])
    panels[1].set_yscale("log")
    marks = [
        mark
        for mark in (50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
        if min(speeds) / 2 < mark < 2 * max(speeds)
    ]
    panels[1].set_yticks(marks, [f"{mark:,}" for mark in marks])
    plots.describe(panels[1], x="parameters (millions)", y="tokens per second", title="what a size costs")
    for panel in panels:
        panel.set_xscale("log")
        plots.ticks(panel, list(sizes.values()), [f"{size:.2g}" for size in sizes.values()])
    plots.save(figure, folder / "model_size.png")


STUDY = Study("model_size", measure, tables, draw)

if __name__ == "__main__":
    STUDY.main()
