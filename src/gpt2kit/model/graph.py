"""One more token for each row of a cache, as a CUDA graph.

A token of GPT-2 124M is some hundred and forty launches, each of which takes Python longer than the GPU computes.
Recorded once, they are launched together.

Shapes: B rows, D model width.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2kit.model.cache import KVCache, Places

if TYPE_CHECKING:
    from gpt2kit.model.gpt2 import GPT2


def record(work: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """A graph of what `work` launches. That has to have run before, since libraries take memory when first used."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


class OnTheWay:
    """Numbers on their way to main memory, which need not be waited for until they are read."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers, self._event = numbers, None
        if numbers.device.type == "cuda":
            self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def read(self) -> Tensor:
        """The numbers, in main memory."""
        if self._event is not None:
            self._event.synchronize()
        return self._numbers.cpu()


class StepGraph:
    """Reads one token a row, for a cache that stays where it is.

    Args:
        model: the network, in eval mode.
        cache: the keys and values of what was read before.
    """

    def __init__(self, model: "GPT2", cache: KVCache) -> None:
        self._model = model
        self._cache = cache
        self._told_N = torch.zeros(3 * cache.batch_size + 1, dtype=torch.int64, device=model.device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._hidden_BD = torch.empty(0)
        self._num_read = 0

    def read(self, ids: Sequence[int], positions: Sequence[int], first_columns: Sequence[int]) -> Tensor:
        """Read a token of each row into the cache's next column; its hidden states, [B, D], until the next call.

        Args:
            ids: the tokens.
            positions: their positions.
            first_columns: the first column of each row in the cache.
        """
        told = [*ids, *positions, *first_columns, self._cache.length]
        self._told_N.copy_(torch.tensor(told, dtype=torch.int64).pin_memory(), non_blocking=True)
        if self._graph is not None:
            self._graph.replay()
        elif self._num_read == 0:  # beam search lays the rows of a cache anew for each token
            self._compute()
        else:
            self._graph = record(self._compute)
            self._graph.replay()
        self._num_read += 1
        self._cache.length += 1
        return self._hidden_BD

    def _compute(self) -> None:
        B = self._cache.batch_size
        ids_B, positions_B, first_B, column_1 = torch.split(self._told_N, [B, B, B, 1])
        with self._cache.places_on_gpu(Places(first_B, column_1)):
            hidden_B1D = self._model(ids_B[:, None], position_ids_BT=positions_B[:, None], cache=self._cache)
        self._hidden_BD = hidden_B1D[:, 0]
