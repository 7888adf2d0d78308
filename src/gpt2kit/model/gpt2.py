"""GPT-2, whole, in one file (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

Parameter names and layouts are Hugging Face's, so their checkpoints load as they are.

Shapes are written behind names:

    B  rows of a batch           T  positions of the input        S  positions attended to (cache + input)
    D  n_embd, model width       H  n_head, attention heads       K  D / H, width of a head
    F  n_inner, width of MLP     V  vocab_size                    N  B * T, tokens
"""

import functools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gpt2kit.errors import ModelError
from gpt2kit.model.attention import attention_in_segments, first_seen, seen_from, segment_starts, takes_segments
from gpt2kit.model.branches import LowRank, attention_onto, computed_again, mlp_onto
from gpt2kit.model.cache import KVCache
from gpt2kit.model.dropout import Dropout, dropped_attention
from gpt2kit.model.loss import chunked_cross_entropy, chunked_token_losses
from gpt2kit.model.operations import Attending
from gpt2kit.model.products import (
    GradientMemory,
    by_own_backward,
    gelu_linear,
    gradients_added_in_place,
    linear,
    memory_for_branches,
)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),  # GPT-2's own: 0.5x(1 + tanh(√(2/π)(x + 0.044715x³)))
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
}

# Beyond any real model, and small enough that no product of sizes leaves 64 bits.
LARGEST_SIZE = 1 << 24


@dataclass(frozen=True, kw_only=True)
class GPT2Config:
    """The shape of a GPT-2, with the field names of Hugging Face's `config.json`; the defaults are the 124M model."""

    vocab_size: int = 50257
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    n_inner: int | None = None  # None: 4 * n_embd
    activation_function: str = "gelu_new"
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5
    initializer_range: float = 0.02
    scale_attn_weights: bool = True
    scale_attn_by_inverse_layer_idx: bool = False
    reorder_and_upcast_attn: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = 50256
    eos_token_id: int | None = 50256

    def __post_init__(self) -> None:
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "n_inner"):
            size = getattr(self, name)
            if size is not None and not 1 <= size <= LARGEST_SIZE:
                raise ModelError(f"the configuration's {name} is {size}; it must be from 1 to {LARGEST_SIZE:,}")
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ModelError(f"the configuration's {name} is {getattr(self, name)}; it must be from 0 to 1")
        if not (self.layer_norm_epsilon > 0 and math.isfinite(self.layer_norm_epsilon)):
            raise ModelError(f"the configuration's layer_norm_epsilon is {self.layer_norm_epsilon}; it must be above 0")
        if not (self.initializer_range >= 0 and math.isfinite(self.initializer_range)):
            raise ModelError(f"the configuration's initializer_range is {self.initializer_range}; it must be from 0")
        if self.n_embd % self.n_head:
            raise ModelError(f"the configuration's n_embd {self.n_embd} is no multiple of n_head {self.n_head}")
        if self.activation_function not in ACTIVATIONS:
            raise ModelError(
                f"the configuration's activation_function {self.activation_function!r} is none of "
                f"{', '.join(ACTIVATIONS)}"
            )

    @property
    def inner_width(self) -> int:
        """Width of the hidden layer of an MLP."""
        return 4 * self.n_embd if self.n_inner is None else self.n_inner


@dataclass(frozen=True)
class AttentionMask:
    """Which keys a query sees: the kernel's own causal triangle, in whole rows or in each segment of them, which is
    said by where segments start or by the first position that each query sees; an explicit mask; or every key (all
    unset).
    """

    is_causal: bool = False
    allowed_B1TS: Tensor | None = None
    segment_starts_S: Tensor | None = None
    first_seen_BT: Tensor | None = None


