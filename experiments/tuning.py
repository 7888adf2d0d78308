"""What a search by `gpt2kit tune` is worth: found in the search, on fresh seeds, and on text that it never saw.

python -m experiments.tuning
"""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments import plots
from experiments.runs import BEFORE, COMMON, Maker, Record, Run, as_it_is, short
from experiments.study import Mean, Results, Study, by_seed, mean, paired, table
from experiments.texts import TALES, Text
from gpt2kit.files import read_json, sha256_json

DEFAULT = "default"
SEARCHES: tuple[int, ...] = (0, 1000, 2000)  # seeds far apart, since a search tries its best settings on the next ones
TRIALS, REPEATS = 16, 3
TEST_SEEDS: tuple[int, ...] = (100, 101, 102)  # which no search has had
TEXT = Text("shakespeare", characters=24_000, validation_fraction=0.25, test_characters=24_000)
# What all trials share with the other studies' runs.
FIXED = {name: COMMON[name] for name in ("context", "precision", "patience", "eval_tokens", "save_every")}
_SHORT = {"freeze_layers": "frozen blocks", "learning_rate": "learning rate", "batch_size": "rows"}
_FINISHED = "complete"


def measure(maker: Maker, quick: bool) -> Results:
    """Search, with several seeds; then train the best settings of each, and the defaults, and test them."""
    text, seeds, trials, test_seeds = TEXT, SEARCHES, TRIALS, TEST_SEEDS
    fixed: dict[str, Any] = FIXED
    if quick:
        text, seeds, trials = Text(TALES, characters=6_000, test_characters=4_000), SEARCHES, 3
        test_seeds, fixed = TEST_SEEDS[:2], FIXED | {"max_steps": 4}
    settings: dict[str, Any] = {
        "trials": trials,
        "repeats": REPEATS,
        "base": COMMON["base"],
        "device": "cpu",
        "fixed": fixed,
    }
    searches = [_search(maker, text, settings | {"seed": seed}) for seed in seeds]
    chosen: dict[str, dict[str, Any]] = {DEFAULT: {}} | {_name(search): search["best"]["values"] for search in searches}
    runs = [Run(name, text, fixed | values, seed) for seed in test_seeds for name, values in chosen.items()]
    return {"searches": searches, "runs": [short(record) for record in maker.make([as_it_is(text), *runs])]}


def _search(maker: Maker, text: Text, settings: dict[str, Any]) -> Record:
    order: dict[str, Any] = {"text": asdict(text), "settings": settings}
    key = sha256_json(order)[:16]
    record = maker.folder / "searches" / f"{key}.json"
    if not record.exists():
        places = {"texts": maker.texts, "folder": maker.folder / "searches" / key, "record": record}
        maker.launch("search", {key: order | places}, what=f"search, seed {settings['seed']}")
    return read_json(record, what="a search") | {"seed": settings["seed"]}


def _name(search: Record) -> str:
    return f"search {SEARCHES.index(search['seed']) + 1}"


def _found(search: Record) -> float:
    """The gain in the search, nats per token of validation text; 0 where the defaults were the best."""
    return float(search["gain"]["found"]) if search["gain"] else 0.0


def _remaining(search: Record) -> Mean:
    """The gain on fresh seeds, on the same validation text."""
    gain = search["gain"]
    if not gain:
        return Mean(0.0, 0.0, 1)
    return mean([defaults - best for defaults, best in zip(gain["defaults"], gain["best"], strict=True)])


def _nats(record: Record) -> float:
    return math.log(record["perplexity"])


def _tested(results: Results, search: Record) -> Mean:
    """The gain on test text over the defaults at the same seeds, nats per token."""
    records = results["runs"]
    return paired(by_seed(records, DEFAULT, _nats), by_seed(records, _name(search), _nats))


def tables(results: Results) -> dict[str, str]:
    """What each search gained and where, the settings it chose, and what mattered in it."""
    searches, records = results["searches"], results["runs"]
    before = next(record for record in records if record["name"] == BEFORE)
    rows = [
        [BEFORE, "", "", "", "", f"{before['bits_per_byte']:.3f}"],
        [DEFAULT, "", "", "", "", _bits(records, DEFAULT)],
    ]
    for search in searches:
        counts, name = search["counts"], _name(search)
        rows.append(
            [
                name,
                f"{counts['complete']} and {counts['pruned']}",
                f"{_found(search):.3f}",
                _remaining(search).show(),
                _tested(results, search).show(),
                _bits(records, name),
            ]
        )
    columns = [
        "settings", "trials finished and given up", "gain in the search", "on fresh seeds", "on test text",
        "bits per byte (test)",
    ]  # fmt: skip
    names = list(searches[0]["best"]["values"])
    chosen = [
        [
            _SHORT.get(name, name),
            f"{searches[0]['defaults'][name]:.3g}",
            *(f"{search['best']['values'][name]:.3g}" for search in searches),
        ]
        for name in names
    ]
    mattered = [
        [_SHORT.get(name, name), *(f"{search['importance'].get(name, 0):.0%}" for search in searches)]
        for name in names
        if any(search["importance"] for search in searches)
    ]
    of_each = [_name(search) for search in searches]
    return {
        "gains": table(columns, rows),
        "chosen": table(["setting", DEFAULT, *of_each], chosen),
        "importance": table(["setting", *of_each], mattered),
    }


def _bits(records: list[Record], name: str) -> str:
    return mean([record["bits_per_byte"] for record in records if record["name"] == name]).show()


def _finished(search: Record) -> list[Record]:
    return [trial for trial in search["trials"] if trial["state"] == _FINISHED]


def draw(results: Results, folder: Path) -> None:
    """The course of each search, its trials by learning rate, and its gain from the search to the test text."""
    searches = results["searches"]
    figure, panels = plots.page(3)
    for number, search in enumerate(searches):
        name, finished = _name(search), _finished(search)
        best = [min(trial["value"] for trial in finished[: place + 1]) for place in range(len(finished))]
        colour, marker = plots.COLOURS[number], plots.MARKERS[number]
        panels[0].step([trial["number"] for trial in finished], best, where="post", color=colour, label=name)
        rates = [trial["values"]["learning_rate"] for trial in finished]
        panels[1].plot(
            rates, [trial["value"] for trial in finished], color=colour, marker=marker, linestyle="none", label=name
        )
        steps = [Mean(_found(search), 0.0, 1), _remaining(search), _tested(results, search)]
        plots.line(panels[2], range(len(steps)), steps, number=number, label=name)
    plots.describe(panels[0], x="trial", y="nats per token of validation text", title="best so far", legend=True)
    panels[1].set_xscale("log")
    plots.describe(panels[1], x="learning rate", y="nats per token of validation text", title="finished trials")
    plots.level(panels[2], 0, "no gain")
    plots.ticks(panels[2], range(3), ["in the search", "fresh seeds", "test text"])
    plots.describe(panels[2], x="", y="gain (nats per token)", title="what remains of the gain", legend=True)
    plots.save(figure, folder / "tuning.png")


STUDY = Study("tuning", measure, tables, draw)

if __name__ == "__main__":
    STUDY.main()
