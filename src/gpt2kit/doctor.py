"""What this machine can do, measured in a few seconds, and what to expect of it.

The rates are the limits that everything else is held against: training cannot go faster than the matrix product, and
generation cannot go faster than the weights can be read from memory. The estimates are those `gpt2kit train --dry_run`
makes, from the same functions.
"""

import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from gpt2kit.console import text_table
from gpt2kit.files import free_bytes
from gpt2kit.hub import cached_copy
from gpt2kit.model.gpt2 import GPT2Config
from gpt2kit.native.library import ISAS, best_isa, load_library
from gpt2kit.runtime import VERSION, available_memory_bytes, select_device, select_dtype
from gpt2kit.training.memory import matrix_rate, memory_estimate, step_seconds
from gpt2kit.training.settings import TrainSettings

if TYPE_CHECKING:
    import torch

# (blocks, heads, width); radford2019language, table 2, and distilgpt2's model card.
MODELS = {
    "distilgpt2": (6, 12, 768),
    "gpt2": (12, 12, 768),
    "gpt2-medium": (24, 16, 1024),
    "gpt2-large": (36, 20, 1280),
    "gpt2-xl": (48, 25, 1600),
}
# Extra of pyproject.toml -> (modules it brings, what it is for).
EXTRAS = {
    "parquet": (("pyarrow",), "reading parquet files"),
    "fast": (("tiktoken",), "preparing text in half the time"),
    "tensorboard": (("tensorboard",), "watching a training in TensorBoard"),
    "plots": (("matplotlib",), "pictures"),
    "metrics": (("sklearn",), "coherence of generated texts"),
    "mauve": (("mauve",), "MAUVE, generated beside human texts"),
    "grammar": (("harper",), "grammar errors in English texts"),
    "tune": (("optuna",), "searching for settings"),
    "review": (("starlette", "uvicorn"), "the page of a blind review"),
    "lm-eval": (("lm_eval",), "the tasks of lm-eval"),
    "notebooks": (("ipykernel", "nbclient", "nbformat"), "the notebooks"),
}
_LORA_RANK = 8  # the default of `gpt2kit train`
_BATCH_ROWS = 8
_CONTEXT = 1024
_CPU_CONTEXT = 512  # `gpt2kit train` takes shorter rows on a CPU
_TOKENS_PER_MB = 250_000  # GPT-2's tokenizer on English prose: about four bytes a token
_MEMORY_SHARE = 0.8  # leaves room for the system, as the plan of a training does
_READ_BYTES = 1 << 28  # far beyond any cache
_LOW_DISK_BYTES = 5e9
_GB = 1e9


@dataclass(frozen=True)
class Extra:
    """An optional part of gpt2kit: its name, what it is for, and whether it is installed."""

    name: str
    purpose: str
    installed: bool


@dataclass(frozen=True)
class Method:
    """What one way of training one model would take here.

    Attributes:
        memory_bytes: estimated peak with one row at a time.
        fits: "yes", "with --gradient_checkpointing", or "no".
        tokens_per_second: estimated; None when it does not fit.
        seconds_per_mb: estimated time for one epoch over a megabyte of English text; None when it does not fit.
    """

    memory_bytes: int
    fits: str
    tokens_per_second: float | None
    seconds_per_mb: float | None


@dataclass(frozen=True)
class Expectation:
    """What to expect of one size of GPT-2 here.

    Attributes:
        model: its name.
        parameters: their number.
        here: whether a copy is on this machine.
        full: training all weights.
        lora: training a LoRA adapter.
        generated_tokens_per_second: the most that reading the weights once a token allows, one text at a time.
    """

    model: str
    parameters: int
    here: bool
    full: Method
    lora: Method
    generated_tokens_per_second: float


