"""The command line: the only place that knows all stages.

Nothing heavy is imported here: a stage's modules are loaded when its command runs or shows its options.
"""

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Sequence

import click

from gpt2kit.cli.app import PROGRAM, make_app
from gpt2kit.cli.stage import EXIT_INTERRUPTED
from gpt2kit.errors import Gpt2kitError

EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one gpt2kit command.

    Args:
        argv: the words after `gpt2kit`; those of this process by default.

    Returns:
        The exit code: 0 done, 1 failed, 2 asked for something impossible, 130 interrupted, 141 the reader of the
        output has gone.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _escape_what_cannot_be_shown()
    try:
        code = _run(arguments)
        sys.stdout.flush()  # a closed pipe shows here, and not after the interpreter's last word
        return code
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except BrokenPipeError:
        _discard_stdout()
        return EXIT_BROKEN_PIPE
    except (Exception, KeyboardInterrupt) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        message, code = _explain(error)
        sys.stderr.write(f"{PROGRAM}: {message}\n")
        return code


def _run(arguments: list[str]) -> int:
    app = make_app()
    if f"_{PROGRAM.upper()}_COMPLETE" in os.environ:  # set by the shell's completion script only
        app.main(arguments, prog_name=PROGRAM)
    with app.make_context(PROGRAM, arguments) as context:
        return int(app.invoke(context) or 0)


def _explain(error: BaseException) -> tuple[str, int]:
    """One line for the user, and the exit code."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", EXIT_INTERRUPTED
    if isinstance(error, Gpt2kitError):
        return f"error: {error}", error.exit_code
    if isinstance(error, click.ClickException):
        return f"error: {_usage_message(error)}", EXIT_USAGE
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename is not None else ""
        return f"error: {named}{error.strerror[:1].lower()}{error.strerror[1:]}", EXIT_FAILURE
    if _is_out_of_memory(error):
        return "error: out of memory; `gpt2kit doctor` tells what fits on this machine", EXIT_FAILURE
    what = str(error).strip().partition("\n")[0]
    return (
        f"error: {type(error).__name__}: {what or 'no message'} (this is a bug in gpt2kit: run the same command again "
        "with --debug, and report what it prints)"
    ), EXIT_FAILURE


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from gpt2kit.training.memory import is_out_of_memory

    return is_out_of_memory(error)


def _usage_message(error: click.ClickException) -> str:
    if isinstance(error, click.NoSuchOption):
        near = f"; did you mean {error.possibilities[0]}?" if error.possibilities else ""
        message = f"no such option {error.option_name}{near}"
    else:
        message = error.format_message().rstrip(".")
        message = message[:1].lower() + message[1:]
    context = error.ctx if isinstance(error, click.UsageError) else None
    return message if context is None else f"{message} (`{context.command_path} --help` shows what there is)"


def _escape_what_cannot_be_shown() -> None:
    """A terminal or pipe that is not UTF-8, or a file name that is not, must not end a run: write such as \\xNN."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _discard_stdout() -> None:
    """Point stdout at nothing, or Python complains about the closed pipe when it flushes at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
