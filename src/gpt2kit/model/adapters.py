"""LoRA adapters (Hu et al. 2021): a frozen weight W is used as W + (alpha / rank) · B A, and only A and B are trained.

Our own small module rather than `peft`, because importing `peft` brings `transformers` and `accelerate` with it; the
folder on disk is `peft`'s, so each reads what the other writes.

Shapes: R rank, I input width, O output width of a layer.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gpt2kit.errors import ModelError, UsageError
from gpt2kit.files import explained_disk_errors, read_json, to_json, write_atomically
from gpt2kit.hub import resolve_base
from gpt2kit.model.gpt2 import GPT2, Conv1D
from gpt2kit.model.weights import read_safetensors, save_weights

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
TARGETS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
_PEFT_PREFIX = "base_model.model."


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
        self.lora_dropout = nn.Dropout(dropout)
        self.lora_A = nn.Parameter(torch.empty(rank, in_features, device=base.weight.device))
        self.lora_B = nn.Parameter(torch.zeros(out_features, rank, device=base.weight.device))

    def forward(self, x_BTD: Tensor) -> Tensor:
        """`x W + b + (alpha / rank) x Aᵀ Bᵀ`, [..., I] -> [..., O]."""
        update_BTR: Tensor = self.lora_dropout(x_BTD) @ self.lora_A.T
        return super().forward(x_BTD) + (update_BTR @ self.lora_B.T) * self.scaling

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
    for block in model.transformer.h:
        for target in chosen:
            part, _, name = target.partition(".")
            parent = getattr(block, part)
            layer = LoRAConv1D(getattr(parent, name), rank=rank, alpha=alpha, dropout=dropout)
            bound = 1 / math.sqrt(layer.lora_A.size(1))
            with torch.no_grad():
                layer.lora_A.uniform_(-bound, bound, generator=generator)
            setattr(parent, name, layer)


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


def adapter_config(model: GPT2, *, base: str) -> dict[str, Any]:
    """The values of `peft`'s `adapter_config.json`.

    Args:
        model: a model with LoRA layers.
        base: name or path of the base model the adapter belongs to.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, LoRAConv1D)}
    first = next(iter(layers.values()))
    rank = first.lora_A.size(0)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": first.scaling * rank,
        "lora_dropout": first.lora_dropout.p,
        "target_modules": sorted({name.partition(".h.")[2].partition(".")[2] for name in layers}),
        "fan_in_fan_out": True,
        "bias": "none",
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_rslora": False,
        "use_dora": False,
    }


def to_peft_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our adapter names as `peft` writes them: `base_model.model.….lora_A.weight`."""
    return {f"{_PEFT_PREFIX}{name}.weight": tensor for name, tensor in weights.items()}


def attach_saved_adapter(folder: Path, *, load_base: Callable[[Path], GPT2]) -> GPT2:
    """Load the base model an adapter's folder names and put the adapter on it (not merged).

    Args:
        folder: a folder with `adapter_config.json` and `adapter_model.safetensors`, from gpt2kit or from `peft`.
        load_base: how to load the base model's folder.

    Raises:
        ModelError: an adapter of another kind, or tensors that do not fit the base model.
    """
    values = read_json(folder / ADAPTER_CONFIG, what="the adapter's configuration")
    _refuse_other_adapters(values, source=folder / ADAPTER_CONFIG)
    base = str(values.get("base_model_name_or_path") or "")
    if not base:
        raise ModelError(f"{folder / ADAPTER_CONFIG}: names no base model (base_model_name_or_path)")
    beside = folder / base
    model = load_base(beside if beside.is_dir() else resolve_base(base))
    targets = values["target_modules"]
    rank = int(values["r"])
    scale = math.sqrt(rank) if values.get("use_rslora") else 1.0
    add_lora(
        model,
        rank=rank,
        alpha=float(values["lora_alpha"]) * scale,
        dropout=float(values.get("lora_dropout", 0.0)),
        targets=[targets] if isinstance(targets, str) else targets,
    )
    load_lora_weights(model, folder / ADAPTER_WEIGHTS)
    return model


def _refuse_other_adapters(values: dict[str, Any], *, source: Path) -> None:
    if values.get("peft_type") != "LORA":
        raise ModelError(f"{source}: peft_type is {values.get('peft_type')!r}; gpt2kit reads LoRA adapters")
    for name in ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "layers_to_transform"):
        if values.get(name):
            raise ModelError(f"{source}: {name} is set, which gpt2kit does not read; merge the adapter with peft first")
    if values.get("bias", "none") != "none":
        raise ModelError(f"{source}: bias is {values['bias']!r}, which gpt2kit does not read; merge it with peft first")
    if not values.get("target_modules") or "r" not in values or "lora_alpha" not in values:
        raise ModelError(f"{source}: lacks r, lora_alpha or target_modules")


def load_lora_weights(model: GPT2, path: Path) -> None:
    """Read an adapter's tensors (under `peft`'s names) into a model that has the LoRA layers.

    Raises:
        ModelError: the file is damaged, or its tensors are not those of the model's LoRA layers.
    """
    if not path.is_file():
        raise ModelError(f"{path}: the adapter's weights are not there")
    saved = read_safetensors(path)
    weights = {name.removeprefix(_PEFT_PREFIX).removesuffix(".weight"): tensor for name, tensor in saved.items()}
    expected = lora_weights(model)
    if weights.keys() != expected.keys():
        stray = min(weights.keys() ^ expected.keys())
        raise ModelError(f"{path}: its layers are not those adapter_config.json names (first difference: {stray})")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"{path}: {name} is {list(tensor.shape)}, and the base model calls for {list(expected[name].shape)}"
            )
    model.load_state_dict(weights, strict=False)


def save_adapter_config(model: GPT2, folder: Path, *, base: str) -> None:
    """Write `adapter_config.json` atomically."""
    write_atomically(folder / ADAPTER_CONFIG, to_json(adapter_config(model, base=base)))


def save_adapter(model: GPT2, folder: Path, *, base: str, weights: dict[str, Tensor] | None = None) -> None:
    """Write a model's adapter as `peft` reads it: `adapter_model.safetensors`, then `adapter_config.json`.

    Args:
        model: a model with LoRA layers.
        folder: made if needed; other files in it are left alone.
        base: name or path of the base model, as `base_model_name_or_path`.
        weights: tensors to write in place of the model's current ones, under our names (see `lora_weights`).

    Raises:
        DiskError: the disk is full; what was there before is intact.
    """
    with explained_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    save_weights(to_peft_names(lora_weights(model) if weights is None else weights), folder / ADAPTER_WEIGHTS)
    save_adapter_config(model, folder, base=base)
