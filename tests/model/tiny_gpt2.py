"""Tiny random models, each as transformers' GPT-2 and as ours, opened from the folder that transformers saved."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2kit.model import GPT2, GPT2Config

PLAIN: dict[str, Any] = {"vocab_size": 97, "n_positions": 24, "n_embd": 48, "n_layer": 3, "n_head": 4}
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "odd heads": {"n_embd": 35, "n_head": 5, "n_layer": 2},
    "one head, narrow mlp": {"n_head": 1, "n_inner": 17},
    "one layer, wide mlp": {"n_layer": 1, "n_inner": 211},
    "untied head": {"tie_word_embeddings": False},
    "tiny context": {"n_positions": 5},
    "coarse norm": {"layer_norm_epsilon": 0.05},
    "scaled by layer": {"scale_attn_by_inverse_layer_idx": True},
    "upcast": {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    "unscaled": {"scale_attn_weights": False},
    "erf gelu": {"activation_function": "gelu"},
    "relu": {"activation_function": "relu"},
    "silu": {"activation_function": "silu"},
}


def randomise(model: torch.nn.Module, *, seed: int = 0, scale: float = 0.2) -> None:
    """Weights large enough that every bias, norm and position is felt in the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, scale, generator=generator)
            if ".ln_" in name and name.endswith("weight"):
                parameter.add_(1)


def tiny(seed: int = 0, **shape: Any) -> GPT2:
    """One of ours with random weights, in eval mode and without dropout."""
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = GPT2(GPT2Config(**(PLAIN | off | shape)))
    randomise(model, seed=seed)
    return model.eval()


def random_ids(*shape: int, seed: int = 1, vocabulary: int = PLAIN["vocab_size"]) -> Tensor:
    return torch.randint(vocabulary, shape, generator=torch.Generator().manual_seed(seed))


@dataclass(frozen=True)
class Pair:
    """The same weights in both."""

    theirs: Any
    ours: GPT2
    folder: Path


def make_theirs(**shape: Any) -> Any:
    from transformers import GPT2Config as TheirConfig
    from transformers import GPT2LMHeadModel

    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    theirs = GPT2LMHeadModel(TheirConfig(**(PLAIN | off | shape), attn_implementation="eager"))
    randomise(theirs)
    return theirs.eval()
