"""Files are whole or not there, and what is in the way is explained."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.errors import DataError, DiskError, UsageError
from gpt2kit.files import (
    explained_disk_errors,
    free_bytes,
    json_line,
    numbered_report,
    read_json,
    read_json_lines,
    sha256_file,
    sha256_json,
    to_json,
    write_atomically,
    write_json_lines,
)


def test_a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "er" / "note.txt"
    write_atomically(target, "first")
    write_atomically(target, b"sec\xffond")
    assert target.read_bytes() == b"sec\xffond"
    assert [path.name for path in target.parent.iterdir()] == ["note.txt"]


# A file-size limit stands for a full disk: the kernel refuses the write with EFBIG, as it does with ENOSPC.
_WRITE_WITH_LIMIT = """
import resource, signal, sys
from pathlib import Path
from gpt2kit.errors import DiskError
from gpt2kit.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_atomically(Path(sys.argv[1]), b"x" * 1_000_000)
except DiskError as error:
    sys.exit(str(error))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_leaves_the_old_file_intact_and_says_so(tmp_path: Path) -> None:
    target = tmp_path / "weights.bin"
    target.write_bytes(b"old and precious")
    done = subprocess.run(
        [sys.executable, "-c", _WRITE_WITH_LIMIT, str(target)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"no space to write {target} (File too large; ")
    assert "what was there before is intact" in done.stderr
    assert target.read_bytes() == b"old and precious"
    assert [path.name for path in tmp_path.iterdir()] == ["weights.bin"]


_WRITE_FOR_EVER = """
import itertools, sys
from pathlib import Path
from gpt2kit.files import write_atomically
for number in itertools.count():
    write_atomically(Path(sys.argv[1]), str(number % 10) * 3_000_000)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_kill_while_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "state.txt"
    for delay in (0.0, 0.013, 0.031):
        writer = subprocess.Popen([sys.executable, "-c", _WRITE_FOR_EVER, str(target)])
        deadline = time.monotonic() + 30
        while not target.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        content = target.read_text()
        assert len(content) == 3_000_000
        assert len(set(content)) == 1


def test_a_folder_that_may_not_be_written_is_explained() -> None:
    error = PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(DiskError, match=r"^not allowed to write out/a \(Permission denied\); choose a folder"):  # noqa: SIM117
        with explained_disk_errors(Path("out/a")):
            raise error


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_a_report_folder_that_is_a_file_is_named_by_its_setting(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError) as caught, numbered_report(tmp_path / place, "tasks"):
        pass
    assert str(caught.value) == f"--output_dir {tmp_path / place}: is a file, or lies in one; name a folder"
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (errno.ENOENT, "--output_dir out: cannot be written: No such file or directory; name another folder"),
        (errno.ENAMETOOLONG, "--output_dir out: cannot be written: File name too long; name another folder"),
        (errno.EACCES, "--output_dir: not allowed to write out (Permission denied); choose a folder you may write to"),
    ],
)
def test_a_report_folder_that_cannot_be_written_is_named_by_its_setting(
    monkeypatch: pytest.MonkeyPatch, kind: int, message: str
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise OSError(kind, os.strerror(kind))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(DiskError) as caught, numbered_report(Path("out"), "tasks"):
        pass
    assert str(caught.value) == message


def test_other_errors_are_not_called_disk_errors(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), explained_disk_errors(tmp_path):
        tmp_path.read_bytes()


def test_free_space_is_found_for_a_path_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "yet") == pytest.approx(free_bytes(tmp_path), rel=0.05)


def test_hashes_do_not_depend_on_key_order(tmp_path: Path) -> None:
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 2})
    file = tmp_path / "abc"
    file.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert sha256_file(file) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (None, UsageError, "is not there; it should hold the recipe"),
        (b"\xff\xff", DataError, "should hold the recipe, and is not a JSON text file"),
        (b'{\n"a": 1,\n]', DataError, ":3: should hold the recipe, and is not valid JSON"),
        (b"[1, 2]", DataError, "should hold the recipe as a JSON object, and holds a list"),
        (b"", DataError, ":1: should hold the recipe, and is not valid JSON"),
    ],
)
def test_a_json_file_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes | None, kind: type[Exception], message: str
) -> None:
    file = tmp_path / "recipe.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(kind) as caught:
        read_json(file, what="the recipe")
    assert str(caught.value).startswith(str(file))
    assert message in str(caught.value)


def test_json_has_no_infinity() -> None:
    values = {
        "value": float("inf"),
        "interval": (1.0, float("-inf")),
        "lists": [[float("nan")], {"deep": float("inf")}],
    }
    plain = {"value": None, "interval": [1.0, None], "lists": [[None], {"deep": None}]}
    assert json.loads(to_json(values), parse_constant=pytest.fail) == plain
    assert json.loads(json_line(values), parse_constant=pytest.fail) == plain
    assert sha256_json(values) == sha256_json(plain)  # what is read back has the hash of what was written


def test_json_is_written_for_people(tmp_path: Path) -> None:
    text = to_json({"path": tmp_path, "word": "Märchen"})
    assert text.endswith("}\n")
    assert "Märchen" in text
    assert json.loads(text)["path"] == str(tmp_path)


def test_a_line_cut_off_by_a_kill_ends_the_file_but_a_broken_one_before_it_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert [row["step"] for row in read_json_lines(file)] == [1, 2]
    file.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: not valid JSON"):
        list(read_json_lines(file))
    assert list(read_json_lines(tmp_path / "none.jsonl")) == []


@given(st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.booleans())))
def test_json_lines_come_back_as_they_went(tmp_path_factory: pytest.TempPathFactory, rows: list[dict]) -> None:
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_json_lines(file, rows)
    assert list(read_json_lines(file)) == rows
