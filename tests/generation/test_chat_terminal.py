"""`gpt2kit chat` as a user meets it: through a pipe, and in a real terminal."""

import contextlib
import fcntl
import io
import json
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpt2kit.cli import main

Talk = Callable[..., tuple[int, str, str]]


# ---- through a pipe -------------------------------------------------------------------------------------------------


@pytest.fixture
def talk(
    chat_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Talk:
    """`talk(text, *flags)`: pipe text through the command, in this process; exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(said: str | bytes, *flags: str) -> tuple[int, str, str]:
        given = said.encode() if isinstance(said, str) else said
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given), encoding="utf-8"))
        code = main(["chat", str(chat_folder), "--device", "cpu", "--temperature", "0", *flags])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def test_a_line_that_is_no_text_is_refused_and_the_chat_goes_on(talk: Talk) -> None:
    code, out, err = talk(b"caf\xe9\nHello!\n")
    assert (code, out) == (0, "Good morning, my friend.\n")
    assert err == "warning: the message is not valid text (character 4); give it as UTF-8\n"


def test_json_holds_the_conversation(talk: Talk) -> None:
    _, out, _ = talk("Hello!\n", "--json", "--seed", "5", "--system", "Be kind.")
    shown = json.loads(out)
    assert [message["role"] for message in shown["messages"]] == ["system", "user", "assistant"]
    assert (shown["seed"], shown["saved"]) == (5, None)


def test_without_streaming_all_answers_come_at_the_end_also_forgotten_ones(talk: Talk) -> None:
    assert talk("Hello!\n/reset\nGoodbye!\n", "--no_stream")[1] == "Good morning, my friend.\nCome back soon.\n"


def test_a_file_to_save_to_that_cannot_be_is_refused_at_once(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_text("mine")
    code, out, err = talk("Hello!\n", "--save", "mine")
    assert (code, out) == (2, "")
    assert err == "gpt2kit: error: --save mine.jsonl: is there already and is not replaced; name a new file\n"
    assert (tmp_path / "mine.jsonl").read_text() == "mine"
    code, _, err = talk("Hello!\n", "--save", "talk.txt")
    assert code == 2
    assert err == "gpt2kit: error: --save 'talk.txt': a chat is kept as .jsonl, not as .txt: name such a file\n"
    code, out, err = talk("Hello!\n", "--save", "mine.jsonl/talk.jsonl")
    assert (code, out) == (2, "")  # nothing is said that would be lost at the end
    assert err == "gpt2kit: error: mine.jsonl/talk.jsonl lies in a file: name a folder for it that can be one\n"
    assert talk("", "--save", "new/talk.jsonl")[0] == 0
    assert not (tmp_path / "new" / "talk.jsonl").exists()


def test_no_message_or_command_ends_the_chat(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    homes = ("/save ~", "/save ~nobody-of-that-name/x")
    refused = {
        "/retry": "nothing has been asked yet",
        "/save": "nothing has been said yet",
        "Why? " * 60: "the message is too long",
        "/reste": "no command /reste; there are /retry, /reset, /system, /save, /help and /quit",
        "/": "no command /;",
    }
    code, out, err = talk("\n".join([*refused, "", "Hello!", "/save file/x.jsonl", *homes, "/save talk", "/exit"]))
    assert (code, out) == (0, "Good morning, my friend.\n")
    *warnings, saved = err.splitlines()
    unsaved = ("file/x.jsonl lies in a file", "~ is a folder", "~nobody-of-that-name/x: whose home folder that is")
    for line, words in zip(warnings, [*refused.values(), *unsaved], strict=True):
        assert line.startswith(f"warning: {words}")
    assert saved == "saved: talk.jsonl"
    assert json.loads((tmp_path / "talk.jsonl").read_text())["messages"][0] == {"role": "user", "content": "Hello!"}


def test_forgetting_is_said_once_and_again_after_a_reset(talk: Talk) -> None:
    lines = "Hello!\n" * 8
    _, out, err = talk(f"{lines}/reset\nHello!\n/help\n{lines}")
    assert out.count("\n") == 17
    before, after = err.split("(forgotten)")
    assert before.count("no longer reads its beginning") == 1
    assert "no longer" not in after.split("/retry")[0]
    assert after.count("no longer reads its beginning") == 1


def test_system_is_read_by_the_model_and_saved(talk: Talk, tmp_path: Path) -> None:
    talk("/system Be kind.\nHello!\n/reset\nGoodbye!\n", "--save", "talk.jsonl")
    first, *turns = json.loads((tmp_path / "talk.jsonl").read_text())["messages"]
    assert first == {"role": "system", "content": "Be kind."}
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    assert turns[0]["content"] == "Goodbye!"
    code, _, err = talk("Hello!\n", "--system", "a\udcff")
    assert (code, err.count("\n")) == (2, 1)
    assert "the system message is not valid text (character 2)" in err


def test_settings_without_effect_are_named(talk: Talk) -> None:
    assert "warning: --top_p has no effect with --temperature 0" in talk("", "--top_p", "0.5")[2]
    assert talk("")[2] == ""


def test_a_closed_stdin_is_refused(
    chat_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["chat", str(chat_folder)]) == 2
    assert capsys.readouterr().err == "gpt2kit: error: stdin is closed, so nobody can talk with the model\n"


def test_help_needs_no_torch() -> None:
    code = "import sys; from gpt2kit.cli import main; main(['chat', '--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


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


def test_through_a_pipe_each_line_is_a_turn(chat_folder: Path, tmp_path: Path) -> None:
    lines = "Hello!\n\n/nonsense\n/reset\nWhat is your name?\n/save talk.jsonl\n/save talk.jsonl\n/quit\nGoodbye!\n"
    done = gpt2kit("chat", chat_folder, "--temperature", "0", "--save", "end.jsonl", said=lines, cwd=tmp_path)
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


def test_a_program_can_wait_for_each_answer(chat_folder: Path) -> None:
    command = [sys.executable, "-m", "gpt2kit", "chat", str(chat_folder), "--temperature", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for asked, answer in {"Hello!": "Good morning, my friend.", "Goodbye!": "Come back soon."}.items():
            process.stdin.write(asked + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == answer + "\n"
        process.stdin.close()
        assert process.wait(timeout=30) == 0


# ---- in a terminal --------------------------------------------------------------------------------------------------


# The command, with answers slow enough to be stopped.
_SLOWLY = """
import sys, time
import gpt2kit.generation.chat as chat
from gpt2kit.cli import main

real = chat.pieces

def slowly(plan):
    for written in real(plan):
        time.sleep(0.3)
        yield written

chat.pieces = slowly
sys.exit(main(sys.argv[1:]))
"""


@contextlib.contextmanager
def terminal(
    *words: object, cwd: Path, stdout: int | None = None, slowly: bool = False
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The command in a terminal of its own, whose keys Ctrl-C and Ctrl-D mean what they do in any."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *(("-c", _SLOWLY) if slowly else ("-m", "gpt2kit")), *map(str, words)],
        stdin=follower,
        stdout=follower if stdout is None else stdout,
        stderr=follower,
        cwd=cwd,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        env=os.environ | {"TERM": "dumb"},
    )
    os.close(follower)
    try:
        yield process, leader
    finally:
        process.kill()
        process.communicate()
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


def test_in_a_terminal_it_prompts_remembers_lines_and_leaves_by_ctrl_d(chat_folder: Path, tmp_path: Path) -> None:
    with terminal("chat", chat_folder, "--temperature", "0", "--seed", "7", cwd=tmp_path) as (process, leader):
        assert "The seed is 7." in read_until(leader, "You: ")
        os.write(leader, b"Hello!\n")
        assert "Model: Good morning, my friend." in read_until(leader, "You: ")
        os.write(leader, b"/reset\n")
        read_until(leader, "You: ")
        os.write(leader, b"\x10\x10\n")  # Ctrl-P: the line before the one before
        assert "Model: Good morning, my friend." in read_until(leader, "You: ")
        os.write(leader, b"\x04")
        assert process.wait(timeout=30) == 0


def test_ctrl_c_stops_an_answer_and_at_the_prompt_the_chat(chat_folder: Path, tmp_path: Path) -> None:
    words = ("chat", chat_folder, "--temperature", "0", "--save", "talk.jsonl")
    with terminal(*words, cwd=tmp_path, slowly=True) as (process, leader):
        read_until(leader, "You: ")
        os.write(leader, b"Hello!\n")
        read_until(leader, "Model: Go")
        os.write(leader, b"\x03")
        assert " ..." in read_until(leader, "You: ")
        time.sleep(0.5)  # until it waits for a key: Python sees a signal just before that only after the next one
        os.write(leader, b"\x03")
        shown = read_until(leader, "gpt2kit: interrupted")
        assert "saved: talk.jsonl" in shown
        assert "Traceback" not in shown
        assert process.wait(timeout=30) == 130
    asked, answer = json.loads((tmp_path / "talk.jsonl").read_text())["messages"]
    assert asked == {"role": "user", "content": "Hello!"}
    assert answer["content"].startswith("Go")
    assert answer["content"] != "Good morning, my friend."
    assert "Good morning, my friend.".startswith(answer["content"])


def test_only_answers_go_to_a_file_when_lines_are_typed(chat_folder: Path, tmp_path: Path) -> None:
    with (
        (tmp_path / "answers.txt").open("wb") as file,
        terminal("chat", chat_folder, "--temperature", "0", cwd=tmp_path, stdout=file.fileno()) as (process, leader),
    ):
        read_until(leader, "You: ")
        os.write(leader, b"Hello!\n")
        read_until(leader, "You: ")
        os.write(leader, b"\x04")
        assert process.wait(timeout=30) == 0
    assert (tmp_path / "answers.txt").read_text() == "Good morning, my friend.\n"
