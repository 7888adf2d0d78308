"""Reading one token of one text on an NVIDIA GPU by a single kernel, which goes through all layers.

A layer of GPT-2 124M is some ten kernels for one token, each of which takes longer to begin and end than to read its
weights. Here every multiprocessor keeps one program from the first layer to the scores. Activations stay in float32.

Shapes: D model width, F width of the MLP, V vocabulary, P programs, L layers.
"""

import torch
from torch import Tensor

from gpt2kit.model.cache import KVCache
from gpt2kit.model.cuda_token import LEAST_SHARE, Arguments, Shape, TokenKernel, can_run
from gpt2kit.model.gpt2 import GPT2, Block, Conv1D
from gpt2kit.model.kernels import available, power_of_2

_TILE = 32768  # weights that a program holds at a time: a quarter of its registers
_COLUMNS = 64  # of a cache, at a time
_ROOM = 1.2  # times the weights' copy has to be free


def can_read(model: GPT2) -> bool:
    """Whether a `TokenReader` can be made: of plain weights in half precision, which a copy of fits into the memory."""
    weight = model.transformer.wte.weight
    if not available(weight) or weight.dtype == torch.float32:
        return False
    blocks = _blocks(model)
    is_plain = all(
        type(layer) is Conv1D and layer.weight.dtype == weight.dtype for block in blocks for layer in _layers(block)
    )
    copied = sum(parameter.nbytes for block in blocks for parameter in block.parameters())
    return (
        is_plain
        and _runs_together()
        and blocks[0].mlp.is_tanh_gelu
        and model.head_width == power_of_2(model.head_width)
        and model.head_width >= 16
        and torch.cuda.mem_get_info(weight.device)[0] >= _ROOM * copied
    )


