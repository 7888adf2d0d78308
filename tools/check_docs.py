"""Check the documentation against the code: commands, flags, make targets, links, anchors and Python snippets.

    python tools/check_docs.py [FILE ...]

In a code block for the shell, every gpt2kit command line must be one that gpt2kit would run: its options exist and its
settings are in range. In running text, options named in `backticks` must exist. Links to files and headings must
resolve; Python blocks must compile and use names that the package has.
"""

import functools
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

import click

import gpt2kit
from gpt2kit.cli.app import PROGRAM, make_app
from gpt2kit.cli.stage import StageCommand, load
from gpt2kit.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
SHELL_LANGUAGES = ("bash", "sh", "shell", "console")
SCRIPTS = {"scripts/train.py": "train", "scripts/generate.py": "generate"}

_FENCE = re.compile(r"^\s*```(\w*)")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
_INLINE_CODE = re.compile(r"`([^`]+)`")
_PACKAGE_NAME = re.compile(r"\bgpt2kit\.([A-Za-z_]\w*)")
_WORD_SEPARATORS = ("&&", "||", ";", "|", "&")

Problem = tuple[int, str]


def check_file(path: Path) -> list[str]:
    """All problems of one Markdown file, as "file:line: what"."""
    text = path.read_text(encoding="utf-8")
    problems: list[Problem] = []
    for number, language, lines in _blocks(text):
        if language in SHELL_LANGUAGES:
            problems += _shell_problems(number, lines)
        elif language == "python":
            problems += _python_problems(number, lines)
    for number, line in _prose(text):
        problems += [(number, problem) for problem in _link_problems(path, line)]
        for code in _INLINE_CODE.finditer(line):
            if not line[: code.start()].endswith("no "):  # "there is no `--resume`"
                problems += [(number, problem) for problem in _inline_problems(code.group(1))]
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return [f"{name}:{number}: {problem}" for number, problem in sorted(problems)]


