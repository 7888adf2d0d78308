"""Sampling settings against variety and coherence, beside what humans wrote in the same places.

python -m experiments.sampling
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments import plots
from experiments.runs import Maker
from experiments.study import Mean, Results, Study, mean, table
from experiments.texts import TALES, Text
from experiments.writing import SHOWN_TEXTS
from gpt2kit.files import read_json, sha256_json

SEEDS: tuple[int, ...] = (0, 1, 2)
MODEL = "nano"
TEXT = Text("andersen", test_characters=32_000)  # prompts, human texts, and the words of other tales
PROMPTS = 24
TOKENS = 80
PLAIN = {"temperature": 1.0, "top_p": 1.0}  # the model as it is
USUAL = {"temperature": 0.8, "top_p": 0.9}  # what `gpt2kit generate` does
FAMILIES: dict[str, list[dict[str, Any]]] = {
    "temperature": [PLAIN | {"temperature": value} for value in (0.0, 0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5)],
    "top-p": [PLAIN | {"top_p": value} for value in (0.5, 0.8, 0.9, 0.95)],
    "top-k": [PLAIN | {"top_k": value} for value in (5, 20, 100)],
    "repetition penalty": [USUAL | {"repetition_penalty": value} for value in (1.0, 1.1, 1.2, 1.4)],
    "greedy, penalty": [PLAIN | {"temperature": 0.0, "repetition_penalty": 1.2}],
}


def measure(maker: Maker, quick: bool) -> Results:
    """Write with every setting, then measure all texts together."""
    text, seeds, prompts, tokens, families = TEXT, SEEDS, PROMPTS, TOKENS, FAMILIES
    if quick:
        text = Text(TALES, test_characters=8_000)
        seeds, prompts, tokens, families = SEEDS[:2], 4, 24, {"temperature": FAMILIES["temperature"][::3]}
    shared = {
        "text": asdict(text), "texts": str(maker.texts), "model": MODEL, "num_prompts": prompts,
        "tokens": tokens,
    }  # fmt: skip
    settings = {_name(setting): setting for family in families.values() for setting in family}
    orders = {name: shared | {"setting": setting, "seeds": seeds} for name, setting in settings.items()}
    files = _carry_out(maker, orders, what=f"texts by {len(orders)} settings")
    sets = {name: str(path) for name, path in files.items()}
    measured = _carry_out(maker, {"all": shared | {"sets": sets}}, what="their figures")["all"]
    written = {name: read_json(path, what="texts of a setting") for name, path in files.items()}
    return {
        "families": {family: [_name(setting) for setting in each] for family, each in families.items()},
        "settings": settings,
        "seeds": list(seeds),
        "num_prompts": prompts,
        "tokens": tokens,
        "nats_per_token": {name: each["nats_per_token"] for name, each in written.items()},
        "measured": read_json(measured, what="figures of a study"),
        "shown": {name: each["texts"][str(seeds[0])][:SHOWN_TEXTS] for name, each in written.items()},
    }


def _carry_out(maker: Maker, orders: dict[str, dict[str, Any]], *, what: str) -> dict[str, Path]:
    """Write or measure what is not there yet; returns where each record is."""
    records, missing = {}, {}
    for name, order in orders.items():
        key = sha256_json(order)[:16]
        records[name] = maker.folder / "writings" / f"{key}.json"
        if not records[name].exists():
            missing[key] = order | {"record": str(records[name])}
    if missing:
        maker.launch("writing", missing, what=what)
    return records


def _name(setting: dict[str, Any]) -> str:
    short = {"temperature": "T", "top_p": "top-p", "top_k": "top-k", "repetition_penalty": "penalty"}
    if setting["temperature"] == 0 and len(setting) == len(PLAIN):
        return "greedy"
    return ", ".join(f"{short[name]} {value:g}" for name, value in setting.items() if name != "top_p" or value != 1)


FIGURES = {
    "distinct_2": "distinct-2",
    "self_bleu": "self-BLEU",
    "words_in_loops": "words in loops",
    "coherence": "coherence",
    "unseen_words": "unseen words",
}
SHARES = ("words_in_loops", "unseen_words")
_DRAWN = ("distinct_2", "words_in_loops", "coherence", "unseen_words")
_QUOTED = ("greedy", "T 0.8, top-p 0.9, penalty 1", "T 1", "T 1.5")
_QUOTED_CHARACTERS = 420


def _figure(results: Results, name: str, figure: str) -> Mean:
    """A figure of a setting over the seeds, in per cent for shares; greedy search writes the same whatever the seed."""
    by_set = results["measured"]["figures"]
    scale = 100 if figure in SHARES else 1
    seeds = results["seeds"] if results["settings"][name]["temperature"] else results["seeds"][:1]
    return mean([scale * by_set[f"{name}|{seed}"].get(figure, 0.0) for seed in seeds])


def _shown(results: Results, name: str, figure: str) -> str:
    """The same as text; a share as its lowest and highest of the seeds, for Student's interval may reach below 0."""
    found = _figure(results, name, figure)
    if figure not in SHARES or found.count < 2:
        return found.show(1 if figure in SHARES else 3)
    shares = [100 * results["measured"]["figures"][f"{name}|{seed}"].get(figure, 0.0) for seed in results["seeds"]]
    return f"{found.value:.1f} ({min(shares):.1f} to {max(shares):.1f})"


