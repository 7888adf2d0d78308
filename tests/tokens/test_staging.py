"""Replacing a folder as a whole, with a kill at every moment."""

import subprocess
import sys
from pathlib import Path

import pytest

from gpt2kit.errors import UsageError
from gpt2kit.tokens.staging import locked, recover, replacing, was_interrupted

WHOLE = "whole.txt"
# For each n, replaces the folder n/data and ends, as a kill would, before the n-th call that changes names on the disk;
# prints the exit codes. One process that forks, since starting thirty would take long.
KILLED = """
import os, pathlib, sys
from gpt2kit.tokens import staging

def counted(function):
    def call(*args, **kwargs):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return function(*args, **kwargs)
    return call

def replace_and_end():
    for name in ("rename", "unlink", "mkdir", "rmdir"):
        setattr(os, name, counted(getattr(os, name)))
    pathlib.Path.touch = counted(pathlib.Path.touch)
    with staging.replacing(folder, whole="whole.txt") as partial:
        (partial / "part").write_text("new")
        (partial / "whole.txt").write_text("new")
    os._exit(0)

for moment in range(int(sys.argv[2])):
    folder, left = pathlib.Path(sys.argv[1]) / str(moment) / "data", moment
    child = os.fork()
    if child == 0:
        replace_and_end()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
MOMENTS = 30


def old_folder(parent: Path) -> Path:
    folder = parent / "data"
    folder.mkdir(parents=True)
    for name in ("part", WHOLE):
        (folder / name).write_text("old")
    (folder / ".gitkeep").touch()
    (folder / "notes.txt").write_text("the user's")
    return folder


def test_replaces_and_keeps_what_is_not_ours(tmp_path: Path) -> None:
    folder = old_folder(tmp_path)
    with replacing(folder, whole=WHOLE) as partial:
        assert partial.parent == tmp_path
        (partial / "part").write_text("new")
        (partial / WHOLE).write_text("new")
        assert (folder / "part").read_text() == "old"
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "part": "new",
        WHOLE: "new",
        ".gitkeep": "",
        "notes.txt": "the user's",
    }
    assert list(tmp_path.iterdir()) == [folder]


def test_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    folder = old_folder(tmp_path)
    with pytest.raises(IsADirectoryError), replacing(folder, whole=WHOLE) as partial:
        partial.write_text("fails")
    assert (folder / "part").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("old", [True, False])
def test_a_kill_at_any_moment_leaves_the_old_one_or_the_new(tmp_path: Path, old: bool) -> None:
    folders = []
    for moment in range(MOMENTS):
        parent = tmp_path / str(moment)
        folders.append(old_folder(parent) if old else parent / "data")
        if not old:
            folders[-1].mkdir(parents=True)
            (folders[-1] / ".gitkeep").touch()
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(MOMENTS)]
    codes = [int(code) for code in subprocess.check_output(command, text=True).split()]
    num_kills = codes.count(9)
    assert 10 <= num_kills < MOMENTS, "the kills must have covered the whole way"
    assert codes == [9] * num_kills + [0] * (MOMENTS - num_kills)
    seen = set()
    for folder in folders[:num_kills]:
        recover(folder, whole=WHOLE)
        names = {path.name for path in folder.iterdir()}
        content = (folder / WHOLE).read_text() if WHOLE in names else "none"
        seen.add(content)
        assert content == "none" or (folder / "part").read_text() == content
        ours = {"part", WHOLE} if content != "none" else set()
        assert names == ours | {".gitkeep"} | ({"notes.txt"} if old else set())
        assert list(folder.parent.iterdir()) == [folder], "nothing is left beside it"
        with replacing(folder, whole=WHOLE) as partial:
            (partial / WHOLE).write_text("again")
        assert (folder / WHOLE).read_text() == "again"
    assert seen == {"old" if old else "none", "new"}


def test_a_missing_folder_is_seen_as_interrupted(tmp_path: Path) -> None:
    folder = old_folder(tmp_path)
    assert not was_interrupted(folder)
    folder.rename(tmp_path / "data.previous")
    assert was_interrupted(folder)
    recover(folder, whole=WHOLE)
    assert (folder / "part").read_text() == "old"


@pytest.mark.parametrize("suffix", [".partial", ".previous"])
def test_other_folders_of_these_names_are_not_touched(tmp_path: Path, suffix: str) -> None:
    other = tmp_path / f"data{suffix}"
    other.mkdir()
    (other / "mine").write_text("x")
    with (
        pytest.raises(UsageError, match=r"is in the way and was not made by gpt2kit; move it elsewhere"),
        replacing(tmp_path / "data", whole=WHOLE),
    ):
        pass
    assert (other / "mine").read_text() == "x"


def test_behind_a_link_the_folder_itself_is_replaced(tmp_path: Path) -> None:
    folder = old_folder(tmp_path / "elsewhere")
    link = tmp_path / "link"
    link.symlink_to(folder)
    with replacing(link, whole=WHOLE) as partial:
        (partial / WHOLE).write_text("new")
    assert link.is_symlink()
    assert (folder / WHOLE).read_text() == "new"


def test_one_at_a_time(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\nfrom gpt2kit.tokens.staging import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "data")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=r"another gpt2kit is writing to it"), locked(tmp_path / "data"):
            pass
        other.communicate("")
    with locked(tmp_path / "data"):
        pass
