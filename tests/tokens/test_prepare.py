"""Preparing: from raw files to a checked folder, made again only when something changed."""

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt2kit.corpus import Piece
from gpt2kit.errors import DataError, DiskError, ModelError, UsageError
from gpt2kit.tokens import PreparedData, PrepareSettings, Tokenizer, TokenStore, prepare, train_tokenizer
from gpt2kit.tokens.encoding import NO_ANSWER, encode_split
from gpt2kit.tokens.learn import default_vocab_size

STORY = "The fox saw the crow. The crow had cheese; the fox wanted it. <|endoftext|> is only text. "


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    for number in range(12):
        (folder / f"story{number:02}.txt").write_text(f"Story {number}. " + STORY * (number + 1), encoding="utf-8")
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": f"Hello {n}"}]}
        for n in range(4)
    ]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def make(raw: Path, **options: Any) -> PreparedData:
    values = {"input": raw, "data_dir": raw.parent / "processed", "from_scratch": True, "vocab_size": 300}
    return prepare(PrepareSettings(**(values | {"validation_fraction": 0.2} | options)))


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def document_texts(data: PreparedData, split: str) -> list[str]:
    store = data.store(split)
    starts = store.document_starts_D1.tolist()
    return [data.tokenizer.decode(store.ids_N[start : end - 1].tolist()) for start, end in pairwise(starts)]


def test_tokens_hold_the_documents_and_nothing_else(raw: Path) -> None:
    data = make(raw, test_fraction=0.2, section_chars=100)
    texts: dict[str, list[str]] = {}
    for split in ("train", "validation", "test"):
        store = data.store(split)
        store.verify()
        expected: list[str] = []
        for piece in data.documents(split):
            text = piece.text
            if piece.kind == "chat":
                asked, answer = piece.messages
                text = f"User: {asked.content}\nAssistant: {answer.content}"
            if piece.continues:
                expected[-1] += text
            else:
                expected.append(text)
        assert document_texts(data, split) == expected
        assert (store.ids_N == data.tokenizer.end_of_text).sum() == store.num_documents
        counts = data.manifest["splits"][split]
        assert counts["num_tokens"] == store.num_tokens
        assert counts["num_documents"] == store.num_documents
        assert counts["num_bytes"] == sum(len(text.encode()) for text in expected)
        texts[split] = expected
    assert sum(len(found) for found in texts.values()) >= 16
    assert all(texts.values())
    data.verify()


def test_the_loss_is_on_answers_only(raw: Path) -> None:
    for path in raw.glob("*.txt"):
        path.unlink()
    data = make(raw, validation_fraction=0)
    store = data.store("train")
    assert store.loss_mask_N is not None
    learned = data.tokenizer.decode(np.asarray(store.ids_N)[np.asarray(store.loss_mask_N) == 1].tolist())
    assert learned == "".join(f" Hello {n}<|endoftext|>" for n in range(4))
    counts = data.manifest["splits"]["train"]
    assert counts["num_targets"] == int(store.loss_mask_N.sum())
    assert counts["num_target_bytes"] == 4 * len(" Hello 0")


def test_sections_encode_as_the_whole_text(raw: Path, tmp_path: Path) -> None:
    train_tokenizer([STORY] * 5, vocab_size=330).save(tmp_path / "base")
    options: dict[str, Any] = {"from_scratch": False, "vocab_size": None, "base": str(tmp_path / "base")}
    options["validation_fraction"] = 0
    whole = make(raw, section_chars=10**6, **options)
    cut = make(raw, section_chars=100, data_dir=tmp_path / "cut", **options)
    assert len(list(cut.documents("train"))) > len(list(whole.documents("train")))
    assert token_documents(cut) == token_documents(whole)


def token_documents(data: PreparedData) -> list[list[int]]:
    store = data.store("train")
    return [part.tolist() for part in np.split(store.ids_N, store.document_starts_D1[1:-1])]


def test_the_same_again_is_the_same(raw: Path) -> None:
    first = make(raw)
    second = make(raw, data_dir=raw.parent / "again")
    assert first.manifest["fingerprint"] == second.manifest["fingerprint"]
    assert make(raw, data_dir=raw.parent / "other", seed=1).manifest["fingerprint"] != first.manifest["fingerprint"]


