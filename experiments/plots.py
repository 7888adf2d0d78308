"""How the studies' pictures look: few colours, which colour-blind readers tell apart, and a marker for each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.study import Mean
from gpt2kit.runtime import require_extra

# Six of Okabe and Ito's colours and a brown, and markers that tell the lines apart without them.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#7F7F7F"
_PANEL_INCHES = (4.6, 3.5)
_DOTS_PER_INCH = 80  # small files; a page of three panels is 1,100 dots wide


def page(columns: int, rows: int = 1) -> tuple[Any, list[Any]]:
    """A page of panels, left to right and top to bottom.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = require_extra("matplotlib.figure", extra="plots", purpose="drawing pictures")
    size = (_PANEL_INCHES[0] * columns, _PANEL_INCHES[1] * rows)
    figure = figures.Figure(figsize=size, layout="constrained", dpi=_DOTS_PER_INCH)
    panels = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25, linewidth=0.6)
        panel.set_axisbelow(True)
    return figure, panels


def line(panel: Any, places: Sequence[float], means: Sequence[Mean], *, number: int = 0, label: str = "") -> None:
    """A line of means with their 95% intervals; the number chooses colour and marker."""
    panel.errorbar(
        places,
        [each.value for each in means],
        yerr=[each.half_width for each in means],
        color=COLOURS[number],
        marker=MARKERS[number],
        markersize=5,
        linewidth=1.5,
        capsize=3,
        label=label or None,
    )


def level(panel: Any, value: float, label: str) -> None:
    """A dashed grey line to compare with."""
    panel.axhline(value, color=GREY, linestyle="--", linewidth=1.2, label=label)


def describe(panel: Any, *, x: str, y: str, title: str = "", legend: bool = False) -> None:
    """Names of the axes, and a title."""
    panel.set_xlabel(x)
    panel.set_ylabel(y)
    panel.set_title(title, fontsize=10)
    if legend and panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, fontsize=8)


def ticks(panel: Any, places: Sequence[float], labels: Sequence[str]) -> None:
    """Exactly these marks on the x axis."""
    panel.set_xticks(list(places), list(labels))
    panel.minorticks_off()


def save(figure: Any, path: Path) -> None:
    """Write the PNG, without the time and the program that made it, so that the same figures give the same file."""
    figure.savefig(path, format="png", metadata={"Software": None})