def _blocks(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """(number of the first line, language, lines) of each fenced code block."""
    language: str | None = None
    start, block = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        fence = _FENCE.match(line)
        if fence is None:
            block.append(line)
        elif language is None:
            language, start, block = fence.group(1), number + 1, []
        else:
            yield start, language, block
            language = None


def _prose(text: str) -> Iterator[tuple[int, str]]:
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if _FENCE.match(line):
            inside = not inside
        elif not inside:
            yield number, line


def _shell_problems(start: int, lines: Sequence[str]) -> Iterator[Problem]:
    continued = ""
    for number, line in enumerate(lines, start):
        line = continued + line.strip().removeprefix("$ ")
        if line.endswith("\\"):
            continued = line[:-1]
            continue
        continued = ""
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            yield number, f"not a command line ({error}): {line}"
            continue
        for command in _commands(words):
            if (problem := _command_problem(command, whole=True)) is not None:
                yield number, problem


def _commands(words: Sequence[str]) -> Iterator[list[str]]:
    """The simple commands of a line: cut at pipes and the like."""
    command: list[str] = []
    for word in [*words, ";"]:
        if word in _WORD_SEPARATORS:
            if command:
                yield command
            command = []
        elif word.endswith(";"):
            yield [*command, word[:-1]]
            command = []
        else:
            command.append(word)


def _command_problem(words: Sequence[str], *, whole: bool) -> str | None:
    """What is wrong with a command; None for one that is right or not ours. `whole`: its values count too."""
    environment = {}
    while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
        name, _, value = words[0].partition("=")
        environment[name] = value
        words = words[1:]
    if not words:
        return None
    if words[0] == "make":
        return next((f"no `make {word}`" for word in words[1:] if _is_target(word) and word not in _targets()), None)
    if words[0] == "python" and len(words) > 1 and words[1] in SCRIPTS:
        return _arguments_problem([SCRIPTS[words[1]], *words[2:]], environment, whole=whole)
    if words[0] in ("python", "torchrun"):
        if "-m" not in words or words[words.index("-m") + 1] != PROGRAM:
            return None
        words = words[words.index("-m") + 1 :]
    if words[0].rpartition("/")[2] != PROGRAM:
        return None
    return _arguments_problem(words[1:], environment, whole=whole)


def _is_target(word: str) -> bool:
    return re.fullmatch(r"[a-z][a-z-]*", word) is not None


@functools.cache
def _targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def _arguments_problem(words: Sequence[str], environment: Mapping[str, str], *, whole: bool) -> str | None:
    app = make_app()
    if not words or words[0].startswith("-") or words[0].isupper():
        known = {"--help", "--version", "--debug"}
        return next((f"no option {word}" for word in words if word.startswith("-") and word not in known), None)
    if words[0] not in app.commands:
        return f"no command `{PROGRAM} {words[0]}`"
    command = app.commands[words[0]]
    with app.make_context(PROGRAM, [], resilient_parsing=True) as parent:
        context = click.Context(
            command, info_name=words[0], parent=parent, resilient_parsing=not whole, **command.context_settings
        )
        if not whole or "--help" in words:
            names = _option_names(command, context)
            flags = [word.partition("=")[0] for word in words[1:] if re.match(r"--\w", word)]
            return next(
                (f"`{PROGRAM} {words[0]}` has no option {flag}" for flag in flags if _plain(flag) not in names), None
            )
        try:
            command.parse_args(context, list(words[1:]))
            if isinstance(command, StageCommand):
                settings = load(command.stage.settings)
                settings.resolve(command.given(context.params), environ=environment)
        except click.UsageError as error:
            return f"`{PROGRAM} {' '.join(words)}`: {error.format_message()}"
        except UsageError as error:
            return f"`{PROGRAM} {' '.join(words)}`: {error}"
    return None


def _plain(flag: str) -> str:
    return "--" + flag.removeprefix("--").replace("-", "_")


def _option_names(command: click.Command, context: click.Context) -> set[str]:
    return {_plain(name) for param in command.get_params(context) for name in (*param.opts, *param.secondary_opts)}


@functools.cache
def _all_options() -> set[str]:
    app = make_app()
    names = {"--help", "--version", "--debug"}
    with app.make_context(PROGRAM, [], resilient_parsing=True) as parent:
        for command in app.commands.values():
            names |= _option_names(command, click.Context(command, info_name=command.name, parent=parent))
    return names


def _inline_problems(code: str) -> Iterator[str]:
    if code.startswith("--"):
        names = _all_options()
        for flag in re.findall(r"(?<!\S)--[\w-]+", code):
            if _plain(flag) not in names:
                yield f"no command has an option {flag}"
        return
    try:
        words = shlex.split(code, comments=True)
    except ValueError:
        return
    for command in _commands(words):
        if (problem := _command_problem(command, whole=False)) is not None:
            yield problem


def _python_problems(start: int, lines: Sequence[str]) -> Iterator[Problem]:
    try:
        compile("\n".join(lines), "snippet", "exec")
    except SyntaxError as error:
        yield start + (error.lineno or 1) - 1, f"Python snippet does not compile: {error.msg}"
        return
    modules = {path.stem for path in (ROOT / "src" / "gpt2kit").iterdir()}
    for number, line in enumerate(lines, start):
        for name in _PACKAGE_NAME.findall(line):
            if name not in dir(gpt2kit) and name not in modules:
                yield number, f"gpt2kit has no {name}"


def _link_problems(path: Path, line: str) -> Iterator[str]:
    for target in _LINK.findall(_INLINE_CODE.sub("", line)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        linked = (path.parent / file).resolve() if file else path
        if not linked.exists():
            yield f"link to {target}: there is no such file"
        elif anchor and linked.suffix == ".md" and anchor not in _anchors(linked.read_text(encoding="utf-8")):
            yield f"link to {target}: there is no such heading"


def _anchors(text: str) -> set[str]:
    """The anchors that hosts of Markdown make of its headings: lower case, punctuation gone, spaces as dashes."""
    anchors: set[str] = set()
    for _, line in _prose(text):
        if (heading := _HEADING.match(line)) is not None:
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.group(1)).replace("`", "")
            anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
            count = 1
            unique = anchor
            while unique in anchors:
                unique, count = f"{anchor}-{count}", count + 1
            anchors.add(unique)
    return anchors


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the files named, or all; print the problems; 1 when there are any."""
    named = [Path(name).resolve() for name in (sys.argv[1:] if arguments is None else arguments)]
    files = named or [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    problems = [problem for file in files for problem in check_file(file)]
    for problem in problems:
        print(problem)
    print(f"{len(files)} pages, {len(problems)} problems" if problems else f"{len(files)} pages in order")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
