"""A conversation with a dialogue-tuned model: turns, a history that fits the context, answers piece by piece."""

import json
import secrets
from collections.abc import Generator
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from gpt2kit.config import Settings
from gpt2kit.corpus import Message
from gpt2kit.errors import UsageError
from gpt2kit.files import claim_number, explained_disk_errors
from gpt2kit.generation.language_model import LanguageModel
from gpt2kit.generation.plan import plan_turn
from gpt2kit.generation.settings import DEFAULT_MODEL_DIR, GenerateSettings
from gpt2kit.generation.texts import pieces
from gpt2kit.runtime import Precision, derive_seed
from gpt2kit.tokens import render_chat

CHATS_FOLDER = Path("results/chats")
_STEM = "chat"


class ChatSettings(Settings):
    """Settings of `gpt2kit chat`."""

    stage: ClassVar[str] = "chat"

    model_dir: str = Field(
        DEFAULT_MODEL_DIR,
        description="Model to talk with, fine-tuned on conversations: a folder, or a name on the Hub.",
    )
    system: str | None = Field(None, description="What the model is told before the first turn.")
    max_new_tokens: int = Field(
        100, ge=1, le=1_000_000, description="Tokens of an answer, at most; half the model's context if that is less."
    )
    temperature: float = Field(
        0.7, ge=0, le=100, description="Below 1 the likely becomes likelier, above 1 all evens out; 0 is greedy."
    )
    top_k: int = Field(0, ge=0, description="Draw from the k most probable tokens only; 0 from all.")
    top_p: float = Field(
        0.9, gt=0, le=1, description="Draw from the most probable tokens that together have this probability."
    )
    repetition_penalty: float = Field(
        1.0, gt=0, le=100, description="Above 1 makes tokens that are in the conversation already less likely."
    )
    seed: int | None = Field(
        None, ge=0, description="Seed of the answers; the same seed and turns give the same answers. Default: drawn."
    )
    save: Path | None = Field(
        None, description="JSONL file to write the conversation to at its end; a file that is there is not replaced."
    )
    stream: bool = Field(True, description="Show answers while they are written; off shows all of them at the end.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    precision: Precision = Field("auto", description="auto, fp32, bf16 or fp16.")


class Chat:
    """A conversation.

    An answer ends where the model ends its turn, or begins to write another one's. When the conversation grows beyond
    the model's context, the oldest turns are no longer shown to the model; what it is told by `system` always is.

    Args:
        model: a model fine-tuned on conversations.
        settings: how it answers; those on files are not looked at.

    Attributes:
        messages: the turns so far, without the system message.
        system: what the model is told before them; may be set at any time.
        num_forgotten: messages that the latest answer was written without.

    Example:
        >>> chat = Chat(load("models/demo_chat"), ChatSettings(seed=0))
        >>> print("".join(chat.reply("Good morning!")))
    """

    def __init__(self, model: LanguageModel, settings: ChatSettings) -> None:
        self.messages: list[Message] = []
        self.system = settings.system
        self.num_forgotten = 0
        self._model = model
        self._seed = settings.seed if settings.seed is not None else secrets.randbelow(1 << 31)
        self._max_new_tokens = min(settings.max_new_tokens, max(model.model.config.n_positions // 2, 1))
        self._tries = 0
        self._writing = GenerateSettings(
            chat=True,
            max_new_tokens=self._max_new_tokens,
            stop=("\nAssistant:",),
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
            repetition_penalty=settings.repetition_penalty,
        )

    def reply(self, text: str) -> Generator[str]:
        """Say something, and get the answer piece by piece.

        What is written of it when the iteration is given up stays in the conversation; if that is nothing, the
        question goes too.

        Raises:
            UsageError: it is empty, no valid text, or does not fit the context with room for an answer.
        """
        if not text.strip():
            raise UsageError("an empty message: say something")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(
                f"the message is not valid text (character {error.start + 1}); give it as UTF-8"
            ) from error
        unanswered = bool(self.messages) and self.messages[-1].role == "user"  # an answer that was never begun
        asked = [*(self.messages[:-1] if unanswered else self.messages), Message("user", text.strip())]
        ids = self._fitting(asked)
        self.messages = asked
        self._tries = 0
        return self._answer(ids)

    def retry(self) -> Generator[str]:
        """Get another answer to the latest question.

        Raises:
            UsageError: nothing has been asked yet.
        """
        asked = self.messages[:-1] if self.messages and self.messages[-1].role == "assistant" else self.messages
        if not asked:
            raise UsageError("nothing has been asked yet")
        ids = self._fitting(asked)
        self.messages = list(asked)
        self._tries += 1
        return self._answer(ids)

    def reset(self) -> None:
        """Forget all turns."""
        self.messages = []
        self.num_forgotten = 0

    def save(self, path: Path | None = None) -> Path:
        """Write the conversation as a line of JSON that `gpt2kit prepare` reads as a chat.

        Args:
            path: a new file; None for the next free number in `results/chats`.

        Returns:
            The file.

        Raises:
            UsageError: there is nothing to save, or the file is there already.
            DiskError: it cannot be written.
        """
        if not self.messages:
            raise UsageError("nothing has been said yet, so there is nothing to save")
        if path is None:
            path = claim_number(CHATS_FOLDER, _STEM, ".jsonl")
        else:
            with explained_disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    path.open("x").close()
                except FileExistsError as error:
                    raise UsageError(f"{path} is there already and is not replaced: name a new file") from error
        messages = [{"role": message.role, "content": message.content} for message in self._told(self.messages)]
        with explained_disk_errors(path):
            path.write_text(json.dumps({"messages": messages}, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    def _told(self, messages: list[Message]) -> list[Message]:
        return messages if self.system is None else [Message("system", self.system), *messages]

    def _fitting(self, asked: list[Message]) -> list[int]:
        """The ids of as many of the latest turns as fit the context beside an answer."""
        room = self._model.model.config.n_positions - self._max_new_tokens
        first = 0
        while True:
            ids, _ = render_chat(self._told(asked[first:]), self._model.tokenizer, add_generation_prompt=True)
            if self._model.texts_begin_with_end_of_text:
                ids = [self._model.tokenizer.end_of_text, *ids]
            if len(ids) <= room:
                self.num_forgotten = first
                return ids
            later = [place for place in range(first + 1, len(asked)) if asked[place].role == "user"]
            if not later:
                raise UsageError(
                    f"the message is too long: with what has to be read before it, it has {len(ids):,} tokens, and the "
                    f"context of {self._model.model.config.n_positions:,} leaves room for {max(room, 0):,} beside an "
                    f"answer of up to {self._max_new_tokens:,}; say it in fewer words, or lower --max_new_tokens"
                )
            first = later[0]

    def _answer(self, ids: list[int]) -> Generator[str]:
        asked = list(self.messages)
        key = derive_seed(self._seed, "chat", len(asked), self._tries)
        plan = plan_turn(self._model, ids, self._writing, prompt=asked[-1].content, key=key)
        answer = ""
        try:
            for _, piece in pieces(plan):
                if piece:
                    answer += piece
                    yield piece
        except (GeneratorExit, KeyboardInterrupt):
            if not answer.strip():
                self.messages = asked[:-1]
                raise
            self.messages = [*asked, Message("assistant", answer.strip())]
            raise
        self.messages = [*asked, Message("assistant", answer.strip())]
