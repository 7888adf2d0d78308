"""GPT-2's byte-level BPE: text to ids and back, read from and written to a model's folder."""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from gpt2kit.errors import ModelError, UsageError
from gpt2kit.files import read_json, sha256_json, to_json, write_atomically
from gpt2kit.tokens.quick import EncodeBatch, quick_encoder, reads_alike

END_OF_TEXT = "<|endoftext|>"
SMALLEST_VOCABULARY = 257  # 256 bytes and end-of-text
_REPLACEMENT = "\ufffd".encode()
_FEWEST_QUICK_CHARACTERS = 1 << 19  # making sure that tiktoken gives the same takes as long as encoding some 500 kB
# What `chat.render_chat` does, in Jinja: it is saved with the tokenizer, so that other tools make the same ids.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    "{{- message['content'] | trim + '\\n\\n' -}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{{- 'Assistant: ' + message['content'] | trim + eos_token + '\\n' -}}"
    "{%- else -%}"
    "{{- message['role'] | capitalize + ': ' + message['content'] | trim + '\\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
)


class Tokenizer:
    """A byte-level BPE tokenizer: any text has ids, and the ids give the text back exactly.

    Args:
        engine: the tokenizer of the `tokenizers` library.
        end_of_text: the token that ends a document.

    Attributes:
        end_of_text: its id.
        end_of_text_token: its text, `<|endoftext|>` for GPT-2.
        vocab_size: one more than the greatest id.

    Raises:
        ModelError: it is not a byte-level BPE, or has no such token.
    """

    def __init__(self, engine: tokenizers.Tokenizer, *, end_of_text: str = END_OF_TEXT) -> None:
        if not isinstance(engine.model, models.BPE) or "ByteLevel" not in repr(engine.decoder):
            raise ModelError("its tokenizer is not a byte-level BPE as GPT-2's is")
        identifier = engine.token_to_id(end_of_text)
        if identifier is None:
            raise ModelError(f"its tokenizer has no end-of-text token {end_of_text!r}")
        engine.no_truncation()
        engine.no_padding()
        engine.add_special_tokens([AddedToken(end_of_text, special=True, normalized=False)])
        # Text that spells a special token stays text; only `allow_special` makes the token of it.
        engine.encode_special_tokens = True
        self._engine = engine
        self.end_of_text_token = end_of_text
        self.end_of_text: int = identifier
        self._bytes_of_id: dict[int, bytes] = {}  # of those that were needed
        self.vocab_size: int = _greatest_id(engine) + 1

    @classmethod
    def from_folder(cls, folder: str | Path) -> Self:
        """Read a model folder's tokenizer: `tokenizer.json`, else `vocab.json` with `merges.txt`.

        Raises:
            UsageError: the folder is not there.
            ModelError: it has no tokenizer, or one that cannot be used.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; it should hold a tokenizer")
        whole, vocabulary, merges = (folder / name for name in ("tokenizer.json", "vocab.json", "merges.txt"))
        end_of_text = _end_of_text_named_in(folder)
        try:
            if whole.is_file():
                return cls(tokenizers.Tokenizer.from_file(str(whole)), end_of_text=end_of_text)
            if vocabulary.is_file() and merges.is_file():
                model = models.BPE.from_file(str(vocabulary), str(merges))
                return cls(_byte_level(model), end_of_text=end_of_text)
        except ModelError as error:
            raise ModelError(f"{folder}: {error}") from None
        except Exception as error:  # the library raises plain Exception for every unreadable file
            name = whole.name if whole.is_file() else f"{vocabulary.name} with {merges.name}"
            raise ModelError(f"{folder}: {name} cannot be read as a tokenizer: {error}") from error
        raise ModelError(
            f"{folder}: a model folder without tokenizer (neither tokenizer.json nor vocab.json with merges.txt); "
            "copy the tokenizer files of the model it was made from into it"
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the vocabulary and the merges; it does not depend on the files' formatting."""
        return sha256_json({"vocabulary": self._engine.get_vocab(), "merges": _merges(self._engine)})

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        added = self._engine.get_added_tokens_decoder()
        return {token.content: identifier for identifier, token in added.items() if token.special}

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        return re.compile("(" + "|".join(re.escape(token) for token in longest_first) + ")")

    @cached_property
    def _added(self) -> dict[int, bytes]:
        added = self._engine.get_added_tokens_decoder()
        return {identifier: token.content.encode() for identifier, token in added.items()}

    def _bytes_of(self, identifier: int) -> bytes:
        """The bytes of a token. They are looked up when they are needed: a table of all takes megabytes."""
        known = self._bytes_of_id.get(identifier)
        if known is None:
            if not 0 <= identifier < self.vocab_size:
                return _REPLACEMENT
            known = self._bytes_of_id[identifier] = self._added.get(identifier) or self._look_up(identifier)
        return known

    def _look_up(self, identifier: int) -> bytes:
        token = self._engine.id_to_token(identifier)
        if token is None or not all(character in _BYTE_OF for character in token):
            return _REPLACEMENT
        return bytes(_BYTE_OF[character] for character in token)

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """The ids of a text.

        Args:
            text: any text.
            allow_special: make the special token of a literal `<|endoftext|>`; otherwise it is text as any other.
        """
        if not allow_special:
            return list(self._engine.encode(text, add_special_tokens=False).ids)
        ids: list[int] = []
        for position, part in enumerate(self._special_pattern.split(text)):
            # split() with one group gives text and special tokens in turn.
            ids += [self._special_ids[part]] if position % 2 else self.encode(part)
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each of several texts, on all cores; as `encode` gives them."""
        if sum(map(len, texts)) < _FEWEST_QUICK_CHARACTERS or self._quick is None:
            return self._encode_all(texts)
        is_alike = [reads_alike(text) for text in texts]
        quick = iter(self._quick([text for text, alike in zip(texts, is_alike, strict=True) if alike]))
        others = iter(self._encode_all([text for text, alike in zip(texts, is_alike, strict=True) if not alike]))
        return [next(quick if alike else others) for alike in is_alike]

    def _encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    @cached_property
    def _quick(self) -> EncodeBatch | None:
        return quick_encoder(self._engine, byte_of=_BYTE_OF)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids. Bytes that are not UTF-8, and ids it does not know, become U+FFFD.

        Special tokens are shown as their text.
        """
        return b"".join(self._bytes_of(int(identifier)) for identifier in ids).decode(errors="replace")

    def stream_decoder(self) -> "StreamDecoder":
        """A decoder for ids that come one at a time."""
        return StreamDecoder(self._bytes_of)

    def save(self, folder: str | Path, *, model_max_length: int | None = None) -> None:
        """Write `tokenizer.json`, `vocab.json`, `merges.txt` and `tokenizer_config.json`.

        `transformers.AutoTokenizer` opens them to the same ids, with the chat template of `gpt2kit.tokens.chat`.

        Args:
            folder: the folder to write to; other files in it are left alone.
            model_max_length: the model's context in tokens, if known.

        Raises:
            DiskError: the disk is full or the folder is not writable.
        """
        folder = Path(folder)
        token = self.end_of_text_token
        settings: dict[str, Any] = {
            "tokenizer_class": "GPT2Tokenizer",
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
            "bos_token": token,
            "eos_token": token,
            "unk_token": token,
            "chat_template": CHAT_TEMPLATE,
        }
        if model_max_length is not None:
            settings["model_max_length"] = model_max_length
        vocabulary = dict(sorted(self._engine.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1]))
        merges = "".join(f"{left} {right}\n" for left, right in _merges(self._engine))
        write_atomically(folder / "tokenizer.json", self._engine.to_str(pretty=True))
        write_atomically(folder / "vocab.json", json.dumps(vocabulary))
        write_atomically(folder / "merges.txt", "#version: 0.2\n" + merges)
        write_atomically(folder / "tokenizer_config.json", to_json(settings))


