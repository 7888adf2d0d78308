"""One optimizer step: gradients of a batch, in as many parts as fit, over as many processes as there are.

The loss of a step is the sum of nats over its targets divided by their number, whatever the micro-batches and
processes; every random choice is seeded by the step and the row, so a step can be computed again.
"""

import contextlib
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy.typing as npt
import torch
from torch import Tensor, nn

from gpt2kit.errors import TrainingError
from gpt2kit.model import kernels
from gpt2kit.model.gpt2 import GPT2
from gpt2kit.model.graph import OnTheWay
from gpt2kit.model.products import GradientMemory, leave_onednn
from gpt2kit.native.step import step_operations
from gpt2kit.runtime import derive_seed, release_freed_memory
from gpt2kit.tokens import Batch, PackedBatches
from gpt2kit.training.graphs import GradientGraphs, SteadyShapes
from gpt2kit.training.memory import is_out_of_memory
from gpt2kit.training.ranks import Ranks

FIRST_LOSS_SCALE = 2.0**14
_SMALLEST_LOSS_SCALE = 2.0**-4
_CLIP_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class StepGradients:
    """What the gradients of a step, now in the parameters' `grad`, came from.

    Attributes:
        loss: mean nats per target of the step.
        gradient_norm: before clipping.
        num_targets: targets of the step, over all processes.
        stop_requested: whether any process was asked to stop.
    """

    loss: float
    gradient_norm: float
    num_targets: int
    stop_requested: bool


