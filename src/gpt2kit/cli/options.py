"""Command-line options made from the fields of a stage's settings.

Values are checked by the settings class and not by click, so that all problems are reported at once and in the same
words, whether a value came from a flag, the environment or a file.
"""

import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from gpt2kit.config import Settings

_METAVARS: dict[Any, str] = {int: "INTEGER", float: "NUMBER", Path: "PATH", str: "TEXT"}


class _Value(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A value as the user wrote it; numbers become numbers, so that messages show them without quotes."""

    def __init__(self, metavar: str, *, numeric: bool) -> None:
        self.name = metavar.lower()
        self.metavar = metavar
        self.numeric = numeric

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:  # noqa: ARG002
        return self.metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        for number in (int, float) if self.numeric else ():
            try:
                return number(value)
            except ValueError:
                continue
        return value


class _OneOf(click.Choice):  # type: ignore[type-arg]  # generic from click 8.2 on
    """One of a few words, `-` accepted for `_`; another word is left for the settings to refuse."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        words = {str(choice).replace("_", "-"): choice for choice in self.choices}
        return words.get(str(value).replace("_", "-"), value)


def settings_options(settings: type[Settings], *, aliases: Mapping[str, str]) -> list[click.Parameter]:
    """One option a field, spelled `--field_name`; its help is the field's description and default.

    Args:
        settings: the class.
        aliases: fields by other names that their options have too.
    """
    return [
        _option(name, field, [other for other, aliased in aliases.items() if aliased == name])
        for name, field in settings.model_fields.items()
    ]


def given_values(params: Mapping[str, Any], settings: type[Settings]) -> dict[str, Any]:
    """Those settings that were given on the command line."""
    return {name: params[name] for name in settings.model_fields if params.get(name) is not None and params[name] != ()}


def bare_type(annotation: Any) -> Any:
    """The type without the `| None` of an optional setting."""
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return members[0] if len(members) == 1 else Union[tuple(members)]  # noqa: UP007 (made at run time)
    return annotation


def is_repeatable(annotation: Any) -> bool:
    """Whether the setting is a tuple, given by repeating its option."""
    return get_origin(bare_type(annotation)) is tuple


def _option(name: str, field: FieldInfo, aliases: Sequence[str]) -> click.Option:
    kind = bare_type(field.annotation)
    text = (field.description or "").strip()
    default = _default_text(field)
    if default:
        text = f"{text} [default: {default}]"
    if kind is bool:
        return click.Option([f"--{name}/--no_{name}"], default=None, help=text)
    repeatable = is_repeatable(kind)
    if repeatable:
        kind = get_args(kind)[0]
        text = f"{text} Repeat it for several." if "epeat" not in text else text
    names = [name, f"--{name}", *(f"--{alias}" for alias in aliases)]
    return click.Option(names, type=_click_type(kind), default=None, multiple=repeatable, help=text)


def _click_type(kind: Any) -> _OneOf | _Value:
    if get_origin(kind) is Literal:
        return _OneOf([str(value) for value in get_args(kind)], case_sensitive=True)
    members = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    metavar = "|".join(dict.fromkeys(_METAVARS.get(member, "TEXT") for member in members))
    return _Value(metavar, numeric=all(member in (int, float) for member in members))


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=False)
    if default is None or default in ((), "") or "Default:" in (field.description or ""):
        return ""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return ", ".join(repr(item) if item == "" else str(item) for item in default)
    return str(default) if str(default).strip() else repr(default)
