"""The keys and values of tokens already read, so that each new token costs one position of work.

Shapes: L layers, B rows, H heads, S positions, K width of a head.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gpt2kit.model import kernels


class CacheShape(Protocol):
    """What a cache has to know of a model's configuration."""

    @property
    def n_layer(self) -> int:
        """Number of layers."""

    @property
    def n_head(self) -> int:
        """Attention heads of a layer."""

    @property
    def n_embd(self) -> int:
        """Width of all heads together."""


@dataclass(frozen=True)
class Places:
    """Where the rows of a cache stand, known on the GPU alone: the first column of each, and the next one of all."""

    first_B: Tensor
    column_1: Tensor


class KVCache:
    """Preallocated keys and values, filled from the left.

    Args:
        config: the model's shape.
        batch_size: number of rows.
        max_length: number of positions to make room for.
        device: where the model is.
        dtype: what the model computes in.

    Attributes:
        length: number of positions filled; the model advances it once a forward pass.
    """

    def __init__(
        self,
        config: CacheShape,
        *,
        batch_size: int,
        max_length: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        shape = (config.n_layer, batch_size, config.n_head, max_length, config.n_embd // config.n_head)
        self.keys_LBHSK = torch.zeros(shape, device=device, dtype=dtype)
        self.values_LBHSK = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0
        self._places: Places | None = None

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return self.keys_LBHSK.size(1)

    @property
    def max_length(self) -> int:
        """Number of positions there is room for."""
        return self.keys_LBHSK.size(3)

    def append(self, layer: int, keys_BHTK: Tensor, values_BHTK: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values and return all of that layer's so far, each [B, H, length + T, K]."""
        end = self.length + keys_BHTK.size(2)
        self.keys_LBHSK[layer, :, :, self.length : end] = keys_BHTK
        self.values_LBHSK[layer, :, :, self.length : end] = values_BHTK
        return self.keys_LBHSK[layer, :, :, :end], self.values_LBHSK[layer, :, :, :end]

    @contextlib.contextmanager
    def places_on_gpu(self, places: Places) -> Iterator[None]:
        """While a graph is recorded, which has to serve all places: `attend` takes the place of `append`.

        The length stays what it is: whoever starts the graph advances it.
        """
        self._places, length = places, self.length
        try:
            yield
        finally:
            self._places, self.length = None, length

    @property
    def attends(self) -> bool:
        """Whether new tokens, one a row, go through `attend`."""
        return self._places is not None

    def attend(self, layer: int, q_BH1K: Tensor, k_BH1K: Tensor, v_BH1K: Tensor, *, scale: float) -> Tensor:
        """Store a layer's new keys and values and attend to all of its row's: [B, H, 1, K]."""
        assert self._places is not None
        out_BHK = kernels.attend_to_cache(
            q_BH1K.squeeze(2),
            k_BH1K.squeeze(2),
            v_BH1K.squeeze(2),
            self.keys_LBHSK[layer],
            self.values_LBHSK[layer],
            self._places.first_B,
            self._places.column_1,
            scale=scale,
        )
        return out_BHK.unsqueeze(2)

    def select(self, rows: Tensor) -> None:
        """Keep, repeat or reorder rows: row i becomes what row `rows[i]` was (int64); the batch size may change."""
        self.keys_LBHSK = self.keys_LBHSK.index_select(1, rows)
        self.values_LBHSK = self.values_LBHSK.index_select(1, rows)

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""
        self.length = min(self.length, length)
