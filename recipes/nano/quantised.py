"""What rounded weights cost: perplexity of nano in fp32, int8 and int4 on prose that it has not read.

    .venv/bin/python recipes/nano/quantised.py --corpora PATH

Each book of `prose_heldout` is cut into windows of 512 tokens, of which the first few are read; the first token of a
window is not predicted, and each other token once.

Shapes: T tokens of a window, V vocabulary.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import zstandard
from tabulate import tabulate

from gpt2kit.hub import resolve_base
from gpt2kit.native.engine import NativeEngine, TextCache
from gpt2kit.native.library import Weights
from gpt2kit.tokens import Tokenizer

T = 512
WINDOWS_OF_A_BOOK = 12
WEIGHTS: tuple[Weights, ...] = ("fp32", "int8", "int4")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", required=True, type=Path, help="folder with prose_heldout.jsonl.zst")
    with zstandard.open(parser.parse_args().corpora / "prose_heldout.jsonl.zst", "rt", encoding="utf-8") as file:
        books = [json.loads(line)["text"] for line in file]
    tokenizer = Tokenizer.from_folder(resolve_base("nano"))
    windows = [
        ids[start : start + T]
        for ids in map(tokenizer.encode, books)
        for start in range(0, min(WINDOWS_OF_A_BOOK * T, len(ids) - T), T)
    ]
    found = {weights: perplexity(weights, windows) for weights in WEIGHTS}
    rows = [(weights, value, f"{value / found['fp32'] - 1:+.2%}") for weights, value in found.items()]
    print(f"{len(books)} books, {len(windows) * (T - 1):,} tokens predicted")
    print(tabulate(rows, ["weights", "perplexity", "more"], floatfmt=".3f"))


def perplexity(weights: Weights, windows: list[list[int]]) -> float:
    """exp(nats / tokens) over all windows."""
    engine = NativeEngine(resolve_base("nano"), weights=weights)
    nats = 0.0
    for ids in windows:
        logits_TV = engine.read([TextCache(engine, T)], [ids], num_scored=[T])[:-1].astype(np.float64)
        greatest_T1 = logits_TV.max(axis=1, keepdims=True)
        log_total_T = np.log(np.exp(logits_TV - greatest_T1).sum(axis=1)) + greatest_T1[:, 0]
        nats += float((log_total_T - logits_TV[np.arange(T - 1), ids[1:]]).sum())
    return math.exp(nats / (len(windows) * (T - 1)))


if __name__ == "__main__":
    main()
