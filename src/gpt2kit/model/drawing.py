"""A model's anatomy as a picture: its parameters by part, and how it reads a prompt.

Shapes: L layers, H heads, T tokens, S tokens looked at.
"""

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2kit.errors import UsageError
from gpt2kit.files import write_atomically
from gpt2kit.model.reading import Floats, PromptReading
from gpt2kit.runtime import require_extra

if TYPE_CHECKING:
    from gpt2kit.model.anatomy import ModelReport

_FORMATS = (".png", ".svg", ".pdf")
_WIDTH_INCHES = 12.0
_BARS_INCHES = 2.6
_LENS_TOKENS = 12  # of the end of the prompt; more columns would leave no room for the words
_LENS_ROW_INCHES = 0.27
_READABLE_ROW_INCHES = 0.1
_INK, _BLUE, _PALE = "#1f2933", "#2b6cb0", "#e4e7eb"


def draw_report(report: "ModelReport", path: Path) -> None:
    """Draw a report into a file; see `ModelReport.draw`."""
    if path.suffix.lower() not in _FORMATS:
        raise UsageError(f"{path}: a picture is written as one of {', '.join(_FORMATS)}")
    matplotlib = require_extra("matplotlib", extra="plots", purpose="drawing a model")
    picture = io.BytesIO()
    style = {"font.size": 9, "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": "#9aa5b1"}
    # A fixed salt and no date: the same report gives the same bytes.
    with matplotlib.rc_context(style | {"svg.hashsalt": "gpt2kit"}):
        figure = _figure(report)
        kind = path.suffix.lower().removeprefix(".")
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
        figure.savefig(picture, format=kind, dpi=130, facecolor="white", metadata=metadata)
    write_atomically(path, picture.getvalue())


def _figure(report: "ModelReport") -> Any:
    from matplotlib.figure import Figure

    reading = report.prompt
    heights = [_BARS_INCHES]
    if reading is not None:
        L, H, _, _ = reading.attention_LHTS.shape
        heights.append(_LENS_ROW_INCHES * (L + 1) + 0.9)
        heights.append(float(np.clip((_WIDTH_INCHES - 1.5) * L / H, 2.0, 16.0)) + 0.8)
    figure = Figure(figsize=(_WIDTH_INCHES, sum(heights) + 0.7), layout="constrained")
    figure.suptitle(_plain(report.headline()), fontsize=11, x=0.01, ha="left")
    if reading is None:
        _draw_parts(figure.subplots(), report)
        return figure
    bars, lens, attention = np.asarray(figure.subfigures(3, 1, height_ratios=heights))
    parts, following = bars.subplots(1, 2, width_ratios=(3, 2))
    _draw_parts(parts, report)
    _draw_next_tokens(following, reading)
    _draw_lens(lens, reading)
    _draw_attention(attention, reading)
    return figure


