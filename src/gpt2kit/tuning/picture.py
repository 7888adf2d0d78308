"""A search as one picture: its course, the importance of the settings, and parallel coordinates."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2kit.runtime import require_extra
from gpt2kit.tuning.space import Range, Space

_BLUE, _ORANGE, _GREY = "#0072B2", "#E69F00", "#7F7F7F"
_MOST_ON_A_LINE = 4  # names of settings, beside each other under the picture
_LONGEST_CHOICE = 16


def draw(
    path: Path,
    trials: Sequence[Mapping[str, Any]],
    space: Space,
    shares: Mapping[str, float],
    *,
    unit: str,
    why_no_importance: str,
) -> None:
    """Draw a search.

    Args:
        path: the PNG to write.
        trials: records of all trials.
        space: what was searched.
        shares: importance by setting.
        unit: of the results.
        why_no_importance: said where there are no shares.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = require_extra("matplotlib.figure", extra="plots", purpose="drawing pictures")
    page = figures.Figure(figsize=(10, 8), layout="constrained", dpi=120)
    grid = page.add_gridspec(2, 2, height_ratios=(1, 1.25))
    _draw_course(page.add_subplot(grid[0, 0]), trials, unit)
    _draw_importance(page.add_subplot(grid[0, 1]), shares, why_no_importance)
    _draw_parallel(page, page.add_subplot(grid[1, :]), trials, space, unit)
    page.savefig(path, format="png")


def _draw_course(panel: Any, trials: Sequence[Mapping[str, Any]], unit: str) -> None:
    finished = [trial for trial in trials if trial["value"] is not None]
    given_up = [trial for trial in trials if trial["state"] == "pruned" and trial["on_the_way"]]
    if given_up:
        panel.scatter(
            [trial["number"] for trial in given_up],
            [list(trial["on_the_way"].values())[-1] for trial in given_up],
            marker="x",
            color=_GREY,
            s=22,
            label="given up (last value)",
        )
    panel.scatter([trial["number"] for trial in finished], [trial["value"] for trial in finished], color=_BLUE, s=22)
    best = [min(trial["value"] for trial in finished[: number + 1]) for number in range(len(finished))]
    panel.step([trial["number"] for trial in finished], best, where="post", color=_BLUE, label="best so far")
    baseline = [trial for trial in finished if trial["role"] == "defaults"]
    if baseline:
        panel.axhline(baseline[0]["value"], color=_ORANGE, linestyle="--", label="defaults")
    # A trial that went astray should not flatten all others.
    top = sorted(trial["value"] for trial in finished)[math.ceil(0.9 * len(finished)) - 1]
    bottom = min(best)
    reach = max(top, *(trial["value"] for trial in baseline)) - bottom if baseline else top - bottom
    num_above = 0
    if reach > 0:
        panel.set_ylim(bottom - 0.1 * reach, bottom + 1.3 * reach)
        shown = [trial["value"] for trial in finished] + [list(trial["on_the_way"].values())[-1] for trial in given_up]
        num_above = sum(value > bottom + 1.3 * reach for value in shown)
    panel.set_xlabel("trial")
    panel.set_ylabel(unit.partition(",")[0], fontsize=8)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.legend(fontsize=8, frameon=False)
    panel.spines[["top", "right"]].set_visible(False)
    above = f"; {num_above} above the picture" if num_above else ""
    panel.set_title(f"the course of the search (lower is better{above})", fontsize=10)


