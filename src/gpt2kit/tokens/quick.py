"""The same ids five times as quickly, by tiktoken where it is installed.

`tokenizers` joins two tokens if their pair is among the merges; tiktoken, if what they spell is a token, the one with
the lowest id first. That is the same when ids rise with the merges and every token, taken by itself, is what the merges
make of its bytes: before it is joined, the merges act inside those bytes as they would there alone, and so have come to
the pair that they join.
"""

import functools
import json
import re
from collections.abc import Callable, Mapping
from itertools import pairwise

import tokenizers

from gpt2kit.runtime import num_threads

# How GPT-2 cuts text into words before it joins bytes (Radford et al. 2019, and OpenAI's encoder).
_WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
# Which characters are letters, digits and white space, the two libraries have from different editions of Unicode.
# Latin, Greek, Cyrillic and general punctuation they see alike, which the tests go through.
_ALIKE = "\x00-\u0377\u037a-\u037f\u0384-\u038a\u038c\u038e-\u03a1\u03a3-\u052f\u2000-\u2064"
_OTHER_CHARACTERS = re.compile(f"[^{_ALIKE}]")
_MODEL = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None}
_SWITCHES = ("fuse_unk", "byte_fallback", "ignore_merges")
EncodeBatch = Callable[[list[str]], list[list[int]]]


def reads_alike(text: str) -> bool:
    """Whether both libraries cut a text into the same words for sure."""
    return text.isascii() or _OTHER_CHARACTERS.search(text) is None


def quick_encoder(engine: tokenizers.Tokenizer, *, byte_of: Mapping[str, int]) -> EncodeBatch | None:
    """What gives, by tiktoken and on all cores, the ids of each of several texts that `reads_alike`.

    Args:
        engine: the tokenizer.
        byte_of: the byte that each character of its vocabulary stands for.

    Returns:
        A function of the texts; None where tiktoken is not installed, or would not give the same ids.
    """
    try:
        import tiktoken
    except ImportError:
        return None
    ranks = _ranks(engine, byte_of)
    if ranks is None:
        return None
    encoding = tiktoken.Encoding("gpt2kit", pat_str=_WORDS, mergeable_ranks=ranks, special_tokens={})
    return functools.partial(encoding.encode_ordinary_batch, num_threads=num_threads())


def _ranks(engine: tokenizers.Tokenizer, byte_of: Mapping[str, int]) -> dict[bytes, int] | None:
    """The id of each run of bytes that is a token; None where ids by their order do not say what the merges say."""
    parts = json.loads(engine.to_str())
    before, model = parts["pre_tokenizer"] or {}, parts["model"]
    if parts["normalizer"] is not None or before.get("type") != "ByteLevel":
        return None
    if before.get("add_prefix_space") or not before.get("use_regex", True):
        return None
    if any(model.get(name) not in (none, "") for name, none in _MODEL.items()) or any(map(model.get, _SWITCHES)):
        return None
    vocabulary: dict[str, int] = model["vocab"]
    special = {token["content"] for token in parts["added_tokens"]}
    if any(not token["special"] for token in parts["added_tokens"]):
        return None
    merges = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    made = [left + right for left, right in merges]
    ids = [vocabulary.get(token, -1) for token in made]
    if any(second <= first for first, second in pairwise(ids)):
        return None
    of_bytes = [vocabulary.get(character, -1) for character in byte_of]
    if min(of_bytes) < 0 or {*made, *byte_of} != vocabulary.keys() - special:
        return None
    alone = ([token.id for token in engine.model.tokenize(token)] for token in made)
    if any(found != [number] for found, number in zip(alone, ids, strict=True)):
        return None
    return {bytes(byte_of[character] for character in token): vocabulary[token] for token in (*byte_of, *made)}
