"""Tokenizers alone: text in memory to ids in memory; gpt2kit's, tokenizers, tiktoken, gigatoken."""

import json
import time
from collections.abc import Callable, Sequence, Sized
from pathlib import Path

from benchmarks.contestants.texts import read_sections
from benchmarks.core.child import Arguments, contestant, seconds_since_start

# Encodes all sections and says how many tokens they have.
Counter = Callable[[list[str]], int]
# How GPT-2 cuts text into words before it merges bytes (Radford et al. 2019).
_GPT2_WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def measure(arguments: Arguments) -> dict[str, float]:
    """Load the tokenizer, warm up on a few sections, encode all."""
    count = _COUNTERS[arguments["tokenizer"]](Path(arguments["model"]), arguments["threads"])
    load_seconds = seconds_since_start()
    sections = read_sections(Path(arguments["texts"]))
    size = sum(len(section.encode()) for section in sections)
    count(sections[:4])
    started = time.perf_counter()
    tokens = count(sections)
    seconds = time.perf_counter() - started
    return {"bytes_per_second": size / seconds, "tokens": tokens, "load_seconds": load_seconds}


def _lengths(ids: Sequence[Sized]) -> int:
    return sum(map(len, ids))


def _gpt2kit(folder: Path, _threads: int) -> Counter:
    from gpt2kit.tokens.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_folder(folder)
    return lambda sections: _lengths(tokenizer.encode_batch(sections))


def _tokenizers(folder: Path, _threads: int) -> Counter:
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda sections: _lengths(tokenizer.encode_batch_fast(sections, add_special_tokens=False))


def _tiktoken(folder: Path, threads: int) -> Counter:
    encoding = tiktoken_encoding(folder)
    return lambda sections: _lengths(encoding.encode_ordinary_batch(sections, num_threads=threads))


def tiktoken_encoding(folder: Path):  # type: ignore[no-untyped-def]
    """GPT-2's encoding of tiktoken, its ranks from the folder's vocabulary: no download."""
    import tiktoken

    byte_of = {character: byte for byte, character in enumerate(_byte_characters())}
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    ranks = {
        bytes(byte_of[character] for character in token): number
        for token, number in vocabulary.items()
        if token != "<|endoftext|>"
    }
    return tiktoken.Encoding(
        "gpt2", pat_str=_GPT2_WORDS, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": len(ranks)}
    )


def _byte_characters() -> list[str]:
    """The character that stands for each byte in GPT-2's files: itself where it can be seen, else one from 256 on."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("\u00a1"), ord("\u00ac") + 1), *range(ord("\u00ae"), 256)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)]


def _gigatoken(folder: Path, _threads: int) -> Counter:
    import gigatoken
    import tokenizers

    tokenizer = gigatoken.Tokenizer(tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")))
    return lambda sections: _lengths(tokenizer.encode_batch(sections))


_COUNTERS: dict[str, Callable[[Path, int], Counter]] = {
    "gpt2kit": _gpt2kit,
    "tokenizers": _tokenizers,
    "tiktoken": _tiktoken,
    "gigatoken": _gigatoken,
}

if __name__ == "__main__":
    contestant(measure)
