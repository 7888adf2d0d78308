"""Every format, plain and compressed, and what is said when it is not what its name says."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from gpt2kit import runtime
from gpt2kit.corpus import Message
from gpt2kit.errors import DataError, MissingExtraError, UsageError

from .conftest import Collect

TEXTS = ["First tale, “quoted”.\nSecond line.", 'He said: "no".', "Dritte Zeile; mit Käse\tund Tab.", "   \n", "last"]
KEPT = [text for text in TEXTS if text.strip()]


def csv_of(texts: list[str], delimiter: str = ",") -> str:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    rows = [delimiter.join([str(number), cell(text), ""]) for number, text in enumerate(texts)]
    return "\n".join([delimiter.join(["id", "Text", "note"]), *rows]) + "\n"


def parquet_of(rows: list[dict[str, object]]) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


ROWS = [{"id": number, "text": text} for number, text in enumerate(TEXTS)]
FORMATS: dict[str, Callable[[], str | bytes]] = {
    "a.csv": lambda: csv_of(TEXTS),
    "semicolons.csv": lambda: csv_of(TEXTS, ";"),
    "bars.csv": lambda: csv_of(TEXTS, "|"),
    "mark.csv": lambda: "\ufeff" + csv_of(TEXTS).replace("\n", "\r\n"),
    "a.tsv": lambda: csv_of(TEXTS, "\t"),
    "a.jsonl": lambda: "\n\n".join(map(json.dumps, ROWS)),
    "a.ndjson": lambda: "".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in ROWS),
    "texts.jsonl": lambda: "\n".join(json.dumps(text) for text in TEXTS),
    "list.json": lambda: json.dumps(ROWS, indent=1),
    "texts.json": lambda: json.dumps(TEXTS),
    "object.json": lambda: json.dumps({"version": 1, "data": ROWS}),
    "lines.json": lambda: "\n".join(map(json.dumps, ROWS)),
    "a.parquet": lambda: parquet_of(ROWS),
}
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".zst": lambda data: zstandard.compress(data[: len(data) // 2]) + zstandard.compress(data[len(data) // 2 :]),
}


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("name", FORMATS)
def test_the_same_texts_come_out_of_every_format(collect: Collect, name: str, compression: str) -> None:
    content = FORMATS[name]()
    data = content.encode() if isinstance(content, str) else content
    collected = collect({name + compression: COMPRESSED[compression](data)}, validation_fraction=0)
    assert [piece.text for piece in collected.in_order()] == KEPT
    assert collected.report.skipped_rows == {"no text in it": 1}
    assert len({piece.place for piece in collected.in_order()}) == len(KEPT)


@pytest.mark.parametrize("compression", COMPRESSED)
@pytest.mark.parametrize("name", ["a.txt", "a.TXT", "a.md", "deep/er/a.markdown", "no_extension"])
def test_plain_text_is_one_document_a_file(collect: Collect, name: str, compression: str) -> None:
    data = COMPRESSED[compression]("One.\n\nTwo é.\n".encode())
    (piece,) = collect({name + compression: data}, validation_fraction=0).in_order()
    assert (piece.text, piece.source, piece.place, piece.kind) == ("One.\n\nTwo é.\n", name + compression, "", "text")


def test_places_are_lines_rows_and_entries(collect: Collect) -> None:
    files = {"a.jsonl": '"one"\n\n"two"\n', "b.csv": "text,id\nthree,1\n\nfour,2\n", "c.json": '["five", "six"]'}
    places = [(piece.text, piece.place) for piece in collect(files, validation_fraction=0).in_order()]
    assert places == [
        ("one", "line 1"),
        ("two", "line 3"),
        ("three", "row 1"),
        ("four", "row 2"),
        ("five", "entry 1"),
        ("six", "entry 2"),
    ]


def test_chats_and_pairs_are_kept_as_such(collect: Collect) -> None:
    turns = [("system", "Be brief."), ("user", "Hi\r\nthere"), ("assistant", "Hello.")]
    chat = {"messages": [{"role": role, "content": content} for role, content in turns]}
    rows = [
        chat,
        {"prompt": "2+2?", "completion": "4", "id": 1},
        {"instruction": "Add", "input": "1 and 2", "output": "3"},
        {"question": "Who?", "answer": "Me."},
    ]
    pieces = collect({"a.jsonl": "\n".join(map(json.dumps, rows))}, validation_fraction=0).in_order()
    assert [piece.kind for piece in pieces] == ["chat", *["completion"] * 3]
    assert pieces[0].messages == (
        Message("system", "Be brief."), Message("user", "Hi\nthere"), Message("assistant", "Hello."),
    )  # fmt: skip
    assert [(piece.prompt, piece.completion) for piece in pieces[1:]] == [
        ("2+2?", "4"), ("Add\n\n1 and 2", "3"), ("Who?", "Me."),
    ]  # fmt: skip


def test_chats_and_pairs_come_from_tables_too(collect: Collect) -> None:
    rows = [{"messages": [{"role": "user", "content": f"Hi {number}"}], "id": number} for number in range(3)]
    files = {"chats.parquet": parquet_of(rows), "pairs.csv": "prompt,completion\nAsk,Answer\n"}
    pieces = collect(files, validation_fraction=0).in_order()
    assert [piece.kind for piece in pieces] == ["chat"] * 3 + ["completion"]
    assert pieces[2].messages == (Message("user", "Hi 2"),)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [{"role": "tool", "content": "x"}]}, "has the role 'tool'; roles are system, user, assistant"),
        ({"messages": [{"role": "user"}]}, "message 1 is no object with 'role' and 'content'"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "message 1: 'content' is a list"),
        ({"messages": "hello"}, "'messages' is a text, and no list"),
        ({"text": 5}, "'text' is a number, and no text"),
        ({"title": "t", "text": ["x"]}, "'text' is a list"),
        ([1], "is a list, and no object with a text"),
        (None, "is null"),
    ],
)
def test_rows_that_are_no_documents_are_named(collect: Collect, row: object, said: str) -> None:
    lines = [json.dumps({"text": "fine"}), json.dumps(row)]
    with pytest.raises(DataError, match=r"a\.jsonl:2: ") as caught:
        collect({"a.jsonl": "\n".join(lines)})
    assert said in str(caught.value)
    assert "--skip_bad_files" in str(caught.value)
    assert sum(collect({"a.jsonl": "\n".join(lines)}, skip_bad_files=True).report.skipped_rows.values()) == 1


def test_the_first_few_bad_lines_are_named_at_once(collect: Collect) -> None:
    with pytest.raises(DataError) as caught:
        collect({"a.jsonl": '{"text": "a"}\n{"text": \nnonsense\n' + "[" * 100_000 + "\n" + "9" * 5000 + "\n"})
    for line in (2, 3, 4, 5):
        assert f"a.jsonl:{line}: " in str(caught.value)


@pytest.mark.parametrize(
    ("content", "field", "kept"),
    [
        ("id,body,title\n1,long story here,T\n", None, ["long story here"]),
        ("id,what,title\n" + f"1,{'long words ' * 9},T\n" * 3, None, ["long words " * 9]),
        ("id,what,title\n1,short,T\n", "what", ["short"]),
        ("one\ntwo\n", "1", ["one", "two"]),
        ("5,first\n6,second\n", "2", ["first", "second"]),
        ("text\nno comma\n", None, ["no comma"]),
        ('text\n"with, comma"\n', None, ["with, comma"]),
        ("text,title\nshort row\n", None, ["short row"]),
        ("text,title\nextra empty,T,,\n", None, ["extra empty"]),
    ],
)
def test_the_column_of_a_csv_is_found_or_named(
    collect: Collect, content: str, field: str | None, kept: list[str]
) -> None:
    collected = collect({"a.csv": content}, text_field=field, validation_fraction=0)
    assert [piece.text for piece in collected.in_order()] == list(dict.fromkeys(kept))


@pytest.mark.parametrize(
    ("content", "field", "said"),
    [
        ("id,what\n1,short\n", None, "which field holds the text? name it with --text_field; there are: 'id', 'what'"),
        ("id,text\n1,a\n", "body", "--text_field body: there is no such field; there are: 'id', 'text'"),
        ("I like cats\nI like dogs\n", None, "the first row does not name a text column: ['I like cats']"),
        ("1,I like cats\n2,I like dogs\n", None, "--text_field 1"),
        ("text,id\na,1\nb,2,oops\n", None, "a.csv:3: has 3 cells where the header names 2"),
        ('text,id\n"a",1\n"b\nc,2\n', None, "a.csv:3: cannot be read from here to the end of the file"),
        ('text,id\n"a" x,1\n', None, "a.csv:2: cannot be read"),
    ],
)
def test_what_is_wrong_with_a_csv_is_said(collect: Collect, content: str, field: str | None, said: str) -> None:
    with pytest.raises(DataError) as caught:
        collect({"a.csv": content}, text_field=field)
    assert said in str(caught.value)


def test_a_long_cell_with_line_ends_is_one_document(collect: Collect) -> None:
    long = "paragraph\r\n" * 50_000
    collected = collect({"a.csv": f'text\r\n"{long}"\r\n'.encode()}, validation_fraction=0, section_chars=10_000)
    assert collected.texts() == {("a.csv", "row 1"): long.replace("\r", "")}


def test_rows_of_empty_cells_are_counted(collect: Collect) -> None:
    report = collect({"a.csv": "id,text\n,\n1,words\n\n"}, validation_fraction=0).report
    assert (report.num_documents, report.skipped_rows) == (1, {"no text in it": 1})


def test_quotes_in_a_tsv_without_quoting_stay(collect: Collect) -> None:
    content = 'id\ttext\n1\t"Yes" he said\n2\tno\n'
    assert [piece.text for piece in collect({"a.tsv": content}, validation_fraction=0).in_order()] == [
        '"Yes" he said',
        "no",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('["a", "b"', "a.json: is not valid JSON"),
        ('["a" "b"]', "expected , or ]"),
        ('["a"] x', "more follows after the list"),
        ("[" * 100_000, "a.json: is not usable JSON"),
        ("hello", "a.json: is not valid JSON"),
        ('{"a": ["x"], "b": ["y"]}', "which field holds the text?"),
        ('[{"what": "short"}]', "there are: 'what'"),
        ('1 {"text": "a"}', "more follows after the first value"),
    ],
)
def test_what_is_wrong_with_a_json_file_is_said(collect: Collect, content: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        collect({"a.json": content})
    assert said in str(caught.value)


def test_a_json_list_longer_than_what_is_read_at_a_time(collect: Collect) -> None:
    texts = [f"{number} " * 40_000 for number in range(12)]
    collected = collect({"a.json": json.dumps(texts, indent=2)}, validation_fraction=0)
    assert list(collected.texts().values()) == texts


def test_a_field_of_one_text_file_only_is_asked_of_the_others(collect: Collect) -> None:
    rows = "\n".join(json.dumps({"words": f"w{number}", "text": "no"}) for number in range(3))
    collected = collect({"a.jsonl": rows, "b.txt": "plain"}, text_field="words", validation_fraction=0)
    assert [piece.text for piece in collected.in_order()] == ["w0", "w1", "w2", "plain"]
    assert collected.report.text_fields == {"words": 1}


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.txt.gz", gzip.compress(b"some words " * 999, mtime=0)[:-20], "gzip data end too early"),
        ("a.txt.gz", b"no gzip at all", "is not sound gzip data"),
        ("a.txt.zst", zstandard.compress(bytes(range(256)) * 99)[:-9], "zstd data end too early"),
        ("a.jsonl.zst", b"no zstd at all", "is not sound zstd data"),
        ("a.parquet", b"PAR1 cut off", "is not sound Parquet"),
        ("a.parquet", b"", "is not sound Parquet"),
        ("a.txt", b"%PDF-1.5 ...", "looks like a PDF"),
    ],
)
def test_damaged_files_are_named_or_left_out(collect: Collect, name: str, data: bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        collect({name: data, "good.txt": "good"})
    assert said in str(caught.value)
    assert name in str(caught.value)
    collected = collect({name: data, "good.txt": "good"}, skip_bad_files=True, validation_fraction=0)
    assert list(collected.texts().values()) == ["good"]
    assert sum(map(len, collected.report.skipped_files.values())) == 1


def test_a_column_of_its_own_kind_wins_over_the_longest(collect: Collect) -> None:
    rows = [{"text": "short", "notes": "long words " * 30}, {"text": "brief", "notes": "long words " * 30}]
    collected = collect({"a.jsonl": "\n".join(map(json.dumps, rows))}, validation_fraction=0)
    assert [piece.text for piece in collected.in_order()] == ["short", "brief"]


def test_a_cut_off_parquet_file_is_named(collect: Collect) -> None:
    with pytest.raises(DataError, match="is not sound Parquet"):
        collect({"a.parquet": parquet_of(ROWS)[:-30]})


def test_parquet_without_text_lists_its_columns(collect: Collect) -> None:
    with pytest.raises(DataError, match="there are: 'id', 'x'"):
        collect({"a.parquet": parquet_of([{"id": 1, "x": 2.0}])})


def test_parquet_without_pyarrow_names_the_extra(collect: Collect, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(runtime.importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"gpt2kit\[parquet\]"):
        collect({"a.parquet": b"PAR1"})


def test_a_single_file_is_read_whatever_its_extension_unless_it_is_markup(collect: Collect, tmp_path: Path) -> None:
    (tmp_path / "wiki.raw").write_text("words", encoding="utf-8")
    (piece,) = collect(tmp_path / "wiki.raw", validation_fraction=0).in_order()
    assert (piece.text, piece.source) == ("words", "wiki.raw")
    (tmp_path / "a.html").write_text("<p>", encoding="utf-8")
    with pytest.raises(UsageError, match="is markup"):
        collect(tmp_path / "a.html")
