"""Talking with a model: turns that end, a history that fits, files that are never replaced."""

from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2kit import PrepareSettings, prepare
from gpt2kit.corpus import Message
from gpt2kit.errors import DiskError, UsageError
from gpt2kit.generation import Chat, ChatSettings, LanguageModel, load
from gpt2kit.generation.plan import Plan
from gpt2kit.generation.writing import Writing
from gpt2kit.tokens import render_chat

HELLO, GOODBYE = "Good morning, my friend.", "Come back soon."  # what `chat_folder` has learned to answer


@pytest.fixture(scope="module")
def model(chat_folder: Path) -> LanguageModel:
    return load(chat_folder, device="cpu")


def greedy(**values: object) -> ChatSettings:
    return ChatSettings.model_validate({"temperature": 0, "max_new_tokens": 30, "seed": 0} | values)


def said(chat: Chat, text: str) -> str:
    return "".join(chat.reply(text))


def test_turns_are_answered_and_end(model: LanguageModel, answers: dict[str, str]) -> None:
    chat = Chat(model, greedy())
    for question in ("Hello!", "What is your name?", "Goodbye!"):
        assert said(chat, question) == answers[question]
    assert [message.role for message in chat.messages] == ["user", "assistant"] * 3
    assert chat.messages[3] == Message("assistant", "My name is Finch.")


def test_the_model_reads_the_turns_as_it_was_trained_on_them(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpt2kit.generation.chat as module

    read: list[list[int]] = []
    real = module.plan_turn
    monkeypatch.setattr(module, "plan_turn", lambda model, ids, *rest, **named: (
        read.append(list(ids)), real(model, ids, *rest, **named))[1])  # fmt: skip
    chat = Chat(model, greedy(system="Be kind."))
    said(chat, "Hello!")
    said(chat, "Goodbye!")
    expected, _ = render_chat(
        [Message("system", "Be kind."), *chat.messages[:3]], model.tokenizer, add_generation_prompt=True
    )
    assert read[1] == [model.tokenizer.end_of_text, *expected]


def test_seeds_give_the_same_answers_and_retry_another(model: LanguageModel) -> None:
    def talk(seed: int) -> list[str]:
        chat = Chat(model, ChatSettings(temperature=3.0, top_p=1.0, max_new_tokens=20, seed=seed))
        return [said(chat, "Hello!"), "".join(chat.retry()), said(chat, "Hello!")]

    assert talk(0) == talk(0)
    assert talk(0) != talk(1)
    assert len(set(talk(0))) == 3


def test_retry_replaces_the_last_answer(model: LanguageModel) -> None:
    chat = Chat(model, greedy())
    with pytest.raises(UsageError, match="nothing has been asked yet"):
        chat.retry()
    said(chat, "Hello!")
    assert "".join(chat.retry()) == HELLO
    assert [message.role for message in chat.messages] == ["user", "assistant"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["Hello!", "Why? " * 4, "Tell me more of it, please."]), max_size=12), st.booleans())
def test_what_is_read_fits_and_the_oldest_goes_first(model: LanguageModel, asked: list[str], told: bool) -> None:
    chat = Chat(model, greedy(max_new_tokens=16, system="Be kind." if told else None))
    for number, text in enumerate(asked):
        chat.messages += [Message("user", text), Message("assistant", f"Answer {number}.")]
    messages = [*chat.messages, Message("user", "Goodbye!")]
    ids = chat._fitting(messages)
    assert len(ids) + 16 <= 96
    system = [Message("system", "Be kind.")] if told else []
    first = chat.num_forgotten
    assert messages[first].role == "user"
    expected, _ = render_chat([*system, *messages[first:]], model.tokenizer, add_generation_prompt=True)
    assert ids == [model.tokenizer.end_of_text, *expected]
    if first:  # one turn more would not have fitted
        longer, _ = render_chat([*system, *messages[first - 2 :]], model.tokenizer, add_generation_prompt=True)
        assert len(longer) + 1 + 16 > 96


