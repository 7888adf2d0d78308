"""The gradients of a micro-batch as a CUDA graph: recorded once, then started as one piece.

A step of GPT-2 124M is some thousand launches. With 8 rows of 1,024 tokens on an H100 the GPU needs half the time that
Python takes to ask for them (docs/benchmarks.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gpt2kit.model.loss import IGNORED_TARGET

_PARTS = 8  # of a micro-batch's places: the targets that count are filled up to a whole number of them
_MOST_RECORDED_STEPS = 8  # after so many the shapes change too often for it
Tensors = dict[str, Tensor]
_Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: Tensors
    nats: Tensor
    gradients: list[Tensor | None]


class GradientGraphs:
    """Computes the gradients of micro-batches, by a graph from the second time on that their shapes occur.

    A graph writes its gradients to the same memory each time. Those of a step's first micro-batch are made there; one
    more graph for each shape that follows adds to them. What they need for a while, all take from the same memory.

    Args:
        parameters: what gets gradients.
        compute: from tensors on the GPU, gives the nats of a micro-batch, and adds its gradients to the parameters'
            `grad`; without waiting for the GPU.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], compute: Callable[[Tensors], Tensor]) -> None:
        self._parameters = parameters
        self._compute = compute
        self._recordings: dict[tuple[_Shapes, ...], _Recording] = {}  # by the first shapes of a step, and these
        self._met: set[tuple[_Shapes, ...]] = set()
        self._num_recorded_steps = 0
        self._first: _Shapes | None = None

    def begin_step(self) -> None:
        """The next micro-batch is the first of a step; the parameters have no gradients."""
        self._first = None

    def gradients(self, tensors: Tensors) -> Tensor:
        """Nats of a micro-batch, a scalar on the GPU; its gradients are added to those of the step.

        Args:
            tensors: in main memory, pinned.
        """
        shapes = tuple((name, tuple(tensor.shape)) for name, tensor in tensors.items())
        is_first = self._first is None
        self._first = self._first or shapes
        key = (self._first,) if is_first else (self._first, shapes)
        recording = self._recordings.get(key)
        if recording is None and is_first:  # what was recorded for other shapes holds gradients of its own
            self._recordings.clear()
        if recording is None and not self._may_record(key):
            self._met.add(key)
            return self._compute(self._on_gpu(tensors))
        if recording is None:
            recording = self._recordings[key] = self._record(tensors, is_first=is_first)
        for name, tensor in tensors.items():
            recording.inputs[name].copy_(tensor, non_blocking=True)
        recording.graph.replay()
        for parameter, gradient in zip(self._parameters, recording.gradients, strict=True):
            parameter.grad = gradient
        return recording.nats

    def forget(self) -> None:
        """Give back the memory of all recordings."""
        self._recordings.clear()
        self._met.clear()

    def _may_record(self, key: tuple[_Shapes, ...]) -> bool:
        """Whether these shapes were met before, behind a recorded first one if they are not that, and not too many."""
        if key not in self._met:
            return False
        return self._num_recorded_steps < _MOST_RECORDED_STEPS if len(key) == 1 else key[:1] in self._recordings

    def _record(self, tensors: Tensors, *, is_first: bool) -> _Recording:
        if is_first:
            self._num_recorded_steps += 1
        assert self._first is not None
        pool = None if is_first else self._recordings[(self._first,)].graph.pool()
        inputs = self._on_gpu(tensors)
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, pool=pool):
            nats = self._compute(inputs)
        return _Recording(graph, inputs, nats, [parameter.grad for parameter in self._parameters])

    def _on_gpu(self, tensors: Tensors) -> Tensors:
        device = self._parameters[0].device
        return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}


class SteadyShapes:
    """What has to be known of a micro-batch's contents, in shapes that stay the same from one to the next.

    They grow to what the largest needed so far, and are filled up where there is less.
    """

    def __init__(self) -> None:
        self._num_places: dict[int, int] = {}
        self._num_starts: dict[int, int] = {}
        self._have_segments = False

    def have_segments(self, these_do: bool) -> bool:
        """Whether this or an earlier micro-batch has several segments in a row."""
        self._have_segments |= these_do
        return self._have_segments

    def places(self, target_ids_BT: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Flat positions of the targets that count, and of some that do not."""
        counts_N = target_ids_BT.reshape(-1) != IGNORED_TARGET
        part = -(-counts_N.size // _PARTS)
        wanted = min(-(-int(counts_N.sum()) // part) * part, counts_N.size)
        size = self._num_places[counts_N.size] = max(self._num_places.get(counts_N.size, 0), wanted)
        if size == counts_N.size:
            return np.arange(size)
        # Those that count come first, each kind in its order; then all of it in order again.
        return np.sort(np.argsort(~counts_N, kind="stable")[:size])

    def starts(self, segment_ids_BT: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
        """Where each segment begins in the flattened rows, then their length, repeated: segments without tokens."""
        begins_BT = np.ones(segment_ids_BT.shape, dtype=np.bool_)
        begins_BT[:, 1:] = segment_ids_BT[:, 1:] != segment_ids_BT[:, :-1]
        starts_S = np.flatnonzero(begins_BT)
        wanted = 2 << len(starts_S).bit_length()
        size = self._num_starts.get(begins_BT.size, wanted)
        if size <= len(starts_S):
            size = wanted
        self._num_starts[begins_BT.size] = size
        return np.pad(starts_S, (0, size - len(starts_S)), constant_values=begins_BT.size).astype(np.int32)
