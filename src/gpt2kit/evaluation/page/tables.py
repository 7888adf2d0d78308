"""Tables of any JSON values, so that what an evaluation measures is on its page without the page knowing it by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt2kit.evaluation.statistics import Figure, number_text
from gpt2kit.evaluation.texts import Metric

_MOST_ROWS = 30
_MOST_LISTED = 12
_NUMBER = Metric("", "")


@dataclass(frozen=True, slots=True)
class Table:
    """A table: the first column says what a row is.

    Attributes:
        title: what it shows; may be empty.
        headers: one a column.
        rows: the cells, as many in each row.
        is_text: the columns that hold running text, counted from 0; the others but the first are numbers.
        note: what was left out.
    """

    title: str
    headers: list[str]
    rows: list[list[str]]
    is_text: tuple[int, ...] = ()
    note: str = ""


def figure_of(value: Any) -> Figure | None:
    """A figure from its JSON values; None when it is something else."""
    if not isinstance(value, Mapping) or not {"value"} <= value.keys() <= {"value", "interval"}:
        return None
    interval = value.get("interval")
    return Figure(float(value["value"]), None if interval is None else (float(interval[0]), float(interval[1])))


def in_words(name: str) -> str:
    """A key as a title."""
    return name.removeprefix("num_").replace("_", " ").strip()


def cell(value: Any) -> str | None:
    """A value that fits a cell, as text; None for one that does not."""
    figure = figure_of(value)
    if figure is not None:
        return _NUMBER.show(figure)
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number_text(value, digits=0) if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence) and len(value) <= _MOST_LISTED:
        parts = [cell(each) for each in value]
        if all(isinstance(each, (str, int, float)) for each in value):
            return ", ".join(part for part in parts if part is not None)
    return None


def tables_of(value: Any, title: str, *, names: Mapping[str, str]) -> list[Table]:
    """Any JSON value as tables.

    A list of records makes a row of each; records under several keys a column of each key; single values two columns;
    what lies deeper, tables of its own.

    Args:
        value: the value.
        title: what it is.
        names: what to call keys that are models or sets of texts.
    """
    if isinstance(value, Mapping):
        return _of_mapping(value, title, names=names)
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        if all(isinstance(each, Mapping) and figure_of(each) is None for each in value):
            return _of_records(value, title, names=names)
        shown = [cell(each) or "…" for each in value[:_MOST_ROWS]]
        rows = [[str(number), each] for number, each in enumerate(shown, 1)]
        return [Table(title, ["", "value"], rows, note=_left_out(len(value)))]
    return []


def _of_mapping(value: Mapping[str, Any], title: str, *, names: Mapping[str, str]) -> list[Table]:
    deep = {key: each for key, each in value.items() if cell(each) is None}
    flat = {key: each for key, each in value.items() if key not in deep}
    tables = []
    if flat:
        rows = [[names.get(key, in_words(key)), cell(each) or ""] for key, each in flat.items()]
        tables.append(Table(title, ["", "value"], rows))
    if len(deep) > 1 and all(isinstance(each, Mapping) and _is_flat(each) for each in deep.values()):
        keys = list(dict.fromkeys(key for each in deep.values() for key in each))
        rows = [[in_words(key), *(cell(each.get(key)) or "" for each in deep.values())] for key in keys]
        return [*tables, Table(title, ["", *(names.get(key, in_words(key)) for key in deep)], rows)]
    for key, each in deep.items():
        below = names.get(key, in_words(key))
        tables += tables_of(each, f"{title}: {below}" if title else below, names=names)
    return tables


def _of_records(value: Sequence[Mapping[str, Any]], title: str, *, names: Mapping[str, str]) -> list[Table]:
    keys = list(dict.fromkeys(key for each in value for key in each))
    flat = [key for key in keys if all(cell(each.get(key)) is not None for each in value)]
    tables = []
    if flat:
        rows = [[cell(each.get(key)) or "" for key in flat] for each in value[:_MOST_ROWS]]
        texts = tuple(
            place for place, key in enumerate(flat) if place and any(isinstance(each.get(key), str) for each in value)
        )
        headers = [names.get(key, in_words(key)) for key in flat]
        tables.append(Table(title, headers, rows, texts, _left_out(len(value))))
    for key in keys:
        if key in flat:
            continue
        for number, each in enumerate(value[:_MOST_ROWS], 1):
            name = names.get(key, in_words(key))
            tables += tables_of(each.get(key), f"{title}, {number}: {name}", names=names)
    return tables


def _is_flat(value: Mapping[str, Any]) -> bool:
    return figure_of(value) is None and all(cell(each) is not None for each in value.values())


def _left_out(number: int) -> str:
    return f"The first {_MOST_ROWS} of {number:,}; the JSON file has them all." if number > _MOST_ROWS else ""
