"""Write docs/cli.md from the commands themselves, or check that it is what they say (--check)."""

import argparse
import difflib
import sys
from pathlib import Path

import click

from gpt2kit.cli.app import PROGRAM, make_app

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"

_INTRODUCTION = f"""\
# Command line

<!-- Written by tools/make_cli_reference.py (`make docs`); `make check` compares it with the commands. -->

Flags work with `_` and with `-`: `--data_dir` and `--data-dir` are the same.

Settings of `prepare`, `train`, `generate`, `chat`, `evaluate`, `tasks`, `compare`, `review`, `tune` and `tokenizer
train` come from four places; a later one wins:

1. the defaults below,
2. a TOML or JSON file given with `--config`, either flat (`epochs = 2`) or with one table a stage (`[train]`; that of
   the command has to be there, if only empty),
3. environment variables: `GPT2KIT_TRAIN_EPOCHS=2` sets `--epochs` of `train`; a setting that can be repeated takes a
   JSON list,
4. flags.

An unknown name is an error, whichever place it comes from, and all problems are reported at once. The settings a result
was made with are saved beside it.

A base model is named by a folder, by its name on the Hugging Face Hub, or as `nano`, the small one that is in the
package and needs no network. Where a folder `gpt2` exists, `gpt2` means that folder. The known names (`gpt2`,
`gpt2-medium`, `gpt2-large`, `gpt2-xl`, `distilgpt2`) mean one pinned revision each.

Results go to stdout, everything said on the way to stderr. Exit codes: 0 done; 1 it failed; 2 what was asked is not
possible; 130 interrupted; 141 the reader of the output has gone. An error is one line; `--debug` adds the traceback.

For completion in bash: `eval "$(_GPT2KIT_COMPLETE=bash_source {PROGRAM})"`; zsh and fish likewise.
"""


def make_reference() -> str:
    """The whole page as Markdown."""
    app = make_app()
    with app.make_context(PROGRAM, [], resilient_parsing=True) as context:
        commands = _commands(app, context)
        index = "\n".join(
            f"| [`{PROGRAM} {name}`](#{PROGRAM}-{name.replace(' ', '-')}) | {command.short_help} |"
            for name, command in commands.items()
        )
        sections = [_section(name, command, context) for name, command in commands.items()]
    return "\n".join([_INTRODUCTION, "| command | |\n|---|---|", index, "", *sections])


def _commands(group: click.Group, context: click.Context, *, prefix: str = "") -> dict[str, click.Command]:
    """The commands of a group by their names, those of groups within it too."""
    found: dict[str, click.Command] = {}
    for name in group.list_commands(context):
        command = group.commands[name]
        if isinstance(command, click.Group):
            found |= _commands(command, context, prefix=f"{prefix}{name} ")
        else:
            found[prefix + name] = command
    return found


def _section(name: str, command: click.Command, parent: click.Context) -> str:
    context = click.Context(command, info_name=name, parent=parent)
    params = command.get_params(context)
    usage = " ".join([PROGRAM, name, *command.collect_usage_pieces(context)])
    about = " ".join((command.help or "").replace("\n\n", "\n").split("\n"))
    rows = [_row(param, context) for param in params if isinstance(param, click.Option)]
    examples = "\n".join(line.strip() for line in (command.epilog or "").splitlines()[2:])
    return (
        f"## {PROGRAM} {name}\n\n{' '.join(about.split())}\n\n```bash\n{examples}\n```\n\n"
        f"Usage: `{usage}`\n\n| option | what it does |\n|---|---|\n" + "\n".join(rows) + "\n"
    )


def _row(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    if record is None:  # hidden; there are none, and mypy does not know
        return ""
    names, text = (part.replace("|", "\\|") for part in record)
    text = text.replace("<", "&lt;")  # or a page shows it as a tag, that is, not at all
    return f"| `{names}` | {text} |"


def main() -> int:
    """Write the page, or compare it; 1 when it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether docs/cli.md is up to date")
    check: bool = parser.parse_args().check
    made = make_reference()
    if not check:
        REFERENCE.write_text(made, encoding="utf-8")
        return 0
    written = REFERENCE.read_text(encoding="utf-8") if REFERENCE.exists() else ""
    if written == made:
        return 0
    difference = difflib.unified_diff(
        written.splitlines(), made.splitlines(), "docs/cli.md", "the commands", lineterm=""
    )
    print("\n".join(list(difference)[:40]))
    print("docs/cli.md is not what the commands say: run `make docs`")
    return 1


if __name__ == "__main__":
    sys.exit(main())