@dataclass(frozen=True)
class Examination:
    """What `gpt2kit doctor` found.

    Attributes:
        gpt2kit: its version.
        python: its version.
        torch: its version.
        device: torch device that was measured.
        device_name: the processor or GPU in words.
        dtype: what matrices are multiplied in there.
        cores: processor cores this process may use.
        threads: threads torch uses.
        memory_bytes: memory of the device.
        available_bytes: how much of it is free.
        matrix_flops: floating-point operations a second of the matrix product in `dtype`.
        read_bytes_per_second: speed of reading the device's memory.
        disk_free_bytes: free space where the command was run.
        context: tokens in a row that the expectations are for.
        native_engine: the instruction set that the native engine generates texts with; None where it was not compiled.
        extras: optional parts.
        expectations: one a size of GPT-2.
        warnings: what may not be as wanted, each with what to do.
    """

    gpt2kit: str
    python: str
    torch: str
    device: str
    device_name: str
    dtype: str
    cores: int
    threads: int
    memory_bytes: int
    available_bytes: int
    matrix_flops: float
    read_bytes_per_second: float
    disk_free_bytes: int
    context: int
    native_engine: str | None
    extras: tuple[Extra, ...]
    expectations: tuple[Expectation, ...]
    warnings: tuple[str, ...]

    def largest(self, method: str) -> str | None:
        """The largest model that fits by `method`, "full" or "lora"; None when not even the smallest does."""
        fitting = [each for each in self.expectations if getattr(each, method).fits != "no"]
        return fitting[-1].model if fitting else None

    def to_dict(self) -> dict[str, Any]:
        """The findings as JSON values."""
        return asdict(self) | {"largest_full": self.largest("full"), "largest_lora": self.largest("lora")}

    def to_text(self) -> str:
        """The findings for the terminal."""
        return "\n".join([self._machine_text(), "", self._expectations_text(), "", *self._closing_lines()])

    def _machine_text(self) -> str:
        missing = [extra for extra in self.extras if not extra.installed]
        rows = [
            ("gpt2kit", f"{self.gpt2kit} (Python {self.python}, torch {self.torch})"),
            ("device", f"{self.device}: {self.device_name}, {self.cores} cores, {self.threads} threads"),
            ("memory", f"{self.available_bytes / _GB:.1f} GB free of {self.memory_bytes / _GB:.1f} GB"),
            ("matrix product", f"{self.matrix_flops / 1e9:,.0f} GFLOP/s ({self.dtype})"),
            ("memory read", f"{self.read_bytes_per_second / _GB:,.1f} GB/s"),
            (
                "native engine",
                self.native_engine or "not compiled (needs gcc or clang): texts are generated by PyTorch",
            ),
            ("disk", f"{self.disk_free_bytes / _GB:.1f} GB free here"),
            ("optional parts", "all installed" if not missing else ", ".join(e.name for e in missing) + " missing"),
        ]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)

    def _expectations_text(self) -> str:
        rows = []
        for each in self.expectations:
            row = [each.model + (" (here)" if each.here else ""), f"{each.parameters / 1e6:,.0f} M"]
            for method in (each.full, each.lora):
                row += [_gb(method.memory_bytes) + _mark(method.fits), _duration(method.seconds_per_mb)]
            rows.append([*row, f"{each.generated_tokens_per_second:,.0f}"])
        headers = [
            "model",
            "size",
            "full: memory",
            "epoch of 1 MB",
            "LoRA: memory",
            "epoch of 1 MB",
            "generates, tok/s <=",
        ]
        table = text_table(rows, headers, right_align=(1, 2, 3, 4, 5, 6))
        marks = {method.fits for each in self.expectations for method in (each.full, each.lora)}
        if any("with" in fits for fits in marks):
            table += "\n* with --gradient_checkpointing"
        return table

    def _closing_lines(self) -> list[str]:
        full, lora = self.largest("full"), self.largest("lora")
        if full is None and lora is None:
            lines = ["No GPT-2 size fits for fine-tuning; a small model from scratch does: --from_scratch."]
        else:
            lines = [f"Largest to fine-tune here: {full or 'none'} in full, {lora or 'none'} by LoRA (--method lora)."]
        lines.append(
            "Estimated, as by `gpt2kit train --dry_run`: rows of "
            f"{self.context} tokens, about 6 FLOPs per parameter and token in full and 4 by LoRA, at the share of the "
            "matrix rate that training reaches."
        )
        lines += [
            f"Missing for {extra.purpose}: pip install 'gpt2kit[{extra.name}]'"
            for extra in self.extras
            if not extra.installed
        ]
        return lines + [f"Note: {warning}" for warning in self.warnings]


def examine(*, device: str = "auto", folder: Path | None = None) -> Examination:
    """Measure this machine; takes a few seconds.

    Args:
        device: the torch device to measure, "auto" for the one a training would take.
        folder: whose disk to look at; the current folder by default.

    Raises:
        UsageError: this machine has no such device.
    """
    import torch

    chosen = select_device(device)
    dtype = select_dtype("auto", chosen)
    context = _CPU_CONTEXT if chosen.type == "cpu" else _CONTEXT
    available = available_memory_bytes(chosen)
    flops = matrix_rate(chosen, dtype)
    estimate = memory_estimate(
        TrainSettings(), attention_dropout=GPT2Config().attn_pdrop, context=context, device=chosen, dtype=dtype
    )
    read_rate = _read_rate(chosen)
    disk = free_bytes(folder or Path())
    return Examination(
        gpt2kit=VERSION,
        python=platform.python_version(),
        torch=torch.__version__,
        device=str(chosen),
        device_name=_device_name(chosen),
        dtype=str(dtype).removeprefix("torch."),
        cores=_usable_cores(),
        threads=torch.get_num_threads(),
        memory_bytes=_memory_bytes(chosen),
        available_bytes=available,
        matrix_flops=flops,
        read_bytes_per_second=read_rate,
        disk_free_bytes=disk,
        context=context,
        native_engine=_native_engine(),
        extras=tuple(
            Extra(name, purpose, all(importlib.util.find_spec(module) is not None for module in modules))
            for name, (modules, purpose) in EXTRAS.items()
        ),
        expectations=tuple(
            _expectation(
                name, context=context, available=available, estimate=estimate, flops=flops, read_rate=read_rate
            )
            for name in MODELS
        ),
        warnings=tuple(_warnings(chosen, disk)),
    )