def test_a_message_that_cannot_fit_is_refused_and_nothing_is_lost(model: LanguageModel) -> None:
    chat = Chat(model, greedy())
    said(chat, "Hello!")
    before = list(chat.messages)
    with pytest.raises(
        UsageError, match=r"too long.*the context of 96 leaves room for 66 beside an answer of up to 30"
    ):
        chat.reply("Why? " * 60)
    with pytest.raises(UsageError, match="empty message"):
        chat.reply("  ")
    with pytest.raises(UsageError, match="not valid text"):
        chat.reply("a\udcff")
    assert chat.messages == before
    assert said(chat, "Goodbye!") == GOODBYE


def test_an_answer_given_up_stays_as_far_as_it_was_written(model: LanguageModel) -> None:
    chat = Chat(model, greedy())
    pieces = chat.reply("Hello!")
    shown = next(pieces) + next(pieces)
    pieces.close()
    assert chat.messages == [Message("user", "Hello!"), Message("assistant", shown.strip())]
    assert HELLO.startswith(shown.strip())


def test_reset_forgets(model: LanguageModel) -> None:
    chat = Chat(model, greedy())
    said(chat, "Hello!")
    chat.reset()
    assert chat.messages == []


def test_save_is_read_by_prepare_and_replaces_nothing(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chat = Chat(model, greedy(system="Be kind."))
    with pytest.raises(UsageError, match="nothing to save"):
        chat.save()
    said(chat, "Hello!")
    first, second = chat.save(), chat.save()
    assert [str(first), str(second)] == ["results/chats/chat-001.jsonl", "results/chats/chat-002.jsonl"]
    with pytest.raises(UsageError, match=r"chat-001\.jsonl is there already and is not replaced"):
        chat.save(first)
    data = prepare(
        PrepareSettings(input=first, data_dir="data", from_scratch=True, vocab_size=300, validation_fraction=0)
    )
    (piece,) = data.documents("train")
    assert piece.messages == (Message("system", "Be kind."), *chat.messages)


def test_a_question_whose_answer_was_never_begun_is_replaced(model: LanguageModel) -> None:
    chat = Chat(model, greedy())
    chat.reply("What is your name?").close()
    assert said(chat, "Hello!") == HELLO
    assert [message.content for message in chat.messages] == ["Hello!", HELLO]


def scripted(monkeypatch: pytest.MonkeyPatch, text: str, *, ends_with: type[BaseException] | None = None) -> None:
    """Let the model write this text, character by character, and then be interrupted if `ends_with` says so."""

    def pieces(plan: Plan) -> Generator[tuple[Writing, str]]:
        writing = Writing(plan.jobs[0], plan.model.tokenizer, plan.ending)
        for identifier in (identifier for character in text for identifier in plan.model.tokenizer.encode(character)):
            yield writing, writing.push(identifier, -1.0)
            if writing.finish_reason is not None:
                return
        if ends_with is not None:
            raise ends_with
        yield writing, writing.push(plan.model.tokenizer.end_of_text, -1.0)

    monkeypatch.setattr("gpt2kit.generation.chat.pieces", pieces)


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        (" Yes.\nUser: And you?", "Yes."),
        (" Yes.\nAssistant: No.", "Yes."),
        ("\nUser: Hello!", ""),
        (" The User: of it\n\nis me.  \n", "The User: of it\n\nis me."),
        ("  ", ""),
    ],
)
def test_an_answer_ends_where_another_role_begins(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, written: str, answer: str
) -> None:
    scripted(monkeypatch, written)
    chat = Chat(model, greedy())
    assert said(chat, "Well?") == answer
    assert chat.messages == [Message("user", "Well?"), Message("assistant", answer)]


