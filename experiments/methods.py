"""Full fine-tuning, LoRA and freezing: quality, time and memory.

python -m experiments.methods
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import plots
from experiments.hyperparameters import DEFAULTS, SEEDS, TEXT
from experiments.runs import BEFORE, Maker, Record, Run, as_it_is, short
from experiments.study import Mean, Results, Study, mean, paired, shown_bits, table
from experiments.texts import TALES, Text

FULL = "full"
TIMED_STEPS = 8
# Each at the rate that is its default and at four times that: methods want different rates, and validation chooses.
METHODS: dict[str, dict[str, Any]] = {
    FULL: {},
    "LoRA, rank 2": {"method": "lora", "lora_rank": 2},
    "LoRA, rank 8": {"method": "lora", "lora_rank": 8},
    "LoRA, rank 32": {"method": "lora", "lora_rank": 32},
    "2 of 4 blocks frozen": {"freeze_layers": 2},
    "3 of 4 blocks and embeddings frozen": {"freeze_layers": 3, "freeze_embeddings": True},
}
RATES = {"full": (5e-4, 2e-3), "lora": (3e-3, 1.2e-2)}


def quality_runs(seeds: Sequence[int], rates: Mapping[str, Sequence[float]], *, quick: bool) -> list[Run]:
    """Each method at its rates and seeds, on the text of the study of the hyperparameters."""
    text, extra = TEXT, dict[str, Any]()
    if quick:
        text, extra = Text(TALES, characters=6_000, test_characters=4_000), {"epochs": 0.5}
    return [
        Run(f"{name} at {rate:g}", text, DEFAULTS | METHODS[name] | {"learning_rate": rate} | extra, seed)
        for seed in seeds
        for name in rates
        for rate in rates[name]
    ]


def all_rates(*, quick: bool) -> dict[str, Sequence[float]]:
    """The two rates of each method."""
    names = list(METHODS)[1:4:2] if quick else list(METHODS)
    return {name: RATES[METHODS[name].get("method", "full")] for name in names}


def timed_runs(*, quick: bool) -> list[Run]:
    """A few steps of each method, alone on the machine, with rows as long as one would take."""
    text = Text(TALES, characters=60_000, test_characters=4_000)
    shape = {"context": 256, "batch_size": 8, "max_steps": 2 if quick else TIMED_STEPS, "eval_every": 1000}
    return [Run(name, text, changes | shape, timed=True, test=False) for name, changes in METHODS.items()]


def measure(maker: Maker, quick: bool) -> Results:
    """Make the runs of the first seed at both rates, and those of the others at the better one."""
    rates, seeds = all_rates(quick=quick), SEEDS[:2] if quick else SEEDS
    first = maker.make(quality_runs(seeds[:1], rates, quick=quick))
    better = {name: (_better(first, name)["settings"]["learning_rate"],) for name in rates}
    others = maker.make(quality_runs(seeds[1:], better, quick=quick))
    before = maker.make([as_it_is(Text(**first[0]["text"]))])
    timed = maker.make(timed_runs(quick=quick)[: 2 if quick else None])
    return {
        "runs": [short(record) for record in before + first + others],
        "timed": [short(record) for record in timed],
    }


def _better(records: Sequence[Record], method: str) -> Record:
    """The run of the first seed with the lower validation loss, which is not the text reported on."""
    return min((each for each in records if each["name"].startswith(f"{method} at ")), key=_loss)


def _chosen(results: Results) -> dict[str, list[Record]]:
    """The runs of each method at the rate that was chosen for it."""
    records = [record for record in results["runs"] if record["name"] != BEFORE]
    first = [record for record in records if record["seed"] == SEEDS[0]]
    found = {}
    for method in METHODS:
        if any(record["name"].startswith(f"{method} at ") for record in first):
            name = _better(first, method)["name"]
            found[method] = [record for record in records if record["name"] == name]
    return found


def _loss(record: Record) -> float:
    return float(record["training"]["validation_loss"])


def _bits(record: Record) -> float:
    return float(record["bits_per_byte"])


def _timed(results: Results) -> dict[str, Record]:
    return {record["name"]: record for record in results["timed"]}


def _against_full(chosen: dict[str, list[Record]], method: str) -> Mean | None:
    if FULL not in chosen or method == FULL:
        return None
    bits = {name: {record["seed"]: _bits(record) for record in chosen[name]} for name in (method, FULL)}
    return paired(bits[method], bits[FULL])


def tables(results: Results) -> dict[str, str]:
    """Quality at the better of two rates, then time and memory."""
    chosen, timed = _chosen(results), _timed(results)
    before = next(_bits(record) for record in results["runs"] if record["name"] == BEFORE)
    rows = [[BEFORE, "", "", f"{before:.3f}", ""]]
    for method, records in chosen.items():
        difference = _against_full(chosen, method)
        training = records[0]["training"]
        rows.append(
            [
                method,
                f"{training['trainable_parameters']:,}",
                f"{training['learning_rate']:g}",
                shown_bits(records),
                "" if difference is None else difference.show(sign=True),
            ]
        )
    costs = []
    for method, record in timed.items():
        speed, peak = record["training"]["tokens_per_second"], record["peak_memory_bytes"]
        full = timed.get(FULL)
        compared = "" if full is None else f"{speed / full['training']['tokens_per_second']:.2f}"
        costs.append([method, f"{speed:,.0f}", compared, f"{peak / 1e6:,.0f}"])
    return {
        "quality": table(["method", "trained parameters", "learning rate", "bits per byte", "against full"], rows),
        "costs": table(["method", "tokens per second", "as full = 1", "peak memory (MB)"], costs),
    }


def draw(results: Results, folder: Path) -> None:
    """Quality, speed and memory of the methods beside each other."""
    chosen, timed = _chosen(results), _timed(results)
    figure, panels = plots.page(3)
    bits = [mean([_bits(record) for record in records]) for records in chosen.values()]
    _dots(panels[0], list(chosen), bits)
    before = next(_bits(record) for record in results["runs"] if record["name"] == BEFORE)
    panels[0].axvline(before, color=plots.GREY, linestyle="--", linewidth=1.2)
    plots.describe(panels[0], x="bits per byte (test)", y="", title="left is better; dashed: nano as it is")
    speeds = [record["training"]["tokens_per_second"] for record in timed.values()]
    memory = [record["peak_memory_bytes"] / 1e6 for record in timed.values()]
    for panel, values, x in ((panels[1], speeds, "tokens per second"), (panels[2], memory, "peak memory (MB)")):
        panel.barh(range(len(values)), values, color=plots.COLOURS[0], height=0.6)
        panel.set_yticks(range(len(values)), [""] * len(values))
        panel.invert_yaxis()
        plots.describe(panel, x=x, y="", title="right is faster" if panel is panels[1] else "left is less")
    plots.save(figure, folder / "methods.png")


def _dots(panel: Any, names: list[str], means: list[Mean]) -> None:
    panel.errorbar(
        [each.value for each in means],
        range(len(means)),
        xerr=[each.half_width for each in means],
        color=plots.COLOURS[0],
        marker="o",
        linestyle="none",
        capsize=3,
    )
    panel.set_yticks(range(len(names)), [name.replace(" and ", "\nand ") for name in names], fontsize=8)
    panel.invert_yaxis()


STUDY = Study("methods", measure, tables, draw)

if __name__ == "__main__":
    STUDY.main()
