"""AdamW (Loshchilov & Hutter 2019) with weight decay on matrices only, and its state as named tensors."""

import torch
from torch import Tensor, nn

from gpt2kit.errors import ModelError

_MOMENTS = ("exp_avg", "exp_avg_sq")


def make_optimizer(
    model: nn.Module, *, learning_rate: float, betas: tuple[float, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW over the trainable parameters: embeddings and matrices decay, biases and norms (vectors) do not.

    Args:
        model: its parameters with `requires_grad` are trained; a tied weight counts once.
        learning_rate: to begin with; the loop sets it at each step.
        betas: memories of the two moments.
        weight_decay: decoupled decay of the matrices.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = all(parameter.device.type in ("cpu", "cuda") for parameter in trainable)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, betas=betas, fused=fused)


def optimizer_tensors(optimizer: torch.optim.AdamW, model: nn.Module) -> dict[str, Tensor]:
    """The moments and step counts by parameter name, e.g. `transformer.wte.weight/exp_avg`."""
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}/{key}"] = value
    return tensors


def restore_optimizer(optimizer: torch.optim.AdamW, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put saved moments back, copied into fresh memory so that alignment is as in an uninterrupted run.

    Args:
        optimizer: a new one over the same parameters.
        model: the model whose parameters it trains.
        tensors: from `optimizer_tensors`; empty for the state before the first step.

    Raises:
        ModelError: a parameter's state is missing.
    """
    optimizer.state.clear()
    if not tensors:
        return
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if f"{name}/step" not in tensors:
            raise ModelError(f"the checkpoint's optimizer state lacks {name}")
        moments = {key: torch.empty_like(parameter).copy_(tensors[f"{name}/{key}"]) for key in _MOMENTS}
        step_device = parameter.device if parameter.device.type == "cuda" else torch.device("cpu")
        optimizer.state[parameter] = {"step": tensors[f"{name}/step"].clone().to(step_device), **moments}
