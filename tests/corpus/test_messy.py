"""The messy corpus, file by file: what each becomes, or why it is left out."""

import re
from pathlib import Path

import ftfy.bad_codecs
import pytest

from gpt2kit.corpus import clean
from gpt2kit.errors import DataError

from .conftest import Collect, Collected

pytestmark = pytest.mark.corpora

# Files that come out as they decode, with line ends made the same.
AS_THEY_ARE = {
    "00_clean_baseline.txt": "utf-8",
    "03_mojibake_partly.txt": "utf-8",  # in spite of its name it holds typographic quotes only, and no mojibake
    "04_latin1.txt": "latin-1",
    "05_cp1252.txt": "cp1252",
    "06_utf16le_bom.txt": "utf-16",
    "07_utf16be_bom.txt": "utf-16",
    "08_utf16le_no_bom.txt": "utf-16-le",
    "09_utf8_bom.txt": "utf-8-sig",
    "11_cr_only.txt": "utf-8",
    "12_mixed_newlines.txt": "utf-8",
    "14_near_duplicate_of_00.txt": "utf-8",
    "15_near_duplicate_upper_spaces.txt": "utf-8",
    "16_overlap_with_00.txt": "utf-8",
    "17_near_duplicate_curly.txt": "utf-8",
    "18_gutenberg_verbatim.txt": "utf-8",
    "21_story.md": "utf-8",
    "22_hard_wrapped_pages.txt": "utf-8",
    "29_special_tokens.txt": "utf-8",
    "30_one_long_line.txt": "utf-8",
    "31_short.txt": "utf-8",
    "32_repeated_line.txt": "utf-8",
    "33_repeated_paragraph.txt": "utf-8",
    "34_table_of_numbers.txt": "utf-8",
    "36_contact_details.txt": "utf-8",
    "37_space in name.txt": "utf-8",
    "38_märchen.txt": "utf-8",
    "44_script_like.py.txt": "utf-8",
    "MANIFEST.md": "utf-8",
    "nested/40_no_extension": "utf-8",
    "nested/deeper dir/39_nested.txt": "utf-8",
}
CHANGED = {"01_mojibake.txt", "02_mojibake_twice.txt", "28_control_characters.txt", "41_story.txt.gz"}
DUPLICATES = {"10_crlf.txt", "13_duplicate_of_00.txt", "35_french.txt"}
LEFT_OUT = {
    ".xhtml is markup, which is not read": ["19_standardebooks.xhtml"],
    ".html is markup, which is not read": ["20_page.html"],
    "empty, or white space only": ["23_empty.txt", "24_whitespace_only.txt"],
    "not text": ["25_binary.txt"],
    "unknown encoding": ["26_invalid_utf8.txt"],
    "damaged UTF-8": ["27_truncated_utf8.txt"],
}
TABLES = {"42_broken.jsonl", "43_ragged.csv"}


ftfy.bad_codecs.ok()


@pytest.fixture
def messy(corpora: Path) -> Path:
    return corpora / "messy"


@pytest.fixture
def collected(collect: Collect, messy: Path) -> Collected:
    return collect(messy, skip_bad_files=True, validation_fraction=0)


def test_every_file_is_accounted_for(collected: Collected, messy: Path) -> None:
    names = {path.relative_to(messy).as_posix() for path in messy.rglob("*") if path.is_file()}
    skipped = {name for names in LEFT_OUT.values() for name in names}
    assert names == set(AS_THEY_ARE) | CHANGED | DUPLICATES | skipped | TABLES
    assert {source for source, _ in collected.texts()} == set(AS_THEY_ARE) | CHANGED | TABLES
    assert {
        reason: [Path(name).relative_to(messy).as_posix() for name in names]
        for reason, names in collected.report.skipped_files.items()
    } == LEFT_OUT
    assert collected.report.duplicates == len(DUPLICATES) + 1  # and a line of 42
    assert collected.report.encodings == {"utf-8": 35, "cp1252": 2, "utf-16": 2, "utf-16-le": 1}
    assert collected.report.skipped_rows == {
        "no text in it": 2,
        "is not valid JSON": 2,
        "has no text field, only 'title'": 1,
        "'text' is a list, and no text": 1,
        "is a list, and no object with a text": 1,
        "has 5 cells where the header names 3": 3,
        "has 4 cells where the header names 3": 1,
        "cannot be read from here to the end of the file (unexpected end of data)": 1,
    }
    assert collected.report.changed_documents == {
        clean.MOJIBAKE: 2,
        clean.LINE_ENDS: 7,
        clean.TERMINAL_CODES: 1,
        clean.CONTROLS: 1,
        clean.INVISIBLE: 1,
    }


def test_good_files_keep_every_character(collected: Collected, messy: Path) -> None:
    texts = collected.texts()
    for name, encoding in AS_THEY_ARE.items():
        expected = (messy / name).read_bytes().decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
        assert texts[name, ""] == expected, name


def test_mojibake_is_repaired(collected: Collected, messy: Path) -> None:
    texts = collected.texts()
    once, twice = ((messy / name).read_text(encoding="utf-8") for name in sorted(CHANGED)[:2])
    assert texts["01_mojibake.txt", ""] == once.encode("sloppy-windows-1252").decode("utf-8")
    expected = twice.encode("sloppy-windows-1252").decode("utf-8").encode("sloppy-windows-1252").decode("utf-8")
    assert texts["02_mojibake_twice.txt", ""] == expected


def test_control_characters_are_removed(collected: Collected, messy: Path) -> None:
    raw = (messy / "28_control_characters.txt").read_text(encoding="utf-8")
    expected = re.sub("\x1b\\[31m|[\x00\x07\x0c\u200b\xad\ufeff]", "", raw).replace("\u2028", "\n")
    assert collected.texts()["28_control_characters.txt", ""] == expected
    assert expected.isascii()


def test_without_leave_all_bad_files_are_named_at_once(collect: Collect, messy: Path) -> None:
    with pytest.raises(DataError) as caught:
        collect(messy)
    message = str(caught.value)
    for name, place in (("25_binary", "is no text"), ("26_invalid", "offset 221"), ("27_truncated", "offset 5118")):
        assert name in message
        assert place in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "lines"), [("42_broken.jsonl", (6, 12, 18, 27, 30)), ("43_ragged.csv", (24, 41, 58, 79, 86))]
)
def test_bad_rows_are_named_by_line(collect: Collect, messy: Path, name: str, lines: tuple[int, ...]) -> None:
    with pytest.raises(DataError) as caught:
        collect(messy / name)
    assert sorted(map(int, re.findall(rf"{re.escape(name)}:(\d+):", str(caught.value)))) == list(lines)


def test_the_fables_are_complete(collect: Collect, corpora: Path) -> None:
    report = collect(corpora / "finetune" / "fables_and_tales.csv").report
    assert report.num_documents + report.duplicates == 318
    assert report.text_fields == {"text": 1}
