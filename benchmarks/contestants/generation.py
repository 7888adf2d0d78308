"""The tasks of bench-generate, the same for every contestant.

A contestant is something that can write: continue prompts greedily, and draw samples from one prompt. Every text has
exactly as many new tokens as were asked for; end-of-text does not end it.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.core.child import Arguments, contestant, one_line, seconds_since_start

END_OF_TEXT = 50_256
CONTEXT_TOKENS = 1024
_ENOUGH_SECONDS = 5.0  # a task that took so long is not repeated within a round


@dataclass(frozen=True)
class Prompt:
    """A beginning, as text and as the ids that it has in GPT-2's vocabulary."""

    text: str
    ids: list[int]


class Writer(Protocol):
    """What a contestant can do; each method gives the new tokens of every text."""

    def write(self, prompts: list[Prompt], num_tokens: int) -> list[list[int]]:
        """Continue the prompts greedily, all of them at a time."""
        ...

    def draw(self, prompt: Prompt, num_samples: int, num_tokens: int) -> list[list[int]]:
        """Continue a prompt so many times by chance: temperature 1, nothing cut off."""
        ...


def main(load: Callable[[Arguments], Writer]) -> None:
    """Load, carry out the tasks that were asked for, and report."""
    contestant(lambda arguments: _measure(load, arguments))


def _measure(load: Callable[[Arguments], Writer], arguments: Arguments) -> dict[str, Any]:
    prompts = json.loads(Path(arguments["prompts"]).read_text(encoding="utf-8"))
    short = [Prompt(**one) for one in prompts["short"]]
    long = Prompt(**prompts["long"])
    sizes = arguments["sizes"]
    writer = load(arguments)
    values: dict[str, Any] = {"load_seconds": seconds_since_start()}
    if (facts := getattr(writer, "facts", None)) is not None:
        values |= facts()
    if arguments["task"] == "prepare":  # conversions are made while loading
        return values
    if arguments["task"] == "cold":
        _whole(writer.write(short[:1], sizes["tokens"]), number=1, tokens=sizes["tokens"])
        return values | {"text_seconds": seconds_since_start()}

    def task(name: str, tokens: int, work: Callable[[], list[list[int]]], *, repeats: int) -> list[list[int]]:
        """Time a task, once to warm up where it is short; a failure leaves the other tasks as they are."""
        try:
            seconds: list[float] = []
            texts = work() if repeats > 1 else []
            while len(seconds) < repeats and sum(seconds) < _ENOUGH_SECONDS:
                started = time.perf_counter()
                texts = work()
                seconds.append(time.perf_counter() - started)
            values[f"{name}_per_second"] = tokens / statistics.median(seconds)
            values[f"{name}_seconds"] = statistics.median(seconds)
        except Exception as error:
            values[f"{name}_reason"] = one_line(error)
            return []
        return texts

    repeats, one = sizes["repeats"], short[:1]
    num_texts, num_tokens = len(short), sizes["batch_tokens"]
    num_samples, sample_tokens = sizes["samples"], sizes["sample_tokens"]

    def written(prompts: list[Prompt], tokens: int) -> list[list[int]]:
        return _whole(writer.write(prompts, tokens), number=len(prompts), tokens=tokens)

    task("first_token", 1, lambda: written(one, 1), repeats=repeats)
    found = task("single", sizes["tokens"], lambda: written(one, sizes["tokens"]), repeats=repeats)
    if not found:
        raise RuntimeError(values["single_reason"])
    values["agreeing_tokens"] = _agreeing(found[0], prompts.get("continuation", []))
    values["distinct_tokens"] = len(set(found[0]))
    task("prompt", len(long.ids), lambda: written([long], 1), repeats=repeats)
    batches = arguments.get("batches", True)  # a compiled model is compiled anew for every shape, for minutes
    if sizes["batch"] and batches:
        task("batch", num_texts * num_tokens, lambda: written(short, num_tokens), repeats=1)
    if num_samples and batches:
        task(
            "samples",
            num_samples * sample_tokens,
            lambda: _whole(writer.draw(one[0], num_samples, sample_tokens), number=num_samples, tokens=sample_tokens),
            repeats=1,
        )
    return values


def _whole(texts: list[list[int]], *, number: int, tokens: int) -> list[list[int]]:
    """The texts, if they are as many and as long as was asked for."""
    lengths = {len(text) for text in texts}
    if len(texts) != number or lengths != {tokens}:
        raise RuntimeError(f"asked for {number} texts of {tokens} tokens, got {len(texts)} of {sorted(lengths)}")
    return texts


def _agreeing(found: list[int], expected: list[int]) -> int:
    """How many tokens from the beginning are those of the reference."""
    for place, (ours, theirs) in enumerate(zip(found, expected, strict=False)):
        if ours != theirs:
            return place
    return min(len(found), len(expected))
