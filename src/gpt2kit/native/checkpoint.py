"""A Hugging Face GPT-2 folder, read without torch: its configuration, and its tensors one at a time."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpt2kit.errors import Gpt2kitError, ModelError
from gpt2kit.files import read_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
# x Φ(x) by its tanh approximation, under its two names; the kernel has no other activation.
_ACTIVATIONS = ("gelu_new", "gelu_pytorch_tanh")
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F64": np.dtype("<f8"),
}


class UnsupportedError(ModelError):
    """A model that the native engine does not compute, while PyTorch may."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the kernel has to know of a model, with the names of Hugging Face's `config.json`."""

    vocab_size: int
    n_positions: int
    n_embd: int
    n_layer: int
    n_head: int
    n_inner: int
    layer_norm_epsilon: float
    scale_attn_weights: bool
    scale_attn_by_inverse_layer_idx: bool

    def attention_scale(self, layer: int) -> float:
        """What products of queries and keys are multiplied by."""
        scale = 1 / math.sqrt(self.n_embd // self.n_head) if self.scale_attn_weights else 1.0
        return scale / (layer + 1) if self.scale_attn_by_inverse_layer_idx else scale


def read_shape(folder: Path) -> Shape:
    """Read `config.json`.

    Raises:
        UnsupportedError: it is a model that only PyTorch computes, or no GPT-2.
        ModelError: a value is missing its sense.
    """
    values = read_json(folder / CONFIG, what="the model's configuration")
    source = folder / CONFIG
    if (
        values.get("model_type", "gpt2") != "gpt2"
        or values.get("add_cross_attention")
        or "quantization_config" in values
    ):
        raise UnsupportedError(f"{source}: is no plain GPT-2")
    activation = values.get("activation_function", "gelu_new")
    if activation not in _ACTIVATIONS:
        raise UnsupportedError(f"{source}: activation_function {activation!r} is computed by --engine torch only")
    sizes = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12}
    found = {name: _size(values, name, default, source=source) for name, default in sizes.items()}
    if found["n_embd"] % found["n_head"]:
        raise ModelError(f"{source}: n_embd {found['n_embd']} is no multiple of n_head {found['n_head']}")
    epsilon = values.get("layer_norm_epsilon", 1e-5)
    if not isinstance(epsilon, float | int) or not 0 < epsilon < math.inf:
        raise ModelError(f"{source}: layer_norm_epsilon is {epsilon!r}; it must be above 0")
    return Shape(
        **found,
        n_inner=_size({} if values.get("n_inner") is None else values, "n_inner", 4 * found["n_embd"], source=source),
        layer_norm_epsilon=float(epsilon),
        scale_attn_weights=bool(values.get("scale_attn_weights", True)),
        scale_attn_by_inverse_layer_idx=bool(values.get("scale_attn_by_inverse_layer_idx", False)),
    )


def _size(values: Mapping[str, Any], name: str, default: int, *, source: Path) -> int:
    size = values.get(name, default)
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 1 << 24:
        raise ModelError(f"{source}: {name} is {size!r}; it must be from 1 to {1 << 24:,}")
    return int(size)


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies in a safetensors file."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    def read(self) -> NDArray[np.float32]:
        """Its values in float32; of a float32 tensor they are mapped, not copied."""
        raw: NDArray[Any] = np.memmap(
            self.path, dtype=_DTYPES[self.dtype], mode="r", offset=self.offset, shape=self.shape
        )
        if self.dtype == "BF16":
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float32, copy=False)


