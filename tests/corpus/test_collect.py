"""The whole stage: from a folder to splits, with everything accounted for."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt2kit.corpus import collect_documents, read_pieces
from gpt2kit.errors import DataError, DiskError, UsageError

from .conftest import Collect


def tales(count: int) -> dict[str, str]:
    draw = random.Random(0)
    words = ("king", "fox", "miller", "saw", "the", "old", "river", "sang")
    return {
        f"{number:03}.txt": f"{number}: " + " ".join(draw.choice(words) for _ in range(draw.randint(20, 60))) + "\n"
        for number in range(count)
    }


def test_documents_are_split_whole_when_there_are_enough(collect: Collect) -> None:
    collected = collect(tales(100), validation_fraction=0.1, test_fraction=0.2, section_chars=100)
    report = collected.report
    assert report.split_unit == "document"
    numbers = [{piece.document for piece in pieces} for pieces in collected.pieces.values()]
    assert sum(map(len, numbers)) == len(set.union(*numbers)) == report.num_documents == 100
    total = sum(report.characters.values())
    assert report.characters["validation"] == pytest.approx(0.1 * total, rel=0.1)
    assert report.characters["test"] == pytest.approx(0.2 * total, rel=0.1)
    for pieces in collected.pieces.values():
        for piece in pieces:
            assert piece.continues == (piece.section > 0)
    assert {source: text for (source, _), text in collected.texts().items()} == tales(100)


def test_the_split_does_not_depend_on_names_or_order_and_does_on_the_seed(collect: Collect) -> None:
    files = tales(60)
    plain = collect(files, validation_fraction=0.2)
    renamed = collect({f"{hash(name)}.txt": text for name, text in files.items()}, validation_fraction=0.2)
    jsonl = collect({"a.jsonl": "\n".join(map(json.dumps, files.values()))}, validation_fraction=0.2)
    other = collect(files, validation_fraction=0.2, seed=1)

    def held_out(collected) -> set[str]:
        return {piece.text for piece in collected.pieces["validation"]}

    assert held_out(plain) == held_out(renamed) == held_out(jsonl) != held_out(other)


def test_a_long_text_is_split_by_sections(collect: Collect) -> None:
    text = "\n\n".join(tales(300).values())
    collected = collect({"a.txt": text}, validation_fraction=0.1, test_fraction=0.1, section_chars=500)
    report = collected.report
    assert report.split_unit == "section"
    assert all(0.05 < report.characters[split] / len(text) < 0.15 for split in ("validation", "test"))
    assert collected.texts() == {("a.txt", ""): text}
    for pieces in collected.pieces.values():
        for before, piece in zip([None, *pieces], pieces, strict=False):
            follows = before is not None and piece.section == before.section + 1
            assert piece.continues == follows
    assert any(piece.continues for piece in collected.pieces["train"])
    assert "split by sections of about 500 characters" in report.summary_lines()[-1]


def test_a_short_text_is_cut_shorter_so_that_every_split_gets_some(collect: Collect) -> None:
    text = "\n".join(tales(20).values())
    collected = collect({"a.txt": text}, validation_fraction=0.1, test_fraction=0.1)
    assert all(collected.pieces.values())
    assert collected.report.section_chars == 200
    assert collected.texts() == {("a.txt", ""): text}


def test_too_little_text_for_a_split_is_said(collect: Collect, capsys: pytest.CaptureFixture[str]) -> None:
    collected = collect({"a.txt": "The end."}, validation_fraction=0.1)
    assert [len(collected.pieces[split]) for split in ("train", "validation", "test")] == [1, 0, 0]
    assert "too little text for a validation split" in capsys.readouterr().err


def test_a_giant_among_small_ones_is_split_by_sections(collect: Collect) -> None:
    files = tales(30) | {"giant.txt": "\n\n".join(text + name for name, text in tales(900).items())}
    collected = collect(files, validation_fraction=0.1, section_chars=1000)
    assert collected.report.split_unit == "section"
    total = sum(collected.report.characters.values())
    assert collected.report.characters["validation"] == pytest.approx(0.1 * total, rel=0.2)


def test_without_held_out_text_all_is_for_training(collect: Collect) -> None:
    collected = collect({"a.txt": "one " * 900}, validation_fraction=0, test_fraction=0, section_chars=100)
    assert collected.report.split_unit == "document"
    assert not collected.pieces["validation"]
    assert not collected.pieces["test"]


def test_exact_duplicates_are_dropped_and_counted(collect: Collect) -> None:
    files = {
        "a.txt": "The same tale.\r\nTwice.\r\n",
        "b.txt": "The same tale.\nTwice.",
        "c.txt": "Another tale.",
        "d.jsonl": '{"text": "Another tale."}\n{"prompt": "Another", "completion": "tale."}\n',
        "e.txt": "Cafe\u0301",
        "f.txt": "Café",
    }
    collected = collect(files, validation_fraction=0)
    assert [piece.source for piece in collected.in_order()] == ["a.txt", "c.txt", "d.jsonl", "e.txt"]
    assert [piece.document for piece in collected.in_order()] == [0, 1, 2, 3]
    assert collected.report.duplicates == 3
    assert "3 exact duplicates dropped" in collected.report.summary_lines()


def test_identical_sections_are_in_one_split(collect: Collect) -> None:
    refrain = "The refrain is always the same, over and over again. " * 4
    text = "\n\n".join(part for number in range(60) for part in (refrain.strip(), f"Verse {number}. " * 14))
    collected = collect({"a.txt": text}, validation_fraction=0.2, section_chars=220)
    where = {
        split for split, pieces in collected.pieces.items() for piece in pieces if piece.text.strip() == refrain.strip()
    }
    assert len(where) == 1


def test_special_tokens_in_the_text_stay_text(collect: Collect) -> None:
    text = "before <|endoftext|> after <|im_start|>"
    assert collect({"a.txt": text}, validation_fraction=0).in_order()[0].text == text


def test_what_is_left_out_is_counted_and_said(collect: Collect, capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "a.txt": "text",
        "b.png": b"\x89PNG",
        "c.xhtml": "<p>",
        "d.txt": "",
        "e.txt": " \n\t",
        "f": b"\xff\xfe\x00",
    }
    files |= {".hidden.txt": "x", ".git/config.txt": "x"}
    report = collect(files, validation_fraction=0).report
    assert {reason: [Path(name).name for name in names] for reason, names in report.skipped_files.items()} == {
        ".png is no text format that is read": ["b.png"],
        ".xhtml is markup, which is not read": ["c.xhtml"],
        "empty, or white space only": ["d.txt", "e.txt"],
        "no extension, and not text": ["f"],
    }
    said = capsys.readouterr().err
    for name in ("b.png", "c.xhtml", "d.txt", "e.txt", "/f"):
        assert name in said
    assert report.files_read == 1


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"a.png": b"x"}, r"holds no text \(1 x \.png is no text format"),
        ({"a.txt": ""}, r"holds no text \(1 x empty"),
        ({"a.txt": "  \n "}, r"holds no text \(1 x empty"),
        ({"a.jsonl": '{"text": ""}\n'}, r"holds no text \(1 rows x no text in it"),
    ],
)
def test_a_folder_without_text_is_an_error(collect: Collect, raw: dict[str, str | bytes], said: str) -> None:
    with pytest.raises(DataError, match=said):
        collect(raw)


def test_an_empty_folder_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(DataError, match="holds no text; put text files into it"):
        collect_documents(tmp_path / "raw", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"validation_fraction": 1.0}, "--validation_fraction 1.0"),
        ({"test_fraction": -0.1}, "--test_fraction -0.1"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"section_chars": 0}, "--section_chars 0"),
        ({"encoding": "nonsense"}, "--encoding nonsense"),
    ],
)
def test_wrong_settings_are_usage_errors(collect: Collect, settings: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        collect({"a.txt": "text"}, **settings)


def test_a_path_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        collect_documents(tmp_path / "nowhere", tmp_path / "out")


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "raw.txt").write_text("text", encoding="utf-8")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "test.jsonl").write_text("precious", encoding="utf-8")
    with pytest.raises(UsageError, match="is there already"):
        collect_documents(tmp_path / "raw.txt", tmp_path / "out")
    assert (tmp_path / "out" / "test.jsonl").read_text(encoding="utf-8") == "precious"


def test_all_bad_files_are_named_at_once_and_nothing_is_left_behind(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(7):
        (raw / f"bad-{number}.txt").write_bytes(b"%PDF-")
    (raw / "good.txt").write_text("good", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        collect_documents(raw, tmp_path / "out")
    assert all(f"bad-{number}.txt" in str(caught.value) for number in range(5))
    assert "and 2 more" in str(caught.value)
    (raw / "broken.jsonl").write_text("{", encoding="utf-8")
    for bad in raw.glob("bad*"):
        bad.unlink()
    with pytest.raises(DataError, match=r"broken\.jsonl:1"):
        collect_documents(raw, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_odd_file_names_are_kept_readable(collect: Collect, tmp_path: Path) -> None:
    raw = tmp_path / "odd"
    raw.mkdir()
    for name in (b"sp ace.txt", "märchen.txt".encode(), b"broken-\xff.txt", b'quo"te.txt'):
        Path(os.fsdecode(os.fsencode(raw) + b"/" + name)).write_bytes(b"text of " + name.hex().encode())
    sources = {piece.source for piece in collect(raw, validation_fraction=0).in_order()}
    assert sources == {"sp ace.txt", "märchen.txt", "broken-\\xff.txt", 'quo"te.txt'}


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_links_to_files_are_followed_and_links_to_folders_are_named(collect: Collect, tmp_path: Path) -> None:
    raw = tmp_path / "linked"
    raw.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_text("text", encoding="utf-8")
    (raw / "a.txt").symlink_to(tmp_path / "elsewhere" / "a.txt")
    (raw / "folder").symlink_to(tmp_path / "elsewhere")
    (raw / "dangling.txt").symlink_to(tmp_path / "nowhere")
    collected = collect(raw, validation_fraction=0)
    assert [piece.text for piece in collected.in_order()] == ["text"]
    assert set(collected.report.skipped_files) == {"a link to a folder, which is not followed", "not a plain file"}


@pytest.mark.skipif(sys.platform != "linux", reason="a device that is always full")
def test_a_full_disk_is_explained_and_leaves_nothing(tmp_path: Path) -> None:
    script = f"""
