"""The figures of a report, as rows of dots and as tables, from its JSON values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpt2kit.evaluation.page.plots import DotRow, dot_row
from gpt2kit.evaluation.page.tables import Table, figure_of, in_words, tables_of
from gpt2kit.evaluation.statistics import Figure
from gpt2kit.evaluation.texts import Metric

# Of the figures on texts, those that stand at the beginning, where they were measured; all stand in their section.
_KEY_FIGURES = ("distinct_2", "self_bleu", "rep_4", "looping_texts", "coherence", "copied", "unseen_words")
_MOST_PARTS = 24  # of a breakdown
# What the rows of a breakdown are; of any other, its key in words.
_PART_TITLES = {
    "context": "tokens to look back on",
    "place": "place in the document, in tokens",
    "rarity": "how common the token is in the training text",
}
_BITS = Metric("bits_per_byte", "bits per byte of held-out text")
_PERPLEXITY = Metric("perplexity", "perplexity of held-out text", digits=2)
# What the likelihood table shows; all else that is measured of a model gets a table of its own.
_IN_TABLE = {
    "perplexity", "text_perplexity", "bits_per_byte", "perplexity_interval", "bits_per_byte_interval", "nats",
    "num_tokens", "num_bytes", "num_documents", "unit", "num_units", "intervals", "seconds",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TextRow:
    """A figure on texts: its dots, and the cell of each set."""

    dots: DotRow
    cells: list[str]


@dataclass(frozen=True, slots=True)
class PartGroup:
    """Perplexity of the parts of held-out text, all on one logarithmic scale.

    Attributes:
        title: by what the text was taken apart.
        rows: a part each.
        num_left_out: parts that are not shown.
    """

    title: str
    rows: list[DotRow]
    num_left_out: int


def likelihoods(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The likelihood of each model, by its role."""
    return {role: values["likelihood"][role] for role in values["models"] if role in values["likelihood"]}


def key_rows(values: Mapping[str, Any]) -> list[DotRow]:
    """The figures to see first."""
    by_role = likelihoods(values)
    rows = [dot_row(_BITS, _with_intervals(by_role, "bits_per_byte"), hint="lower is better")]
    if _per_token(values):
        rows.append(dot_row(_PERPLEXITY, _with_intervals(by_role, "perplexity"), hint="lower is better"))
    for metric, figures in text_figures(values):
        if metric.name in _KEY_FIGURES:
            rows.append(dot_row(metric, figures, hint="best as human text"))
    if near := _near(values):
        rows.append(dot_row(Metric("near", "words in near copies", is_share=True), near, hint="best as human text"))
    return rows


def comparison_rows(values: Mapping[str, Any]) -> list[DotRow]:
    """The paired difference to the other model."""
    comparison = values["likelihood"].get("comparison")
    if comparison is None:
        return []
    rows = []
    saved = figure_of(comparison["bits_per_byte_saved"])
    if saved is not None:
        metric = Metric("saved", "bits per byte saved", digits=4)
        rows.append(dot_row(metric, {"model": saved}, with_zero=True, hint="above 0 is better"))
    drop = figure_of(comparison["perplexity_drop"])
    if drop is not None:
        # Per cent by hand: a metric that is a share is never below 0, and this one may be.
        shown = Figure(
            100 * drop.value, None if drop.interval is None else (100 * drop.interval[0], 100 * drop.interval[1])
        )
        metric = Metric("drop", "perplexity lower by, in per cent", digits=2)
        rows.append(dot_row(metric, {"model": shown}, with_zero=True, hint="above 0 is better"))
    return rows


def comparison_p_value(values: Mapping[str, Any]) -> str:
    """How often two equally good models would differ as much; empty where that was not measured."""
    p_value = (values["likelihood"].get("comparison") or {}).get("p_value")
    return "" if p_value is None else f"{p_value:.2g}"