class Conv1D(nn.Module):
    """A linear layer whose weight is stored (in, out), as in OpenAI's and Hugging Face's checkpoints."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    @property
    def update(self) -> LowRank | None:
        """What is trained beside the weight; a layer with LoRA has it."""
        return None

    def forward(self, x_BTD: Tensor) -> Tensor:
        """`x W + b`, [..., in] -> [..., out]."""
        out_ND = linear(x_BTD.reshape(-1, x_BTD.size(-1)), self.weight, self.bias)
        return out_ND.view(*x_BTD.shape[:-1], -1)


class Attention(nn.Module):
    """Masked multi-head self-attention (Vaswani et al. 2017), through PyTorch's fused kernels."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head = config.n_head
        self.scale = 1 / math.sqrt(config.n_embd // config.n_head) if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self.scale /= layer + 1
        self.attn_pdrop = config.attn_pdrop
        self.c_attn = Conv1D(config.n_embd, 3 * config.n_embd)
        self.c_proj = Conv1D(config.n_embd, config.n_embd)
        self.resid_dropout = Dropout(config.resid_pdrop)

    def queries_keys_values(self, x_BTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project the input to q, k and v, each [B, H, T, K]."""
        q_BTD, k_BTD, v_BTD = self.c_attn(x_BTD).chunk(3, dim=2)
        return self._in_heads(q_BTD), self._in_heads(k_BTD), self._in_heads(v_BTD)

    def _in_heads(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] -> [B, H, T, K]."""
        return x_BTD.view(*x_BTD.shape[:2], self.n_head, -1).transpose(1, 2)

    def forward(self, x_BTD: Tensor, mask: AttentionMask, cache: KVCache | None = None) -> Tensor:
        """softmax(q kᵀ · scale + mask) v, heads merged and projected: [B, T, D] -> [B, T, D]."""
        qkv_BTD = self.c_attn(x_BTD).chunk(3, dim=2)
        projected_BTD: Tensor = self.resid_dropout(self.c_proj(self.attend(*qkv_BTD, mask=mask, cache=cache)))
        return projected_BTD

    def attending(self, mask: AttentionMask) -> Attending:
        """How this layer attends in a training step."""
        return Attending(
            heads=self.n_head,
            scale=self.scale,
            dropout=self.attn_pdrop if self.training else 0.0,
            first_seen_BT=mask.first_seen_BT,
            is_masked=mask.allowed_B1TS is not None,
            attend=functools.partial(self.attend, mask=mask),
        )

    def attend(
        self, q_BTD: Tensor, k_BTD: Tensor, v_BTD: Tensor, *, mask: AttentionMask, cache: KVCache | None = None
    ) -> Tensor:
        """softmax(q kᵀ · scale + mask) v, heads merged: [B, T, D]."""
        q_BHTK, k_BHSK, v_BHSK = (self._in_heads(each_BTD) for each_BTD in (q_BTD, k_BTD, v_BTD))
        if cache is not None and not cache.attends:
            k_BHSK, v_BHSK = cache.append(self.layer, k_BHSK, v_BHSK)
        dropout = self.attn_pdrop if self.training else 0.0
        allowed_B1TS = mask.allowed_B1TS if mask.first_seen_BT is None else seen_from(mask.first_seen_BT)
        if cache is not None and cache.attends:
            out_BHTK = cache.attend(self.layer, q_BHTK, k_BHSK, v_BHSK, scale=self.scale)
        elif mask.segment_starts_S is not None:
            out_BHTK = attention_in_segments(
                q_BHTK, k_BHSK, v_BHSK, mask.segment_starts_S, scale=self.scale, dropout=dropout
            )
        elif 0 < dropout < 1 and cache is None and by_own_backward(q_BHTK):
            out_BHTK = dropped_attention(
                q_BHTK, k_BHSK, v_BHSK, scale=self.scale, dropout=dropout, allowed_B1TT=allowed_B1TS
            )
        else:
            out_BHTK = F.scaled_dot_product_attention(
                q_BHTK,
                k_BHSK,
                v_BHSK,
                attn_mask=allowed_B1TS,
                is_causal=mask.is_causal,
                dropout_p=dropout,
                scale=self.scale,
            )
        return out_BHTK.transpose(1, 2).flatten(2)


class MLP(nn.Module):
    """Two layers with the tanh-approximated GELU between them (Hendrycks & Gimpel 2016)."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = Conv1D(config.n_embd, config.inner_width)
        self.c_proj = Conv1D(config.inner_width, config.n_embd)
        self.activation = ACTIVATIONS[config.activation_function]
        self.is_tanh_gelu = config.activation_function in ("gelu_new", "gelu_pytorch_tanh")
        self.dropout = Dropout(config.resid_pdrop)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, F] -> [B, T, D]."""
        hidden_BTF = self.c_fc(x_BTD)
        # A layer with an update beside it (LoRA) needs the activations themselves.
        if self.is_tanh_gelu and self.c_proj.update is None and by_own_backward(hidden_BTF):
            hidden_NF = hidden_BTF.flatten(0, -2)
            projected_BTD = gelu_linear(hidden_NF, self.c_proj.weight, self.c_proj.bias).view(x_BTD.shape)
        else:
            projected_BTD = self.c_proj(self._activated(hidden_BTF))
        out_BTD: Tensor = self.dropout(projected_BTD)
        return out_BTD

    def _activated(self, hidden_BTF: Tensor) -> Tensor:
        """The activations; compiled, they are computed again for the backward pass, in one go with their gradients."""
        if torch.compiler.is_compiling() and torch.is_grad_enabled():
            activated_BTF: Tensor = checkpoint(self.activation, hidden_BTF, use_reentrant=False)
        else:
            activated_BTF = self.activation(hidden_BTF)
        return activated_BTF


class Block(nn.Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x_BTD: Tensor, mask: AttentionMask, cache: KVCache | None = None) -> Tensor:
        """[B, T, D] -> [B, T, D]."""
        memory = memory_for_branches(x_BTD)
        if memory is not None:
            return self.in_memory(x_BTD, mask, memory)
        x_BTD = x_BTD + self.attn(self.ln_1(x_BTD), mask, cache)
        x_BTD = x_BTD + self.mlp(self.ln_2(x_BTD))
        return x_BTD

    def in_memory(self, x_BTD: Tensor, mask: AttentionMask, memory: GradientMemory) -> Tensor:
        """The same, with branches that lay out their memory."""
        attn, mlp = self.attn, self.mlp
        attending = attn.attending(mask)
        x_BTD = attention_onto(x_BTD, self.ln_1, attn.c_attn, attn.c_proj, attn.resid_dropout.rate, attending, memory)
        if mlp.is_tanh_gelu:
            return mlp_onto(x_BTD, self.ln_2, mlp.c_fc, mlp.c_proj, mlp.dropout.rate, memory)
        attended_BTD, x_BTD = x_BTD, x_BTD.clone()  # for autograd, which gives nothing back
        memory.arena.give(attended_BTD)
        x_BTD = x_BTD + mlp(self.ln_2(x_BTD))
        return x_BTD


class Embedding(nn.Embedding):
    """An embedding that draws no numbers on the meta device, where PyTorch would load its compiler for them (1.3 s)."""

    def reset_parameters(self) -> None:
        """Draw N(0, 1), where there is memory to hold it."""
        if not self.weight.is_meta:
            super().reset_parameters()


class Transformer(nn.Module):
    """Token and position embeddings, the blocks, and the final norm."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.wte = Embedding(config.vocab_size, config.n_embd)
        self.wpe = Embedding(config.n_positions, config.n_embd)
        self.drop = Dropout(config.embd_pdrop)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)


class GPT2(nn.Module):
    """A GPT-2 language model.

    Calling it gives the last hidden states; `logits` turns hidden states into next-token scores, and `loss` goes from
    tokens to nats without ever holding the logits of the whole batch.

    Example:
        >>> model = GPT2(GPT2Config(n_layer=2, n_embd=64, n_head=2))
        >>> hidden_BTD = model(torch.tensor([[464, 3290]]))
        >>> model.logits(hidden_BTD[:, -1]).argmax(-1)
    """

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.transformer.wte.weight
        self.gradient_checkpointing = False
        self.blocks_compiled = False

    @torch.no_grad()
    def initialise(self, generator: torch.Generator | None = None) -> None:
        """Draw fresh weights: N(0, 0.02), residual projections scaled by 1/√(2 n_layer), biases 0, norms 1.

        Source: Radford et al. 2019, section 2.3 (the scaling), and OpenAI's code (the standard deviations).
        """
        std = self.config.initializer_range
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif ".ln_" in name:
                parameter.fill_(1.0)
            elif name.endswith("c_proj.weight"):
                parameter.normal_(0.0, std / math.sqrt(2 * self.config.n_layer), generator=generator)
            else:
                parameter.normal_(0.0, std, generator=generator)

    @property
    def device(self) -> torch.device:
        """The device the weights are on."""
        return self.transformer.wte.weight.device

    @property
    def head_width(self) -> int:
        """Width of an attention head."""
        return self.config.n_embd // self.config.n_head

    def forward(
        self,
        input_ids_BT: Tensor,
        *,
        position_ids_BT: Tensor | None = None,
        segment_ids_BT: Tensor | None = None,
        segment_starts_S: Tensor | None = None,
        cache: KVCache | None = None,
        key_mask_BS: Tensor | None = None,
        gradient_memory: GradientMemory | None = None,
    ) -> Tensor:
        """Hidden states after the final norm.

        Args:
            input_ids_BT: token ids.
            position_ids_BT: positions, 0 to n_positions - 1; by default they go on from the cache's length.
            segment_ids_BT: the document each token belongs to; attention stays inside it. Not with a cache.
            segment_starts_S: where, in the flattened rows, each of those documents begins, and behind the last one how
                long they are: int32, for the kernel that takes them one by one. Without them they are looked for, and
                a GPU has to be waited for.
            cache: keys and values of the tokens before the input; the input's are added to it.
            key_mask_BS: True for the keys that exist, False for left padding, over cache and input together.
            gradient_memory: the backward pass adds the gradients of matrices into their `grad`, which is made here;
                that of the token embedding row by row, in place of one of the size of the whole vocabulary.

        Returns:
            hidden_BTD.

        Raises:
            ModelError: positions beyond n_positions, or beyond the room in the cache.
        """
        past = cache.length if cache is not None else 0
        T = input_ids_BT.size(1)
        if cache is not None and past + T > cache.max_length:
            raise ModelError(f"{past + T} positions were asked of a cache that has room for {cache.max_length}")
        if position_ids_BT is None:
            if past + T > self.config.n_positions:
                raise ModelError(
                    f"{past + T} positions were asked of a model whose context is {self.config.n_positions}"
                )
            position_ids_BT = torch.arange(past, past + T, device=input_ids_BT.device)[None]
        if segment_ids_BT is not None and takes_segments(self.transformer.wte.weight, self.head_width):
            starts_S = segment_starts(segment_ids_BT) if segment_starts_S is None else segment_starts_S
            mask = AttentionMask(segment_starts_S=starts_S)
        elif segment_ids_BT is not None and self._sees_from_first():
            mask = AttentionMask(first_seen_BT=first_seen(segment_ids_BT))
        else:
            mask = attention_mask(input_ids_BT, past=past, segment_ids_BT=segment_ids_BT, key_mask_BS=key_mask_BS)

        if gradient_memory is None:
            embedded_BTD = F.embedding(input_ids_BT, self.transformer.wte.weight)
        else:
            embedded_BTD = _EmbeddingInPlace.apply(  # type: ignore[no-untyped-call]
                input_ids_BT, self.transformer.wte.weight, gradient_memory
            )
        x_BTD = self.transformer.drop(embedded_BTD + self.transformer.wpe(position_ids_BT))

        def recomputing() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            """What holds while a block is computed, and computed again: the same operations have to come out."""
            return nullcontext(), gradients_added_in_place(gradient_memory)

        for block in self.transformer.h:
            can_recompute = self.gradient_checkpointing and not self.blocks_compiled
            memory = memory_for_branches(x_BTD) if can_recompute else None
            if memory is not None:
                compute = functools.partial(cast("Block", block).in_memory, mask=mask, memory=memory)
                x_BTD = computed_again(compute, x_BTD, block.parameters(), memory)
            elif self.gradient_checkpointing and torch.is_grad_enabled():
                x_BTD = checkpoint(block, x_BTD, mask, use_reentrant=False, context_fn=recomputing)
            else:
                x_BTD = block(x_BTD, mask, cache)
        if cache is not None:
            cache.length = past + T
        hidden_BTD: Tensor = self.transformer.ln_f(x_BTD)
        return hidden_BTD

    def _sees_from_first(self) -> bool:
        """Whether all blocks are computed by what goes by the first position that a query sees."""
        memory = memory_for_branches(self.transformer.wte.weight)
        return memory is not None and memory.operations.sees_from_first and not self.blocks_compiled

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token scores in float32: [..., D] -> [..., V]."""
        scores: Tensor = self.lm_head(hidden)
        return scores.float()

    def loss(
        self,
        input_ids_BT: Tensor,
        target_ids_BT: Tensor,
        *,
        position_ids_BT: Tensor | None = None,
        segment_ids_BT: Tensor | None = None,
        places_N: Tensor | None = None,
        segment_starts_S: Tensor | None = None,
        gradient_scale: float | None = None,
        gradient_memory: GradientMemory | None = None,
    ) -> Tensor:
        """The sum of nats over the targets, as a scalar; targets of -100 do not count.

        It is a sum so that micro-batches and ranks add up exactly; divide by the number of targets for the mean.

        Args:
            input_ids_BT: token ids.
            target_ids_BT: the ids that follow them.
            position_ids_BT: see `forward`.
            segment_ids_BT: see `forward`.
            places_N: flat positions among which all targets are that count; an NVIDIA GPU spares itself the others.
            segment_starts_S: see `forward`.
            gradient_scale: what the sum will be multiplied by before its backward pass, which must then follow. When
                it is given, the gradients of the embedding, the head and the layers are added into `grad` in place: a
                training step then holds one of the embedding's size, not three.
            gradient_memory: where those gradients are made; by default in fresh memory.
        """
        if gradient_scale is None:
            memory = None
        else:
            memory = GradientMemory() if gradient_memory is None else gradient_memory
        with gradients_added_in_place(memory):
            hidden_BTD = self(
                input_ids_BT,
                position_ids_BT=position_ids_BT,
                segment_ids_BT=segment_ids_BT,
                segment_starts_S=segment_starts_S,
                gradient_memory=memory,
            )
        return chunked_cross_entropy(
            hidden_BTD,
            self.lm_head.weight,
            target_ids_BT,
            gradient_scale=gradient_scale,
            memory=memory,
            places_N=places_N,
        )

    @torch.no_grad()
    def token_losses(
        self,
        input_ids_BT: Tensor,
        target_ids_BT: Tensor,
        *,
        position_ids_BT: Tensor | None = None,
        segment_ids_BT: Tensor | None = None,
        places_N: Tensor | None = None,
        segment_starts_S: Tensor | None = None,
    ) -> Tensor:
        """Nats of each target, [B, T] in float32; 0 where the target is -100. The arguments are those of `loss`."""
        hidden_BTD = self(
            input_ids_BT,
            position_ids_BT=position_ids_BT,
            segment_ids_BT=segment_ids_BT,
            segment_starts_S=segment_starts_S,
        )
        return chunked_token_losses(hidden_BTD, self.lm_head.weight, target_ids_BT, places_N=places_N)


class _EmbeddingInPlace(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, ids_BT: Tensor, weight_VD: Tensor, memory: GradientMemory) -> Tensor:
        ctx.ids_BT, ctx.weight_VD, ctx.memory = ids_BT, weight_VD, memory
        return F.embedding(ids_BT, weight_VD)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[None, None, None]:
        if ctx.needs_input_grad[1]:
            total_VD, grad_BTD = ctx.memory.of(ctx.weight_VD), grad_outputs[0].to(ctx.weight_VD.dtype)
            # Each adds in a fixed order on its device; on a GPU index_add_ does not, and index_put_ takes its time over
            # a token that occurs often.
            if total_VD.device.type == "cpu":
                total_VD.index_add_(0, ctx.ids_BT.flatten(), grad_BTD.reshape(-1, total_VD.size(1)))
            else:
                total_VD += torch.ops.aten.embedding_dense_backward(grad_BTD, ctx.ids_BT, len(total_VD), -1, False)
        return None, None, None


def attention_mask(
    input_ids_BT: Tensor, *, past: int, segment_ids_BT: Tensor | None, key_mask_BS: Tensor | None
) -> AttentionMask:
    """The cheapest mask that says what may be seen.

    Args:
        input_ids_BT: the input, for its shape and device.
        past: the number of keys in the cache.
        segment_ids_BT: document numbers, or None.
        key_mask_BS: False at padding, or None.
    """
    B, T = input_ids_BT.shape
    if segment_ids_BT is None and key_mask_BS is None:
        if T == 1:
            return AttentionMask()
        if past == 0:
            return AttentionMask(is_causal=True)
    queries_T = torch.arange(past, past + T, device=input_ids_BT.device)
    keys_S = torch.arange(past + T, device=input_ids_BT.device)
    allowed_BTS = (keys_S[None, :] <= queries_T[:, None]).expand(B, T, past + T)
    if segment_ids_BT is not None:
        allowed_BTS = allowed_BTS & (segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :])
    if key_mask_BS is not None:
        # A padding query sees itself, so that no row of the softmax is empty (which would give NaN).
        itself_TS = keys_S[None, :] == queries_T[:, None]
        allowed_BTS = (allowed_BTS & key_mask_BS[:, None, :]) | itself_TS
    return AttentionMask(allowed_B1TS=allowed_BTS[:, None])
