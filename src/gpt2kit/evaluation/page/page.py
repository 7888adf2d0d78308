"""The page of a report, from its JSON values."""

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gpt2kit.evaluation.page.charts import copies_chart, curve_chart
from gpt2kit.evaluation.page.figures import (
    comparison_p_value,
    comparison_rows,
    key_rows,
    likelihood_extras,
    likelihood_table,
    other_parts,
    part_groups,
    text_rows,
)
from gpt2kit.evaluation.page.memory import longest_copies, memory_tables
from gpt2kit.evaluation.page.passages import SURPRISE_STEPS, printable
from gpt2kit.evaluation.page.sample_views import sample_views
from gpt2kit.evaluation.page.tables import cell, tables_of

_WITH_INTERVAL = re.compile(r"(\S+) \((\S+ to \S+)\)")
_ALARM = re.compile(r"[A-Z]{4,}[^:]*:")
# The parts of the values that have a section of their own; any other gets one under its name.
_KNOWN = {
    "format", "version", "models", "data", "likelihood", "texts", "samples", "memorisation", "training", "breakdown",
    "warnings", "notes", "settings", "provenance", "seconds", "verdict", "prompts",
}  # fmt: skip

# Settings that nothing hangs on where the texts come from a file.
_OF_GENERATED_TEXTS = {"num_samples", "sample_tokens", "temperature", "top_k", "top_p"}


def html_page(values: Mapping[str, Any]) -> str:
    """The report as one HTML file with everything in it; what it holds comes from texts of strangers and is escaped.

    Args:
        values: what the report's JSON file holds.
    """
    environment = _environment()
    style = environment.loader.get_source(environment, "report.css")[0] if environment.loader else ""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    names = _names(values)
    text_names = _text_names(values, names)
    return environment.get_template("report.html.j2").render(
        style=style,
        # The only thing that the browser may use is this very style sheet.
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        values=values,
        names=names,
        text_names=text_names,
        key_names=names | ({"model": f"{names['model']}; texts: {text_names['model']}"} if text_names != names else {}),
        names_shown=[
            role for role in names if role in values["models"] or role in (values["texts"] or {}).get("sets", {})
        ],
        other_role=next((role for role in values["models"] if role != "model"), ""),
        verdict=[_alarm_apart(line) for line in values["verdict"]],
        key_rows=key_rows(values),
        comparison_rows=comparison_rows(values),
        p_value=comparison_p_value(values),
        curve=curve_chart(values["training"]) if values.get("training") else None,
        likelihood=likelihood_table(values, names),
        part_groups=part_groups(values),
        likelihood_extras=likelihood_extras(values, names) + other_parts(values, names),
        text_rows=text_rows(values),
        copies=copies_chart(values["texts"]["sets"], text_names) if values["texts"] else None,
        longest=longest_copies(values),
        memory_tables=memory_tables(values, names),
        samples=sample_views(values, text_names),
        surprise_steps=SURPRISE_STEPS,
        others=[
            table for key in values if key not in _KNOWN for table in tables_of({key: values[key]}, "", names=names)
        ],
        settings=[
            (key, cell(value) or str(value))
            for key, value in values["settings"].items()
            if values["settings"]["samples"] is None or key not in _OF_GENERATED_TEXTS
        ],
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("gpt2kit.evaluation.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "printable": printable,
        "capitalize_first": _capitalize_first,
        "interval_apart": _interval_apart,
    }
    return environment


def _alarm_apart(line: str) -> tuple[str, str]:
    """What is cried at the beginning of a sentence of the verdict, if anything, and the rest."""
    found = _ALARM.match(line)
    end = found.end() if found is not None else 0
    return line[:end], line[end:]


def _capitalize_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _interval_apart(figure: str) -> tuple[str, str]:
    """A figure and its interval, which stands below it; of anything else no interval."""
    found = _WITH_INTERVAL.fullmatch(figure)
    if found is None:
        return "–" if figure == "-" else printable(figure), ""
    return found[1], found[2]


def _names(values: Mapping[str, Any]) -> dict[str, str]:
    """What to call models and sets of texts where there is little room: of a folder its last part."""
    full = {role: each["name"] for role, each in values["models"].items()}
    short = {role: PurePath(name).name or name for role, name in full.items()}
    if len(set(short.values())) < len(short):
        short = full
    return {role: printable(name) for role, name in short.items()} | {"human": "human text"}


def _text_names(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, str]:
    """What to call sets of texts: those of a file are not said to be the model's."""
    sets = (values["texts"] or {}).get("sets", {})
    if values["settings"]["samples"] is None or "model" not in sets:
        return dict(names)
    return {**names, "model": printable(sets["model"]["title"])}