def likelihood_table(values: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    """Perplexity and bits per byte, a column a model."""
    by_role = likelihoods(values)
    rows = [["bits per byte", *map(_BITS.show, _with_intervals(by_role, "bits_per_byte").values())]]
    if _per_token(values):
        rows.append(["perplexity", *map(_PERPLEXITY.show, _with_intervals(by_role, "perplexity").values())])
        without = (Figure(each["text_perplexity"]) for each in by_role.values())
        rows.append(["perplexity without end-of-text", *map(_PERPLEXITY.show, without)])
    for key, title in (("num_tokens", "tokens predicted"), ("num_bytes", "bytes"), ("num_documents", "documents")):
        rows.append([title, *(f"{each[key]:,}" for each in by_role.values())])
    return Table("", ["held-out text", *(names[role] for role in by_role)], rows)


def likelihood_extras(values: Mapping[str, Any], names: Mapping[str, str]) -> list[Table]:
    """Whatever else was measured of likelihood, by position, source or rarity."""
    by_role = likelihoods(values)
    tables = []
    for role, each in by_role.items():
        more = {key: value for key, value in each.items() if key not in _IN_TABLE}
        tables += tables_of(more, names[role], names=names)
    known = {"protocol", "comparison", *by_role}
    for key, value in values["likelihood"].items():
        if key not in known:
            tables += tables_of({key: value}, "", names=names)
    return tables


def part_groups(values: Mapping[str, Any]) -> list[PartGroup]:
    """Perplexity by context, place, source or rarity, where the values hold it under `breakdown`."""
    by_role = _breakdowns(values)
    if not _per_token(values):
        by_role = dict(list(by_role.items())[:1])  # parts of other tokens are not the same parts
    kinds = dict.fromkeys(kind for each in by_role.values() for kind, parts in each.items() if _are_parts(parts))
    first: Mapping[str, Any] = next(iter(by_role.values()), {})
    if "place" in kinds and first.get("place") == first.get("context"):
        del kinds["place"]  # no document is longer than the context
    groups = []
    for kind in kinds:
        figures: dict[str, dict[str, Figure]] = {}
        sizes: dict[str, int] = {}
        for role, each in by_role.items():
            for part in each.get(kind, ()):
                figure = figure_of(part["perplexity"])
                if figure is not None:
                    figures.setdefault(part["title"], {})[role] = figure
                    sizes.setdefault(part["title"], part["num_tokens"])
        if len(figures) < 2:
            continue  # one part is the whole
        num_left_out = max(len(figures) - _MOST_PARTS, 0)
        if num_left_out:
            largest = set(sorted(figures, key=lambda title: -sizes[title])[:_MOST_PARTS])
            figures = {title: of_part for title, of_part in figures.items() if title in largest}
        bounds = [
            bound
            for of_part in figures.values()
            for figure in of_part.values()
            for bound in (figure.value, *(figure.interval or ()))
            if 0 < bound < math.inf
        ]
        limits = (min(bounds, default=1.0), max(bounds, default=1.0))
        rows = [
            dot_row(
                Metric("", title, digits=1),
                of_part,
                hint=f"{sizes[title]:,} token{'' if sizes[title] == 1 else 's'}",
                log_limits=limits,
            )
            for title, of_part in figures.items()
        ]
        groups.append(PartGroup(f"Perplexity by {_PART_TITLES.get(kind, in_words(kind))}", rows, num_left_out))
    return groups


def other_parts(values: Mapping[str, Any], names: Mapping[str, str]) -> list[Table]:
    """What else stands under `breakdown`: figures of single documents."""
    tables = []
    for role, each in _breakdowns(values).items():
        for key, value in each.items():
            if not _are_parts(value):
                tables += tables_of(value, f"{in_words(key)}: {names[role]}", names=names)
    return tables


def _breakdowns(values: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = values.get("breakdown") or {}
    return {role: found[role] for role in values["models"] if role in found}


def _are_parts(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and bool(value)
        and all(isinstance(each, Mapping) and {"title", "num_tokens", "perplexity"} <= each.keys() for each in value)
    )


def text_figures(values: Mapping[str, Any]) -> list[tuple[Metric, dict[str, Figure]]]:
    """The figures on texts that were measured, in the order of the report, by set."""
    if values["texts"] is None:
        return []
    found = []
    for each in values["texts"]["metrics"]:
        metric = Metric(**each)
        figures = {
            role: figure
            for role, of_set in values["texts"]["sets"].items()
            if (figure := figure_of(of_set["figures"].get(metric.name))) is not None
        }
        if figures:
            found.append((metric, figures))
    return found


def text_rows(values: Mapping[str, Any]) -> list[TextRow]:
    """The figures on texts, a row each."""
    rows = []
    floors = _floors(values)
    for metric, figures in text_figures(values):
        hint = f"human text without connection: {metric.show(floors[metric.name])}" if metric.name in floors else ""
        cells = [metric.show(figures.get(role)) for role in values["texts"]["sets"]]
        rows.append(TextRow(dot_row(metric, figures, hint=hint), cells))
    return rows


def _floors(values: Mapping[str, Any]) -> dict[str, Figure]:
    """What figures of likeness come to for human text whose parts have nothing to do with each other."""
    texts = values["texts"] or {}
    found = {
        **texts.get("floors", {}),
        **({"coherence": shuffled} if (shuffled := texts.get("shuffled_coherence")) else {}),
    }
    return {name: figure for name, each in found.items() if (figure := figure_of(each)) is not None}


def _near(values: Mapping[str, Any]) -> dict[str, Figure]:
    near: Mapping[str, Any] = values["memorisation"].get("near_copies") or {}
    shares = {role: figure_of(each["share"]) for role, each in near.items()}
    return {role: share for role, share in shares.items() if share is not None}


def _per_token(values: Mapping[str, Any]) -> bool:
    """Whether perplexities compare: there is one model, or all have the same tokenizer."""
    comparison = values["likelihood"].get("comparison")
    return comparison is None or comparison["perplexity_drop"] is not None


def _with_intervals(by_role: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, Figure]:
    return {role: Figure(each[key], _pair(each[f"{key}_interval"])) for role, each in by_role.items()}


def _pair(bounds: Sequence[float] | None) -> tuple[float, float] | None:
    return None if bounds is None else (bounds[0], bounds[1])