class TokenReader:
    """Reads tokens of one text, and keeps the scores of the next; nothing of it waits for the GPU.

    The layers' weights are copied, output by output: that is how the kernel reads them.

    Args:
        model: a network that `can_read` allows, in eval mode.
        cache: a row of keys and values, the prompt's among them.
        ids_1: the token to read, int64.
        column_1: its position, and its column in the cache, int64; grows by one with each token read.
        bias_V: what is added to the scores before the best is chosen, float32.
        programs: how many take part, at most the GPU's multiprocessors; all of these by default.

    Attributes:
        logits_1V: scores behind the last token read, float32.
        summaries_4P: of each program's share of them: the greatest, the sum of e^(score - that), the greatest with
            the bias, and which one it is, as an int32's bits.
        shape: what the kernel is compiled for.
    """

    def __init__(
        self,
        model: GPT2,
        cache: KVCache,
        *,
        ids_1: Tensor,
        column_1: Tensor,
        bias_V: Tensor,
        programs: int | None = None,
    ) -> None:
        config, device = model.config, model.device
        blocks = _blocks(model)
        self._cache, self._ids_1, self._column_1, self._bias_V = cache, ids_1, column_1, bias_V
        self._config = config
        self._programs = programs or torch.cuda.get_device_properties(device).multi_processor_count
        self._embeddings = model.transformer.wte.weight, model.transformer.wpe.weight
        self._norms = torch.cat(
            [
                vector
                for norm in [*(each for block in blocks for each in (block.ln_1, block.ln_2)), model.transformer.ln_f]
                for vector in (norm.weight, norm.bias)
            ]
        )
        self._biases = torch.cat([layer.bias for block in blocks for layer in _layers(block)])
        self._matrices = [
            _by_output([layer.weight for layer in same]) for same in zip(*map(_layers, blocks), strict=True)
        ]
        self._head = model.lm_head.weight
        # Powers of two are quicker than of e.
        scales = [block.attn.scale * 1.4426950408889634 for block in blocks]
        self._scales = torch.tensor(scales, device=device)
        self._counter = torch.zeros(1, dtype=torch.int32, device=device)
        D, dtype = config.n_embd, self._head.dtype
        self.shape = Shape(D, config.n_head, config.inner_width, self._programs, dtype == torch.bfloat16)
        shares = self.shape.shares
        sizes = [D, D, shares * D, shares * config.n_head, config.inner_width]
        self._scratch = [torch.empty(size, device=device) for size in sizes]
        self.logits_1V = torch.empty(1, config.vocab_size, device=device)
        self.summaries_4P = torch.empty(4, self._programs, device=device)
        self._kernel_tensors: dict[str, Tensor] = {}
        self._kernel: TokenKernel | None = None
        if device.type == "cuda" and dtype != torch.float32 and can_run(self.shape, device):
            self._kernel = TokenKernel(self.shape, self.arguments(), device)

    def read(self) -> None:
        """Read the token: its keys and values go into the cache, and `logits_1V` is what may come next."""
        if self._kernel is not None:
            self._kernel.start()
            return
        from gpt2kit.model import triton_token

        config, programs = self._config, self._programs
        head_width = config.n_embd // config.n_head
        lanes, inner_lanes = power_of_2(config.n_head) * head_width, power_of_2(config.inner_width)
        widest = max(3 * config.n_embd, config.inner_width)
        keys_BHSK = self._cache.keys_LBHSK[0]
        triton_token.read_token[(programs,)](
            self._ids_1,
            self._column_1,
            self._counter,
            *self._embeddings,
            self._norms,
            self._biases,
            *self._matrices,
            self._head,
            self._bias_V,
            self._scales,
            self._cache.keys_LBHSK,
            self._cache.values_LBHSK,
            *self._scratch,
            self.logits_1V,
            self.summaries_4P,
            config.n_layer,
            config.vocab_size,
            config.layer_norm_epsilon,
            self._cache.keys_LBHSK.stride(0),
            keys_BHSK.stride(1),
            keys_BHSK.stride(2),
            PROGRAMS=programs,
            HEADS=config.n_head,
            HEAD_WIDTH=head_width,
            INNER=config.inner_width,
            SHARES=self.shape.shares,
            PADDED_SHARES=power_of_2(self.shape.shares),
            PADDED_HEADS=power_of_2(config.n_head),
            INNER_LANES=inner_lanes,
            COLUMNS=_COLUMNS,
            IN_ROWS=_rows(widest, programs, lanes),
            OUT_ROWS=_rows(config.n_embd, programs, lanes),
            INNER_ROWS=_rows(config.n_embd, programs, inner_lanes),
            LEAST_SHARE=LEAST_SHARE,
            num_warps=8,
            num_stages=1,
            launch_cooperative_grid=True,
        )

    def arguments(self) -> Arguments:
        """What the CUDA kernel is given; valid as long as this reader is there."""
        config, cache = self._config, self._cache
        shape, device = self.shape, self.logits_1V.device
        names = "attention_in", "attention_out", "mlp_in", "mlp_out"
        self._kernel_tensors = {
            "ids": self._ids_1,
            "place": self._column_1,
            "state": torch.tensor([1, 0], dtype=torch.int32, device=device),
            "token_embedding": self._embeddings[0],
            "position_embedding": self._embeddings[1],
            "norms": self._norms,
            "biases": self._biases,
            **dict(zip(names, self._matrices, strict=True)),
            "head": self._head,
            "vocabulary_bias": self._bias_V,
            "scales": self._scales,
            "keys": cache.keys_LBHSK,
            "values": cache.values_LBHSK,
            "words": torch.zeros(config.n_layer * shape.words, dtype=torch.int64, device=device),
            "logits": self.logits_1V,
            "summaries": self.summaries_4P,
        }
        return Arguments(
            **{name: tensor.data_ptr() for name, tensor in self._kernel_tensors.items()},
            num_layers=config.n_layer,
            vocabulary=config.vocab_size,
            epsilon=config.layer_norm_epsilon,
            cache_layer=cache.keys_LBHSK.stride(0),
            cache_head=cache.keys_LBHSK.stride(2),
            cache_column=cache.keys_LBHSK.stride(3),
        )

    def choose_best(self, told_2: Tensor) -> None:
        """Choose the token to read next, the one of the greatest score; has to follow a `read`.

        Args:
            told_2: gets the token and its log-probability in the model's own distribution, float64.
        """
        from gpt2kit.model import triton_token

        triton_token.choose_best[(1,)](
            self.logits_1V,
            self.summaries_4P,
            self._ids_1,
            told_2,
            self._counter,
            self._config.vocab_size,
            PROGRAMS=self._programs,
            LANES=power_of_2(self._programs),
            num_warps=4,
        )

    def chosen(self) -> None:
        """Tell that `ids_1` got the token to read next in another way."""
        self._counter.zero_()


def _runs_together() -> bool:
    """Whether Triton can start programs that wait for each other: from 3.3, of PyTorch 2.7."""
    import triton

    major, minor = triton.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (3, 3)


def _blocks(model: GPT2) -> list[Block]:
    return [block for block in model.transformer.h if isinstance(block, Block)]


def _layers(block: Block) -> tuple[Conv1D, ...]:
    """A block's matrices, in the order in which the kernel takes them."""
    return block.attn.c_attn, block.attn.c_proj, block.mlp.c_fc, block.mlp.c_proj


def _by_output(weights: list[Tensor]) -> Tensor:
    """Matrices [in, out] of all layers as one tensor [L, out, in]."""
    rows, columns = weights[0].shape
    stacked = torch.empty(len(weights), columns, rows, dtype=weights[0].dtype, device=weights[0].device)
    for layer, weight in enumerate(weights):
        stacked[layer] = weight.T
    return stacked


def _rows(num_outputs: int, programs: int, lanes: int) -> int:
    """How many outputs a program computes at a time, with so many lanes for the inputs of each."""
    return max(min(power_of_2(-(-num_outputs // programs)), _TILE // lanes), 1)