def _human(results: Results, figure: str) -> float:
    value = float(results["measured"]["figures"]["human"].get(figure, 0.0))
    return 100 * value if figure in SHARES else value


def tables(results: Results) -> dict[str, str]:
    """The figures of all settings, and what some of them write."""
    columns = ["setting", *(f"{title} (%)" if name in SHARES else title for name, title in FIGURES.items())]
    columns.append("surprise (nats per token)")
    digits = {name: 1 if name in SHARES else 3 for name in FIGURES}
    rows = [["**human text**", *(f"**{_human(results, name):.{digits[name]}f}**" for name in FIGURES), ""]]
    for names in results["families"].values():
        for name in names:
            surprise = mean([results["nats_per_token"][name][str(seed)] for seed in results["seeds"]])
            cells = [_shown(results, name, figure) for figure in FIGURES]
            rows.append([name, *cells, f"{surprise.value:.2f}"])
    measured = results["measured"]
    floor = measured["shuffled_coherence"]
    note = (
        f"{measured['compared_texts']} texts a setting and seed, cut to the same {measured['compared_words']:,} words "
        "in all. ± is over the seeds, and shares stand with their lowest and highest seed. Greedy search writes the "
        "same texts whatever the seed: one set. Human text is one set too, and has no interval: how far another "
        f"{measured['compared_texts']} passages of Andersen would lie from these is not in the table."
    )
    if floor is not None:
        note += f" Human sentences in random order have a coherence of {floor:.3f}."
    return {"settings": table(columns, rows) + "\n\n" + note, "texts": _quotations(results)}


def _quotations(results: Results) -> str:
    measured = results["measured"]
    parts = [f"Prompt: *{' '.join(measured['prompts'][0].split())}*"]
    texts = {"human": measured["human"]} | {
        name: results["shown"][name] for name in _QUOTED if name in results["shown"]
    }
    for name, of_setting in texts.items():
        text = " ".join(of_setting[0].split())
        parts.append(f"**{name}**\n\n> {_escaped(text[:_QUOTED_CHARACTERS])} ...")
    return "\n\n".join(parts)


def _escaped(text: str) -> str:
    """Text that Markdown takes as it is."""
    return "".join(f"\\{character}" if character in "*_`<>[]#" else character for character in text)


def draw(results: Results, folder: Path) -> None:
    """Over the temperature, four figures beside human text; then all settings in one picture."""
    figure, panels = plots.page(3, 2)
    names = results["families"]["temperature"]
    places = [results["settings"][name]["temperature"] for name in names]
    for number, key in enumerate(_DRAWN):
        plots.line(panels[number], places, [_figure(results, name, key) for name in names], number=number)
        plots.level(panels[number], _human(results, key), "human text")
        unit = " (%)" if key in SHARES else ""
        if key in SHARES:
            panels[number].set_ylim(bottom=0)
        plots.describe(
            panels[number], x="temperature (top-p 1)", y=FIGURES[key] + unit, title=FIGURES[key], legend=True
        )
    floor = results["measured"]["shuffled_coherence"]
    if floor is not None:
        panel = panels[_DRAWN.index("coherence")]
        panel.axhline(floor, color=plots.GREY, linestyle=":", label="its sentences shuffled")
        panel.legend(frameon=False, fontsize=8)
    _draw_map(panels[4], results, "self_bleu")
    _draw_map(panels[5], results, "coherence")
    plots.save(figure, folder / "sampling.png")


def _draw_map(panel: Any, results: Results, other: str) -> None:
    for number, (family, names) in enumerate(results["families"].items()):
        points = [(_figure(results, name, "distinct_2").value, _figure(results, name, other).value) for name in names]
        panel.plot(
            *zip(*points, strict=True), color=plots.COLOURS[number], marker=plots.MARKERS[number], markersize=5,
            linewidth=0.8, label=family,
        )  # fmt: skip
    panel.plot(
        _human(results, "distinct_2"),
        _human(results, other),
        marker="*",
        color="black",
        markersize=14,
        linestyle="none",
        label="human text",
    )
    plots.describe(panel, x="distinct-2", y=FIGURES[other], title="all settings: near the star is best", legend=True)


STUDY = Study("sampling", measure, tables, draw)

if __name__ == "__main__":
    STUDY.main()
