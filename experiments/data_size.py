"""How much text of an author it takes: from a thirty-second of a book to all of it.

python -m experiments.data_size
"""

import math
from pathlib import Path
from statistics import linear_regression

from experiments import plots
from experiments.runs import BEFORE, COMMON, Maker, Record, Run, as_it_is, short
from experiments.study import Mean, Results, Study, mean, paired, table
from experiments.texts import TALES, Text

SEEDS: tuple[int, ...] = (0, 1, 2)
SHARES: tuple[float, ...] = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
ROWS = 4
FEWEST_TOKENS = 8_000  # trained on, or one epoch where that is more: a small part is read again and again
SETTINGS = {"batch_size": ROWS}  # all else as by default
TOKENS_PER_CHARACTER = 0.252  # of Andersen in nano's tokens, to settle the steps before the text is cut
CHARACTERS = 610_000  # of the book without the test text


def runs(*, quick: bool) -> list[Run]:
    """A run for each share and seed. The seed decides too which part of the book is taken."""
    corpus, seeds, shares, limit, test = "andersen", SEEDS, SHARES, 0, 24_000
    if quick:
        corpus, seeds, shares, limit, test = TALES, SEEDS[:2], SHARES[-3::2], 3, 4_000
    made = []
    for seed in seeds:
        for share in shares:
            text = Text(corpus, share, seed=seed, test_characters=test)
            settings = SETTINGS | {"max_steps": limit or steps(share)}
            made.append(Run(_name(share), text, settings, seed))
    return [as_it_is(made[0].text), *made]


def steps(share: float) -> int:
    """Steps for a share of the book: so many as read the tokens wanted."""
    tokens = 0.9 * share * CHARACTERS * TOKENS_PER_CHARACTER
    a_step = ROWS * int(COMMON["context"])
    return round(max(tokens, FEWEST_TOKENS) / a_step)


def _name(share: float) -> str:
    return f"1/{round(1 / share)}" if share < 1 else "all"


def measure(maker: Maker, quick: bool) -> Results:
    """Make the runs."""
    return {"runs": [short(record) for record in maker.make(runs(quick=quick))]}


def _bits(record: Record) -> float:
    return float(record["bits_per_byte"])


def _trained(results: Results) -> tuple[float, dict[str, list[Record]]]:
    """Bits per byte of nano as it is, and the runs of each share, the smallest first."""
    records = results["runs"]
    names = dict.fromkeys(record["name"] for record in records if record["name"] != BEFORE)
    before = next(_bits(record) for record in records if record["name"] == BEFORE)
    return before, {name: [record for record in records if record["name"] == name] for name in names}


def doubling(results: Results) -> Mean:
    """What twice the text changes in bits per byte: the slope over log2 of the tokens, fitted seed by seed."""
    _, by_share = _trained(results)
    lines: dict[int, list[tuple[float, float]]] = {}
    for records in by_share.values():
        for record in records:
            lines.setdefault(record["seed"], []).append((math.log2(record["training"]["train_tokens"]), _bits(record)))
    return mean([linear_regression(*zip(*points, strict=True)).slope for points in lines.values()])


def tables(results: Results) -> dict[str, str]:
    """Each share of the book, and the fit."""
    before, by_share = _trained(results)
    rows = [[BEFORE, "0", "0", f"{before:.3f}", "", ""]]
    previous: list[Record] = []
    for name, records in by_share.items():
        bits = {record["seed"]: _bits(record) for record in records}
        gain = paired(bits, {record["seed"]: _bits(record) for record in previous}) if previous else None
        tokens = mean([record["training"]["train_tokens"] for record in records]).value
        seen = mean([record["training"]["tokens_seen"] for record in records]).value
        rows.append(
            [
                name,
                f"{tokens:,.0f}",
                f"{seen / tokens:.1f}",
                mean(list(bits.values())).show(),
                f"{mean(list(bits.values())).value - before:+.3f}",
                "" if gain is None else gain.show(sign=True),
            ]
        )
        previous = records
    slope = doubling(results)
    columns = ["share of the book", "tokens", "times read", "bits per byte", "against nano", "against half as much"]
    fit = (
        f"Fitted over all shares, twice the text changes the test figure by "
        f"**{slope.show(4, sign=True)}** bits per byte; the whole book changes nano by {rows[-1][4]}."
    )
    return {"shares": table(columns, rows), "fit": fit}


def draw(results: Results, folder: Path) -> None:
    """Quality over the text, and where each run was best."""
    before, by_share = _trained(results)
    figure, panels = plots.page(2)
    tokens = [mean([record["training"]["train_tokens"] for record in records]).value for records in by_share.values()]
    bits = [mean([_bits(record) for record in records]) for records in by_share.values()]
    plots.line(panels[0], tokens, bits, label="fine-tuned, mean of the seeds")
    plots.level(panels[0], before, BEFORE)
    gains = [mean([before - _bits(record) for record in records]) for records in by_share.values()]
    plots.line(panels[1], tokens, gains, number=2)
    panels[1].set_ylim(bottom=min(0.0, *(gain.value - gain.half_width for gain in gains)))
    for panel in panels:
        panel.set_xscale("log", base=2)
        plots.ticks(
            panel, tokens, [f"{name}\n{count / 1000:.1f}k" for name, count in zip(by_share, tokens, strict=True)]
        )
    plots.describe(
        panels[0], x="training text (share of the book, tokens)", y="bits per byte (test)", legend=True,
        title="predicting other pages of the book",
    )  # fmt: skip
    plots.describe(
        panels[1],
        x="training text (share of the book, tokens)",
        y="bits per byte gained",
        title="gained over nano as it is",
    )
    plots.save(figure, folder / "data_size.png")


STUDY = Study("data_size", measure, tables, draw)

if __name__ == "__main__":
    STUDY.main()