class StreamDecoder:
    """Turns ids that come one at a time into text, and never gives out half a character.

    All that `push` and `flush` return, joined, is what `Tokenizer.decode` makes of all the ids.
    """

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        self._bytes_of = bytes_of
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, identifier: int) -> str:
        """The text that is complete with this id; often a word, sometimes nothing."""
        return self._decoder.decode(self._bytes_of(int(identifier)))

    def flush(self) -> str:
        """What is left at the end: nothing, or U+FFFD for a character that was never finished."""
        return self._decoder.decode(b"", final=True)


def _greatest_id(engine: tokenizers.Tokenizer) -> int:
    """Asked one by one: of the whole vocabulary as a dictionary, megabytes of a process remain in use."""
    count = engine.get_vocab_size(with_added_tokens=True)
    if all(engine.id_to_token(number) is not None for number in range(count)):
        return count - 1
    return max(engine.get_vocab(with_added_tokens=True).values())


def train_tokenizer(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Learn a byte-level BPE from texts; the same texts give the same tokenizer.

    Args:
        texts: the texts, read once.
        vocab_size: entries wanted, at least 257. Fewer are made where the texts have no more pairs that occur twice.

    Returns:
        The tokenizer; its ids are laid out as GPT-2's are: bytes, merges in the order they were learned, and
        end-of-text last.

    Raises:
        UsageError: `vocab_size` is too small.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise UsageError(f"--vocab_size {vocab_size}: at least {SMALLEST_VOCABULARY}, for 256 bytes and end-of-text")
    engine = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    engine.train_from_iterator(texts, trainer)
    # The trainer would put special tokens first; GPT-2 has its one last.
    vocabulary = engine.get_vocab()
    vocabulary[END_OF_TEXT] = len(vocabulary)
    return Tokenizer(_byte_level(models.BPE(vocab=vocabulary, merges=_merges(engine))))


def _byte_level(model: models.BPE) -> tokenizers.Tokenizer:
    engine = tokenizers.Tokenizer(model)
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    engine.decoder = decoders.ByteLevel()
    engine.post_processor = processors.ByteLevel(trim_offsets=False)
    return engine


def _merges(engine: tokenizers.Tokenizer) -> list[tuple[str, str]]:
    merges: list[list[str] | str] = json.loads(engine.to_str())["model"]["merges"]
    # Older files hold "a b" instead of ["a", "b"].
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges]
    return [(left, right) for left, right in pairs]


def _end_of_text_named_in(folder: Path) -> str:
    """The end-of-text token by the folder's own word, else GPT-2's."""
    settings_file = folder / "tokenizer_config.json"
    if not settings_file.is_file():
        return END_OF_TEXT
    named = read_json(settings_file, what="the tokenizer's settings").get("eos_token")
    if isinstance(named, dict):
        named = named.get("content")
    return named if isinstance(named, str) and named else END_OF_TEXT


def _byte_characters() -> list[str]:
    """The printable character that stands for each of the 256 bytes in a byte-level vocabulary.

    Bytes that are printable in Latin-1 stand for themselves, the others for characters from U+0100 on, in order
    (Radford et al. 2019, section 2.2, as done in OpenAI's encoder).
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


_BYTE_OF = {character: byte for byte, character in enumerate(_byte_characters())}
