"""Random models of random shapes, read in random pieces by a given build of the kernel, and random training steps'
operations: `fuzz.py LIBRARY SEED ROUNDS`.

Run by `test_sanitizers`, in a process that has the sanitizers' libraries loaded, and by hand for longer.
"""

import ctypes
import json
import sys
import tempfile
import threading
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from gpt2kit.native import library
from gpt2kit.native.checkpoint import read_shape, tensor_shapes
from gpt2kit.native.engine import Draw, DrawingRules, NativeEngine, TextCache


def random_model(rng: np.random.Generator, folder: Path) -> None:
    heads, width = int(rng.integers(1, 5)), int(rng.integers(1, 40))
    config = {
        "model_type": "gpt2",
        "vocab_size": int(rng.integers(1, rng.choice([200, 3000]))),
        "n_positions": int(rng.integers(1, 60)),
        "n_embd": heads * width,
        "n_layer": int(rng.integers(1, 3)),
        "n_head": heads,
        "n_inner": int(rng.integers(1, 150)),
        "tie_word_embeddings": bool(rng.random() < 0.7),
    }
    (folder / "config.json").write_text(json.dumps(config))
    shapes = tensor_shapes(read_shape(folder), is_tied=config["tie_word_embeddings"])
    weights = {name: rng.standard_normal(dims) * 10 ** rng.uniform(-3, 1) for name, dims in shapes.items()}
    save_file({name: values.astype(np.float32) for name, values in weights.items()}, folder / "model.safetensors")


def read_at_random(rng: np.random.Generator, engine: NativeEngine) -> None:
    most = engine.shape.n_positions
    caches = [TextCache(engine, int(rng.integers(1, most + 1))) for _ in range(int(rng.integers(1, 16)))]
    for _ in range(3):
        going_on = [cache for cache in caches if cache.length < min(cache.capacity, most)]
        if not going_on:
            return
        if rng.random() < 0.5:
            source = next((cache for cache in going_on if cache.source is None), None)
            if source is not None:  # texts that go on from another one's cache
                capacity = int(rng.integers(source.length + 1, most + 1))
                going_on += [TextCache(engine, capacity, source=source) for _ in range(2)]
        counts = [int(rng.integers(1, min(cache.capacity, most) - cache.length + 1)) for cache in going_on]
        tokens = [rng.integers(0, engine.shape.vocab_size, count).tolist() for count in counts]
        scored = [int(rng.integers(0, count + 1)) for count in counts]
        lengths = [cache.length for cache in going_on]
        rows = list(engine.read(going_on, tokens, num_scored=scored))
        draws = [Draw(int(key), [int(key) % engine.shape.vocab_size]) for key in rng.integers(0, 1 << 63, len(rows))]
        keys, forbidden = [draw.key for draw in draws], [draw.forbidden for draw in draws]
        rules = DrawingRules(
            temperature=float(rng.choice([0.0, 0.5, 2.0])),
            top_k=int(rng.choice([0, 0, 1, 5, 5000])),
            top_p=float(rng.choice([1, 1, 0.9, 0.3])),
            min_p=float(rng.choice([0, 0, 0.1])),
        )
        chosen = engine.choose(rows, rows, keys=keys, rules=rules, forbidden=forbidden)
        for cache, length in zip(going_on, lengths, strict=True):
            cache.length = length  # all is read again
        picked = engine.pick(going_on, tokens, draws, rules=rules, num_scored=scored)
        assert picked == [identifier for identifier, _ in chosen]
        sources = {id(cache.source) for cache in going_on}
        for cache in going_on:
            if cache.source is None and id(cache) not in sources and rng.random() < 0.2:
                cache.length = int(rng.integers(0, cache.length + 1))  # tokens that are forgotten again


