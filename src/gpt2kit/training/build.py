"""What a run starts from: a base model or fresh weights, adapters, and what is frozen."""

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from gpt2kit.console import warn
from gpt2kit.errors import UsageError
from gpt2kit.files import sha256_json
from gpt2kit.hub import resolve_base
from gpt2kit.model.adapters import base_folder, has_tokenizer, is_adapter, tokenizer_folder
from gpt2kit.model.folder import file_hashes, load_model, read_config
from gpt2kit.model.gpt2 import GPT2, Attention, GPT2Config
from gpt2kit.model.lora import add_lora
from gpt2kit.runtime import derive_seed
from gpt2kit.tokens import PreparedData, Tokenizer
from gpt2kit.training.settings import SHAPE_FIELDS, TrainSettings

SCRATCH_CONTEXT = 256
_ALIGNMENT_BYTES = 64  # of all memory that PyTorch itself takes on a CPU
_SCRATCH_SHAPE = {"n_layer": 4, "n_head": 4, "n_embd": 256}


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Attributes:
        config: the shape of the model.
        base: the base model as a later reader finds it (a Hub name or an absolute path); None from scratch.
        folder: where the base model lies; None from scratch.
        hashing: the hash of its files, when it is being computed already.
    """

    config: GPT2Config
    base: str | None = None
    folder: Path | None = None
    hashing: Future[str] | None = field(default=None, repr=False, compare=False)

    def fingerprint(self) -> str:
        """A hash of the base model's files, or of the shape of a model from scratch."""
        if self.folder is None:
            return sha256_json(vars(self.config))
        return _hash_of(self.folder) if self.hashing is None else self.hashing.result()


def find_start(settings: TrainSettings, data: PreparedData) -> Start:
    """Find the base model, or the shape of a model from scratch, and check that it fits the prepared data.

    Raises:
        UsageError: the base model is not there, or has another tokenizer than the data, or settings exclude each other.
        NetworkError: the base model is a Hub name without a copy here, and there is no network.
    """
    base = settings.base if settings.base is not None else data.base
    if settings.from_scratch or base is None:
        if settings.method == "lora":
            raise UsageError("--method lora needs a base model, and these data were prepared from scratch")
        return Start(_scratch_config(settings, data.tokenizer))
    if given := [name for name in SHAPE_FIELDS if getattr(settings, name) is not None]:
        raise UsageError(
            f"--{given[0]} is the shape of a model from scratch, and this run starts from {base}: drop it, or add "
            "--from_scratch"
        )
    folder = resolve_base(base)
    config = read_config(folder)
    hashing = None if settings.dry_run else _hash_in_background(folder)  # a second for 300 MB, beside what follows
    _check_tokenizer(folder, config, data, base)
    return Start(config, base=str(folder.resolve()) if Path(base).is_dir() else base, folder=folder, hashing=hashing)


def _hash_in_background(folder: Path) -> Future[str]:
    """Begin to hash a base model's files; the process does not wait for it when it ends."""
    found: Future[str] = Future()

    def run() -> None:
        try:
            found.set_result(_hash_of(folder))
        except BaseException as error:
            found.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return found


def _hash_of(folder: Path) -> str:
    hashes = [file_hashes(folder)]
    while is_adapter(folder):
        folder = base_folder(folder)
        hashes.append(file_hashes(folder))
    return sha256_json(hashes)


def _scratch_config(settings: TrainSettings, tokenizer: Tokenizer) -> GPT2Config:
    shape = {name: getattr(settings, name) or default for name, default in _SCRATCH_SHAPE.items()}
    if shape["n_embd"] % shape["n_head"]:
        raise UsageError(f"--n_embd {shape['n_embd']} must be a multiple of --n_head {shape['n_head']}")
    dropout = settings.dropout or 0.0
    return GPT2Config(
        vocab_size=tokenizer.vocab_size,
        n_positions=settings.context or SCRATCH_CONTEXT,
        n_layer=shape["n_layer"],
        n_head=shape["n_head"],
        n_embd=shape["n_embd"],
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        bos_token_id=tokenizer.end_of_text,
        eos_token_id=tokenizer.end_of_text,
    )


