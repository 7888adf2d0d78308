"""The HTML page of a comparison: one file without scripts and without anything from elsewhere."""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gpt2kit.comparison.report import Tables, p_text, signed
from gpt2kit.comparison.scale import Scale
from gpt2kit.evaluation.page.passages import printable
from gpt2kit.evaluation.page.plots import SMALLEST_SHARE_SCALE
from gpt2kit.evaluation.statistics import Figure, with_interval
from gpt2kit.evaluation.texts import TextSet, metrics
from gpt2kit.files import to_json


def html_page(values: dict[str, Any], tables: Tables, sets: dict[str, TextSet]) -> str:
    """The comparison as a page.

    Args:
        values: what the JSON holds.
        tables: the tables.
        sets: the texts of each model, and human ones.
    """
    environment = Environment(
        loader=PackageLoader("gpt2kit.comparison", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    likelihood = tables.measured[0].reading.likelihood
    return environment.get_template("comparison.html").render(
        values=values,
        verdict=values["verdict"],
        models=_models(tables),
        intervals=likelihood.intervals_text,
        pairs=_pairs(tables),
        matrix=_matrix(tables),
        titles=tables.titles,
        costs=tables.costs(),
        figures=_text_figures(tables, sets),
        texts=tables.texts,
        samples=_samples(sets),
        settings=to_json(values["settings"]).strip(),
        versions=", ".join(
            f"{name} {version}" for name, version in values["provenance"]["versions"].items() if version
        ),
        command=" ".join(values["provenance"]["command"]),
    )


def _models(tables: Tables) -> list[dict[str, Any]]:
    found = [each.reading.likelihood for each in tables.measured]
    figures = [Figure(each.bits_per_byte, each.bits_per_byte_interval) for each in found]
    scale = Scale(figures)
    return [
        {"cells": row, "dot": scale.dot(figure)} for row, figure in zip(tables.likelihood()[1], figures, strict=True)
    ]


def _pairs(tables: Tables) -> list[dict[str, Any]]:
    turned = []
    for pair in sorted(tables.pairs, key=lambda pair: (pair.corrected_p, -abs(pair.saved))):
        figure = pair.difference.bits_per_byte_saved
        better, worse = pair.first, pair.second
        if figure.value < 0:
            better, worse = worse, better
            interval = None if figure.interval is None else (-figure.interval[1], -figure.interval[0])
            figure = Figure(-figure.value, interval)
        turned.append((better, worse, figure, pair))
    scale = Scale([figure for _, _, figure, _ in turned], with_zero=True)
    return [
        {
            "better": better if pair.saved else f"{better} (alike)",
            "worse": worse if pair.saved else f"{worse} (alike)",
            "documents": f"{pair.difference.num_units:,}",
            "saved": with_interval(figure.value, figure.interval, digits=4),
            "p": p_text(pair.p_value),
            "corrected": p_text(pair.corrected_p),
            "is_clear": pair.is_clear,
            "dot": scale.dot(figure),
            "zero": scale.place(0.0),
        }
        for better, worse, figure, pair in turned
    ]


def _matrix(tables: Tables) -> list[dict[str, Any]]:
    rows = []
    for title in tables.titles:
        cells: list[dict[str, Any] | None] = []
        for other in tables.titles:
            if title == other:
                cells.append(None)
                continue
            pair, sign = tables.pair_of(title, other)
            saved = sign * pair.saved
            state = "unclear" if not pair.is_clear else "better" if saved > 0 else "worse"
            cells.append({"text": signed(saved), "state": state})
        rows.append({"title": title, "cells": cells})
    return rows


def _text_figures(tables: Tables, sets: dict[str, TextSet]) -> list[dict[str, Any]]:
    """A row a figure; a cell a set, with its place among the others."""
    if tables.texts is None:
        return []
    rows = []
    for metric in metrics(tables.copy_words):
        found = [tables.texts.sets[name].figures.get(metric.name) for name in sets]
        there = [figure for figure in found if figure is not None]
        if not there:
            continue
        # Shares from 0 on and to 5% at least, so that hardly anything looks like hardly anything.
        scale = Scale([*there, *([Figure(0.0), Figure(SMALLEST_SHARE_SCALE)] if metric.is_share else [])])
        floor = tables.texts.floors.get(metric.name)
        cells = [
            None if figure is None else {"text": metric.show(figure), "dot": scale.dot(figure)} for figure in found
        ]
        rows.append({"title": metric.title, "cells": cells, "floor": "" if floor is None else metric.show(floor)})
    return rows


def _samples(sets: dict[str, TextSet]) -> list[dict[str, Any]]:
    if not sets:
        return []
    first = next(iter(sets.values()))
    return [
        {
            "prompt": printable(prompt),
            "source": printable(first.sources[number]) if first.sources else "",
            "texts": [{"title": name, "text": printable(each.texts[number].strip())} for name, each in sets.items()],
        }
        for number, prompt in enumerate(first.prompts)
    ]
