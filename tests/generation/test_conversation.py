"""Talking with a model: turns that end, a history that fits, files that are never replaced, a real terminal."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2kit import PrepareSettings, TrainSettings, prepare, train
from gpt2kit.corpus import Message
from gpt2kit.errors import UsageError
from gpt2kit.generation import Chat, ChatSettings, LanguageModel, load
from gpt2kit.tokens import render_chat

ANSWERS = {
    "Hello!": "Good morning, my friend.",
    "What is your name?": "My name is Finch.",
    "Goodbye!": "Come back soon.",
}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned three answers by heart."""
    folder = tmp_path_factory.mktemp("chat")
    (folder / "raw").mkdir()
    names = list(ANSWERS)
    lines = []
    for number in range(48):
        asked = [names[(number + shift * (1 + number % 2)) % 3] for shift in range(1 + number % 4)]
        messages = [
            message
            for question in asked
            for message in (
                {"role": "user", "content": question},
                {"role": "assistant", "content": ANSWERS[question]},
            )
        ]
        lines.append(json.dumps({"id": number, "messages": messages}) + "\n")
    (folder / "raw" / "chats.jsonl").write_text("".join(lines))
    data = prepare(PrepareSettings(input=folder / "raw", data_dir=folder / "data", from_scratch=True, vocab_size=320))
    result = train(
        TrainSettings(
            data_dir=data.folder,
            model_output_dir=folder / "model",
            n_layer=2,
            n_head=2,
            n_embd=64,
            context=96,
            max_steps=150,
            learning_rate=5e-3,
            eval_every=50,
            patience=0,
            sample_tokens=0,
            tensorboard=False,
        )
    )
    return result.model_dir


@pytest.fixture(scope="module")
def model(model_dir: Path) -> LanguageModel:
    return load(model_dir, device="cpu")


def greedy(**values: object) -> ChatSettings:
    return ChatSettings.model_validate({"temperature": 0, "max_new_tokens": 30, "seed": 0} | values)


def said(chat: Chat, text: str) -> str:
    return "".join(chat.reply(text))


def test_turns_are_answered_and_end(model: LanguageModel) -> None:
    chat = Chat(model, greedy())
    for question in ("Hello!", "What is your name?", "Goodbye!"):
        assert said(chat, question) == ANSWERS[question]
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
    assert "".join(chat.retry()) == ANSWERS["Hello!"]
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
    assert said(chat, "Goodbye!") == ANSWERS["Goodbye!"]


def test_an_answer_given_up_stays_as_far_as_it_was_written(model: LanguageModel) -> None:
    chat = Chat(model, greedy())
    pieces = chat.reply("Hello!")
    shown = next(pieces) + next(pieces)
    pieces.close()
    assert chat.messages == [Message("user", "Hello!"), Message("assistant", shown.strip())]
    assert ANSWERS["Hello!"].startswith(shown.strip())


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


# ---- the command ----------------------------------------------------------------------------------------------------


def gpt2kit(*words: object, said: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gpt2kit", *map(str, words)],
        input=said,
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_through_a_pipe_each_line_is_a_turn(model_dir: Path, tmp_path: Path) -> None:
    lines = "Hello!\n\n/nonsense\n/reset\nWhat is your name?\n/save talk.jsonl\n/save talk.jsonl\n/quit\nGoodbye!\n"
    done = gpt2kit("chat", model_dir, "--temperature", "0", "--save", "end.jsonl", said=lines, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Good morning, my friend.\nMy name is Finch.\n"
    assert "no command /nonsense; there are /retry, /reset" in done.stderr
    assert "talk.jsonl is there already and is not replaced" in done.stderr
    messages = [
        {"role": "user", "content": "What is your name?"},
        {"role": "assistant", "content": "My name is Finch."},
    ]
    for name in ("talk.jsonl", "end.jsonl"):
        assert json.loads((tmp_path / name).read_text()) == {"messages": messages}


def test_a_line_that_is_no_text_is_refused_and_the_chat_goes_on(model_dir: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gpt2kit", "chat", str(model_dir), "--temperature", "0"]
    done = subprocess.run(command, input=b"caf\xe9\nHello!\n", cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0
    assert done.stdout == b"Good morning, my friend.\n"
    assert b"warning: the message is not valid text (character 4); give it as UTF-8" in done.stderr


def test_json_holds_the_conversation(model_dir: Path, tmp_path: Path) -> None:
    done = gpt2kit("chat", model_dir, "--temperature", "0", "--json", said="Hello!\n", cwd=tmp_path)
    assert json.loads(done.stdout)["messages"][1]["content"] == ANSWERS["Hello!"]
    done = gpt2kit("chat", model_dir, "--temperature", "0", "--no_stream", said="Hello!\nGoodbye!\n", cwd=tmp_path)
    assert done.stdout == "Good morning, my friend.\nCome back soon.\n"


def test_a_file_to_save_to_that_is_there_is_refused_at_once(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("mine")
    done = gpt2kit("chat", model_dir, "--save", "mine.jsonl", said="Hello!\n", cwd=tmp_path)
    assert done.returncode == 2
    assert "--save mine.jsonl: is there already" in done.stderr
    assert (tmp_path / "mine.jsonl").read_text() == "mine"


@contextlib.contextmanager
def terminal(*words: object, cwd: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command in a terminal of its own, with Ctrl-C as a signal to it."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2kit", *map(str, words)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=cwd,
        start_new_session=True,
        env=os.environ | {"TERM": "dumb"},
    )
    os.close(follower)
    try:
        yield process, leader
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def read_until(leader: int, words: str, *, seconds: float = 60) -> str:
    """What the terminal shows until it shows these words."""
    shown = ""
    end = time.monotonic() + seconds
    while words not in shown:
        assert time.monotonic() < end, f"waited for {words!r}, and saw {shown!r}"
        if select.select([leader], [], [], 0.2)[0]:
            shown += os.read(leader, 4096).decode()
    return shown


def test_in_a_terminal_it_prompts_answers_and_leaves_by_ctrl_d(model_dir: Path, tmp_path: Path) -> None:
    with terminal("chat", model_dir, "--temperature", "0", cwd=tmp_path) as (process, leader):
        read_until(leader, "You: ")
        os.write(leader, b"Hello!\n")
        assert "Model: Good morning, my friend." in read_until(leader, "You: ")
        os.write(leader, b"\x04")
        assert process.wait(timeout=30) == 0


def test_ctrl_c_stops_an_answer_and_at_the_prompt_the_chat(model_dir: Path, tmp_path: Path) -> None:
    words = ("chat", model_dir, "--temperature", "90", "--top_p", "1", "--max_new_tokens", "60", "--seed", "1")
    with terminal(*words, "--save", "talk.jsonl", cwd=tmp_path) as (process, leader):
        read_until(leader, "You: ")
        os.write(leader, b"Hello!\n")
        read_until(leader, "You: ")
        os.write(leader, b"Goodbye!\n")
        read_until(leader, "Model: ")  # shown before the first of up to 48 tokens is written
        process.send_signal(signal.SIGINT)
        assert " ..." in read_until(leader, "You: ")
        time.sleep(0.5)  # until it waits for a key: Python sees a signal just before that only after the next one
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
    assert json.loads((tmp_path / "talk.jsonl").read_text())["messages"]


def test_a_question_whose_answer_was_never_begun_is_replaced(model: LanguageModel) -> None:
    chat = Chat(model, greedy())
    chat.reply("What is your name?").close()
    assert said(chat, "Hello!") == ANSWERS["Hello!"]
    assert [message.content for message in chat.messages] == ["Hello!", ANSWERS["Hello!"]]
