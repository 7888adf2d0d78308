"""The model folder: a plain Hugging Face folder, read with suspicion and written whole.

Files from strangers are data: only safetensors by default, never remote code, and a pickle only when asked for, with
`weights_only`.
"""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2kit.console import warn
from gpt2kit.errors import ModelError, UsageError
from gpt2kit.files import explained_disk_errors, read_json, to_json, write_atomically
from gpt2kit.model.adapters import attach_saved_adapter, base_folder
from gpt2kit.model.gpt2 import GPT2, GPT2Config
from gpt2kit.model.lora import merge_lora
from gpt2kit.model.places import CONFIG as CONFIG
from gpt2kit.model.places import file_hashes as file_hashes
from gpt2kit.model.places import is_adapter
from gpt2kit.model.weights import read_safetensors, save_weights

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
PICKLED_WEIGHTS = "pytorch_model.bin"

# Settings of Hugging Face's config.json that do not change what a language model computes.
_HARMLESS = frozenset(
    """
    _name_or_path _num_labels add_cross_attention architectures attribute_map bos_token chunk_size_feed_forward
    do_sample dtype early_stopping eos_token finetuning_task gradient_checkpointing id2label is_decoder
    is_encoder_decoder keys_to_ignore_at_inference label2id max_length model_type n_ctx n_special output_attentions
    output_hidden_states output_past pad_token_id predict_special_tokens prefix problem_type return_dict sep_token_id
    summary_activation summary_first_dropout summary_proj_to_labels summary_type summary_use_proj
    task_specific_params tokenizer_class torch_dtype transformers_version use_cache
    """.split()
)


def read_config(folder: Path) -> GPT2Config:
    """Read `config.json`; of an adapter's folder, that of its base model.

    Raises:
        UsageError: the folder or the file is not there.
        ModelError: it is not a GPT-2, or a value has the wrong type.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such model folder")
    if is_adapter(folder):
        return read_config(base_folder(folder))
    values = read_json(folder / CONFIG, what="the model's configuration")
    return config_from_dict(values, source=folder / CONFIG)


def config_from_dict(values: dict[str, Any], *, source: Path) -> GPT2Config:
    """Make a configuration from the values of a `config.json`; `source` is named in errors."""
    if values.get("model_type", "gpt2") != "gpt2":
        raise ModelError(
            f"{source}: model_type is {values['model_type']!r}; gpt2kit reads GPT-2 models (model_type 'gpt2')"
        )
    if values.get("add_cross_attention"):
        raise ModelError(f"{source}: add_cross_attention is set; only the plain GPT-2 language model is supported")
    if "quantization_config" in values:
        raise ModelError(f"{source}: the weights are quantised (quantization_config); give the unquantised model")
    known = {field.name: field.type for field in fields(GPT2Config)}
    for name, value in values.items():
        if name in known and not _has_type(value, known[name]):
            raise ModelError(f"{source}: {name} is {value!r}; it should be {_type_name(known[name])}")
    if unknown := sorted(set(values) - set(known) - _HARMLESS):
        warn(f"{source}: ignored unknown settings {', '.join(unknown)}")
    try:
        return GPT2Config(**{name: value for name, value in values.items() if name in known})
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from None


def _type_name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind)).replace(" | None", " or null")


def _has_type(value: Any, kind: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float)
    return isinstance(value, kind)


def config_to_dict(config: GPT2Config) -> dict[str, Any]:
    """The values of a `config.json` that Hugging Face's tools read."""
    return asdict(config) | {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "dtype": "float32",
        "use_cache": True,
    }


def load_model(
    folder: Path,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    allow_pickle: bool = False,
) -> GPT2:
    """Read a model for inference (eval mode); a LoRA adapter's folder gives its base model with the adapter merged.

    Args:
        folder: a Hugging Face folder with `config.json` and `model.safetensors` (or shards), or an adapter's folder.
        device: where to put it; the CPU by default.
        dtype: what to compute in.
        allow_pickle: read `pytorch_model.bin` (with `weights_only`) when there are no safetensors.

    Raises:
        UsageError: the folder is not there.
        ModelError: the files are damaged, or do not agree with each other.
    """
    folder = Path(folder)
    if is_adapter(folder):
        model = attach_saved_adapter(folder, load_base=lambda base: load_model(base, allow_pickle=allow_pickle))
        merge_lora(model)
        return model.to(device=device, dtype=dtype).eval()
    config = read_config(folder)
    weights = _with_our_names(read_weights(folder, allow_pickle=allow_pickle), source=folder)
    config = _settle_head(config, weights, source=folder)
    _check_layers(config, weights, source=folder)
    with torch.device("meta"):
        model = GPT2(config)
    _check_tensors(model, weights, source=folder)
    model.load_state_dict({name: tensor.to(dtype=dtype) for name, tensor in weights.items()}, assign=True)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.transformer.wte.weight
    return model.requires_grad_(True).to(device=device).eval()


