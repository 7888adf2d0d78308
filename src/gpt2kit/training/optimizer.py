"""The optimizers of a run: AdamW, Adafactor, or Muon for the blocks' matrices beside AdamW; their state by name."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gpt2kit.errors import ModelError
from gpt2kit.training.adamw import AdamW
from gpt2kit.training.settings import OptimizerKind

_ATTENTION = "c_attn.weight"
# Muon's quintic (Jordan et al. 2024): five rounds bring singular values from 0.01 up to between about 0.7 and 1.2.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5
_MOMENTUM = 0.95
# The root mean square of AdamW's updates at a learning rate of 1, which Muon's are scaled to (Liu et al. 2025).
_ADAMW_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Momentum whose every update is brought near an orthogonal matrix (Jordan et al. 2024).

    `momentum = 0.95 momentum + 0.05 gradient`; the update is the Nesterov mix of both, its singular values all brought
    near 1, times `0.2 √max(rows, columns)`. So scaled it takes AdamW's learning rate and weight decay (Liu et al. 2025,
    "Muon is Scalable for LLM Training").

    `torch.optim.Muon` takes the queries, keys and values of GPT-2's joint matrix for one, and computes in bfloat16 also
    where the machine has no instructions for it.

    Args:
        whole: matrices to train, each orthogonalised as it is.
        attention: joint matrices of queries, keys and values, [D, 3 D], each third orthogonalised for itself.
        learning_rate: to begin with.
        weight_decay: decoupled decay.
        dtype: what matrices are multiplied in.
    """

    def __init__(
        self,
        whole: Iterable[nn.Parameter],
        attention: Iterable[nn.Parameter],
        *,
        learning_rate: float,
        weight_decay: float,
        dtype: torch.dtype,
    ) -> None:
        self._dtype = dtype
        groups = [
            {"params": params, "parts": parts} for params, parts in ((list(whole), 1), (list(attention), 3)) if params
        ]
        super().__init__(groups, {"lr": learning_rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update of every matrix that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - _MOMENTUM)
                update = parameter.grad.lerp(momentum, _MOMENTUM)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                for target, part in zip(
                    parameter.chunk(group["parts"], dim=1), update.chunk(group["parts"], dim=1), strict=True
                ):
                    scale = _ADAMW_RMS * math.sqrt(max(part.shape))
                    target.add_(orthogonalised(part, dtype=self._dtype), alpha=-group["lr"] * scale)


def orthogonalised(matrix_RC: Tensor, *, dtype: torch.dtype) -> Tensor:
    """A matrix with the same singular vectors and singular values near 1, [R, C], computed in `dtype`.

    Newton-Schulz rounds `X <- aX + (bA + cA²)X` with `A = XXᵀ`, on the matrix scaled to norm 1.
    """
    a, b, c = _QUINTIC
    is_tall = matrix_RC.size(0) > matrix_RC.size(1)
    x_RC = matrix_RC.T if is_tall else matrix_RC
    x_RC = (x_RC / x_RC.norm().clamp(min=1e-7)).to(dtype)
    for _ in range(_ROUNDS):
        gram_RR = x_RC @ x_RC.T
        polynomial_RR = torch.addmm(gram_RR, gram_RR, gram_RR, beta=b, alpha=c)
        x_RC = torch.addmm(x_RC, polynomial_RR, x_RC, beta=a)
    return (x_RC.T if is_tall else x_RC).to(matrix_RC.dtype)


class Optimizers:
    """The optimizers of a model as one: a step at a learning rate, and a state that can be saved.

    Args:
        model: its parameters with `requires_grad` are trained; a tied weight counts once.
        betas: AdamW's memories of the two moments (Loshchilov & Hutter 2019).
        weight_decay: decoupled decay of embeddings and matrices; biases and norms (vectors) do not decay.
        kind: "adamw"; "muon", which trains the blocks' matrices by Muon and only the rest by AdamW; or "adafactor",
            which keeps of AdamW's second moments only the means of rows and columns, and no first ones (Shazeer & Stern
            2018), so that its state takes next to no memory.
        dtype: what the run multiplies matrices in. Muon does so too, but in float32 where it is float16, whose range
            its polynomial leaves.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        betas: tuple[float, float],
        weight_decay: float,
        kind: OptimizerKind = "adamw",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        matrices = [
            (name, parameter) for name, parameter in self._named if kind == "muon" and _is_block_matrix(name, parameter)
        ]
        by_muon = {parameter for _, parameter in matrices}
        others = [parameter for _, parameter in self._named if parameter not in by_muon]
        groups = [
            {"params": [p for p in others if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self._all: list[torch.optim.Optimizer | AdamW] = [_for_the_rest(groups, kind=kind, betas=betas)]
        if matrices:
            attention = [parameter for name, parameter in matrices if name.endswith(_ATTENTION)]
            whole = [parameter for name, parameter in matrices if not name.endswith(_ATTENTION)]
            dtype = torch.bfloat16 if dtype == torch.bfloat16 else torch.float32
            self._all.append(Muon(whole, attention, learning_rate=1.0, weight_decay=weight_decay, dtype=dtype))

    def step(self, learning_rate: float) -> None:
        """Update the parameters by their gradients."""
        for optimizer in self._all:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            optimizer.step()

    def tensors(self) -> dict[str, Tensor]:
        """Moments and step counts by parameter name, e.g. `transformer.wte.weight/exp_avg`."""
        return {
            f"{name}/{key}": value
            for optimizer in self._all
            for name, parameter in self._named
            for key, value in optimizer.state.get(parameter, {}).items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put saved moments back, copied into memory that is aligned as in an uninterrupted run.

        Args:
            tensors: from `tensors`; empty for the state before the first step.

        Raises:
            ModelError: a parameter's state is missing.
        """
        for optimizer in self._all:
            optimizer.state.clear()
            if not tensors:
                continue
            trained = {parameter for group in optimizer.param_groups for parameter in group["params"]}
            for name, parameter in self._named:
                if parameter in trained:
                    keys = _state_keys(optimizer, parameter)
                    room = optimizer.room_of(parameter) if isinstance(optimizer, AdamW) else {}
                    optimizer.state[parameter] = _restored(name, parameter, keys, tensors, room=room)


def _for_the_rest(
    groups: list[dict[str, Any]], *, kind: OptimizerKind, betas: tuple[float, float]
) -> torch.optim.Optimizer | AdamW:
    """Adafactor where that is the kind, else AdamW, fused where there is such a kernel."""
    if kind == "adafactor":
        return torch.optim.Adafactor(groups)
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    if devices <= {"cpu"}:
        return AdamW(groups, betas=betas)
    return torch.optim.AdamW(groups, betas=betas, fused=devices <= {"cpu", "cuda"})


def _state_keys(optimizer: torch.optim.Optimizer | AdamW, parameter: nn.Parameter) -> tuple[str, ...]:
    if isinstance(optimizer, Muon):
        return ("momentum",)
    if isinstance(optimizer, torch.optim.Adafactor):
        return ("step", "row_var", "col_var") if parameter.dim() >= 2 else ("step", "variance")
    return ("step", "exp_avg", "exp_avg_sq")


def _restored(
    name: str, parameter: nn.Parameter, keys: Sequence[str], tensors: dict[str, Tensor], *, room: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The state of a parameter, in its room where there is some, else in fresh memory."""
    state = {}
    for key in keys:
        if f"{name}/{key}" not in tensors:
            raise ModelError(f"the checkpoint's optimizer state lacks {name}/{key}")
        saved = tensors[f"{name}/{key}"]
        if key in room:
            state[key] = room[key].copy_(saved)
            continue
        # AdamW counts its steps on a GPU or in main memory, and keeps its moments with the parameter.
        device = torch.device("cpu") if key == "step" and parameter.device.type != "cuda" else parameter.device
        state[key] = torch.empty(saved.shape, dtype=saved.dtype, device=device).copy_(saved)
    return state


def _is_block_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether it is a matrix of a block, and not an embedding or the head."""
    return parameter.dim() == 2 and ".h." in name
