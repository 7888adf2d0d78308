"""`gpt2kit chat`: a conversation in the terminal, or through a pipe."""

import contextlib
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2kit.console import output, say, warn
from gpt2kit.corpus import Message
from gpt2kit.errors import Gpt2kitError, UsageError
from gpt2kit.generation.chat import Chat, ChatSettings
from gpt2kit.generation.language_model import load

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
        messages: the turns that were left at its end.
        was_shown: whether the answers were on the terminal already.
        saved: where it was written to at the end, if it was.
    """

    messages: tuple[Message, ...]
    was_shown: bool
    saved: Path | None

    def to_dict(self) -> dict[str, Any]:
        """The conversation as JSON values."""
        return {
            "messages": [{"role": message.role, "content": message.content} for message in self.messages],
            "saved": None if self.saved is None else str(self.saved),
        }

    def to_text(self) -> str:
        """The answers, one a paragraph, if they were not shown."""
        if self.was_shown:
            return ""
        return "\n".join(message.content for message in self.messages if message.role == "assistant")


def run(settings: ChatSettings) -> Conversation:
    """Talk until the user leaves or stdin ends.

    On a terminal there are prompts and line editing; through a pipe each line is a turn, and only answers go to stdout.

    Raises:
        UsageError: the model or the file to save to cannot be used.
        ModelError: the model's files are damaged.
        KeyboardInterrupt: Ctrl-C while no answer was being written.
    """
    if settings.save is not None and settings.save.exists():
        raise UsageError(f"--save {settings.save}: is there already and is not replaced; name a new file")
    model = load(settings.model_dir, device=settings.device, precision=settings.precision)
    terminal = _Terminal(Chat(model, settings), show=settings.stream)
    saved = None
    try:
        terminal.talk()
    finally:
        if settings.save is not None and terminal.chat.messages:
            saved = terminal.chat.save(settings.save)
            say(f"saved: {saved}")
    return Conversation(tuple(terminal.chat.messages), was_shown=settings.stream, saved=saved)


class _Terminal:
    """Reads lines, answers them, and does what commands ask for."""

    def __init__(self, chat: Chat, *, show: bool) -> None:
        self.chat = chat
        self.show = show
        self.is_interactive = sys.stdin is not None and sys.stdin.isatty()
        self.commands: dict[str, Callable[[str], None]] = {
            "/retry": lambda _: self._show(self.chat.retry()),
            "/reset": self._reset,
            "/system": self._tell,
            "/save": self._save,
            "/help": lambda _: say(_HELP),
        }

    def talk(self) -> None:
        if self.is_interactive:
            say("Talk with the model; /help lists commands, Ctrl-D leaves.")
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
                    self._say(line)
            except Gpt2kitError as error:
                warn(str(error))

    def _lines(self) -> Iterator[str]:
        """What the user says, without empty lines."""
        if not self.is_interactive:
            for line in sys.stdin or ():
                if line.strip():
                    yield line.strip()
            return
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (input() then edits lines and remembers them)
        while True:
            try:
                line = input("\nYou: ").strip()
            except EOFError:
                output("")
                return
            if line:
                yield line

    def _say(self, text: str) -> None:
        forgotten_before = self.chat.num_forgotten
        pieces = self.chat.reply(text)
        if self.chat.num_forgotten and not forgotten_before:
            say("(the conversation has grown beyond the model's context: it no longer reads its beginning)")
        self._show(pieces)

    def _show(self, pieces: Generator[str]) -> None:
        """Write an answer as it comes; Ctrl-C stops it, and what was written stays."""
        try:
            with contextlib.closing(pieces):
                if self.show and self.is_interactive:
                    output("Model: ", end="")
                for piece in pieces:
                    if self.show:
                        output(piece, end="")
        except KeyboardInterrupt:
            if not self.is_interactive:
                raise
            output(" ...", end="")
        if self.show:
            output("")

    def _reset(self, _: str) -> None:
        self.chat.reset()
        say("(forgotten)")

    def _tell(self, text: str) -> None:
        self.chat.system = text or None
        say("(told)" if text else "(told nothing)")

    def _save(self, name: str) -> None:
        say(f"saved: {self.chat.save(Path(name) if name else None)}")
