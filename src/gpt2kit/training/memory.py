"""How much memory a training step takes, how fast it may go, and what to do when memory runs out.

Symbols: P parameters, P_t trainable ones, L layers, D width, F width of an MLP, H heads, T context, V vocabulary.
"""

import functools
import time
from collections.abc import Callable

import torch

from gpt2kit.model.dropout import QUERIES
from gpt2kit.model.gpt2 import GPT2Config
from gpt2kit.model.loss import CHUNK_TOKENS, GPU_CHUNK_TOKENS
from gpt2kit.model.products import by_onednn, prefers_onednn, product
from gpt2kit.native.step import has_step_kernel
from gpt2kit.training.settings import OptimizerKind, TrainSettings

# Floats of optimizer state for a weight that is trained; Muon keeps one for the blocks' matrices and two for the rest.
MOMENTS: dict[OptimizerKind, float] = {"adamw": 2.0, "muon": 1.3, "adafactor": 0.0}
_BYTES, _HALF_BYTES = 4, 3  # of a float32; of what is kept in half precision, on average (docs/lab-log.md)
_PROCESS_BYTES = 350_000_000  # Python, torch and its libraries, resident
# Shares of the matrix rate that the plain loop reached where it was measured (see docs/numerics.md).
_EFFICIENCY = 0.6
# The first two are of a GPU's driver and library; the last two are all that oneDNN says when it gets no memory.
_OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "DefaultCPUAllocator",
    "can't allocate memory",
    "not enough memory",
    "could not create a primitive",
    "could not execute a primitive",
)
_SECONDS_PER_LAYER = 0.0012  # Python and small kernels, of one layer of one micro-batch, forward and backward


def training_memory_bytes(
    config: GPT2Config,
    *,
    parameters: int,
    trainable: int,
    rows: int,
    context: int,
    kept_probabilities: float,
    gradient_checkpointing: bool,
    moments: float = 2.0,
    on_gpu: bool = False,
    in_arena: bool = False,
    accumulates: bool = True,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Estimated peak memory of a training step with fp32 weights, in bytes.

    4P weights + 4P_t gradients + 4P_t for each of the optimizer's `moments` (AdamW has two); two chunks of logits, or a
    larger one on a GPU; and for every token and layer about 9D + 2F numbers for the backward pass, or 6D + F in an
    arena (4D more where attention keeps probabilities), with H·T for each of the tensors of probabilities that
    attention keeps. With gradient checkpointing a token keeps D numbers a layer. A number takes four bytes, on a GPU in
    half precision three on average: norms stay in float32.

    Args:
        config: of the model.
        parameters: all of them.
        trainable: those that are trained.
        rows: computed at a time.
        context: tokens of a row.
        kept_probabilities: tensors of all queries' probabilities that attention keeps, see `probabilities_kept`.
        gradient_checkpointing: whether blocks are computed again.
        moments: of the optimizer.
        on_gpu: whether it is computed on an NVIDIA GPU, by its kernels.
        in_arena: whether the branches of blocks are computed in memory laid out once, see `in_arena`.
        accumulates: whether gradients of other rows are there meanwhile; in an arena those of a step's first rows come
            where activations were.
        dtype: what matrices are multiplied in. (In float16 the head's scores are float32.)
    """
    tokens = rows * context
    D, F = config.n_embd, config.inner_width
    kept_copies = 4 * D if kept_probabilities else 0
    layer_floats = 6 * D + F + kept_copies if in_arena else 9 * D + 2 * F
    layer_floats += round(kept_probabilities * config.n_head * context)
    kept = D * config.n_layer + layer_floats if gradient_checkpointing else layer_floats * config.n_layer
    weights = parameters + round((1 + moments) * trainable)
    if in_arena and not accumulates:
        weights -= min(trainable, config.n_layer * (4 * D * D + 2 * D * F), tokens * kept)
    if on_gpu:
        head = min(GPU_CHUNK_TOKENS, tokens) * config.vocab_size * (2 if dtype == torch.bfloat16 else _BYTES)
    else:
        head = 2 * min(CHUNK_TOKENS, tokens) * config.vocab_size * _BYTES
    number_bytes = _HALF_BYTES if on_gpu and dtype != torch.float32 else _BYTES
    return _PROCESS_BYTES + _BYTES * weights + head + tokens * (number_bytes * kept + 4 * _BYTES * D)


def memory_estimate(
    settings: TrainSettings, *, attention_dropout: float, context: int, device: torch.device, dtype: torch.dtype
) -> Callable[..., int]:
    """`training_memory_bytes` for such a training on such a device: what is left to say is the model, and the rows."""
    by_kernel = _in_branches(settings, device, dtype) and has_step_kernel()
    return functools.partial(
        training_memory_bytes,
        context=context,
        kept_probabilities=probabilities_kept(
            attention_dropout, context=context, device=device, dtype=dtype, by_kernel=by_kernel
        ),
        in_arena=in_arena(settings, device, dtype),
        dtype=dtype,
    )


def in_arena(settings: TrainSettings, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a training step computes the branches of blocks in memory laid out once (`gpt2kit.model.branches`).

    Compiled blocks make their memory themselves, and so does oneDNN for its products.
    """
    return _in_branches(settings, device, dtype) and not prefers_onednn()


def _in_branches(settings: TrainSettings, device: torch.device, dtype: torch.dtype) -> bool:
    return settings.compile != "on" and device.type == "cpu" and dtype == torch.float32


def probabilities_kept(
    dropout: float, *, context: int, device: torch.device, dtype: torch.dtype, by_kernel: bool
) -> float:
    """Tensors of the probabilities of all queries and keys that attention keeps for the backward pass.

    None without dropout, on a GPU, or by the kernel of a step; else on a CPU, in fp32, the half that queries see
    (`dropped_attention`), in other types three.
    """
    if dropout == 0 or device.type != "cpu" or by_kernel:
        return 0.0
    return (1 + QUERIES / context) / 2 if dtype == torch.float32 else 3.0


def training_flops_per_token(config: GPT2Config, *, context: int, trainable_share: float) -> float:
    """Floating-point operations of forward and backward for one token.

    2 per weight of the matrices forward (Kaplan et al. 2020, table 1) and 2·T·D a layer for attention; the backward
    pass costs as much for the activations' gradients and once more for those of the weights that are trained.
    """
    D, F = config.n_embd, config.inner_width
    matrices = config.n_layer * (4 * D * D + 2 * D * F) + config.vocab_size * D
    forward = 2 * matrices + 2 * config.n_layer * context * D
    return forward * (2 + trainable_share)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of this machine's matrix product, the best of a few short trials."""
    size = 4096 if device.type == "cuda" else 768
    a = torch.randn(size, size, device=device, dtype=dtype)
    multiply = product if by_onednn(a) else torch.mm
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        b = multiply(a, a)
        b[0, 0].item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def step_seconds(
    config: GPT2Config, *, tokens: int, micro_batches: int, context: int, trainable_share: float, rate: float
) -> float:
    """Estimated seconds of a training step of `tokens` tokens in `micro_batches` parts, at `rate` FLOP/s."""
    flops = tokens * training_flops_per_token(config, context=context, trainable_share=trainable_share)
    return flops / (rate * _EFFICIENCY) + micro_batches * config.n_layer * _SECONDS_PER_LAYER


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch's own, Python's, or that of torch's CPU allocator or oneDNN."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
