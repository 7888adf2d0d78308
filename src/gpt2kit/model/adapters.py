"""LoRA adapters on disk, in `peft`'s folder format: `adapter_config.json` and `adapter_model.safetensors`.

Each reads what the other writes. A kind of adapter that would be computed differently here is refused by name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor

from gpt2kit.errors import ModelError
from gpt2kit.files import explained_disk_errors, read_json, to_json, write_atomically
from gpt2kit.hub import resolve_base
from gpt2kit.model.gpt2 import GPT2, Conv1D
from gpt2kit.model.lora import TARGETS, LoRAConv1D, adapt_layer, lora_weights
from gpt2kit.model.places import ADAPTER_CONFIG as ADAPTER_CONFIG
from gpt2kit.model.places import is_adapter as is_adapter
from gpt2kit.model.weights import read_safetensors, save_weights

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_TOKENIZERS = ("tokenizer.json", "vocab.json")
_PEFT_PREFIX = "base_model.model."
# Settings of peft that change what an adapter computes and that are not read here.
_UNREAD_SETTINGS = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "modules_to_save",
    "exclude_modules",
    "rank_pattern",
    "alpha_pattern",
    "layers_to_transform",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
)
# Other initialisations (PiSSA, OLoRA, CorDA, LoftQ) also change the base model's weights.
_INITS_THAT_KEEP_THE_BASE = (True, False, None, "gaussian", "eva", "orthogonal")


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


@dataclass(frozen=True)
class AdapterSettings:
    """What a saved adapter's `adapter_config.json` says.

    Attributes:
        base: name or path of the base model.
        rank: R.
        alpha: the update is scaled by alpha / rank.
        dropout: dropout on the updates' inputs in training.
        targets: the layers' names as `peft` matches them (whole, or the end after a dot); None when the file holds a
            pattern, which is not evaluated: the layers are then those the weights hold.
    """

    base: str
    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...] | None


def read_adapter_settings(folder: Path) -> AdapterSettings:
    """Read and check `adapter_config.json`, from gpt2kit or from `peft`.

    Raises:
        UsageError: the file is not there.
        ModelError: an adapter of a kind gpt2kit does not read, or a value of the wrong type.
    """
    source = folder / ADAPTER_CONFIG
    values = read_json(source, what="the adapter's configuration")
    _refuse_other_adapters(values, source=source)
    base, rank, targets = values.get("base_model_name_or_path"), values.get("r"), values.get("target_modules")
    alpha, dropout = values.get("lora_alpha"), values.get("lora_dropout", 0.0)
    if not isinstance(base, str) or not base:
        raise ModelError(f"{source}: names no base model (base_model_name_or_path)")
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise ModelError(f"{source}: r is {rank!r}; it should be the rank, a whole number from 1")
    if not _is_number(alpha) or not math.isfinite(alpha):
        raise ModelError(f"{source}: lora_alpha is {alpha!r}; it should be a number")
    if not _is_number(dropout) or not 0 <= dropout <= 1:
        raise ModelError(f"{source}: lora_dropout is {dropout!r}; it should be a number from 0 to 1")
    if not targets or not isinstance(targets, str | list) or not all(isinstance(name, str) for name in targets):
        raise ModelError(f"{source}: target_modules is {targets!r}; it should name the adapted layers")
    return AdapterSettings(
        base=base,
        rank=rank,
        alpha=float(alpha) * (math.sqrt(rank) if values.get("use_rslora") else 1.0),
        dropout=float(dropout),
        targets=None if isinstance(targets, str) else tuple(targets),
    )


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse_other_adapters(values: dict[str, Any], *, source: Path) -> None:
    if values.get("peft_type") != "LORA":
        raise ModelError(f"{source}: peft_type is {values.get('peft_type')!r}; gpt2kit reads LoRA adapters")
    for name in _UNREAD_SETTINGS:
        if values.get(name):
            raise ModelError(f"{source}: {name} is set, which gpt2kit does not read; merge the adapter with peft first")
    for name, known in (("bias", ("none",)), ("init_lora_weights", _INITS_THAT_KEEP_THE_BASE)):
        if values.get(name, known[0]) not in known:
            raise ModelError(
                f"{source}: {name} is {values[name]!r}, which gpt2kit does not read; merge the adapter with peft first"
            )


def attach_saved_adapter(folder: Path, *, load_base: Callable[[Path], GPT2]) -> GPT2:
    """Load the base model an adapter's folder names and put the adapter on it (not merged).

    Args:
        folder: a folder with `adapter_config.json` and `adapter_model.safetensors`, from gpt2kit or from `peft`.
        load_base: how to load the base model's folder.

    Raises:
        UsageError: the base model is not there.
        ModelError: an adapter of another kind, or tensors that do not fit the base model.
    """
    settings = read_adapter_settings(folder)
    source = folder / ADAPTER_WEIGHTS
    weights = read_lora_weights(source)
    model = load_base(base_folder(folder))
    layers = sorted({name.rpartition(".")[0] for name in weights})
    adaptable = {name: module for name, module in model.named_modules() if isinstance(module, Conv1D)}
    if foreign := sorted(set(layers) - set(adaptable)):
        raise ModelError(
            f"{source}: adapts {foreign[0]}, which is no layer of the base model's blocks ({', '.join(TARGETS)})"
        )
    if settings.targets is not None:
        named = {name for name in adaptable if _is_target(name, settings.targets)}
        _check_same_layers(set(layers), named, source=source)
    model.requires_grad_(False)
    for name in layers:
        # Compared before anything is built, since the rank in adapter_config.json could be any number.
        in_features, out_features = adaptable[name].weight.shape
        _check_shape(weights, f"{name}.lora_A", (settings.rank, in_features), source=source)
        _check_shape(weights, f"{name}.lora_B", (out_features, settings.rank), source=source)
        adapt_layer(model, name, rank=settings.rank, alpha=settings.alpha, dropout=settings.dropout)
    put_lora_weights(model, weights, source=source)
    return model


def base_folder(folder: Path) -> Path:
    """The folder of the base model that an adapter's folder names: beside the adapter, a path, or a Hub name.

    It may be an adapter's folder in turn, which has a base of its own.

    Raises:
        UsageError: it is not there.
        ModelError: following the bases leads round in a circle.
    """
    found = _named_base(folder)
    seen, current = {folder.resolve()}, found
    while is_adapter(current):
        if current.resolve() in seen:
            raise ModelError(f"{folder / ADAPTER_CONFIG}: base_model_name_or_path leads back to {current}")
        seen.add(current.resolve())
        current = _named_base(current)
    return found


def _named_base(folder: Path) -> Path:
    base = read_adapter_settings(folder).base
    return folder / base if (folder / base).is_dir() else resolve_base(base)


def tokenizer_folder(folder: Path) -> Path:
    """The folder that holds a model's tokenizer: its own, else that of the nearest base model that has one.

    `peft` writes adapters without a tokenizer. Where none has one, the last base model's folder is returned.
    """
    while is_adapter(folder) and not has_tokenizer(folder):
        folder = base_folder(folder)
    return folder


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer of its own."""
    return any((folder / name).is_file() for name in _TOKENIZERS)