def _check_tokenizer(folder: Path, config: GPT2Config, data: PreparedData, base: str) -> None:
    if data.tokenizer.vocab_size > config.vocab_size:
        raise UsageError(
            f"{data.folder}: its tokenizer has {data.tokenizer.vocab_size} entries and {base} has {config.vocab_size}: "
            f"prepare the data again with --base {base}"
        )
    its_tokenizer = tokenizer_folder(folder)
    if not has_tokenizer(its_tokenizer):
        warn(f"{base} has no tokenizer of its own to compare with; the one of {data.folder} goes with the result")
        return
    if Tokenizer.from_folder(its_tokenizer).fingerprint != data.tokenizer.fingerprint:
        raise UsageError(
            f"{data.folder} was prepared with another tokenizer than {base} has: prepare the data again with "
            f"--base {base}"
        )


def build_model(start: Start, settings: TrainSettings, device: torch.device) -> GPT2:
    """The model at step 0, in training mode, its parameters in fresh memory.

    Raises:
        ModelError: the base model's files are damaged.
        UsageError: more layers are to be frozen than there are.
    """
    if start.folder is None:
        model = GPT2(start.config)
        model.initialise(torch.Generator().manual_seed(derive_seed(settings.seed, "weights")))
    else:
        model = load_model(
            start.folder, device=torch.device("cpu"), dtype=torch.float32, allow_pickle=settings.allow_pickle
        )
        if settings.dropout is not None:
            set_dropout(model, settings.dropout)
    if settings.method == "lora":
        add_lora(
            model,
            rank=settings.lora_rank,
            alpha=settings.lora_alpha,
            dropout=settings.lora_dropout,
            targets=settings.lora_targets,
            generator=torch.Generator().manual_seed(derive_seed(settings.seed, "lora")),
        )
    else:
        freeze(model, layers=settings.freeze_layers, embeddings=settings.freeze_embeddings)
    model.gradient_checkpointing = settings.gradient_checkpointing
    _to_fresh_memory(model, device)
    return model.train()


def set_dropout(model: GPT2, dropout: float) -> None:
    """Set every dropout of a model, in its configuration too."""
    model.config = replace(model.config, resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
        elif isinstance(module, Attention):
            module.attn_pdrop = dropout


def freeze(model: GPT2, *, layers: int, embeddings: bool) -> None:
    """Leave the first blocks, and the embeddings (with the head, when it is tied to them), as they are.

    Raises:
        UsageError: nothing, or more than there is, would be left to train.
    """
    if layers > model.config.n_layer:
        raise UsageError(f"--freeze_layers {layers}: the model has {model.config.n_layer} layers")
    for block in model.transformer.h[:layers]:
        block.requires_grad_(False)
    if embeddings:
        model.transformer.wte.requires_grad_(False)
        model.transformer.wpe.requires_grad_(False)
    elif layers:
        warn(
            f"the first {layers} layers are frozen and the embeddings below them are not, so the backward pass still "
            "goes through all layers; --freeze_embeddings too makes it faster"
        )


def _to_fresh_memory(model: GPT2, device: torch.device) -> None:
    """Move every parameter to the device, copied where its alignment depends on the file it came from.

    Matrix kernels may round differently by alignment; a resumed run must not.
    """
    moved: dict[nn.Parameter, nn.Parameter] = {}  # a tied head is the embedding again
    taken: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in moved:
                fresh = parameter.detach()
                if parameter.device != device or not _stands_alone(fresh) or fresh.data_ptr() in taken:
                    fresh = torch.empty(parameter.shape, dtype=parameter.dtype, device=device).copy_(fresh)
                taken.add(fresh.data_ptr())
                moved[parameter] = nn.Parameter(fresh, requires_grad=parameter.requires_grad)
            setattr(module, name, moved[parameter])


def _stands_alone(tensor: Tensor) -> bool:
    """Whether its memory is aligned as PyTorch's own is, and holds nothing else."""
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return whole and tensor.is_contiguous() and tensor.data_ptr() % _ALIGNMENT_BYTES == 0
