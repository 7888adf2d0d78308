"""A command made from a stage: its settings class and its entry function."""

import importlib
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from gpt2kit.errors import UsageError

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it


@dataclass(frozen=True)
class Stage:
    """What the command line has to know of a stage.

    Attributes:
        name: the command.
        summary: one line, for the list of commands.
        about: what it does, for its own help page.
        settings: where its settings class is, "module:Class".
        entry: where its entry function is, "module:function"; it takes the settings.
        argument: the setting that may also be given as the first word after the command, or "".
        examples: command lines for the help page.
        next_step: the command that usually follows, with settings in braces, or "".
        takes_many: all words after the command belong to `argument`, and not only the first.
        aliases: settings by other names that their options have too.
    """

    name: str
    summary: str
    about: str
    settings: str
    entry: str
    argument: str
    examples: tuple[str, ...]
    next_step: str
    takes_many: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)


def examples_text(examples: tuple[str, ...]) -> str:
    """The end of a help page."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in examples)])


def debug_option() -> click.Option:
    """`--debug`, which every command takes; `main` looks for it."""
    return click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error.")


def json_option() -> click.Option:
    """`--json`, for a program that reads the result."""
    return click.Option(["--json", "as_json"], is_flag=True, help="Print the result as JSON.")


class StageCommand(click.Command):
    """A stage as a command. Its options are made when they are first needed, for that imports the stage."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(
            stage.name, help=stage.about, short_help=stage.summary, epilog=examples_text(stage.examples), params=[]
        )
        self.stage = stage

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The options, made from the settings' fields."""
        if not self.params:
            from gpt2kit.cli.options import settings_options

            settings = load(self.stage.settings)
            if self.stage.argument:
                many = self.stage.takes_many
                metavar = f"[{self.stage.argument.upper()}]{'...' * many}"
                self.params.append(
                    click.Argument(["argument"], required=False, metavar=metavar, nargs=-1 if many else 1)
                )
            self.params.append(
                click.Option(
                    ["--config", "config_file"],
                    type=click.Path(path_type=Path),
                    metavar="FILE",
                    help=f"Settings from a TOML or JSON file, flat or under [{self.stage.name}]. The environment "
                    f"(GPT2KIT_{self.stage.name.upper()}_<SETTING>) and flags win over it.",
                )
            )
            self.params += settings_options(settings, aliases=self.stage.aliases)
            if "json" not in settings.model_fields:
                self.params.append(json_option())
            self.params.append(debug_option())
        return super().get_params(ctx)

    def given(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that were given on the command line, by flags or as words.

        Raises:
            UsageError: one was given in both ways.
        """
        from gpt2kit.cli.options import given_values, is_repeatable

        settings = load(self.stage.settings)
        flags = given_values(params, settings)
        word = params.get("argument")
        if word is None or word == ():
            return flags
        name = self.stage.argument
        if name in flags:
            words, values = (
                " ".join(map(str, each)) if isinstance(each, tuple) else each for each in (word, flags[name])
            )
            raise UsageError(f"{words} and --{name} {values} say the same thing twice: give one")
        is_single = is_repeatable(settings.model_fields[name].annotation) and not self.stage.takes_many
        return flags | {name: (word,) if is_single else word}

    def invoke(self, ctx: click.Context) -> int:
        """Resolve the settings, run the stage, and write its result."""
        from gpt2kit.console import say

        settings = load(self.stage.settings)
        flags = self.given(ctx.params)
        as_json = bool(ctx.params.get("as_json"))
        if as_json and "stream" in settings.model_fields:
            flags["stream"] = False  # stdout belongs to the JSON
        resolved = settings.resolve(flags, config_file=ctx.params["config_file"])
        result = load(self.stage.entry)(resolved)
        report(result, as_json=as_json)
        status = getattr(result, "status", "finished")
        if self.stage.next_step and not as_json and status in ("finished", "unchanged") and _speaks():
            words = {name: shlex.quote(str(value)) for name, value in resolved.to_dict().items()}
            say(f"next: {self.stage.next_step.format_map(words)}")
        return EXIT_INTERRUPTED if status == "interrupted" else 0


def report(result: Any, *, as_json: bool) -> None:
    """Write a stage's result to stdout, once."""
    from gpt2kit.console import output
    from gpt2kit.files import to_json

    if not _speaks():
        return
    if as_json:
        output(to_json(result.to_dict()), end="")
    elif text := result.to_text():  # a text that was streamed is not shown again
        output(text)


def _speaks() -> bool:
    """Of several processes that `torchrun` started, the first one speaks."""
    return os.environ.get("RANK", "0") == "0"


def load(place: str) -> Any:
    """The object at "module:name"."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
