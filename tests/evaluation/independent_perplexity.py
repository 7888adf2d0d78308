"""Perplexity from scratch: GPT-2 in numpy and a plain loop over windows, sharing no code with gpt2kit.

    python tests/evaluation/independent_perplexity.py MODEL_FOLDER TEXT_FILE CONTEXT STRIDE

prints the perplexity and the bits per byte of a UTF-8 file, each token predicted once, the first from end-of-text, the
closing end-of-text predicted too. Everything is computed in float64.
"""

import json
import math
import struct
import sys
from pathlib import Path

import numpy as np
import tokenizers


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file (8 bytes of length, a JSON header, the data)."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    kinds = {"F32": np.float32, "F16": np.float16}
    weights = {}
    for name, entry in json.loads(raw[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        values = np.frombuffer(raw[start:end], dtype=kinds[entry["dtype"]]).reshape(entry["shape"])
        weights[name.removeprefix("transformer.")] = values.astype(np.float64)
    return weights


def normed(x, weights, name):
    centred = x - x.mean(-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return centred / spread * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def affine(x, weights, name):
    return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]


def log_probabilities(weights, config, ids) -> np.ndarray:
    """log p(next token) behind each token of a window: [tokens, vocabulary]."""
    heads, T = config["n_head"], len(ids)
    x = weights["wte.weight"][ids] + weights["wpe.weight"][:T]
    future = np.triu(np.full((T, T), -np.inf), 1)
    for layer in range(config["n_layer"]):
        block = f"h.{layer}"
        q, k, v = (
            part.reshape(T, heads, -1).transpose(1, 0, 2)
            for part in np.split(affine(normed(x, weights, f"{block}.ln_1"), weights, f"{block}.attn.c_attn"), 3, -1)
        )
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]) + future
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (shares / shares.sum(-1, keepdims=True)) @ v
        x = x + affine(mixed.transpose(1, 0, 2).reshape(T, -1), weights, f"{block}.attn.c_proj")
        inner = affine(normed(x, weights, f"{block}.ln_2"), weights, f"{block}.mlp.c_fc")
        inner = 0.5 * inner * (1 + np.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        x = x + affine(inner, weights, f"{block}.mlp.c_proj")
    logits = normed(x, weights, "ln_f") @ weights["wte.weight"].T
    highest = logits.max(-1, keepdims=True)
    return logits - highest - np.log(np.exp(logits - highest).sum(-1, keepdims=True))


def measure(folder: Path, text: str, context: int, stride: int) -> tuple[float, float]:
    """Perplexity and bits per byte."""
    config = json.loads((folder / "config.json").read_text())
    weights = read_weights(folder / "model.safetensors")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    end = config["eos_token_id"]
    stream = [end, *tokenizer.encode(text, add_special_tokens=False).ids, end]
    nats, done = 0.0, 1
    for start in range(0, len(stream), stride):
        window = stream[start : start + context]
        targets = stream[start + 1 : start + context + 1]
        logs = log_probabilities(weights, config, window)
        for place, target in enumerate(targets):
            if start + 1 + place == done:
                nats -= logs[place, target]
                done += 1
        if done == len(stream):
            break
    return math.exp(nats / (len(stream) - 1)), nats / math.log(2) / len(text.encode())


if __name__ == "__main__":
    print(
        *measure(Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8"), int(sys.argv[3]), int(sys.argv[4]))
    )