def test_pieces_joined_are_the_message(model: LanguageModel) -> None:
    chat = Chat(model, ChatSettings(temperature=5, top_p=1, max_new_tokens=20, seed=3))
    for number in range(20):
        assert said(chat, f"Hello {number}") == chat.messages[-1].content
        assert len(chat.messages) == 2 * number + 2


def test_an_interrupted_retry_keeps_the_old_answer_until_there_is_a_new_one(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = Chat(model, greedy())
    said(chat, "Hello!")
    scripted(monkeypatch, " ", ends_with=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        list(chat.retry())
    assert chat.messages == [Message("user", "Hello!"), Message("assistant", HELLO)]
    with pytest.raises(KeyboardInterrupt):
        said(chat, "Goodbye!")
    assert len(chat.messages) == 2
    scripted(monkeypatch, " Half of", ends_with=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        list(chat.retry())
    assert chat.messages == [Message("user", "Hello!"), Message("assistant", "Half of")]


def test_the_next_turn_gives_up_an_answer_that_is_still_being_written(model: LanguageModel) -> None:
    chat = Chat(model, greedy())
    first = chat.reply("Hello!")
    begun = next(first)
    assert said(chat, "Goodbye!")
    assert list(first) == []
    assert [message.content for message in chat.messages[:3]] == ["Hello!", begun.strip(), "Goodbye!"]
    second = chat.reply("Hello!")
    next(second)
    chat.reset()
    second.close()
    assert chat.messages == []


def test_what_the_model_is_told_is_checked_and_stays(model: LanguageModel) -> None:
    with pytest.raises(UsageError, match=r"the system message is not valid text \(character 2\)"):
        Chat(model, greedy(system="a\udcff"))
    chat = Chat(model, greedy(system="  "))
    assert chat.system is None
    chat.system = "Be kind. " * 30
    with pytest.raises(UsageError, match=r"too long: it ends at token .* behind the system message"):
        chat.reply("Hello!")
    chat.system = "Be kind."
    said(chat, "Hello!")
    chat.reset()
    assert chat.transcript == [Message("system", "Be kind.")]


def test_half_of_the_context_at_least_is_read(model: LanguageModel) -> None:
    chat = Chat(model, greedy(max_new_tokens=1000))
    assert said(chat, "Hello!") == HELLO
    with pytest.raises(UsageError, match="leaves room for 48 beside an answer of up to 48"):
        chat.reply("Why? " * 20)


def test_a_long_conversation_costs_no_more_than_a_short_one(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 turns took minutes once: every turn tried all beginnings of the conversation again."""
    chat = Chat(model, greedy())
    chat.messages = [Message("user", "Hello!"), Message("assistant", HELLO)] * 1000
    lengths: list[int] = []

    def counted(messages: list[Message], *rest: object, **named: object) -> object:
        lengths.append(len(messages))
        return render_chat(messages, *rest, **named)

    monkeypatch.setattr("gpt2kit.generation.chat.render_chat", counted)
    said(chat, "Goodbye!")
    assert chat.num_forgotten > 1900
    assert len(lengths) <= 10
    assert max(lengths) <= 96


def test_files_that_a_chat_cannot_be_saved_to(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = Chat(model, greedy())
    said(chat, "Hello!")
    (tmp_path / "file").write_text("mine")
    for name, message in {
        "talk.txt": r"a chat is kept as \.jsonl, not as \.txt",
        "file/talk.jsonl": "lies in a file",
        "1" * 300: "cannot be written: File name too long",
    }.items():
        with pytest.raises(UsageError, match=message):
            chat.save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert chat.save(tmp_path / "new" / "talk") == tmp_path / "new" / "talk.jsonl"

    def full(path: Path, data: str) -> None:
        raise DiskError(f"no space to write {path}")

    monkeypatch.setattr("gpt2kit.generation.chat.write_json_lines", full)
    with pytest.raises(DiskError, match="no space"):
        chat.save(tmp_path / "other.jsonl")
    assert not (tmp_path / "other.jsonl").exists()