class Checkpoint:
    """The tensors of a folder under the names `transformer.…` and `lm_head.weight`.

    Attributes:
        shape: the model's.
        files: the files of the weights.
        is_tied: whether the head is the embedding.

    Raises:
        UnsupportedError: it has no safetensors, or is a LoRA adapter.
        ModelError: its files are damaged or do not agree.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shape = read_shape(folder)
        self.files = weight_files(folder)
        self._tensors = self._find()
        self.is_tied = self._settle_head()
        self._check()

    def read(self, name: str) -> NDArray[np.float32]:
        """A tensor's values."""
        return self._tensors[name].read()

    def _find(self) -> dict[str, StoredTensor]:
        found: dict[str, StoredTensor] = {}
        for path in self.files:
            for name, tensor in _tensors_of(path).items():
                if name.endswith((".attn.bias", ".attn.masked_bias")):  # causal masks that old files hold
                    continue
                ours = name if name.startswith(("transformer.", "lm_head.")) else f"transformer.{name}"
                if ours in found:
                    raise ModelError(f"{self.folder}: the weights hold {name!r} twice, with and without 'transformer.'")
                if tensor.dtype not in _DTYPES:
                    raise ModelError(f"{self.folder}: {name!r} is {tensor.dtype}; gpt2kit reads floating-point weights")
                found[ours] = tensor
        return found

    def _settle_head(self) -> bool:
        """As `transformers` does: a file that holds another head than the embedding is not tied."""
        wants_tied = read_json(self.folder / CONFIG, what="the model's configuration").get("tie_word_embeddings", True)
        names = ("lm_head.weight", "transformer.wte.weight")
        head, embedding = (self._tensors.get(name) for name in names)
        if not wants_tied:
            return False
        if head is not None and embedding is not None:
            if head.shape != embedding.shape or not np.array_equal(head.read(), embedding.read()):
                return False
        elif head is not None:
            self._tensors["transformer.wte.weight"] = head
        self._tensors.pop("lm_head.weight", None)
        return True

    def _check(self) -> None:
        expected = tensor_shapes(self.shape, is_tied=self.is_tied)
        if missing := sorted(set(expected) - set(self._tensors)):
            raise ModelError(f"{self.folder}: the weights lack {missing[0]}, which config.json calls for")
        if unknown := sorted(set(self._tensors) - set(expected)):
            raise ModelError(f"{self.folder}: the weights hold {unknown[0]!r}, which no GPT-2 of this config.json has")
        for name, shape in expected.items():
            if self._tensors[name].shape != shape:
                raise ModelError(
                    f"{self.folder}: config.json says {name} is {list(shape)}, and the weights hold "
                    f"{list(self._tensors[name].shape)}"
                )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: one, or shards with an index.

    Raises:
        UnsupportedError: it has none.
        ModelError: the index names files that are not in the folder.
    """
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / WEIGHTS_INDEX).is_file():
        raise UnsupportedError(f"{folder}: holds no {WEIGHTS}")
    names = read_json(folder / WEIGHTS_INDEX, what="the list of weight files").get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ModelError(f"{folder / WEIGHTS_INDEX}: has no weight_map from tensors to files")
    files = sorted({str(name) for name in names.values()})
    for name in files:
        if Path(name).name != name or not (folder / name).is_file():
            raise ModelError(f"{folder / WEIGHTS_INDEX}: names {name}, which is not in the folder")
    return [folder / name for name in files]


def _tensors_of(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a file, whose header the safetensors library has found to be in order."""
    from safetensors import SafetensorError, safe_open  # which kept weights, in a file of their own, do without

    try:
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        cause = " ".join(str(error).split())
        raise ModelError(f"{path}: is damaged or cut short ({cause}); fetch or save it again") from error
    with path.open("rb") as file:
        header_bytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_bytes))
    return {
        name: StoredTensor(
            path, about["dtype"], tuple(about["shape"]), offset=8 + header_bytes + about["data_offsets"][0]
        )
        for name, about in header.items()
        if name != "__metadata__"
    }


def tensor_shapes(shape: Shape, *, is_tied: bool) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor of a model."""
    D, F = shape.n_embd, shape.n_inner
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (shape.vocab_size, D),
        "transformer.wpe.weight": (shape.n_positions, D),
        "transformer.ln_f.weight": (D,),
        "transformer.ln_f.bias": (D,),
    }
    if not is_tied:
        shapes["lm_head.weight"] = (shape.vocab_size, D)
    of_a_layer: dict[str, tuple[int, ...]] = {
        "ln_1.weight": (D,),
        "ln_1.bias": (D,),
        "attn.c_attn.weight": (D, 3 * D),
        "attn.c_attn.bias": (3 * D,),
        "attn.c_proj.weight": (D, D),
        "attn.c_proj.bias": (D,),
        "ln_2.weight": (D,),
        "ln_2.bias": (D,),
        "mlp.c_fc.weight": (D, F),
        "mlp.c_fc.bias": (F,),
        "mlp.c_proj.weight": (F, D),
        "mlp.c_proj.bias": (D,),
    }
    for layer in range(shape.n_layer):
        shapes |= {f"transformer.h.{layer}.{name}": dims for name, dims in of_a_layer.items()}
    return shapes


def can_read(folder: Path) -> bool:
    """Whether the native engine computes the model of a folder; damage is not looked for."""
    try:
        read_shape(folder)
        weight_files(folder)
    except Gpt2kitError:
        return False
    return True