def _with_our_names(weights: dict[str, Tensor], *, source: Path) -> dict[str, Tensor]:
    """Add `transformer.` where a file goes without it, and leave out the causal-mask buffers of old files."""
    named = {}
    for name, tensor in weights.items():
        if name.endswith((".attn.bias", ".attn.masked_bias")):
            continue
        ours = name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
        if ours in named:
            raise ModelError(f"{source}: the weights hold {name!r} twice, with and without 'transformer.'")
        if not tensor.is_floating_point():
            raise ModelError(f"{source}: {name!r} is {tensor.dtype}; gpt2kit reads floating-point weights")
        named[ours] = tensor
    return named


def _settle_head(config: GPT2Config, weights: dict[str, Tensor], *, source: Path) -> GPT2Config:
    """Decide whether the head is tied, as `transformers` does: not when the file holds another one than `wte`."""
    if not config.tie_word_embeddings:
        return config
    head, embedding = weights.get("lm_head.weight"), weights.get("transformer.wte.weight")
    if head is not None and embedding is not None and not torch.equal(head, embedding):
        warn(
            f"{source}: config.json ties lm_head to wte, and the weights hold a different lm_head.weight, so it is used"
        )
        return replace(config, tie_word_embeddings=False)
    for name, tensor in (("lm_head.weight", embedding), ("transformer.wte.weight", head)):
        if tensor is not None:
            weights.setdefault(name, tensor)
    return config


def _check_layers(config: GPT2Config, weights: dict[str, Tensor], *, source: Path) -> None:
    """Compare the number of blocks before building them, since a lie could be any number."""
    blocks = {name.split(".")[2] for name in weights if name.startswith("transformer.h.")}
    if len(blocks) != config.n_layer:
        raise ModelError(
            f"{source}: config.json says n_layer {config.n_layer}, and the weights hold {len(blocks)} layers"
        )


def _check_tensors(model: GPT2, weights: dict[str, Tensor], *, source: Path) -> None:
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    if missing := sorted(set(expected) - set(weights)):
        raise ModelError(f"{source}: the weights lack {_some(missing)}, which config.json calls for")
    if unknown := sorted(set(weights) - set(expected)):
        raise ModelError(f"{source}: the weights hold {_some(unknown)}, which no GPT-2 of this config.json has")
    for name, shape in expected.items():
        if list(weights[name].shape) != shape:
            raise ModelError(
                f"{source}: config.json says {name} is {shape}, and the weights hold {list(weights[name].shape)}"
            )


def _some(names: list[str]) -> str:
    shown = [name if name.isprintable() else repr(name) for name in names[:3]]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def read_weights(folder: Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Read all tensors of a folder: one safetensors file, shards with an index, or (when allowed) a pickle."""
    if (folder / WEIGHTS).is_file():
        return read_safetensors(folder / WEIGHTS)
    if (folder / WEIGHTS_INDEX).is_file():
        files = read_json(folder / WEIGHTS_INDEX, what="the list of weight files").get("weight_map")
        if not isinstance(files, dict) or not files:
            raise ModelError(f"{folder / WEIGHTS_INDEX}: has no weight_map from tensors to files")
        names = sorted({str(name) for name in files.values()})
        tensors: dict[str, Tensor] = {}
        for name in names:
            if Path(name).name != name:
                raise ModelError(f"{folder / WEIGHTS_INDEX}: names a file outside the folder: {name}")
            if not (folder / name).is_file():
                raise ModelError(f"{folder / WEIGHTS_INDEX}: names {name}, which is not in the folder")
            tensors |= read_safetensors(folder / name)
        return tensors
    if (folder / PICKLED_WEIGHTS).is_file():
        if not allow_pickle:
            raise ModelError(
                f"{folder}: has only {PICKLED_WEIGHTS}, a pickle, which can run code when opened; "
                "get the safetensors version, or pass --allow_pickle if you trust it"
            )
        return _read_pickle(folder / PICKLED_WEIGHTS)
    raise ModelError(f"{folder}: holds no {WEIGHTS}")


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever a garbled file makes it raise
        cause = " ".join(str(error).split())
        raise ModelError(f"{path}: cannot be read as plain weights ({type(error).__name__}: {cause})") from error
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) and tensor.layout == torch.strided
        for name, tensor in weights.items()
    ):
        raise ModelError(f"{path}: does not hold a plain dictionary of tensors")
    return weights


def weights_of(model: GPT2) -> dict[str, Tensor]:
    """The tensors of a model as they are saved: without the head when it is tied, without adapters."""
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not (name == "lm_head.weight" and model.config.tie_word_embeddings) and ".lora_" not in name
    }


def save_model(model: GPT2, folder: Path, *, weights: dict[str, Tensor] | None = None) -> None:
    """Write `config.json`, `generation_config.json` and `model.safetensors`, each atomically.

    Args:
        model: the model.
        folder: made if needed; other files in it are left alone.
        weights: tensors to write in place of the model's current ones.
    """
    with explained_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    save_weights(weights_of(model) if weights is None else weights, folder / WEIGHTS)
    write_atomically(folder / CONFIG, to_json(config_to_dict(model.config)))
    generation = {
        "_from_model_config": True,
        "bos_token_id": model.config.bos_token_id,
        "eos_token_id": model.config.eos_token_id,
    }
    write_atomically(folder / "generation_config.json", json.dumps(generation, indent=2) + "\n")
