"""Generating with GPT-2 124M: gpt2kit and its peers, in turn, each in a process of its own.

    make bench-generate                                 # all, five rounds
    make bench-generate BENCH="--quick --only gpt2kit"  # a trial

What it measures and how is told in docs/benchmarks.md.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import assets, pages
from benchmarks.core.machine import gpu
from benchmarks.core.places import WORK
from benchmarks.core.process import Outcome, run_contestant, run_process
from benchmarks.core.program import choose, keep, options, parser, run_benchmark, slug
from benchmarks.core.rounds import Contestant, say

NAME, GPU_NAME = "generate", "generate-gpu"
# What is asked for: `tokens` of one text, `batch_tokens` of each of 32 texts, `samples` of `sample_tokens` each.
_SIZES = {"tokens": 128, "repeats": 3, "batch": True, "batch_tokens": 64, "samples": 256, "sample_tokens": 16}
_GPU_SIZES = _SIZES | {"sample_tokens": 64}
_QUICK_SIZES = _SIZES | {"repeats": 2, "batch_tokens": 16, "samples": 64, "sample_tokens": 8}


def _ours(name: str, weights_bytes: float, *, engine: str | None = None, weights: str | None = None) -> Contestant:
    """gpt2kit with an engine and with weights; None leaves a setting at its default."""
    choice = {key: value for key, value in (("engine", engine), ("weights", weights)) if value is not None}
    arguments = {"choice": choice, "weight_bytes": weights_bytes}
    return Contestant(f"gpt2kit, {name}", "generate_gpt2kit", arguments, packages=("torch",), ours=True)


def _peer(name: str, module: str, peer: str, packages: str, weight_bytes: float, **arguments: Any) -> Contestant:
    arguments["weight_bytes"] = weight_bytes
    return Contestant(name, f"generate_{module}", arguments, peer, tuple(packages.split()))


_TRANSFORMERS = ("transformers", "transformers", "transformers torch")
_CTRANSLATE2 = ("ctranslate2", "ctranslate2", "ctranslate2")
_ONNXRUNTIME = ("onnxruntime", "onnxruntime", "onnxruntime onnx")
_OPENVINO = ("openvino", "openvino", "openvino openvino-genai nncf")
_LLAMA = ("llama", "llama", "llama-cpp-python gguf")
CONTESTANTS = [
    _ours("PyTorch fp32", 4, engine="torch"),
    _ours("native fp32", 4, engine="native", weights="fp32"),
    _ours("native int8", 1, engine="native", weights="int8"),
    _ours("native int4", 0.5, engine="native", weights="int4"),
    _peer("transformers, eager", *_TRANSFORMERS, 4, compile=False),
    _peer("transformers, compiled", *_TRANSFORMERS, 4, compile=True, batches=False),
    _peer("CTranslate2 float32", *_CTRANSLATE2, 4, weights="float32"),
    _peer("CTranslate2 int8", *_CTRANSLATE2, 1, weights="int8"),
    _peer("ONNX Runtime fp32", *_ONNXRUNTIME, 4, weights="fp32"),
    _peer("ONNX Runtime int8", *_ONNXRUNTIME, 1, weights="int8"),
    _peer("ONNX Runtime int4", *_ONNXRUNTIME, 0.5, weights="int4"),
    _peer("OpenVINO GenAI fp32", *_OPENVINO, 4, weights="fp32"),
    _peer("OpenVINO GenAI int8", *_OPENVINO, 1, weights="int8"),
    _peer("OpenVINO GenAI int4", *_OPENVINO, 0.5, weights="int4"),
    _peer("llama.cpp f32", *_LLAMA, 4, weights="f32"),
    _peer("llama.cpp f16", *_LLAMA, 2, weights="f16"),
    _peer("llama.cpp Q8_0", *_LLAMA, 1, weights="q8_0"),
    _peer("llama.cpp Q4_0", *_LLAMA, 0.5, weights="q4_0"),
]
# On a GPU, in bf16: what gpt2kit takes there by itself.
GPU_CONTESTANTS = [
    _ours("bf16", 2),
    _peer("transformers, eager", *_TRANSFORMERS, 2, compile=False, dtype="bfloat16"),
    _peer("transformers, compiled", *_TRANSFORMERS, 2, compile=True, dtype="bfloat16", batches=False),
]


def main() -> None:
    """Run the benchmark and write its tables."""
    made = parser(__doc__)
    made.add_argument("--no-batches", action="store_true", help="leave out the batch and the samples, which take long")
    arguments = made.parse_args()
    on_gpu = gpu() is not None
    name = GPU_NAME if on_gpu else NAME
    chosen, contestants = options(arguments), choose(GPU_CONTESTANTS if on_gpu else CONTESTANTS, arguments)
    sizes = _QUICK_SIZES if chosen.quick else _GPU_SIZES if on_gpu else _SIZES
    if arguments.no_batches:
        sizes = sizes | {"batch": False, "samples": 0}
    assets.ensure("writing-model", "prompts")
    common = {
        "model": str(assets.WRITING_MODEL),
        "prompts": str(assets.PROMPTS),
        "sizes": sizes,
        "threads": chosen.threads,
    }
    prepared: set[str] = set()

    def measure(one: Contestant, number: int) -> Outcome:
        """Conversions first, once; then a process for the rates and one for the cold start."""
        log = WORK / "logs" / name / f"{slug(one.name)}-{number + 1}.log"
        told = common | dict(one.arguments)
        how: dict[str, Any] = {"threads": chosen.threads, "timeout_seconds": one.timeout_seconds}
        if one.name not in prepared:
            prepared.add(one.name)
            outcome = run_contestant(one.module, told | {"task": "prepare"}, log=log, **how)
            if outcome.reason is not None:
                return outcome
        rates = run_contestant(one.module, told | {"task": "rates"}, log=log, **how)
        if rates.reason is not None:
            return rates
        cold_log = log.with_name(f"cold-{log.name}")
        if one.ours:
            cold = from_the_shell(rates.values.pop("flags"), sizes["tokens"], log=cold_log, threads=chosen.threads)
        else:
            cold = run_contestant(one.module, told | {"task": "cold"}, log=cold_log, **how)
        if cold.reason is not None:
            say(f"  cold start: {cold.reason}")
            return Outcome(rates.seconds, rates.peak_memory_bytes, rates.values | {"cold_reason": cold.reason})
        beside = {"cold_seconds": cold.seconds, "cold_peak_memory_bytes": cold.peak_memory_bytes}
        return Outcome(rates.seconds, rates.peak_memory_bytes, rates.values | beside)

    results = run_benchmark(name, contestants, chosen, common=common, settings={"sizes": sizes}, measure=measure)
    results["parameters"] = multiplied_parameters()
    results["weight_bytes"] = {one.name: one.arguments["weight_bytes"] for one in contestants}
    keep(name, results, trial=chosen.is_trial)
    pages.show(name, results, write=not chosen.is_trial)


def from_the_shell(flags: dict[str, str], tokens: int, *, log: Path, threads: int) -> Outcome:
    """`gpt2kit generate` itself, as a user types it."""
    prompt = json.loads(assets.PROMPTS.read_text(encoding="utf-8"))["short"][0]["text"]
    folder = Path(tempfile.mkdtemp(prefix="texts-", dir=WORK))
    program = Path(sys.executable).with_name("gpt2kit")
    command: list[str | Path] = [program] if program.exists() else [sys.executable, "-m", "gpt2kit"]
    command += ["generate", "--model_dir", assets.WRITING_MODEL]
    command += ["--prompt", prompt, "--max_new_tokens", str(tokens), "--min_new_tokens", str(tokens)]
    command += ["--temperature", "0", "--no_lookup", "--output_dir", folder]
    for name, value in flags.items():
        command += [f"--{name}", value]
    try:
        return run_process(command, log=log, threads=threads, timeout_seconds=300)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def multiplied_parameters() -> int:
    """The weights read for a token: all but the position table, of which one row is read."""
    config = json.loads((assets.WRITING_MODEL / "config.json").read_text(encoding="utf-8"))
    width: int = config["n_embd"]
    block = 12 * width**2 + 13 * width
    return int(config["n_layer"] * block + config["vocab_size"] * width + 2 * width)


if __name__ == "__main__":
    main()
