"""The figures of an evaluation as one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2kit.evaluation.likelihood import Likelihood
from gpt2kit.evaluation.statistics import Figure, number_text
from gpt2kit.evaluation.texts import TextReport
from gpt2kit.runtime import require_extra

# Okabe and Ito's colours, which colour-blind readers tell apart; human text is grey.
_COLOURS = {"model": "#0072B2", "base": "#E69F00", "other": "#E69F00", "human": "#7F7F7F"}
_LONGEST_LABEL = 26


def draw(
    path: Path, likelihoods: Mapping[str, Likelihood], texts: TextReport | None, *, titles: Mapping[str, str]
) -> None:
    """Draw bits per byte, variety, repetition and copies of the training text beside human text.

    Args:
        path: the PNG to write.
        likelihoods: by the name of the model, "model" first.
        texts: the figures of texts, if any.
        titles: what to call each model; texts are called as their set is.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = require_extra("matplotlib.figure", extra="plots", purpose="drawing pictures")
    names = {name: _short(title) for name, title in titles.items()}
    num_panels = 1 if texts is None else 4
    page = figures.Figure(figsize=(4.2, 3.6) if texts is None else (10, 7.2), layout="constrained", dpi=120)
    panels = page.subplots(1 if num_panels == 1 else 2, 1 if num_panels == 1 else 2, squeeze=False).ravel()
    _draw_likelihood(panels[0], likelihoods, names)
    if texts is not None:
        _draw_variety(panels[1], texts)
        _draw_repetition(panels[2], texts)
        _draw_copies(panels[3], texts)
        handles = [panels[0].bar(0, 0, color=_COLOURS[name]) for name in texts.sets]
        page.legend(
            handles,
            [_short(each.title) for each in texts.sets.values()],
            loc="outside upper center",
            ncols=3,
            frameon=False,
        )
        dotted = "; dotted: human text, its sentences shuffled" if texts.shuffled_coherence is not None else ""
        page.supxlabel(f"black lines: 95% intervals{dotted}", fontsize=8)
    elif any(each.bits_per_byte_interval for each in likelihoods.values()):
        page.supxlabel(f"black line{'s' if len(likelihoods) > 1 else ''}: 95% interval", fontsize=8)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
    page.savefig(path, format="png")


def _draw_likelihood(panel: Any, likelihoods: Mapping[str, Likelihood], names: Mapping[str, str]) -> None:
    figures = [Figure(each.bits_per_byte, each.bits_per_byte_interval) for each in likelihoods.values()]
    _bars(panel, range(len(figures)), figures, width=0.5, colours=[_COLOURS[name] for name in likelihoods])
    for place, (figure, each) in enumerate(zip(figures, likelihoods.values(), strict=True)):
        top = figure.interval[1] if figure.interval else figure.value
        panel.annotate(
            f"{figure.value:.3f}\nperplexity {number_text(each.perplexity, digits=1)}",
            (place, top),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
        )
    panel.set_xticks(range(len(figures)), [names[name] for name in likelihoods])
    panel.set_xlim(-0.6, len(figures) - 0.4)
    panel.set_ylim(0, 1.3 * max(figure.interval[1] if figure.interval else figure.value for figure in figures))
    panel.set_title("held-out text: bits per byte (lower is better)", fontsize=10)


def _draw_variety(panel: Any, texts: TextReport) -> None:
    _grouped(panel, texts, {"distinct_1": "distinct-1", "distinct_2": "distinct-2", "distinct_3": "distinct-3"})
    panel.set_ylim(0, 1)
    panel.set_title("variety: share of n-grams that are different", fontsize=10)


def _draw_repetition(panel: Any, texts: TextReport) -> None:
    labels = {"rep_4": "rep-4", "looping_texts": "texts\nwith a loop", "self_bleu": "self-BLEU"}
    if texts.shuffled_coherence is not None:
        labels["coherence"] = "coherence"
    _grouped(panel, texts, labels)
    if texts.shuffled_coherence is not None:
        place = len(labels) - 1
        panel.hlines(texts.shuffled_coherence.value, place - 0.45, place + 0.45, colors="black", linestyles="dotted")
        panel.annotate(
            "shuffled",
            (place + 0.45, texts.shuffled_coherence.value),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=7,
            ha="right",
            va="bottom",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1},
        )
    panel.set_ylim(bottom=0)
    panel.set_title("repetition, likeness, coherence: as human text is best", fontsize=10)


def _draw_copies(panel: Any, texts: TextReport) -> None:
    measured = False
    for name, each in texts.sets.items():
        if each.copied_by_length:
            measured = True
            panel.plot(
                list(each.copied_by_length),
                [100 * share for share in each.copied_by_length.values()],
                color=_COLOURS[name],
                marker="o",
                markersize=4,
                linestyle="--" if name == "human" else "-",
            )
    if measured:
        panel.set_xscale("log")
        lengths = list(next(iter(texts.sets.values())).copied_by_length)
        panel.set_xticks(lengths, [str(length) for length in lengths])
        panel.minorticks_off()
        # A scale of at least 5%, so that hardly anything looks like hardly anything.
        panel.set_ylim(0, max(5.0, panel.get_ylim()[1]))
        panel.set_xlabel("run of at least so many words", fontsize=8)
        panel.set_ylabel("% of words", fontsize=8)
    else:
        panel.text(0.5, 0.5, "not measured: no training text", ha="center", va="center", transform=panel.transAxes)
        panel.set_xticks([])
        panel.set_yticks([])
    panel.set_title("copied word for word from the training text", fontsize=10)


def _grouped(panel: Any, texts: TextReport, labels: Mapping[str, str]) -> None:
    """Bars of each set beside each other, a group a metric."""
    width = 0.8 / len(texts.sets)
    for number, (name, each) in enumerate(texts.sets.items()):
        offset = (number - (len(texts.sets) - 1) / 2) * width
        here = [(place, each.figures[key]) for place, key in enumerate(labels) if key in each.figures]
        places = [place + offset for place, _ in here]
        _bars(panel, places, [figure for _, figure in here], width=0.92 * width, colours=[_COLOURS[name]] * len(here))
    panel.set_xticks(range(len(labels)), list(labels.values()))


def _bars(
    panel: Any, places: Sequence[float], figures: Sequence[Figure], *, width: float, colours: Sequence[str]
) -> None:
    panel.bar(places, [figure.value for figure in figures], width=width, color=colours)
    for place, figure in zip(places, figures, strict=True):
        if figure.interval is not None:
            panel.vlines(place, max(figure.interval[0], 0.0), figure.interval[1], color="black", linewidth=1)


def _short(title: str) -> str:
    """A label that fits: of a long path its end."""
    return title if len(title) <= _LONGEST_LABEL else "…" + title[1 - _LONGEST_LABEL :]
