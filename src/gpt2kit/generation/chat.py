"""A conversation with a dialogue-tuned model: turns, a history that fits the context, answers piece by piece."""

import secrets
from bisect import bisect_left
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

from gpt2kit.corpus import Message
from gpt2kit.errors import DiskError, UsageError
from gpt2kit.files import claim_number, explained_disk_errors, write_json_lines
from gpt2kit.generation.language_model import LanguageModel
from gpt2kit.generation.plan import plan_turn
from gpt2kit.generation.settings import ChatSettings, chat_file
from gpt2kit.generation.texts import pieces
from gpt2kit.runtime import derive_seed
from gpt2kit.tokens import render_chat

CHATS_FOLDER = Path("results/chats")
_STEM = "chat"


class Chat:
    """A conversation.

    An answer ends where the model ends its turn, or begins to write another one's. When the conversation grows beyond
    the model's context, the oldest turns are no longer shown to the model; what it is told by `system` always is.

    Args:
        model: a model fine-tuned on conversations.
        settings: how it answers; those on files are not looked at.

    Attributes:
        messages: the turns so far, without the system message; an answer is among them when its iteration has ended.
        num_forgotten: messages that the latest answer was written without.
        seed: of the answers.

    Raises:
        UsageError: the system message is not valid text.

    Example:
        >>> chat = Chat(load("models/demo_chat"), ChatSettings(seed=0))
        >>> print("".join(chat.reply("Good morning!")))
    """

    def __init__(self, model: LanguageModel, settings: ChatSettings) -> None:
        self.messages: list[Message] = []
        self.system = settings.system
        self.num_forgotten = 0
        self.seed = settings.seed if settings.seed is not None else secrets.randbelow(1 << 31)
        self._model = model
        # At least half of the context is left for what is read.
        most = max(model.config.n_positions // 2, 1)
        self._writing = settings.of_an_answer(max_new_tokens=min(settings.max_new_tokens, most))
        self._tries = 0
        self._answering: Generator[str] | None = None

    @property
    def system(self) -> str | None:
        """What the model is told before the turns; it may be set at any time, and blank text is None."""
        return self._system

    @system.setter
    def system(self, text: str | None) -> None:
        self._system = None if text is None else _valid(text, "system message").strip() or None

    @property
    def transcript(self) -> list[Message]:
        """The whole conversation: the system message, if there is one, and the turns."""
        return self._told(self.messages)

    def reply(self, text: str) -> Generator[str]:
        """Say something, and get the answer piece by piece.

        What is written of it when the iteration is given up (by `close()`, or by the next turn) stays in the
        conversation; if that is nothing, the question goes too.

        Args:
            text: what to say; white space around it is left out.

        Returns:
            The pieces; joined, they are the content of the answer's message.

        Raises:
            UsageError: it is empty, not valid text, or does not fit the context with room for an answer; the
                conversation is as it was.
        """
        if not _valid(text, "message").strip():
            raise UsageError("an empty message: say something")
        self._give_up()
        asked = [*self.messages, Message("user", text.strip())]
        ids = self._fitting(asked)
        self._tries = 0
        return self._begin(asked, ids)

    def retry(self) -> Generator[str]:
        """Get another answer to the latest question.

        The old one stays if this one is given up before anything of it is written. A greedy answer is the same again.

        Raises:
            UsageError: nothing has been asked yet.
        """
        self._give_up()
        asked = self.messages[:-1] if self.messages and self.messages[-1].role == "assistant" else self.messages
        if not asked:
            raise UsageError("nothing has been asked yet, so there is no other answer")
        ids = self._fitting(asked)
        self._tries += 1
        return self._begin(list(asked), ids)

    def reset(self) -> None:
        """Forget all turns; the system message stays."""
        self._give_up()
        self.messages = []
        self.num_forgotten = 0

    def save(self, path: Path | None = None) -> Path:
        """Write the conversation as a line of JSON that `gpt2kit prepare` reads as a chat.

        Args:
            path: a new .jsonl file; None for the next free number in `results/chats`.

        Returns:
            The file.

        Raises:
            UsageError: there is nothing to save, or the file is there already or cannot be one.
            DiskError: it cannot be written.
        """
        self._give_up()
        if not self.messages:
            raise UsageError("nothing has been said yet, so there is nothing to save")
        chosen = claim_file(path)
        messages = [{"role": message.role, "content": message.content} for message in self.transcript]
        try:
            write_json_lines(chosen, [{"messages": messages}])
        except DiskError:
            chosen.unlink(missing_ok=True)
            raise
        return chosen

    def _told(self, messages: Sequence[Message]) -> list[Message]:
        return [*([] if self._system is None else [Message("system", self._system)]), *messages]

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        ids, _ = render_chat(self._told(messages), self._model.tokenizer, add_generation_prompt=True)
        return [self._model.tokenizer.end_of_text, *ids] if self._model.texts_begin_with_end_of_text else ids

    def _fitting(self, asked: Sequence[Message]) -> list[int]:
        """The ids of as many of the latest turns as fit the context beside an answer."""
        context, answer = self._model.config.n_positions, self._writing.max_new_tokens
        room = context - answer
        # A turn begins with a question. No message has less than one token, so that older ones need not be tried, and
        # the fewer turns the fewer tokens, so that the first start that fits is found by halving.
        starts = [place for place, message in enumerate(asked) if place == 0 or message.role == "user"]
        starts = [place for place in starts if place >= len(asked) - room] or starts[-1:]
        found = bisect_left(starts, True, key=lambda start: len(self._ids(asked[start:])) <= room)
        if found == len(starts):
            behind = "" if self._system is None else " behind the system message"
            raise UsageError(
                f"the message is too long: it ends at token {len(self._ids(asked[starts[-1] :])):,}{behind}, and the "
                f"context of {context:,} leaves room for {room:,} beside an answer of up to {answer:,}; say it in "
                "fewer words, or lower --max_new_tokens"
            )
        self.num_forgotten = starts[found]
        return self._ids(asked[starts[found] :])

    def _begin(self, asked: list[Message], ids: list[int]) -> Generator[str]:
        self._answering = self._answer(asked, ids)
        return self._answering

    def _give_up(self) -> None:
        """End the answer that is being written, so that it cannot change the conversation later."""
        if self._answering is not None:
            self._answering.close()
            self._answering = None

    def _answer(self, asked: list[Message], ids: list[int]) -> Generator[str]:
        key = derive_seed(self.seed, "chat", len(asked), self._tries)
        plan = plan_turn(self._model, ids, self._writing, prompt=asked[-1].content, key=key)
        answer, is_whole = "", False
        try:
            with closing(pieces(plan)) as written:
                for _, piece in written:
                    before = answer.rstrip()
                    answer += piece
                    # White space is shown when something follows it.
                    if new := answer.rstrip()[len(before) :]:
                        yield new
            is_whole = True
        finally:
            if is_whole or answer.strip():
                self.messages = [*asked, Message("assistant", answer.strip())]


def _valid(text: str, what: str) -> str:
    """A text as it is, if it can be encoded.

    Raises:
        UsageError: it holds half a character, as from a terminal or a command line that is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the {what} is not valid text (character {error.start + 1}); give it as UTF-8") from error
    return text


def claim_file(path: Path | None) -> Path:
    """Take a new file, empty so far, that nothing else can take; without a name the next number's in `results/chats`.

    Raises:
        UsageError: it is there already, or cannot be a chat's file.
        DiskError: it cannot be written.
    """
    place = path or CHATS_FOLDER / _STEM
    try:
        if path is None:
            return claim_number(CHATS_FOLDER, _STEM, ".jsonl")
        place = chat_file(path)
        with explained_disk_errors(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.open("x").close()
    except ValueError as error:
        raise UsageError(str(error)) from error
    except (FileExistsError, NotADirectoryError) as error:
        if place.parent.is_dir():
            raise UsageError(f"{place} is there already and is not replaced: name a new file") from error
        raise UsageError(f"{place} lies in a file: name a folder for it that can be one") from error
    except OSError as error:
        raise UsageError(f"{place} cannot be written: {error.strerror}; name another file") from error
    return place
