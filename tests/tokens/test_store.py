"""The token store: what is written comes back, and what is damaged is refused."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpt2kit.errors import DataError, UsageError
from gpt2kit.tokens import TokenStore, TokenStoreWriter


def writer(folder: Path, *, vocab_size: int = 100) -> TokenStoreWriter:
    return TokenStoreWriter(folder, vocab_size=vocab_size, end_of_text=9, tokenizer_fingerprint="print")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with writer(tmp_path / "store") as store:
        store.add([1, 2, 3])
        store.add([4], ends_document=False)
        store.add([5, 6])
        store.add([7, 8, 9], loss_mask=[0, 1, 1])
    return tmp_path / "store"


def test_what_is_written_comes_back(folder: Path) -> None:
    store = TokenStore.open(folder)
    store.verify()
    assert store.ids_N.tolist() == [1, 2, 3, 9, 4, 5, 6, 9, 7, 8, 9]
    assert store.ids_N.dtype == np.uint16
    assert store.document_starts_D1.tolist() == [0, 4, 8, 11]
    assert store.loss_mask_N is not None
    assert store.loss_mask_N.tolist() == [1] * 8 + [0, 1, 1]
    assert (store.num_tokens, store.num_documents, store.tokenizer_fingerprint) == (11, 3, "print")
    assert not (folder.parent / "store.partial").exists()
    assert np.load(folder / "ids.npy").tolist() == store.ids_N.tolist(), "plain .npy files"


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(documents=st.lists(st.lists(st.integers(0, 8), max_size=6), max_size=8), wide=st.booleans())
def test_any_documents_come_back(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[int]], wide: bool
) -> None:
    folder = tmp_path_factory.mktemp("any") / "store"
    with writer(folder, vocab_size=70_000 if wide else 65_536) as store:
        for ids in documents:
            store.add(ids)
    opened = TokenStore.open(folder)
    opened.verify()
    starts = opened.document_starts_D1
    assert [opened.ids_N[a:b].tolist() for a, b in pairwise(starts.tolist())] == [[*d, 9] for d in documents]
    assert opened.loss_mask_N is None
    assert opened.ids_N.dtype == (np.uint32 if wide else np.uint16)


def test_an_unfinished_document_is_ended(tmp_path: Path) -> None:
    with writer(tmp_path / "s") as store:
        store.add([1], ends_document=False)
    assert TokenStore.open(tmp_path / "s").ids_N.tolist() == [1, 9]


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="invalid literal"), writer(tmp_path / "s") as store:
        store.add(["not an id"])  # type: ignore[list-item]
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_written_to(folder: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        writer(folder)


def test_a_mask_must_fit(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 ids and 1 numbers"), writer(tmp_path / "s") as store:
        store.add([1, 2], loss_mask=[1])


def test_ids_that_do_not_fit_are_not_wrapped(tmp_path: Path) -> None:
    with pytest.raises(OverflowError), writer(tmp_path / "s") as store:
        store.add([70_000])


def edit(folder: Path, **changes: object) -> None:
    path = folder / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_damage_is_found_on_opening(folder: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no token store here \(store.json is missing\); make one with `gpt2kit prepare`"
    ):
        TokenStore.open(folder / "nothing")
    ids = (folder / "ids.npy").read_bytes()
    (folder / "ids.npy").write_bytes(ids[:-2])
    with pytest.raises(DataError, match=r"ids\.npy: has 148 bytes and should have 150; prepare the data again"):
        TokenStore.open(folder)
    (folder / "ids.npy").write_bytes(b"\0" * len(ids))
    with pytest.raises(DataError, match=r"ids\.npy: not the array it should be"):
        TokenStore.open(folder)
    (folder / "ids.npy").write_bytes(ids.replace(b"<u2", b"<i2"))
    with pytest.raises(DataError, match="holds int16"):
        TokenStore.open(folder)
    (folder / "ids.npy").unlink()
    with pytest.raises(DataError, match=r"ids\.npy: is missing"):
        TokenStore.open(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not the header of a token store"),
        ({"version": 2}, "format version 2, and this gpt2kit reads 1"),
        ({"num_tokens": "many"}, "an entry is missing or of the wrong kind"),
        ({"arrays": {"ids": {}}}, "an entry is missing or of the wrong kind"),
        ({"arrays": {"../../ids": {}}}, "an entry is missing or of the wrong kind"),
        ({"num_tokens": 10}, "its arrays do not fit together"),
        ({"end_of_text": 8}, "its arrays do not fit together"),
    ],
)
def test_a_header_that_lies_is_refused(folder: Path, changes: dict[str, object], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(DataError, match=message):
        TokenStore.open(folder)


def test_changed_content_is_found_by_verify(folder: Path) -> None:
    content = bytearray((folder / "ids.npy").read_bytes())
    content[-6] ^= 1
    (folder / "ids.npy").write_bytes(content)
    store = TokenStore.open(folder)
    with pytest.raises(DataError, match=r"ids\.npy: its content has changed"):
        store.verify()