def _is_target(layer: str, targets: tuple[str, ...]) -> bool:
    return any(layer == target or layer.endswith(f".{target}") for target in targets)


def _check_same_layers(held: set[str], named: set[str], *, source: Path) -> None:
    if held != named:
        raise ModelError(
            f"{source}: its layers are not those adapter_config.json names (first difference: {min(held ^ named)})"
        )


def _check_shape(weights: dict[str, Tensor], name: str, shape: tuple[int, ...], *, source: Path) -> None:
    if name not in weights:
        raise ModelError(f"{source}: lacks {name}")
    if tuple(weights[name].shape) != shape:
        raise ModelError(
            f"{source}: {name} is {list(weights[name].shape)}, and adapter_config.json and the base model call for "
            f"{list(shape)}"
        )


def read_lora_weights(path: Path) -> dict[str, Tensor]:
    """Read an adapter's tensors and give them our names, e.g. `transformer.h.0.attn.c_attn.lora_A`.

    Raises:
        ModelError: the file is missing or damaged, or holds something else than LoRA tensors.
    """
    if not path.is_file():
        pickled = path.with_suffix(".bin")
        found = f"; {pickled.name} is a pickle, and is not opened" if pickled.is_file() else ""
        raise ModelError(f"{path}: the adapter's weights are not there{found}")
    weights = {}
    for name, tensor in read_safetensors(path).items():
        ours = name.removeprefix(_PEFT_PREFIX).removesuffix(".weight")
        ours = f"transformer.{ours}" if ours.startswith("h.") else ours  # saved from a model without a head
        if not ours.endswith((".lora_A", ".lora_B")) or not tensor.is_floating_point() or ours in weights:
            raise ModelError(f"{path}: holds {name} ({tensor.dtype}), which is no LoRA tensor of a GPT-2")
        weights[ours] = tensor
    return weights


def put_lora_weights(model: GPT2, weights: dict[str, Tensor], *, source: Path) -> None:
    """Put an adapter's tensors, under our names, into a model that has the LoRA layers; `source` is named in errors.

    Raises:
        ModelError: they are not those of the model's LoRA layers.
    """
    expected = lora_weights(model)
    _check_same_layers(set(weights), set(expected), source=source)
    for name, tensor in expected.items():
        _check_shape(weights, name, tuple(tensor.shape), source=source)
    model.load_state_dict(weights, strict=False)


def load_lora_weights(model: GPT2, path: Path) -> None:
    """Read an adapter's tensors (under `peft`'s names) into a model that has the LoRA layers.

    Raises:
        ModelError: the file is damaged, or its tensors are not those of the model's LoRA layers.
    """
    put_lora_weights(model, read_lora_weights(path), source=path)


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
