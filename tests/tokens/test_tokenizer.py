"""The tokenizer: exact round trips, GPT-2's ids, folders in and out."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2kit.errors import ModelError, UsageError
from gpt2kit.tokens import Tokenizer, train_tokenizer

TEXTS = [
    "The dog found a bone in a field.",
    "naïve café — 日本語 😀",
    "a\tb\r\n\n  c ",
    "don't, it's; we'll 12345",
    "",
    " ",
]
ANY_TEXT = st.text(st.characters(codec="utf-8"))


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return train_tokenizer(["the cat sat on the mat; the dog did not. Ça va? 日本 日本"] * 3, vocab_size=320)


@pytest.fixture
def gpt2(corpora: Path) -> Tokenizer:
    return Tokenizer.from_folder(corpora / "tokenizer")


@given(text=ANY_TEXT)
def test_any_text_comes_back(small: Tokenizer, text: str) -> None:
    ids = small.encode(text)
    assert small.decode(ids) == text
    assert small.end_of_text not in ids
    assert small.encode_batch([text, text]) == [ids, ids]


@given(ids=st.lists(st.integers(0, 330)))
def test_stream_gives_what_decode_gives(small: Tokenizer, ids: list[int]) -> None:
    stream = small.stream_decoder()
    parts = [stream.push(identifier) for identifier in ids]
    assert "".join(parts) + stream.flush() == small.decode(ids)


def test_stream_never_gives_half_a_character() -> None:
    only_bytes = train_tokenizer(["x"], vocab_size=257)
    stream = only_bytes.stream_decoder()
    assert [stream.push(identifier) for identifier in only_bytes.encode("é😀!")] == ["", "é", "", "", "", "😀", "!"]
    assert stream.push(only_bytes.encode("é")[0]) == ""
    assert stream.flush() == "\ufffd"


def test_literal_end_of_text_is_text_unless_asked(small: Tokenizer) -> None:
    text = "a<|endoftext|>b<|endoftext|>"
    plain = small.encode(text)
    assert small.end_of_text not in plain
    assert small.decode(plain) == text
    asked = small.encode(text, allow_special=True)
    assert asked == [*small.encode("a"), small.end_of_text, *small.encode("b"), small.end_of_text]
    assert small.decode(asked) == text


def test_unknown_ids_are_shown(small: Tokenizer) -> None:
    assert small.decode([small.vocab_size + 5]) == "\ufffd"


def test_training_is_deterministic_and_laid_out_as_gpt2(tmp_path: Path) -> None:
    texts = [f"word{n % 7} and word{n % 5} again" for n in range(200)]
    first, second = (train_tokenizer(iter(texts), vocab_size=300) for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert first.vocab_size <= 300
    assert first.end_of_text == first.vocab_size - 1
    first.save(tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    assert vocabulary["!"] == 0
    assert vocabulary["<|endoftext|>"] == first.end_of_text
    assert sorted(vocabulary.values()) == list(range(first.vocab_size))
    assert train_tokenizer(["other text"] * 9, vocab_size=300).fingerprint != first.fingerprint


def test_training_refuses_a_vocabulary_without_room_for_bytes() -> None:
    with pytest.raises(UsageError, match=r"--vocab_size 256: at least 257"):
        train_tokenizer(["x"], vocab_size=256)


def test_saved_folder_opens_to_the_same(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path, model_max_length=64)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert settings["model_max_length"] == 64
    again = Tokenizer.from_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    from_vocabulary = Tokenizer.from_folder(tmp_path)
    for other in (again, from_vocabulary):
        assert other.fingerprint == small.fingerprint
        assert other.end_of_text == small.end_of_text
        assert other.encode_batch(TEXTS) == small.encode_batch(TEXTS)


def test_fingerprint_does_not_depend_on_formatting(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    whole = tmp_path / "tokenizer.json"
    content = json.loads(whole.read_text())
    # How files of older versions of the library hold the merges.
    content["model"]["merges"] = [" ".join(merge) for merge in content["model"]["merges"]]
    whole.write_text(json.dumps(content))
    assert Tokenizer.from_folder(tmp_path).fingerprint == small.fingerprint
    content["model"]["merges"].reverse()
    whole.write_text(json.dumps(content))
    assert Tokenizer.from_folder(tmp_path).fingerprint != small.fingerprint


def test_padding_and_truncation_of_a_file_are_not_used(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert Tokenizer.from_folder(tmp_path).encode(TEXTS[0]) == small.encode(TEXTS[0])


def test_another_end_of_text_by_the_folders_word(small: Tokenizer, tmp_path: Path) -> None:
    small.save(tmp_path)
    for name in ("tokenizer.json", "vocab.json", "tokenizer_config.json"):
        path = tmp_path / name
        path.write_text(path.read_text().replace("<|endoftext|>", "</s>"))
    other = Tokenizer.from_folder(tmp_path)
    assert other.end_of_text_token == "</s>"
    assert other.decode([other.end_of_text]) == "</s>"


def test_folders_that_cannot_be_used(small: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: no such folder"):
        Tokenizer.from_folder(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"a model folder without tokenizer \(neither tokenizer.json nor vocab.json"):
        Tokenizer.from_folder(tmp_path)
    small.save(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "cut")
    (tmp_path / "cut" / "tokenizer.json").write_text('{"version": "1.0", ')
    with pytest.raises(ModelError, match=r"cut: tokenizer.json cannot be read as a tokenizer"):
        Tokenizer.from_folder(tmp_path / "cut")
    (tmp_path / "cut" / "tokenizer.json").unlink()
    (tmp_path / "cut" / "merges.txt").write_text("#version: 0.2\nzz qqq\n")
    with pytest.raises(ModelError, match=r"cut: vocab.json with merges.txt cannot be read"):
        Tokenizer.from_folder(tmp_path / "cut")
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace("<|endoftext|>", "<|other|>"))
    with pytest.raises(ModelError, match="no end-of-text token"):
        Tokenizer.from_folder(tmp_path)


def test_other_kinds_of_tokenizers_are_refused(tmp_path: Path) -> None:
    import tokenizers

    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError, match="not a byte-level BPE"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.corpora
def test_golden_ids_of_gpt2(gpt2: Tokenizer) -> None:
    # Ids of OpenAI's encoder: the greedy golden of docs/design.
    assert gpt2.encode("The dog") == [464, 3290]
    assert gpt2.end_of_text == 50256
    assert gpt2.vocab_size == 50257
    assert gpt2.encode("<|endoftext|>") == [27, 91, 437, 1659, 5239, 91, 29]


@pytest.mark.corpora
def test_parity_with_transformers(gpt2: Tokenizer, corpora: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, GPT2TokenizerFast

    gpt2.save(tmp_path)
    texts = [*TEXTS, (corpora / "messy" / "29_special_tokens.txt").read_text()]
    texts += (corpora / "eval" / "wiki.test.raw").read_text().splitlines(keepends=True)[:200]
    folder = corpora / "tokenizer"
    original = GPT2TokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    saved = AutoTokenizer.from_pretrained(tmp_path)
    for oracle in (original, saved):
        assert len(oracle) == gpt2.vocab_size
        assert oracle.eos_token_id == gpt2.end_of_text
        assert [oracle(text, split_special_tokens=True).input_ids for text in texts] == gpt2.encode_batch(texts)
        for text in texts:
            ids = gpt2.encode(text, allow_special=True)
            assert oracle(text).input_ids == ids
            assert oracle.decode(ids) == gpt2.decode(ids)


@settings(max_examples=50)
@given(ids=st.lists(st.integers(0, 319), max_size=20))
def test_decoding_is_the_librarys(small: Tokenizer, ids: list[int]) -> None:
    ids = [identifier for identifier in ids if identifier < small.vocab_size]
    assert small.decode(ids) == small._engine.decode(ids, skip_special_tokens=False)