import resource, signal
from pathlib import Path
from gpt2kit.corpus import collect_documents
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
collect_documents(Path({str(tmp_path / "raw.txt")!r}), Path({str(tmp_path / "out")!r}))
"""
    (tmp_path / "raw.txt").write_text("all work and no play " * 300_000, encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert DiskError.__name__ in done.stderr.splitlines()[-1]
    assert "no space to write" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_pieces_are_checked_when_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    with pytest.raises(UsageError, match="gpt2kit prepare"):
        list(read_pieces(path))
    good = (
        '{"document": 0, "section": 0, "continues": false, "kind": "text", "source": "a", "place": "", "text": "x"}\n'
    )
    for bad in ("{\n", "[]\n", '{"kind": "text"}\n', '{"odd": 1}\n'):
        path.write_text(good + bad, encoding="utf-8")
        with pytest.raises(DataError, match=r"train\.jsonl:2: is damaged"):
            list(read_pieces(path))
    path.write_bytes(good.encode() + b"\xff\n")
    with pytest.raises(DataError, match=r"train\.jsonl:\d: is damaged"):
        list(read_pieces(path))


WORDS = st.lists(
    st.sampled_from(["king", "é", '"', "\\", "\t", "\n\n", " ", ". ", "<|endoftext|>", "你", "👑"]), min_size=1
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(WORDS.map("".join), min_size=1, max_size=30), st.integers(1, 60), st.sampled_from([0.0, 0.1, 0.4]))
def test_no_character_is_lost_on_the_way(tmp_path: Path, texts: list[str], section_chars: int, fraction: float) -> None:
    shutil.rmtree(tmp_path / "round", ignore_errors=True)
    raw = tmp_path / "round" / "raw.jsonl"
    raw.parent.mkdir()
    raw.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    kept = list({text.strip(): text for text in reversed(texts) if text.strip()}.values())[::-1]
    if not kept:
        return
    report = collect_documents(
        raw,
        tmp_path / "round" / "out",
        section_chars=section_chars,
        validation_fraction=fraction,
        test_fraction=fraction,
    )
    pieces = [piece for split in report.pieces for piece in read_pieces(tmp_path / "round" / "out" / f"{split}.jsonl")]
    together: dict[int, str] = {}
    for piece in sorted(pieces, key=lambda piece: (piece.document, piece.section)):
        together[piece.document] = together.get(piece.document, "") + piece.text
    assert sorted(together.values()) == sorted(kept)
    assert sum(report.characters.values()) == sum(map(len, kept))


_MEASURE = """
import resource, sys
from pathlib import Path
from gpt2kit.corpus import collect_documents
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
collect_documents(Path(sys.argv[1]), Path(sys.argv[2]), validation_fraction=0.05)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in KiB on Linux")
@pytest.mark.parametrize("separator", ["\n\n", "\n", " "])
def test_a_long_text_does_not_fill_the_memory(tmp_path: Path, separator: str) -> None:
    raw = tmp_path / "raw.txt"
    with raw.open("w", encoding="utf-8") as file:
        for number in range(40):
            file.write(separator.join(f"{number}-{index} a café by the sea" for index in range(200_000)))
    assert raw.stat().st_size > 200_000_000
    command = [sys.executable, "-c", _MEASURE, str(raw), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 100
