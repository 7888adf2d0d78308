"""The processes of one run under `torchrun`: who is who, and sums over all of them."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, distributed

from gpt2kit.errors import UsageError


@dataclass(frozen=True)
class Ranks:
    """The place of a process among the processes of the run; a run of its own is rank 0 of 1."""

    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    @classmethod
    def join(cls, device: torch.device) -> Self:
        """Join the group that torchrun describes in the environment: gloo for CPUs, nccl for GPUs.

        Raises:
            UsageError: torchrun's variables are incomplete.
        """
        if "WORLD_SIZE" not in os.environ:
            return cls()
        if "RANK" not in os.environ:
            raise UsageError("WORLD_SIZE is set and RANK is not; start several processes with torchrun")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Gradients on GPUs travel by nccl, numbers in main memory by gloo.
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        return cls(rank=distributed.get_rank(), world_size=distributed.get_world_size())

    def share(self, rows: int) -> slice:
        """The rows of a batch this process computes: consecutive, as equal as can be."""
        return slice(rows * self.rank // self.world_size, rows * (self.rank + 1) // self.world_size)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.world_size > 1:
            distributed.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Add up the gradients of all processes; a process without rows contributes zeros."""
        if self.world_size == 1:
            return
        work = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            work.append(distributed.all_reduce(parameter.grad, async_op=True))
        for handle in work:
            handle.wait()

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            distributed.barrier()

    def leave(self) -> None:
        """Leave the group."""
        if self.world_size > 1:
            distributed.destroy_process_group()
