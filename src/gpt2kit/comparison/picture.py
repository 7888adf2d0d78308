"""The figures of a comparison as one picture: a dot a model, a line for its interval."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2kit.comparison.pairs import Pair, Reading
from gpt2kit.evaluation.statistics import Figure
from gpt2kit.evaluation.texts import TextReport, metrics
from gpt2kit.runtime import require_extra

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#7F7F7F"  # Okabe and Ito, whom colour-blind readers tell apart
_LONGEST_LABEL = 24
_ROW_INCHES = 0.32
_MOST_PAIRS = 15
_SHOWN = ("distinct_2", "rep_4", "self_bleu", "copied")


def draw(
    path: Path, readings: Sequence[Reading], pairs: Sequence[Pair], texts: TextReport | None, *, copy_words: int
) -> None:
    """Draw bits per byte, the differences, and the figures of texts beside human ones.

    Args:
        path: the PNG to write.
        readings: of the models.
        pairs: every two of them; of many, those with the greatest differences are left out.
        texts: the figures of texts, if any.
        copy_words: words in a row that count as copied.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = require_extra("matplotlib.figure", extra="plots", purpose="drawing pictures")
    ordered = sorted(readings, key=lambda reading: reading.likelihood.bits_per_byte)
    labels = labels_of([reading.title for reading in ordered])
    nearest = sorted(pairs, key=lambda pair: abs(pair.saved))[:_MOST_PAIRS]
    shown = [each for each in metrics(copy_words) if texts is not None and _is_measured(each.name, texts)]
    heights = [_height(max(len(ordered), len(nearest)))]
    if shown:
        heights.append(_height(len(ordered) + 1))
    page = figures.Figure(figsize=(11, sum(heights)), layout="constrained", dpi=120)
    rows = page.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    left, right = rows[0].subplots(1, 2)
    _dots(
        left,
        [labels[reading.title] for reading in ordered],
        [Figure(each.likelihood.bits_per_byte, each.likelihood.bits_per_byte_interval) for each in ordered],
        [_BLUE] * len(ordered),
    )
    left.set_title("held-out text: bits per byte (lower is better)", fontsize=10)
    _draw_differences(right, nearest, labels, left_out=len(pairs) - len(nearest))
    if shown and texts is not None:
        panels = rows[1].subplots(1, len(shown), sharey=True, squeeze=False)[0]
        names = [*(reading.title for reading in ordered), *(["human"] if "human" in texts.sets else [])]
        for panel, metric in zip(panels, shown, strict=True):
            here = [_scaled(texts.sets[name].figures.get(metric.name), metric.is_share) for name in names]
            _dots(
                panel,
                [labels.get(name, name) for name in names],
                here,
                [_GREY if name == "human" else _BLUE for name in names],
            )
            if names[-1] == "human" and here[-1] is not None:
                panel.axvline(here[-1].value, color=_GREY, linestyle="dotted", linewidth=1, zorder=0)
            if metric.is_share:  # a scale of at least 5%, so that hardly anything looks like hardly anything
                panel.set_xlim(-0.3, max(5.0, panel.get_xlim()[1]))
            panel.set_title(_wrapped(metric.title + (", %" if metric.is_share else "")), fontsize=9)
    page.savefig(path, format="png")


def _draw_differences(panel: Any, pairs: Sequence[Pair], labels: Mapping[str, str], *, left_out: int) -> None:
    names, figures, colours = [], [], []
    for pair in pairs:
        found = pair.difference.bits_per_byte_saved
        if found.value < 0:
            interval = None if found.interval is None else (-found.interval[1], -found.interval[0])
            names.append(f"{labels[pair.second]} against {labels[pair.first]}")
            figures.append(Figure(-found.value, interval))
        else:
            names.append(f"{labels[pair.first]} against {labels[pair.second]}")
            figures.append(found)
        colours.append(_BLUE if pair.is_clear else _ORANGE)
    _dots(panel, names, figures, colours)
    panel.axvline(0, color="black", linewidth=0.8, zorder=0)
    # On a line of its own: beside long names the panel is narrow.
    more = f"\n{left_out} greater ones left out" if left_out > 0 else ""
    panel.set_title(f"bits per byte saved (orange: not clear){more}", fontsize=10)


def _dots(
    panel: Any,
    names: Sequence[str],
    figures: Sequence[Figure | None],
    colours: Sequence[str],
) -> None:
    """A row a name, from the top: a dot, and a line for the interval."""
    for place, (figure, colour) in enumerate(zip(figures, colours, strict=True)):
        if figure is None:
            continue
        if figure.interval is not None:
            panel.hlines(place, *figure.interval, color=colour, linewidth=2)
        panel.plot(figure.value, place, "o", color=colour, markersize=6)
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.tick_params(axis="x", labelsize=8)
    panel.grid(axis="x", alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)


def _scaled(figure: Figure | None, is_share: bool) -> Figure | None:
    """Shares in per cent, within what a share can be."""
    if figure is None or not is_share:
        return figure
    interval = figure.interval
    return Figure(100 * figure.value, interval and (100 * max(interval[0], 0.0), 100 * min(interval[1], 1.0)))


def _is_measured(name: str, texts: TextReport) -> bool:
    return name in _SHOWN and any(name in each.figures for each in texts.sets.values())


def _height(rows: int) -> float:
    return 1.1 + _ROW_INCHES * rows


def _wrapped(title: str) -> str:
    """A long title on two lines."""
    if len(title) <= _LONGEST_LABEL:
        return title
    cut = title.rfind(" ", 0, _LONGEST_LABEL + 4)
    return title if cut < 0 else f"{title[:cut]}\n{title[cut + 1 :]}"


def labels_of(titles: Sequence[str]) -> dict[str, str]:
    """Labels that fit, by title; numbered where shortened ones would be the same."""
    short = {title: _short(title) for title in titles}
    if len(set(short.values())) == len(short):
        return short
    return {title: f"{place}. {label}" for place, (title, label) in enumerate(short.items(), 1)}


def _short(title: str) -> str:
    """A label that fits: of a long name its end."""
    return title if len(title) <= _LONGEST_LABEL else "…" + title[1 - _LONGEST_LABEL :]
