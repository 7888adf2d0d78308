"""`gpt2kit chat`: a conversation in the terminal, or through a pipe."""

import contextlib
import io
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gpt2kit.console import output, say, warn
from gpt2kit.corpus import Message
from gpt2kit.errors import Gpt2kitError, UsageError
from gpt2kit.generation.chat import Chat, claim_file
from gpt2kit.generation.language_model import load
from gpt2kit.generation.settings import ChatSettings

_HELP = """\
/retry          another answer to your last message
/reset          forget the conversation and begin anew
/system TEXT    tell the model something before the conversation; without TEXT, nothing
/save [FILE]    write the conversation to a new JSONL file (results/chats/chat-001.jsonl and so on)
/help           this list
/quit           leave (Ctrl-D too); Ctrl-C stops an answer"""


@dataclass(frozen=True)
class Conversation:
    """What was said in a run of `gpt2kit chat`.

    Attributes:
        messages: the system message, if there was one, and the turns that were left at its end.
        answers: all answers that were given, also those forgotten or replaced since.
        seed: of the answers.
        was_shown: whether the answers were written already.
        saved: where it was written to at the end, if it was.
    """

    messages: tuple[Message, ...]
    answers: tuple[str, ...]
    seed: int
    was_shown: bool
    saved: Path | None

    def to_dict(self) -> dict[str, Any]:
        """The conversation as JSON values."""
        return {
            "messages": [{"role": message.role, "content": message.content} for message in self.messages],
            "seed": self.seed,
            "saved": None if self.saved is None else str(self.saved),
        }

    def to_text(self) -> str:
        """The answers, each on a line of its own, if they were not shown."""
        return "" if self.was_shown else "\n".join(self.answers)


def run(settings: ChatSettings) -> Conversation:
    """Talk until the user leaves or stdin ends.

    On a terminal there are prompts and line editing; through a pipe each line is a turn, and only answers go to stdout.

    Raises:
        UsageError: the model or the file to save to cannot be used, or stdin is closed.
        ModelError: the model's files are damaged.
        KeyboardInterrupt: Ctrl-C while no answer was being written.
    """
    if sys.stdin is None:
        raise UsageError("stdin is closed, so nobody can talk with the model")
    if settings.save is not None:
        if settings.save.exists():
            raise UsageError(f"--save {settings.save}: is there already and is not replaced; name a new file")
        claim_file(settings.save).unlink()  # a file that cannot be written is told before anything is said
    for name in settings.without_effect():
        warn(f"--{name} has no effect with --temperature 0 or --top_k 1, which always take the likeliest token")
    model = load(
        settings.model_dir,
        device=settings.device,
        precision=settings.precision,
        engine=settings.engine,
        weights=settings.weights,
    )
    terminal = _Terminal(Chat(model, settings), show=settings.stream)
    saved = None
    try:
        terminal.talk()
    finally:
        if settings.save is not None and terminal.chat.messages:
            saved = terminal.chat.save(settings.save)
            say(f"saved: {saved}")
    return Conversation(
        messages=tuple(terminal.chat.transcript),
        answers=tuple(terminal.answers),
        seed=terminal.chat.seed,
        was_shown=settings.stream or terminal.is_interactive,
        saved=saved,
    )


class _Terminal:
    """Reads lines, answers them, and does what commands ask for.

    Args:
        chat: the conversation.
        show: whether answers go to stdout while they are written.

    Attributes:
        answers: those given.
        is_interactive: whether somebody types the lines.
    """

    def __init__(self, chat: Chat, *, show: bool) -> None:
        self.chat = chat
        self.show = show
        self.answers: list[str] = []
        self.is_interactive = sys.stdin.isatty()
        # With stdout in a file, the words around the answers go to stderr.
        self._is_on_screen = self.is_interactive and sys.stdout.isatty()
        self._has_said_forgetting = False
        self.commands: dict[str, Callable[[str], None]] = {
            "/retry": lambda _: self._answer(self.chat.retry),
            "/reset": self._reset,
            "/system": self._tell,
            "/save": self._save,
            "/help": lambda _: say(_HELP),
        }

    def talk(self) -> None:
        """Go on until the user leaves or stdin ends."""
        if self.is_interactive:
            say(f"Talk with the model; /help lists commands, Ctrl-D leaves. The seed is {self.chat.seed}.")
        for line in self._lines():
            word, _, rest = line.partition(" ")
            try:
                if word in ("/quit", "/exit"):
                    return
                if word in self.commands:
                    self.commands[word](rest.strip())
                elif word.startswith("/"):
                    warn(f"no command {word}; there are {', '.join(self.commands)} and /quit")
                else:
                    self._answer(partial(self.chat.reply, line))
            except Gpt2kitError as error:
                warn(str(error))

    def _lines(self) -> Iterator[str]:
        """What the user says, without empty lines."""
        if isinstance(sys.stdin, io.TextIOWrapper):  # bytes that are no UTF-8 are for the chat to refuse, by line
            sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
        if self._is_on_screen:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401 (input() then edits lines and remembers them)
        while line := self._line():
            if line.strip():
                yield line.strip()

    def _line(self) -> str:
        """The next line with its end; "" when there is none."""
        if self._is_on_screen:
            try:
                return input("\nYou: ") + "\n"
            except EOFError:
                output("")
                return ""
        if self.is_interactive:
            sys.stderr.write("\nYou: ")
            sys.stderr.flush()
        return sys.stdin.readline()

    def _answer(self, begin: Callable[[], Generator[str]]) -> None:
        """Write an answer as it comes; Ctrl-C stops it, and what was written stays."""
        answer = ""
        try:
            with contextlib.closing(begin()) as pieces:
                self._say_once_that_it_forgets()
                if self.show and self._is_on_screen:
                    output("Model: ", end="")
                for piece in pieces:
                    answer += piece
                    if self.show:
                        output(piece, end="")
        except KeyboardInterrupt:
            if not self.is_interactive:
                raise
            if self.show and self._is_on_screen:
                output(" ...", end="")
        self.answers.append(answer)
        if self.show:
            output("")
        elif self.is_interactive:
            say(f"Model: {answer}")
        if not answer:
            say("(no answer)")

    def _say_once_that_it_forgets(self) -> None:
        if self.chat.num_forgotten and not self._has_said_forgetting:
            say("(the conversation has grown beyond the model's context: it no longer reads its beginning)")
            self._has_said_forgetting = True

    def _reset(self, _: str) -> None:
        self.chat.reset()
        self._has_said_forgetting = False
        say("(forgotten)")

    def _tell(self, text: str) -> None:
        self.chat.system = text
        say("(told)" if text else "(told nothing)")

    def _save(self, name: str) -> None:
        say(f"saved: {self.chat.save(Path(name) if name else None)}")