def test_nothing_is_done_when_nothing_changed(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = make(raw)
    assert not first.unchanged
    before = tree(first.folder)
    second = make(raw)
    assert second.unchanged
    assert tree(first.folder) == before
    assert "already prepared from these files with these settings; unchanged" in capsys.readouterr().err
    assert "unchanged" in second.to_text()
    # Another time of change with the same content changes nothing either.
    os.utime(raw / "story00.txt", (1, 1))
    assert make(raw).unchanged
    assert tree(first.folder) == before


@pytest.mark.parametrize(
    "change",
    ["content", "new file", "removed", "setting", "damage", "tokenizer damage", "manifest damage"],
)
def test_a_change_is_seen(raw: Path, change: str) -> None:
    data = make(raw)
    options: dict[str, Any] = {}
    story = raw / "story00.txt"
    if change == "content":
        story.write_text(story.read_text().replace("fox", "dog"), encoding="utf-8")
    elif change == "new file":
        (raw / "new.txt").write_text("New text. " * 20, encoding="utf-8")
    elif change == "removed":
        story.unlink()
    elif change == "setting":
        options = {"vocab_size": 290}
    elif change == "damage":
        (data.folder / "tokens" / "train" / "ids.npy").write_bytes(b"short")
    elif change == "tokenizer damage":
        train_tokenizer(["other"] * 3, vocab_size=260).save(data.folder / "tokenizer")
    else:
        (data.folder / "manifest.json").write_text("{")
    again = make(raw, **options)
    assert not again.unchanged
    again.verify()
    assert not list(raw.parent.glob("processed.*"))
    assert make(raw, **options).unchanged


def test_a_base_folder_with_only_a_tokenizer(raw: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    train_tokenizer([STORY] * 5, vocab_size=280).save(base)
    data = make(raw, from_scratch=False, vocab_size=None, base=str(base))
    assert data.base == str(base)
    assert data.tokenizer.fingerprint == Tokenizer.from_folder(base).fingerprint
    assert PreparedData.open(data.folder).base == str(base)
    assert make(raw).base is None
    # Another tokenizer under the same name is a change.
    make(raw, from_scratch=False, vocab_size=None, base=str(base))
    train_tokenizer([STORY] * 5, vocab_size=270).save(base)
    assert not make(raw, from_scratch=False, vocab_size=None, base=str(base)).unchanged


def test_settings_without_effect_warn(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_tokenizer([STORY] * 5, vocab_size=280).save(tmp_path / "base")
    make(raw, from_scratch=False, base=str(tmp_path / "base"))
    assert "warning: --vocab_size has no effect without --from_scratch" in capsys.readouterr().err
    make(raw, base="gpt2")
    assert "warning: --base gpt2 has no effect with --from_scratch" in capsys.readouterr().err
    make(raw, vocab_size=100_000)
    assert "the tokenizer has that many" in capsys.readouterr().err


def test_what_is_there_is_kept(raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "processed"
    folder.mkdir()
    (folder / ".gitkeep").touch()
    make(raw)
    assert (folder / ".gitkeep").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match=r"other: holds other things \(thesis.txt\) and is not written to"):
        make(raw, data_dir=other)
    (other / "manifest.json").write_text("[not ours")
    with pytest.raises(UsageError, match=r"holds other things and is not written to"):
        make(raw, data_dir=other)
    assert sorted(path.name for path in other.iterdir()) == ["manifest.json", "thesis.txt"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match=r"file: is a file; name a folder"):
        make(raw, data_dir=tmp_path / "file")


def test_a_failure_leaves_the_old_data(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make(raw)
    before = tree(data.folder)
    (raw / "new.txt").write_text("More. " * 50, encoding="utf-8")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("gpt2kit.tokens.store._ArrayWriter.append", full)
        with pytest.raises(DiskError, match=r"no space to write .*what was there before is intact"):
            make(raw)
    assert tree(data.folder) == before
    assert not list(raw.parent.glob("processed.*"))
    PreparedData.open(data.folder).verify()


def test_a_file_that_changes_meanwhile_is_noticed(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpt2kit.corpus

    read = gpt2kit.corpus.collect_documents

    def slow(*args: Any, **options: Any) -> Any:
        report = read(*args, **options)
        (raw / "late.txt").write_text("Late. " * 20, encoding="utf-8")
        return report

    monkeypatch.setattr(gpt2kit.corpus, "collect_documents", slow)
    with pytest.raises(DataError, match=r"a file changed while it was read; run the same command again"):
        make(raw)
    assert not (raw.parent / "processed").exists()


def test_wrong_places(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--input .*nowhere: no such file or folder"):
        make(tmp_path / "nowhere", data_dir=tmp_path / "d")
    for inside in (raw, raw / "processed", raw.parent):
        with pytest.raises(UsageError, match=r"must not lie in, hold or be --input"):
            make(raw, data_dir=inside)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty: a model folder without tokenizer"):
        make(raw, from_scratch=False, vocab_size=None, base=str(tmp_path / "empty"))
    with pytest.raises(UsageError, match=r"--vocab_size 12: should be greater than or equal to 257"):
        make(raw, vocab_size=12)


def test_opening_what_is_not_whole(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"nothing: no prepared data here \(manifest.json is missing\).*`gpt2kit prepare"
    ):
        PreparedData.open(tmp_path / "nothing")
    data = make(raw)
    for split in ("Train", "all"):
        with pytest.raises(UsageError, match=f"'{split}': no such split; the splits are train, validation, test"):
            data.store(split)
    manifest = data.folder / "manifest.json"
    original = manifest.read_text()
    for key, value, message in (
        ("version", 99, "format version 99"),
        ("splits", {}, "an entry is missing or of the wrong kind"),
        ("tokenizer", {"fingerprint": "0"}, "not the tokenizer the tokens were made with"),
    ):
        manifest.write_text(json.dumps(json.loads(original) | {key: value}))
        with pytest.raises(DataError, match=message):
            PreparedData.open(data.folder)
    manifest.write_text(original.replace('"num_tokens": ', '"num_tokens": 1'))
    with pytest.raises(DataError, match=r"its tokens are of another preparation"):
        PreparedData.open(data.folder)
    manifest.write_text(original)
    documents = data.folder / "documents" / "train.jsonl"
    documents.write_text(documents.read_text().replace("fox", "cat"))
    with pytest.raises(DataError, match=r"train.jsonl: its content has changed"):
        PreparedData.open(data.folder).verify()
    documents.unlink()
    with pytest.raises(DataError, match=r"train.jsonl: is missing"):
        PreparedData.open(data.folder)


def test_opening_brings_back_data_after_a_kill_between_the_renames(raw: Path) -> None:
    data = make(raw)
    data.folder.rename(raw.parent / "processed.previous")
    assert PreparedData.open(data.folder).manifest == data.manifest


def test_pieces_that_go_on_are_one_document(tmp_path: Path) -> None:
    tokenizer = train_tokenizer([STORY] * 5, vocab_size=330)
    texts = [STORY * 40, "Short.", STORY]
    pieces = []
    for number, text in enumerate(texts):
        # Sections are cut before a space, as the corpus does.
        for section, word in enumerate(text.replace(" ", "\0 ").split("\0")):
            pieces.append(Piece("text", "s", "", text=word, document=number, section=section, continues=section > 0))
    counts = encode_split(pieces, tokenizer, tmp_path / "t", completion_separator="\n", what="", total_characters=None)
    store = TokenStore.open(tmp_path / "t")
    store.verify()
    found = [part.tolist() for part in np.split(store.ids_N, store.document_starts_D1[1:-1])]
    assert found == [[*tokenizer.encode(text), tokenizer.end_of_text] for text in texts]
    assert (counts.num_documents, counts.num_tokens) == (3, store.num_tokens)
    assert counts.num_targets == store.num_tokens
    assert store.loss_mask_N is None


def test_documents_without_anything_to_learn_are_counted(tmp_path: Path) -> None:
    from gpt2kit.corpus import Message

    tokenizer = train_tokenizer(["x"], vocab_size=257)
    silent = Piece(
        kind="chat",
        source="s",
        place="",
        messages=(Message("user", "Anyone?"),),
        document=0,
        section=0,
        continues=False,
    )
    told = Piece(kind="text", source="s", place="", text="Yes", document=1, section=0, continues=False)
    counts = encode_split(
        [silent, told], tokenizer, tmp_path / "t", completion_separator="\n", what="", total_characters=None
    )
    assert counts.skipped == {NO_ANSWER: 1}
    assert (counts.num_documents, counts.num_tokens, counts.num_bytes) == (1, 4, 3)


def test_default_vocabulary() -> None:
    assert [default_vocab_size(n) for n in (0, 100_000, 490_000, 1_115_394, 10**9)] == [512, 1024, 4096, 8192, 8192]


def test_results_for_programs_and_people(raw: Path) -> None:
    data = make(raw)
    assert json.loads(json.dumps(data.to_dict()))["manifest"]["fingerprint"] == data.manifest["fingerprint"]
    assert f"{data.store('train').num_tokens:,}" in data.to_text()
