"""AdamW on a CPU, by PyTorch's own fused kernel but without its optimizer class.

Making a `torch.optim.Optimizer` loads PyTorch's compiler (1.3 s of two cores), which a run that compiles nothing would
only wait for. The kernel, the names in the state and so the numbers are those of `torch.optim.AdamW(fused=True)`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_EPSILON = 1e-8  # torch.optim's default, and the paper's


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019) for parameters in main memory.

    Args:
        groups: of parameters, each with its `weight_decay`.
        betas: the memories of the two moments.

    Attributes:
        param_groups: as in `torch.optim`: `params`, `weight_decay` and `lr`, which is to be set before each step.
        state: as in `torch.optim`: `step`, `exp_avg` and `exp_avg_sq` of every parameter that has made a step.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], *, betas: tuple[float, float]) -> None:
        self.param_groups = [group | {"lr": 0.0} for group in groups]
        self.state: dict[nn.Parameter, dict[str, Tensor]] = {}
        self._betas = betas
        # Taken before the first step, or the moments would lie in the gaps between what that step has freed, and the
        # next one find no room of its sizes. Untouched memory is not there yet.
        parameters = [parameter for group in groups for parameter in group["params"]]
        self._room = {parameter: (torch.empty_like(parameter), torch.empty_like(parameter)) for parameter in parameters}

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter that has a gradient, in place."""
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not trained:
                continue
            states = [self._state_of(parameter) for parameter in trained]
            steps = [state["step"] for state in states]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                trained,
                [parameter.grad for parameter in trained],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                steps,
                lr=group["lr"],
                beta1=self._betas[0],
                beta2=self._betas[1],
                weight_decay=group["weight_decay"],
                eps=_EPSILON,
                amsgrad=False,
                maximize=False,
            )

    def room_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """Where the moments of a parameter are kept."""
        return dict(zip(("exp_avg", "exp_avg_sq"), self._room[parameter], strict=True))

    def _state_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        if parameter not in self.state:
            moments = {name: moment.zero_() for name, moment in self.room_of(parameter).items()}
            self.state[parameter] = {"step": torch.zeros((), dtype=torch.float32), **moments}
        return self.state[parameter]