def count_parameters(config: GPT2Config) -> int:
    """Parameters of a GPT-2 with a tied head, without building it.

    V·D token and T·D position embeddings; a block has 12·D² + 13·D (weights and biases of c_attn, c_proj, c_fc,
    c_proj and its two norms, with an MLP four times as wide); the last norm has 2·D.
    """
    D = config.n_embd
    return (config.vocab_size + config.n_positions) * D + config.n_layer * (12 * D * D + 13 * D) + 2 * D


def adapter_parameters(config: GPT2Config) -> int:
    """Parameters of a LoRA adapter as `gpt2kit train --method lora` makes it by default.

    A block's has rank · (inputs + outputs) of c_attn, both c_proj and c_fc: 4·D + 2·D + 5·D + 5·D.
    """
    return config.n_layer * _LORA_RANK * 16 * config.n_embd


def _expectation(
    name: str, *, context: int, available: int, estimate: Callable[..., int], flops: float, read_rate: float
) -> Expectation:
    layers, heads, width = MODELS[name]
    config = GPT2Config(n_layer=layers, n_head=heads, n_embd=width)
    parameters = count_parameters(config)
    methods = [
        _method(
            config,
            parameters=parameters,
            trainable=trainable,
            context=context,
            available=available,
            estimate=estimate,
            flops=flops,
        )
        for trainable in (parameters, adapter_parameters(config))
    ]
    return Expectation(
        model=name,
        parameters=parameters,
        here=cached_copy(name) is not None,
        full=methods[0],
        lora=methods[1],
        generated_tokens_per_second=read_rate / (4 * parameters),
    )


def _method(
    config: GPT2Config,
    *,
    parameters: int,
    trainable: int,
    context: int,
    available: int,
    estimate: Callable[..., int],
    flops: float,
) -> Method:
    memory = [
        estimate(config, parameters=parameters, trainable=trainable, rows=1, gradient_checkpointing=checkpointing)
        for checkpointing in (False, True)
    ]
    room = _MEMORY_SHARE * available
    if memory[0] <= room:
        used, fits, recomputed = memory[0], "yes", 1.0
    elif memory[1] <= room:
        used, fits, recomputed = memory[1], "with --gradient_checkpointing", 4 / 3
    else:
        return Method(memory_bytes=memory[1], fits="no", tokens_per_second=None, seconds_per_mb=None)
    tokens = _BATCH_ROWS * context
    seconds = recomputed * step_seconds(
        config,
        tokens=tokens,
        micro_batches=_BATCH_ROWS,
        context=context,
        trainable_share=trainable / parameters,
        rate=flops,
    )
    return Method(
        memory_bytes=used,
        fits=fits,
        tokens_per_second=tokens / seconds,
        seconds_per_mb=_TOKENS_PER_MB * seconds / tokens,
    )


def _read_rate(device: "torch.device") -> float:
    """Bytes a second when summing a tensor far larger than the caches, the best of a few trials."""
    import torch

    numbers = torch.ones(_READ_BYTES // 4, dtype=torch.float32, device=device)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        numbers.sum().item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return _READ_BYTES / min(seconds)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes(device: "torch.device") -> int:
    if device.type == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def _device_name(device: "torch.device") -> str:
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _native_engine() -> str | None:
    library = load_library()
    return None if library is None else ISAS[best_isa(library)]


def _warnings(device: "torch.device", disk_free: int) -> list[str]:
    found = []
    if device.type == "cpu" and shutil.which("nvidia-smi") is not None:
        found.append("there is an NVIDIA driver, but this torch does not use it: install torch with CUDA")
    if disk_free < _LOW_DISK_BYTES:
        found.append(
            "little disk space: a checkpoint of gpt2 takes 1.5 GB while training, and two are kept; "
            "choose another disk with --model_output_dir"
        )
    threads = os.environ.get("OMP_NUM_THREADS")
    if device.type == "cpu" and threads is not None and threads.isdigit() and int(threads) < _usable_cores():
        found.append(f"OMP_NUM_THREADS={threads} keeps torch from using all {_usable_cores()} cores; unset it")
    return found


def _mark(fits: str) -> str:
    return {"yes": "", "no": " (no)"}.get(fits, "*")


def _gb(count: int) -> str:
    return f"{count / _GB:.1f} GB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