def _bars(axes: Any, names: list[str], values: list[float], labels: list[str]) -> None:
    places = np.arange(len(names))
    axes.barh(places, values, color=_BLUE, height=0.65)
    for place, value, label in zip(places, values, labels, strict=True):
        axes.annotate(label, (value, place), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.margins(x=0.3)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _draw_parts(axes: Any, report: "ModelReport") -> None:
    _bars(
        axes,
        [part.name for part in report.parts],
        [float(part.parameters) for part in report.parts],
        [
            f"{part.parameters:,} ({part.parameters / report.parameters:.1%})" if part.parameters else part.formula
            for part in report.parts
        ],
    )
    axes.set_title("Parameters by part", loc="left", fontsize=10, fontweight="bold")


def _draw_next_tokens(axes: Any, reading: PromptReading) -> None:
    _bars(
        axes,
        [_plain(candidate.token) for candidate in reading.next_tokens],
        [candidate.probability for candidate in reading.next_tokens],
        [f"{candidate.probability:.1%}" for candidate in reading.next_tokens],
    )
    axes.set_title("What comes next", loc="left", fontsize=10, fontweight="bold")


def _draw_lens(figure: Any, reading: PromptReading) -> None:
    """The best guess after each block (rows, the last block on top) at each token (columns)."""
    shown = slice(-_LENS_TOKENS, None)
    probability_LT = reading.lens_probability_LT[:, shown]
    L, T = probability_LT.shape
    axes = figure.subplots()
    axes.imshow(probability_LT, cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower", interpolation="nearest")
    for layer in range(L):
        for place, token in enumerate(reading.lens_tokens[layer][shown]):
            color = "white" if probability_LT[layer, place] > 0.55 else _INK
            axes.text(place, layer, _plain(_short(token)), ha="center", va="center", fontsize=8, color=color)
    axes.set_xticks(range(T), [_plain(_short(token.token)) for token in reading.tokens[shown]], fontweight="bold")
    axes.set_yticks(range(L), ["embeddings", *(f"block {layer}" for layer in range(1, L))])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    last = "" if len(reading.tokens) <= _LENS_TOKENS else f" (the last {_LENS_TOKENS} tokens)"
    axes.set_title(
        f"Layer by layer: the next token it would say if it stopped there; darker is surer{last}",
        loc="left",
        fontsize=10,
        fontweight="bold",
    )


def _draw_attention(figure: Any, reading: PromptReading) -> None:
    """All heads' patterns as one mosaic: a row of heads for each block, the looking token down, the seen one across."""
    L, H, T, _ = reading.attention_LHTS.shape
    tile = T + max(1, round(T * 0.12))
    axes = figure.subplots()
    axes.imshow(_mosaic(reading.attention_LHTS, tile=tile), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set_facecolor(_PALE)
    middle = (T - 1) / 2
    axes.set_xticks([head * tile + middle for head in range(H)], [str(head + 1) for head in range(H)])
    axes.set_yticks([layer * tile + middle for layer in range(L)], [f"block {layer + 1}" for layer in range(L)])
    axes.xaxis.tick_top()
    axes.tick_params(which="both", length=0)
    if _WIDTH_INCHES / (H * tile) >= _READABLE_ROW_INCHES:
        words = [_plain(_short(token.token)) for token in reading.tokens]
        rows = [layer * tile + place for layer in range(L) for place in range(T)]
        axes.yaxis.remove_overlapping_locs = False  # or the words in the middle of a block go missing
        axes.set_yticks(rows, words * L, minor=True, fontsize=6.5)
        axes.tick_params(axis="y", which="major", pad=50)  # points, so that the words have room
    axes.spines[:].set_visible(False)
    axes.set_title(
        "Attention of every head (across): each row of a square is a token, each column one that it looks at",
        loc="left",
        fontsize=10,
        fontweight="bold",
    )


def _mosaic(attention_LHTS: Floats, *, tile: int) -> Floats:
    """The patterns side by side with empty (NaN) gaps and empty upper triangles, [L · tile, H · tile]."""
    L, H, T, _ = attention_LHTS.shape
    tiles = np.full((L, H, tile, tile), np.nan, dtype=np.float32)
    tiles[:, :, :T, :T] = attention_LHTS
    tiles[:, :, :T, :T][:, :, ~np.tri(T, dtype=bool)] = np.nan
    return tiles.transpose(0, 2, 1, 3).reshape(L * tile, H * tile)[: L * tile - (tile - T), : H * tile - (tile - T)]


def _short(token: str) -> str:
    return token if len(token) <= 10 else token[:9] + "…"


@cache
def _font() -> Any:
    from matplotlib.font_manager import findfont, get_font

    return get_font(findfont("DejaVu Sans"))


def _plain(text: str) -> str:
    """Text as matplotlib shows it: no mathematics between dollar signs, and only characters its font has."""
    known = "".join(letter if letter == "\n" or _font().get_char_index(ord(letter)) else "�" for letter in text)
    return known.replace("$", r"\$")
