"""Sampling settings against variety and coherence, beside what humans wrote in the same places.

python -m experiments.sampling
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments import plots
from experiments.runs import Maker
from experiments.study import Mean, Results, Study, mean, paired, table
from experiments.texts import TALES, Text
from experiments.writing import HUMAN, SHOWN_TEXTS
from gpt2kit.files import read_json, sha256_json

SEEDS: tuple[int, ...] = (0, 1, 2, 3, 4, 5)  # each goes on from other places
MODEL = "nano"
TEXT = Text("andersen", test_characters=96_000)  # prompts, human texts, and the words of other tales
PROMPTS = 24  # a seed
TOKENS = 80
PLAIN = {"temperature": 1.0, "top_p": 1.0}  # the model as it is
USUAL = {"temperature": 0.8, "top_p": 0.9}  # what `gpt2kit generate` does
FAMILIES: dict[str, list[dict[str, Any]]] = {
    "temperature": [PLAIN | {"temperature": value} for value in (0.0, 0.3, 0.5, 0.7, 0.85, 1.0, 1.2, 1.5)],
    "top-p": [PLAIN | {"top_p": value} for value in (0.5, 0.8, 0.9, 0.95)],
    "top-k": [PLAIN | {"top_k": value} for value in (5, 20, 100)],
    "min-p": [PLAIN | {"min_p": value} for value in (0.02, 0.05, 0.1, 0.2)],
    "typical": [PLAIN | {"typical_p": value} for value in (0.2, 0.5, 0.8, 0.9)],
    "repetition penalty": [USUAL | {"repetition_penalty": value} for value in (1.0, 1.1, 1.15, 1.2, 1.4)],
    "greedy, penalty": [PLAIN | {"temperature": 0.0, "repetition_penalty": 1.2}],
}
# What stood near human text, and the usual and the plain setting beside it, tried once more on a text that chose none.
CHECKED = [
    USUAL,
    *(USUAL | {"repetition_penalty": value} for value in (1.1, 1.15, 1.2)),
    PLAIN | {"min_p": 0.02},
    PLAIN | {"top_k": 100},
    PLAIN | {"temperature": 0.85},
    PLAIN,
]
OTHER_TEXT = Text("doyle", test_characters=96_000)
LONG_TEXT = Text("doyle", test_characters=160_000)
LONG = {"num_prompts": 12, "tokens": 4 * TOKENS}  # a penalty weighs on ever more words as a text grows


def measure(maker: Maker, quick: bool) -> Results:
    """Write with every setting and measure all texts together; then some settings again, on another author's book."""
    families, again, text, other, longer_text, longer = FAMILIES, CHECKED, TEXT, OTHER_TEXT, LONG_TEXT, LONG
    shared: dict[str, Any] = {"model": MODEL, "num_prompts": PROMPTS, "tokens": TOKENS, "seeds": SEEDS}
    if quick:
        families, again = {"temperature": FAMILIES["temperature"][::3]}, CHECKED[:2]
        text = other = longer_text = Text(TALES, test_characters=8_000)
        shared |= {"num_prompts": 4, "tokens": 24, "seeds": SEEDS[:2]}
        longer = {"num_prompts": 2, "tokens": 48}
    checked = {_name(setting): setting for setting in again}
    settings = {_name(setting): setting for family in families.values() for setting in family}
    return {
        "families": {family: [_name(setting) for setting in each] for family, each in families.items()},
        "settings": settings,
        "all": _measured(maker, text, settings, shared),
        "checked": _measured(maker, other, checked, shared),
        "longer": _measured(maker, longer_text, checked, shared | longer),
    }