def _draw_importance(panel: Any, shares: Mapping[str, float], why_not: str) -> None:
    panel.set_title("what decided whether a trial was among the best quarter", fontsize=10)
    if not shares:
        panel.text(0.5, 0.5, why_not, ha="center", va="center", wrap=True, transform=panel.transAxes, fontsize=9)
        panel.set_xticks([])
        panel.set_yticks([])
        return
    names = list(shares)[::-1]
    panel.barh(names, [100 * shares[name] for name in names], color=_BLUE, height=0.6)
    for row, name in enumerate(names):
        panel.annotate(
            f"{shares[name]:.0%}", (100 * shares[name], row), xytext=(3, 0), textcoords="offset points", va="center"
        )
    panel.set_xlim(0, 115 * max(shares.values()))
    panel.set_xlabel("% of the importance", fontsize=8)
    panel.spines[["top", "right"]].set_visible(False)


def _draw_parallel(page: Any, panel: Any, trials: Sequence[Mapping[str, Any]], space: Space, unit: str) -> None:
    """A line a trial through its settings; colour is its result, the best in front, those given up in grey."""
    colours = require_extra("matplotlib", extra="plots", purpose="drawing pictures").colormaps["viridis_r"]
    mappable = require_extra("matplotlib.cm", extra="plots", purpose="drawing pictures").ScalarMappable
    normal = require_extra("matplotlib.colors", extra="plots", purpose="drawing pictures").Normalize
    names = list(space)
    inside = [trial for trial in trials if all(space[name].holds(trial["values"].get(name)) for name in names)]
    finished = sorted((trial for trial in inside if trial["value"] is not None), key=lambda trial: -trial["value"])
    results = [trial["value"] for trial in finished]
    # Colours span the better half, which is what one wants to tell apart.
    scale = normal(min(results, default=0), sorted(results)[len(results) // 2] if results else 1, clip=True)
    for trial in inside:
        if trial["state"] == "pruned":
            panel.plot(_heights(trial, space), color=_GREY, alpha=0.25, linewidth=0.8)
    for trial in finished:
        is_best = trial is finished[-1]
        panel.plot(
            _heights(trial, space),
            color=_ORANGE if is_best else colours(scale(trial["value"])),
            linewidth=3 if is_best else 1.2,
            alpha=1 if is_best else 0.8,
        )
    for place, name in enumerate(names):
        panel.axvline(place, color="black", linewidth=0.8)
        for height, text in _ticks(space, name):
            panel.annotate(
                text,
                (place, height),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.8},
                zorder=10,  # above the lines, which would strike the numbers through
            )
    # Of many settings each word of a name has a line of its own, or they would run into each other.
    under = names if len(names) <= _MOST_ON_A_LINE else [name.replace("_", "_\n") for name in names]
    panel.set_xticks(range(len(names)), under, fontsize=9)
    panel.set_yticks([])
    panel.set_xlim(-0.15, len(names) - 0.6)
    panel.set_ylim(-0.05, 1.05)
    panel.spines[["top", "right", "left", "bottom"]].set_visible(False)
    if finished:
        bar = page.colorbar(mappable(norm=scale, cmap=colours), ax=panel, extend="max", pad=0.01)
        bar.set_label(unit.partition(",")[0], fontsize=8)
    best = f"; orange: the best, trial {finished[-1]['number']}" if finished else ""
    panel.set_title(f"a line a trial (grey: given up{best})", fontsize=10)


def _heights(trial: Mapping[str, Any], space: Space) -> list[float]:
    return [dimension.height(trial["values"][name]) for name, dimension in space.items()]


def _ticks(space: Space, name: str) -> list[tuple[float, str]]:
    dimension = space[name]
    if not isinstance(dimension, Range):
        return [(dimension.height(value), _short(str(value))) for value in dimension.values]
    low, high = dimension.low, dimension.high
    middle = math.sqrt(low * high) if dimension.log else (low + high) / 2
    return [(0.0, f"{low:.3g}"), *([] if dimension.whole else [(0.5, f"{middle:.2g}")]), (1.0, f"{high:.3g}")]


def _short(choice: str) -> str:
    """A choice that fits between two settings: of a long one its beginning."""
    return choice if len(choice) <= _LONGEST_CHOICE else choice[: _LONGEST_CHOICE - 1] + "…"