class StepRunner:
    """Computes the gradients of steps and the loss of a validation set.

    Args:
        model: its trainable parameters get the gradients.
        seed: of the run; dropout draws from it.
        device: where to compute.
        dtype: what matrices are multiplied in.
        ranks: the processes of the run.
        gradient_clip: largest norm; 0 leaves gradients as they are.
        on_halved: told the new number of rows when memory ran out.
    """

    def __init__(
        self,
        model: GPT2,
        *,
        seed: int,
        device: torch.device,
        dtype: torch.dtype,
        ranks: Ranks,
        gradient_clip: float,
        on_halved: Callable[[int], None],
    ) -> None:
        self.model = model
        self.seed = seed
        self.device = device
        self.dtype = dtype
        self.ranks = ranks
        self.gradient_clip = gradient_clip
        self.on_halved = on_halved
        self.parameters: list[nn.Parameter] = [p for p in model.parameters() if p.requires_grad]
        # A GPU's own allocator keeps its blocks by size, and compiled blocks make their gradients themselves.
        on_cpu = device.type == "cpu"
        self._gradient_memory = GradientMemory(self.parameters if on_cpu else (), step_operations() if on_cpu else None)
        self._scale = 0.0
        self._fixed_divisor: float | None = None
        self._ahead: tuple[PackedBatches, int, Batch] | None = None
        self._shapes = SteadyShapes()
        self._by_kernels = kernels.available(model.transformer.wte.weight)
        can_record = self._by_kernels and not model.gradient_checkpointing  # which asks for the generators' state
        self._graphs = GradientGraphs(self.parameters, self._micro_batch) if can_record else None

    def gradients(
        self,
        batches: PackedBatches,
        step: int,
        *,
        micro_batch_size: int,
        loss_scale: float,
        stop_requested: bool,
        update: Callable[[], None] | None = None,
    ) -> StepGradients:
        """Compute a step's clipped gradients.

        Args:
            batches: the training batches.
            step: which of them.
            micro_batch_size: rows at a time; halved, with `on_halved`, when memory runs out.
            loss_scale: what the loss is multiplied by before the backward pass; gradients are divided by it again.
            stop_requested: whether this process was asked to stop, shared with the others here.
            update: called when the gradients are there, if anything was to be learnt, before it is known what they
                are like: a GPU need not wait until somebody looks.

        Raises:
            TrainingError: a single row does not fit in the memory.
        """
        share = self.ranks.share(batches.batch_size)
        num_targets = batches.targets_in_step(step)
        batch = self._batch_made_ahead(batches, step)
        divisor = self._divisor(num_targets)
        factor = divisor / max(num_targets, 1) / loss_scale
        nats = self._fitting(
            lambda rows: self._accumulate(batch, step, share.start, micro_batch_size=rows, scale=loss_scale / divisor),
            micro_batch_size,
            context=batches.context,
        )[0]
        if self.device.type == "cuda":  # while it is busy
            self._ahead = batches, step + 1, batches.batch(step + 1, share)
        self.ranks.sum_gradients(self.parameters)
        told = OnTheWay(torch.stack([nats, self._scale_and_clip(factor).to(nats.dtype)]))
        if update is not None and num_targets > 0:
            update()
        nats_and_norm = told.read().double()
        totals = self.ranks.sum(torch.tensor([nats_and_norm[0], float(stop_requested)], dtype=torch.float64))
        return StepGradients(
            loss=float(totals[0]) / max(num_targets, 1),
            gradient_norm=float(nats_and_norm[1]),
            num_targets=num_targets,
            stop_requested=float(totals[1]) > 0,
        )

    def _divisor(self, num_targets: int) -> float:
        """What a loss is divided by before its backward pass; the number of targets, where nothing speaks against it.

        Graphs hold it fast: there it is a power of two near the first step's number, and the rest comes behind.
        """
        if self._graphs is None:
            return max(num_targets, 1)
        if self._fixed_divisor is None:
            self._fixed_divisor = 2.0 ** round(math.log2(max(num_targets, 1)))
        return self._fixed_divisor

    def _batch_made_ahead(self, batches: PackedBatches, step: int) -> Batch:
        """Rows of a step, those of this process; made by now where the step before was computed here."""
        if self._ahead is not None and self._ahead[0] is batches and self._ahead[1] == step:
            return self._ahead[2]
        return batches.batch(step, self.ranks.share(batches.batch_size))

    def _scale_and_clip(self, factor: float) -> Tensor:
        """Multiply the gradients by a factor, and by what clips their norm; gives the norm between the two."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients) * factor
        coefficient = torch.as_tensor(factor, device=norm.device)
        if self.gradient_clip > 0:
            coefficient = coefficient * (self.gradient_clip / (norm + _CLIP_EPSILON)).clamp(max=1.0)
        if norm.device.type == "cuda" or coefficient != 1:  # what a GPU would have to be waited for
            torch._foreach_mul_(gradients, coefficient)
        return norm

    def _accumulate(self, batch: Batch, step: int, first_row: int, *, micro_batch_size: int, scale: float) -> Tensor:
        if self._graphs is not None:
            self._graphs.begin_step()
            if scale != self._scale:
                self._graphs.forget()
        self._forget_gradients()
        self._scale = scale
        exact = torch.float32 if self.device.type == "mps" else torch.float64
        nats = torch.zeros((), dtype=exact, device=self.device)
        for start in range(0, len(batch.input_ids_BT), micro_batch_size):
            torch.manual_seed(derive_seed(self.seed, "dropout", step, first_row + start))
            tensors = self._tensors(batch, slice(start, start + micro_batch_size))
            if self._graphs is None:
                nats += self._micro_batch(self._on_device(tensors))
            else:
                nats += self._graphs.gradients(tensors)
        return nats

    def _forget_gradients(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
        self._gradient_memory.arena.give_all()

    def _micro_batch(self, tensors: dict[str, Tensor]) -> Tensor:
        """Add the gradients of some rows, times the scale, to those in `grad`; gives their nats."""
        with self.autocast():
            nats = self.model.loss(**tensors, gradient_scale=self._scale, gradient_memory=self._gradient_memory)
        (nats * self._scale).backward()  # type: ignore[no-untyped-call]
        self._gradient_memory.gather()
        return nats.detach()

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Multiply matrices in the run's dtype; weights stay in float32."""
        if self.dtype == torch.float32:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def _tensors(self, batch: Batch, rows: slice) -> dict[str, Tensor]:
        """The model's arguments for some rows; rows of a single document need no mask but the causal one."""
        arrays: dict[str, npt.NDArray[Any]] = {
            "input_ids_BT": batch.input_ids_BT[rows],
            "target_ids_BT": batch.target_ids_BT[rows],
            "position_ids_BT": batch.position_ids_BT[rows],
        }
        segment_ids_BT = batch.segment_ids_BT[rows]
        has_segments = bool(segment_ids_BT.max() > 0)
        if not self._by_kernels:
            arrays |= {"segment_ids_BT": segment_ids_BT} if has_segments else {}
            return {name: torch.from_numpy(array) for name, array in arrays.items()}
        # What has to be known of the contents is found here, or the GPU would have to be waited for.
        arrays["places_N"] = self._shapes.places(arrays["target_ids_BT"])
        if self._shapes.have_segments(has_segments):
            arrays |= {"segment_ids_BT": segment_ids_BT, "segment_starts_S": self._shapes.starts(segment_ids_BT)}
        return {name: torch.from_numpy(array).pin_memory() for name, array in arrays.items()}

    def _on_device(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in tensors.items()}

    def _fitting(self, compute: Callable[[int], _Value], rows: int, *, context: int) -> tuple[_Value, int]:
        """Compute something some rows at a time, half as many whenever memory runs out; returns the number too."""
        while True:
            try:
                return compute(rows), rows
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler, whose traceback holds on to the tensors that did fit.
            self._forget_gradients()
            self._gradient_memory.arena.release()
            if self._graphs is not None:
                self._graphs.forget()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            leave_onednn()
            release_freed_memory()
            if rows == 1:
                raise TrainingError(
                    f"out of memory with a single row of {context} tokens; try --gradient_checkpointing, a shorter "
                    "--context, --method lora, or a smaller base model"
                )
            rows //= 2
            self.on_halved(rows)

    @torch.no_grad()
    def validation_loss(self, batches: PackedBatches, *, num_batches: int, micro_batch_size: int) -> float:
        """Mean nats per target over the first `num_batches` batches, without dropout.

        Raises:
            TrainingError: a single row does not fit in the memory.
        """
        self.model.eval()
        self._forget_gradients()
        self._gradient_memory.arena.release()
        totals = torch.zeros(2, dtype=torch.float64)
        for step in range(num_batches):
            batch = batches.batch(step, self.ranks.share(batches.batch_size))
            nats, micro_batch_size = self._fitting(
                functools.partial(self._validation_nats, batch), micro_batch_size, context=batches.context
            )
            totals[0] += nats
            if self.ranks.is_main:
                totals[1] += batches.targets_in_step(step)
        self.model.train()
        self.ranks.sum(totals)
        return float(totals[0] / totals[1]) if totals[1] else math.nan

    def _validation_nats(self, batch: Batch, micro_batch_size: int) -> float:
        nats = 0.0
        for start in range(0, len(batch.input_ids_BT), micro_batch_size):
            tensors = self._on_device(self._tensors(batch, slice(start, start + micro_batch_size)))
            with self.autocast():
                nats_BT = self.model.token_losses(**tensors)
            nats += float(nats_BT.sum(dtype=torch.float64))
        return nats


def next_loss_scale(loss_scale: float, *, overflowed: bool, step: int) -> float:
    """The loss scale after a step: halved when gradients overflowed, doubled every 2,000 steps (Micikevicius 2018).

    Raises:
        TrainingError: the scale has become so small that the loss itself must be broken.
    """
    if overflowed:
        if loss_scale <= _SMALLEST_LOSS_SCALE:
            raise TrainingError("fp16 gradients overflow at any scale; use --precision bf16 or fp32")
        return loss_scale / 2
    return loss_scale * 2 if (step + 1) % 2000 == 0 else loss_scale