def _measured(maker: Maker, text: Text, settings: dict[str, dict[str, Any]], shared: dict[str, Any]) -> dict[str, Any]:
    """What the settings write in the places of a book, and its figures."""
    shared = shared | {"text": asdict(text), "texts": str(maker.texts)}
    orders = {name: shared | {"setting": setting} for name, setting in settings.items()}
    files = _carry_out(maker, orders, what=f"texts by {len(orders)} settings")
    sets = {name: str(path) for name, path in files.items()}
    measured = _carry_out(maker, {"all": shared | {"sets": sets}}, what="their figures")["all"]
    written = {name: read_json(path, what="texts of a setting") for name, path in files.items()}
    first = str(shared["seeds"][0])
    return {
        "text": asdict(text),
        "num_prompts": shared["num_prompts"],
        "tokens": shared["tokens"],
        "seeds": list(shared["seeds"]),
        "nats_per_token": {name: each["nats_per_token"] for name, each in written.items()},
        "measured": read_json(measured, what="figures of a study"),
        "shown": {name: each["texts"][first][:SHOWN_TEXTS] for name, each in written.items()},
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
    short = {
        "temperature": "T", "top_p": "top-p", "top_k": "top-k", "min_p": "min-p", "typical_p": "typical",
        "repetition_penalty": "penalty",
    }  # fmt: skip
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
_QUOTED = ("greedy", "T 0.8, top-p 0.9, penalty 1", "T 0.8, top-p 0.9, penalty 1.15", "T 1", "T 1.5")
_QUOTED_CHARACTERS = 420


def _by_seed(part: Results, name: str, figure: str) -> dict[int, float]:
    """A figure of a setting's texts, or of human ones, by the seed; in per cent for shares."""
    scale = 100 if figure in SHARES else 1
    of_set = part["measured"]["figures"][name]
    return {seed: scale * of_set[str(seed)].get(figure, 0.0) for seed in part["seeds"]}


def _figure(part: Results, name: str, figure: str) -> Mean:
    return mean(list(_by_seed(part, name, figure).values()))


def _shown(part: Results, name: str, figure: str) -> str:
    """The same as text, bold where it does not clearly differ from human text.

    A share stands with its lowest and highest of the seeds, for Student's interval may reach below 0.
    """
    found = _figure(part, name, figure)
    text = found.show(1 if figure in SHARES else 3)
    if figure in SHARES and found.count > 1:
        shares = _by_seed(part, name, figure).values()
        text = f"{found.value:.1f} ({min(shares):.1f} to {max(shares):.1f})"
    from_human = paired(_by_seed(part, name, figure), _by_seed(part, HUMAN, figure))
    return text if name == HUMAN or from_human.is_clear else f"**{text}**"


def tables(results: Results) -> dict[str, str]:
    """The figures of all settings, some of them on another book, and what some of them write."""
    names = [name for of_family in results["families"].values() for name in of_family]
    part = results["all"]
    fewest, most = min(part["measured"]["compared_words"]), max(part["measured"]["compared_words"])
    note = (
        f"{len(part['seeds'])} sets of {part['num_prompts']} texts a setting, each set from other places and with "
        "another seed, and human text of the same places; all texts of a place are cut to the same words, "
        f"{fewest:,} to {most:,} in a set. ± is over the sets; shares stand with their lowest and highest set. In "
        "bold: figures that do not clearly differ from human text, set by set (the 95% interval of the difference "
        "holds 0)."
    )
    if part["measured"]["shuffled_coherence"]:
        floor = mean(part["measured"]["shuffled_coherence"])
        note += f" Human sentences in random order have a coherence of {floor.show()}."
    of_others = {name: _table(results[name], list(results[name]["shown"])) for name in ("checked", "longer")}
    return of_others | {
        "settings": _table(part, names) + "\n\n" + note,
        "texts": _quotations(part),
    }


def _table(part: Results, names: Sequence[str]) -> str:
    columns = ["setting", *(f"{title} (%)" if name in SHARES else title for name, title in FIGURES.items())]
    columns.append("surprise (nats per token)")
    rows = [["**human text**", *(_shown(part, HUMAN, name) for name in FIGURES), ""]]
    for name in names:
        surprise = mean([part["nats_per_token"][name][str(seed)] for seed in part["seeds"]])
        rows.append([name, *(_shown(part, name, figure) for figure in FIGURES), f"{surprise.value:.2f}"])
    return table(columns, rows)


def _quotations(part: Results) -> str:
    measured = part["measured"]
    parts = [f"Prompt: *{' '.join(measured['prompts'][0].split())}*"]
    texts = {HUMAN: measured["human"]} | {name: part["shown"][name] for name in _QUOTED if name in part["shown"]}
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
    part = results["all"]
    names = results["families"]["temperature"]
    places = [results["settings"][name]["temperature"] for name in names]
    for number, key in enumerate(_DRAWN):
        plots.line(panels[number], places, [_figure(part, name, key) for name in names], number=number)
        plots.level(panels[number], _figure(part, HUMAN, key).value, "human text")
        unit = " (%)" if key in SHARES else ""
        if key in SHARES:
            panels[number].set_ylim(bottom=0)
        plots.describe(
            panels[number], x="temperature (top-p 1)", y=FIGURES[key] + unit, title=FIGURES[key], legend=True
        )
    floors = part["measured"]["shuffled_coherence"]
    if floors:
        panel = panels[_DRAWN.index("coherence")]
        panel.axhline(mean(floors).value, color=plots.GREY, linestyle=":", label="its sentences shuffled")
        panel.legend(frameon=False, fontsize=8)
    _draw_map(panels[4], results, "unseen_words")
    _draw_map(panels[5], results, "coherence")
    plots.save(figure, folder / "sampling.png")


def _draw_map(panel: Any, results: Results, other: str) -> None:
    part = results["all"]
    for number, (family, names) in enumerate(results["families"].items()):
        points = [(_figure(part, name, "distinct_2").value, _figure(part, name, other).value) for name in names]
        panel.plot(
            *zip(*points, strict=True), color=plots.COLOURS[number], marker=plots.MARKERS[number], markersize=5,
            linewidth=0.8, label=family,
        )  # fmt: skip
    panel.plot(
        _figure(part, HUMAN, "distinct_2").value,
        _figure(part, HUMAN, other).value,
        marker="*",
        color="black",
        markersize=14,
        linestyle="none",
        label="human text",
    )
    unit = " (%)" if other in SHARES else ""
    plots.describe(
        panel, x="distinct-2", y=FIGURES[other] + unit, title="all settings: near the star is best", legend=True
    )


STUDY = Study("sampling", measure, tables, draw)

if __name__ == "__main__":
    STUDY.main()
