"""Memory that is taken and given back piece by piece, and stays."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_BLOCK_BYTES = 512 << 20
_ALIGNMENT = 64


class Arena:
    """Memory for the tensors of a training step on a CPU, the same in every step.

    A piece comes from the smallest gap that is large enough; pieces that are given back grow together with those beside
    them. What is never used takes no memory.
    """

    def __init__(self) -> None:
        self._blocks: list[Tensor] = []
        self._gaps: list[tuple[int, int, int]] = []  # block, start, end; in order
        self._taken: dict[int, tuple[int, int, int]] = {}  # by address

    def take(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor of that shape, holding whatever is there."""
        size = math.prod(shape) * dtype.itemsize
        room = -(-size // _ALIGNMENT) * _ALIGNMENT
        fitting = [number for number, (_, start, end) in enumerate(self._gaps) if end - start >= room]
        if not fitting:
            fitting = [len(self._gaps)]
            self._blocks.append(_block(room))
            self._gaps.append((len(self._blocks) - 1, 0, len(self._blocks[-1])))
        place = min(fitting, key=lambda number: self._gaps[number][2] - self._gaps[number][1])
        block, start, end = self._gaps[place]
        self._gaps[place : place + 1] = [(block, start + room, end)] if start + room < end else []
        # `data` has a version of its own: writing into one piece is no change of another.
        piece = self._blocks[block].data[start : start + size].view(dtype).view(*shape)
        self._taken[piece.data_ptr()] = block, start, start + room
        return piece

    def __contains__(self, piece: Tensor) -> bool:
        """Whether it is a piece that is taken."""
        return piece.data_ptr() in self._taken

    def give(self, piece: Tensor) -> None:
        """Give a piece back, as it was taken; a tensor that is not from here is left alone."""
        gap = self._taken.pop(piece.data_ptr(), None)
        if gap is None:
            return
        gaps = sorted([*self._gaps, gap])
        self._gaps = []
        for block, start, end in gaps:
            if self._gaps and self._gaps[-1][0] == block and self._gaps[-1][2] == start:
                self._gaps[-1] = block, self._gaps[-1][1], end
            else:
                self._gaps.append((block, start, end))

    def give_all(self) -> None:
        """Everything is given back."""
        self._taken.clear()
        self._gaps = [(number, 0, len(block)) for number, block in enumerate(self._blocks)]

    def release(self) -> None:
        """Everything is given back, and the memory is not held any longer."""
        self._blocks.clear()
        self.give_all()


def _block(size: int) -> Tensor:
    try:
        return torch.empty(max(size, _BLOCK_BYTES), dtype=torch.uint8)
    except RuntimeError:  # a machine that counts memory before it is used
        return torch.empty(size, dtype=torch.uint8)
