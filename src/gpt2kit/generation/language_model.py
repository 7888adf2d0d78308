"""A model together with its tokenizer: what turns text into text."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from gpt2kit.errors import ModelError, UsageError
from gpt2kit.generation.settings import DEFAULT_MODEL_DIR, Engine, WeightsSetting
from gpt2kit.hub import resolve_base
from gpt2kit.model.places import is_adapter
from gpt2kit.native.checkpoint import can_read
from gpt2kit.native.engine import NativeEngine
from gpt2kit.native.library import Weights, load_library
from gpt2kit.runtime import Precision, release_freed_memory
from gpt2kit.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2kit.model import GPT2

_TRAINING_RECORD = "training"
_GPU_FILES = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")  # NVIDIA's, AMD's, and either one's below Windows


class ModelSizes(Protocol):
    """What texts have to know of a model, whatever computes it."""

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary."""

    @property
    def n_positions(self) -> int:
        """Tokens of the context."""

    @property
    def n_layer(self) -> int:
        """Number of blocks."""

    @property
    def n_embd(self) -> int:
        """Width."""


class LanguageModel:
    """A GPT-2 and its tokenizer.

    Args:
        model: the network; it is put into eval mode while it writes. None to open it when it is first needed.
        tokenizer: its tokenizer.
        folder: where it came from.
        native: the model on the native engine.
        open_network: opens the network.
        open_native: opens the model on the native engine.

    Attributes:
        tokenizer: its tokenizer.
        folder: where it came from.

    Raises:
        ModelError: the tokenizer has ids that the network has no embedding for.
    """

    def __init__(
        self,
        model: "GPT2 | None",
        tokenizer: Tokenizer,
        folder: Path,
        *,
        native: NativeEngine | None = None,
        open_network: "Callable[[], GPT2] | None" = None,
        open_native: Callable[[Weights], NativeEngine] | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.folder = folder
        self._network = model
        self._engines: dict[Weights, NativeEngine] = {} if native is None else {native.packed.weights: native}
        self._opened_with: Weights = "fp32" if native is None else native.packed.weights
        self._open_network = open_network
        self._open_native = open_native
        if tokenizer.vocab_size > self.config.vocab_size:
            raise ModelError(
                f"{folder}: its tokenizer has {tokenizer.vocab_size:,} entries and its network "
                f"{self.config.vocab_size:,}; they do not belong together"
            )

    @property
    def model(self) -> "GPT2":
        """The network in PyTorch. Once it has been asked for, texts are written by it unless the settings say else."""
        if self._network is None:
            assert self._open_network is not None
            self._network = self._open_network()
        return self._network

    @property
    def config(self) -> ModelSizes:
        """The model's sizes."""
        return next((engine.shape for engine in self._engines.values()), None) or self.model.config

    @property
    def texts_begin_with_end_of_text(self) -> bool:
        """Whether it was trained by gpt2kit, where an end-of-text stands in front of every text."""
        return is_trained_here(self.folder)

    def native_for(self, *, engine: Engine, weights: WeightsSetting, can_decode: bool) -> NativeEngine | None:
        """The native engine, if it is to write a text; None for PyTorch.

        Args:
            engine: what was asked for.
            weights: what it is to compute with; "auto" for those it was opened with.
            can_decode: whether the method is one of the native engine's.

        Raises:
            UsageError: it was asked for, and cannot do it.
        """
        is_wanted = engine == "native" or weights not in ("auto", "fp32")
        if engine == "torch":
            if weights not in ("auto", "fp32"):
                raise UsageError(f"--weights {weights} needs --engine native")
            return None
        if not can_decode:
            if is_wanted:
                asked = (
                    "--engine native" if engine == "native" else f"--weights {weights} is of the native engine, which"
                )
                raise UsageError(
                    f"{asked} writes by greedy search and sampling only: leave it out, or write in one of these ways"
                )
            return None
        if not is_wanted and (self._network is not None or not self._engines):
            return None
        chosen = self._opened_with if weights == "auto" else weights
        if chosen not in self._engines:
            if self._open_native is None:
                raise UsageError("--engine native: this model is not in a folder that the native engine can read")
            self._engines[chosen] = self._open_native(chosen)
        return self._engines[chosen]


def is_trained_here(folder: Path) -> bool:
    """Whether gpt2kit trained the model of a folder, by the record that it left there."""
    return (folder / _TRAINING_RECORD).is_dir()


def find_folder(name: str | Path) -> Path:
    """The folder of the model that a user named.

    Raises:
        UsageError: there is none; where `gpt2kit train` would put it, that command is named.
        NetworkError: a name on the Hub, which cannot be reached.
    """
    if not Path(name).exists() and Path(name) == Path(DEFAULT_MODEL_DIR):
        raise UsageError(
            f"--model_dir {name}: there is no model yet; make one with `gpt2kit train`, or name another one "
            "(a folder, or gpt2)"
        )
    return resolve_base(name)


def load(
    folder: str | Path,
    *,
    device: str = "auto",
    precision: Precision = "auto",
    engine: Engine = "auto",
    weights: WeightsSetting = "auto",
) -> LanguageModel:
    """Open a model folder (a whole model, or a LoRA adapter, which is merged) with its tokenizer.

    Args:
        folder: the folder, or a model's name on the Hub such as "gpt2".
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        precision: what to compute in; "auto" is bf16 or fp16 on a GPU and fp32 elsewhere.
        engine: "torch", "native" (greedy search and sampling on a CPU, without PyTorch), or "auto": native where it can
            be. The network itself (`.model`) is always PyTorch's, and opened when it is first asked for.
        weights: of the native engine: "fp32", or rounded to "int8" or "int4".

    Raises:
        UsageError: there is no such folder or device, or the engine cannot do it.
        ModelError: the folder's files are damaged, do not agree with each other, or lack a tokenizer.
        NetworkError: a name on the Hub, which cannot be reached.

    Example:
        >>> model = load("models/gpt2_fine_tuned")
        >>> generate(model, ["Once upon a time"], GenerateSettings(seed=0))[0].text
    """
    path = find_folder(folder)
    # Before the weights: reading a tokenizer takes several times the memory that it needs afterwards.
    tokenizer = Tokenizer.from_folder(_tokenizer_folder(path))
    release_freed_memory()
    native = None
    if engine == "native" or weights not in ("auto", "fp32"):
        if engine == "torch":
            raise UsageError(f"--weights {weights} needs --engine native")
        native = _open_native(path, weights, device=device, precision=precision)
    elif engine == "auto" and _obstacle(path, device=device, precision=precision) is None:
        try:
            native = NativeEngine(path)
        except ModelError:  # of another kind, or damaged, which PyTorch's reader explains best
            native = None
    return LanguageModel(
        None if native else _open_network(path, device=device, precision=precision),
        tokenizer,
        path,
        native=native,
        open_network=lambda: _open_network(path, device=device, precision=precision),
        open_native=lambda wanted: _open_native(path, wanted, device=device, precision=precision),
    )


def _open_network(path: Path, *, device: str, precision: Precision) -> "GPT2":
    from gpt2kit.model import load_model
    from gpt2kit.runtime import select_device, select_dtype

    chosen = select_device(device)
    return load_model(path, device=chosen, dtype=select_dtype(precision, chosen))


def _open_native(path: Path, weights: WeightsSetting, *, device: str, precision: Precision) -> NativeEngine:
    obstacle = _obstacle(path, device=device, precision=precision, is_asked_for=True)
    if obstacle is not None:
        raise UsageError(f"--engine native: {obstacle}; use --engine torch")
    return NativeEngine(path, weights="fp32" if weights == "auto" else weights)


def _obstacle(path: Path, *, device: str, precision: Precision, is_asked_for: bool = False) -> str | None:
    """Why the native engine cannot compute a model; None when it can. A GPU is an obstacle unless it is asked for."""
    if load_library() is None:
        return "it was not compiled when gpt2kit was installed (see gpt2kit doctor)"
    if precision not in ("auto", "fp32"):
        return f"it does not compute in {precision}"
    if device not in ("auto", "cpu") or (device == "auto" and not is_asked_for and _may_have_gpu()):
        return "it computes on a CPU only"
    if path.is_dir() and is_adapter(path):
        return f"{path} is a LoRA adapter; merge it first (gpt2kit merge)"
    if not can_read(path):
        return f"{path} is not a plain GPT-2 with safetensors"
    return None


def _may_have_gpu() -> bool:
    """Whether PyTorch would find a GPU here; it is asked only where there might be one, for importing it takes long."""
    if sys.platform == "linux" and not any(Path(name).exists() for name in _GPU_FILES):
        return False
    from gpt2kit.runtime import select_device

    return select_device("auto").type != "cpu"


def _tokenizer_folder(path: Path) -> Path:
    if not is_adapter(path):
        return path
    from gpt2kit.model import tokenizer_folder

    return tokenizer_folder(path)
