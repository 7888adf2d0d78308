"""Settings: one frozen, typed object a stage, resolved from defaults < file < environment < flags.

Each stage derives its settings from `Settings`; the command line, the environment variables and the reference in the
documentation are all made from its fields, so a setting is declared once.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from gpt2kit.errors import UsageError

STAGES = ("tokenizer", "prepare", "train", "generate", "chat", "evaluate", "tasks", "compare", "review", "tune")
ENVIRONMENT_PREFIX = "GPT2KIT_"


class Settings(BaseModel):
    """The base of a stage's settings: frozen, typed, and strict about unknown names.

    Raises:
        UsageError: on construction, naming every wrong or unknown value at once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    stage: ClassVar[str] = ""

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(_explain(error, type(self), {})) from error

    @classmethod
    def resolve(
        cls,
        flags: Mapping[str, Any],
        *,
        config_file: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Self:
        """Make the settings from flags, environment variables and a settings file, in that order of precedence.

        Args:
            flags: values given on the command line, by field name.
            config_file: a TOML or JSON file; either flat, or with a table named after the stage.
            environ: environment variables (the process's own by default); `GPT2KIT_TRAIN_EPOCHS=2` sets
                `epochs` of the stage `train`.

        Raises:
            UsageError: the file cannot be read, or any name or value is wrong.
        """
        values: dict[str, Any] = {}
        shown: dict[str, str] = {}  # how each value was spelled where it came from, for messages
        if config_file is not None:
            values |= _read_config_file(config_file, cls.stage)
            shown |= {name: f"{config_file}: {name} = " for name in values}
        for name, variable, text in _from_environment(os.environ if environ is None else environ, cls.stage):
            values[name] = _parsed_list(text) if _is_list(cls, name) else text
            shown[name] = f"{variable}="
        values |= flags
        shown = {name: where for name, where in shown.items() if name not in flags}
        try:
            return cls(**values)
        except UsageError as error:
            if isinstance(error.__cause__, ValidationError):
                raise UsageError(_explain(error.__cause__, cls, shown)) from error.__cause__
            raise

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON values, for saving beside the output."""
        return self.model_dump(mode="json")


def suggestion(name: str, known: Iterable[str]) -> str:
    """A "did you mean" for a mistyped name, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""


def _explain(error: ValidationError, settings: type[Settings], shown: Mapping[str, str]) -> str:
    """All problems in one line; `shown` says how a value was spelled that did not come from a flag."""
    problems = []
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else ""
        where = shown.get(name, f"--{name} ")
        if detail["type"] == "extra_forbidden":
            place = f"{where.rstrip('= ')}: " if name in shown else ""
            problems.append(f"{place}unknown setting {name!r}{suggestion(name, settings.model_fields)}")
        elif detail["type"] == "missing":
            problems.append(f"--{name} is required ({settings.model_fields[name].description})")
        else:
            message = detail["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
            subject = f"{where}{_shown(detail['input'])}: " if name else ""
            problems.append(f"{subject}{message[:1].lower()}{message[1:]}")
    return "; ".join(dict.fromkeys(problems))


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return str(value) if isinstance(value, int | float | Path) else repr(value)


def _read_config_file(path: Path, stage: str) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows put a byte order mark in front
    except OSError as error:
        raise UsageError(f"--config {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"--config {path}: is not a text file in UTF-8; save it as one") from error
    try:
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--config {path}: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"--config {path}: should hold settings by name")
    stages = [name for name in values if name in STAGES and isinstance(values[name], dict)]
    if not stages:
        for name in values:
            if isinstance(values[name], dict) and (meant := suggestion(name, STAGES)):
                raise UsageError(f"--config {path}: [{name}] is no table of settings{meant}")
        return values
    if stray := sorted(set(values) - set(stages)):
        raise UsageError(
            f"--config {path}: {stray[0]!r} stands outside the tables {', '.join(f'[{name}]' for name in stages)}"
            f"{suggestion(stray[0], STAGES)}"
        )
    if stage not in stages:
        raise UsageError(
            f"--config {path}: holds no settings of {stage}, only tables for others ({', '.join(stages)}): leave the "
            f"file out, or add a table [{stage}], which may be empty"
        )
    return dict(values[stage])


def _from_environment(environ: Mapping[str, str], stage: str) -> list[tuple[str, str, str]]:
    """(setting, variable, value) of the stage's environment variables."""
    prefix = f"{ENVIRONMENT_PREFIX}{stage.upper()}_"
    return [
        (name.removeprefix(prefix).lower(), name, value) for name, value in environ.items() if name.startswith(prefix)
    ]


def _is_list(settings: type[Settings], name: str) -> bool:
    field = settings.model_fields.get(name)
    return field is not None and get_origin(field.annotation) is tuple


def _parsed_list(text: str) -> Any:
    """A JSON list such as `["c_attn", "c_fc"]`; any other text is the only item."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return (text,)
    return value if isinstance(value, list) else (text,)
