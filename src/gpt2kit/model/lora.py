"""LoRA (Hu et al. 2021): a frozen weight W is used as W + (alpha / rank) · B A, and only A and B are trained.

Our own small module rather than `peft`, because importing `peft` brings `transformers` and `accelerate` with it; the
folder on disk is `peft`'s (see `adapters`), so each reads what the other writes.

Shapes: R rank, I input width, O output width of a layer.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gpt2kit.errors import UsageError
from gpt2kit.model.branches import LowRank
from gpt2kit.model.dropout import Dropout
from gpt2kit.model.gpt2 import GPT2, Conv1D

TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
BLOCKS = "transformer.h."


class LoRAConv1D(Conv1D):
    """A Conv1D with a low-rank update beside its frozen weight.

    Args:
        base: the layer to adapt; its weight and bias are taken over and frozen.
        rank: R, the rank of the update.
        alpha: the update is scaled by alpha / rank.
        dropout: dropout on the input of the update.
    """

    def __init__(self, base: Conv1D, *, rank: int, alpha: float, dropout: float) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = base.weight, base.bias
        self.weight.requires_grad_(False)
        self.bias.requires_grad_(False)
        in_features, out_features = base.weight.shape
        self.scaling = alpha / rank
        self.lora_dropout = Dropout(dropout)
        self.lora_A = nn.Parameter(torch.empty(rank, in_features, device=base.weight.device))
        self.lora_B = nn.Parameter(torch.zeros(out_features, rank, device=base.weight.device))

    @property
    def update(self) -> LowRank:
        """What is trained beside the weight."""
        return LowRank(self.lora_A, self.lora_B, self.scaling, self.lora_dropout.rate)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """`x W + b + (alpha / rank) x Aᵀ Bᵀ`, [..., I] -> [..., O]."""
        plain_BTD = super().forward(x_BTD)
        update_NR = (self.lora_dropout(x_BTD) @ self.lora_A.T).flatten(0, -2)
        out_ND = torch.addmm(plain_BTD.flatten(0, -2), update_NR, self.lora_B.T, alpha=self.scaling)
        return out_ND.view(plain_BTD.shape)

    def merged(self) -> Conv1D:
        """The same layer as a plain Conv1D with the update added into the weight."""
        layer = Conv1D(*self.weight.shape)
        layer.weight = nn.Parameter(self.weight.detach() + (self.lora_B @ self.lora_A).T.detach() * self.scaling)
        layer.bias = nn.Parameter(self.bias.detach())
        return layer


def add_lora(
    model: GPT2,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    targets: Sequence[str],
    generator: torch.Generator | None = None,
) -> None:
    """Freeze a model and put trainable LoRA updates on its layers.

    A is drawn from U(-1/√I, 1/√I) and B is zero, as `peft` does by default, so the model starts unchanged.

    Args:
        model: changed in place.
        rank: R; 4 to 64 is usual.
        alpha: scale; the update counts alpha / rank.
        dropout: dropout on the updates' inputs.
        targets: layers to adapt, of `attn.c_attn`, `attn.c_proj`, `mlp.c_fc`, `mlp.c_proj`; a bare `c_proj` means both.
        generator: randomness for A.

    Raises:
        UsageError: an unknown target.
    """
    chosen = resolve_targets(targets)
    model.requires_grad_(False)
    for block in range(model.config.n_layer):
        for target in chosen:
            adapt_layer(
                model, f"{BLOCKS}{block}.{target}", rank=rank, alpha=alpha, dropout=dropout, generator=generator
            )


def adapt_layer(
    model: GPT2, name: str, *, rank: int, alpha: float, dropout: float, generator: torch.Generator | None = None
) -> None:
    """Put an update on one layer, named e.g. `transformer.h.0.attn.c_attn`; see `add_lora`."""
    parent, _, child = name.rpartition(".")
    module = model.get_submodule(parent)
    layer = LoRAConv1D(getattr(module, child), rank=rank, alpha=alpha, dropout=dropout)
    bound = 1 / math.sqrt(layer.lora_A.size(1))
    with torch.no_grad():
        layer.lora_A.uniform_(-bound, bound, generator=generator)
    setattr(module, child, layer)


def resolve_targets(targets: Sequence[str]) -> tuple[str, ...]:
    """Full names of the layers meant by `targets`, in the order of `TARGETS`.

    Raises:
        UsageError: a name that is no layer of a GPT-2 block.
    """
    chosen = set()
    for target in targets:
        matches = [name for name in TARGETS if name == target or name.endswith(f".{target}")]
        if not matches:
            raise UsageError(f"--lora_targets {target}: GPT-2's layers are {', '.join(TARGETS)}")
        chosen.update(matches)
    return tuple(name for name in TARGETS if name in chosen)


def merge_lora(model: GPT2) -> None:
    """Add every update into its weight, in place; the model becomes a plain GPT-2 again."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoRAConv1D):
                setattr(module, name, child.merged())


def lora_weights(model: GPT2) -> dict[str, Tensor]:
    """The adapter's tensors under our parameter names, e.g. `transformer.h.0.attn.c_attn.lora_A`."""
    return {name: tensor for name, tensor in model.state_dict().items() if ".lora_" in name}