RUN = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@RUN
def run_on_threads(work: int, argument: int, num_threads: int, flags: int) -> None:
    """What OpenMP's entry does, by threads of Python."""
    threads = [threading.Thread(target=WORK(work), args=(argument,)) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def floats(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape).astype(np.float32)


def operate_at_random(rng: np.random.Generator, kernel: ctypes.CDLL, isa: int) -> None:
    threads, seed = int(rng.integers(1, 4)), int(rng.integers(1 << 62))
    B, T, H, K = (int(rng.integers(1, most)) for most in (4, 80, 4, 40))
    room = -(-kernel.gk_attention_scratch(T, K) // 16) * 16
    scratch = np.empty(threads * room + 16, dtype=np.float32)
    first = np.maximum.accumulate(np.where(rng.random((B, T)) < 0.1, np.arange(T), 0), axis=1).astype(np.int32)
    arrays = {"qkv": floats(rng, B, T, 3 * H * K), "out": floats(rng, B, T, H * K), "log_sums": floats(rng, B, H, T)}
    if rng.random() < 0.5:
        arrays["first"] = first
    gradients = {"grad_out": floats(rng, B, T, H * K), "grad_qkv": floats(rng, B, T, 3 * H * K)}
    for given in (arrays, arrays | gradients):
        call = library.AttentionCall(
            rows=B, length=T, heads=H, width=K, scale=0.3, dropout=float(rng.choice([0.0, 0.2, 1.0])), seed=seed,
            scratch=scratch.ctypes.data + -scratch.ctypes.data % 64, stride_scratch=room,
            **{name: array.ctypes.data for name, array in given.items()},
        )  # fmt: skip
        kernel.gk_attend(ctypes.cast(run_on_threads, ctypes.c_void_p), threads, isa, ctypes.byref(call))
    N, width = int(rng.integers(1, 100)), int(rng.integers(1, 70))
    chunks, stride = -(-N // library.CHUNK), width + int(rng.integers(0, 9))
    targets = rng.integers(0, width, N)
    for operation in range(7):
        given = {name: floats(rng, N, stride) for name in ("input", "x", "y")}
        given |= {name: floats(rng, width) for name in ("gain", "bias")}
        given |= {"statistics": floats(rng, N, 2), "sums": floats(rng, chunks, 2, width), "targets": targets}
        if operation in {1, 3, 5} and rng.random() < 0.5:
            del given["sums"]
        if operation == 3 and rng.random() < 0.5:
            del given["y"]
        call = library.RowsCall(
            operation=operation, num_rows=N, width=width, stride=stride, epsilon=1e-5, seed=seed,
            dropout=float(rng.choice([0.0, 1e-12, 0.2, 1.0])),
            **{name: array.ctypes.data for name, array in given.items()},
        )  # fmt: skip
        kernel.gk_rows(ctypes.cast(run_on_threads, ctypes.c_void_p), threads, isa, ctypes.byref(call))


def multiply_at_random(rng: np.random.Generator, kernel: ctypes.CDLL, isa: int) -> None:
    threads = int(rng.integers(1, 4))
    rows, depth, columns = (int(rng.integers(1, most)) for most in (90, 1700, 120))
    is_turned = rng.random(2) < 0.5
    a, b, c = floats(rng, rows, depth), floats(rng, depth, columns), floats(rng, rows, columns)
    exact = a.astype(np.float64) @ b
    a, b = (np.asfortranarray(each) if turned else each for each, turned in zip((a, b), is_turned, strict=True))
    rows_laid = np.empty(kernel.gk_product_room(rows, depth), dtype=np.float32)
    columns_laid = np.empty(threads * library.BLOCK, dtype=np.float32)
    call = library.ProductCall(
        rows=rows, columns=columns, depth=depth, a=a.ctypes.data, b=b.ctypes.data, c=c.ctypes.data, c_row=columns,
        a_row=a.strides[0] // 4, a_column=a.strides[1] // 4, b_row=b.strides[0] // 4, b_column=b.strides[1] // 4,
        scale=1.0, rows_laid=rows_laid.ctypes.data, columns_laid=columns_laid.ctypes.data,
    )  # fmt: skip
    kernel.gk_multiply(ctypes.cast(run_on_threads, ctypes.c_void_p), threads, isa, ctypes.byref(call))
    assert np.abs(c - exact).max() < 1e-5 * depth


def main(path: str, seed: str, rounds: str) -> None:
    rng = np.random.default_rng(int(seed))
    with mock.patch.object(library, "library_path", return_value=Path(path)):
        kernel = library.load_library()
    assert kernel is not None
    for _ in range(int(rounds)):
        for isa in range(library.best_isa(kernel) + 1):
            operate_at_random(rng, kernel, isa)
            multiply_at_random(rng, kernel, isa)
        with tempfile.TemporaryDirectory() as folder:
            random_model(rng, Path(folder))
            for weights in ("fp32", "int8", "int4"):
                for isa in range(library.best_isa(kernel) + 1):
                    threads = int(rng.integers(1, 4))
                    read_at_random(rng, NativeEngine(Path(folder), weights=weights, isa=isa, threads=threads))
    print("clean")


if __name__ == "__main__":
    main(*sys.argv[1:])
