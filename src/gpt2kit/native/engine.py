"""GPT-2 on the kernel: reads tokens into the caches of texts, and gives the scores of what comes next.

Shapes: B rows, V vocabulary, N tokens scored.
"""

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from ctypes import Array, byref, c_float, c_int32, c_void_p
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpt2kit.errors import ModelError
from gpt2kit.native.library import (
    PANEL,
    Choice,
    Drawing,
    Layer,
    Linear,
    Model,
    Pick,
    Row,
    Weights,
    best_isa,
    load_library,
)
from gpt2kit.native.packed import ROUNDED_HEAD, PackedWeights, head_name, open_weights
from gpt2kit.runtime import num_threads

_TOKENS_AT_ONCE = 256  # bounds the activations of long prompts
# Calls without the rounded head after it was asked in vain too often: of three more than one.
_CALLS_UNSCREENED, _MOST_CREDIT, _COST_IN_VAIN = 32, 8, 2


@dataclass(frozen=True)
class DrawingRules:
    """How tokens are drawn, as in `array_sampling`; temperature 0 takes the greatest score."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def for_kernel(self) -> Drawing:
        """As the kernel takes them."""
        return Drawing(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)


@dataclass(frozen=True)
class Draw:
    """What a draw is a function of, and the ids that are not drawn."""

    key: int = 0
    forbidden: Sequence[int] = ()


class TextCache:
    """Keys and values of one text.

    Args:
        engine: what reads the text.
        capacity: positions to make room for.
        source: the cache of a text that begins in the same way, to go on from. Whole blocks of its positions are read
            there, so they have to stay as they are; what it holds behind them is copied.

    Attributes:
        length: positions filled.
    """

    def __init__(self, engine: "NativeEngine", capacity: int, *, source: "TextCache | None" = None) -> None:
        self.source: TextCache | None = source
        self.length: int = 0
        assert source is None or source.source is None
        shape = engine.shape
        K = shape.n_embd // shape.n_head
        self.num_shared = 0 if source is None else source.length // PANEL * PANEL
        self.capacity = -(-capacity // PANEL) * PANEL
        self.own_capacity = self.capacity - self.num_shared
        heads = (shape.n_layer, shape.n_head)
        self.keys = np.empty((*heads, self.own_capacity // PANEL, K, PANEL), dtype=engine.cache_type)
        self.values = np.empty((*heads, -(-K // PANEL), self.own_capacity, PANEL), dtype=engine.cache_type)
        if source is not None:
            self._copy_the_rest(source)

    def _copy_the_rest(self, source: "TextCache") -> None:
        begin, self.length = self.num_shared, source.length
        if begin < self.length:
            self.keys[:, :, 0] = source.keys[:, :, begin // PANEL]
            self.values[:, :, :, : self.length - begin] = source.values[:, :, :, begin : self.length]


class NativeEngine:
    """A model on the kernel.

    A text's scores depend on its own tokens alone, bit for bit: not on the texts read beside it, nor on whether its
    tokens came at once or one by one.

    Args:
        folder: a Hugging Face folder with safetensors.
        weights: "fp32" computes as PyTorch does; "int8" and "int4" round the weights, and keys and values of texts to
            bfloat16, and read less memory.
        threads: how many to compute with; by default OMP_NUM_THREADS, or the cores of this process.
        isa: the instruction set, for tests; by default the best one.

    Raises:
        UnsupportedError: only PyTorch computes this model.
        ModelError: the kernel is not there, or the model's files are damaged.
    """

    def __init__(
        self, folder: Path, *, weights: Weights = "fp32", threads: int | None = None, isa: int | None = None
    ) -> None:
        library = load_library()
        if library is None:
            raise ModelError("the native engine was not compiled when gpt2kit was installed; use --engine torch")
        self._library = library
        self._isa = best_isa(library) if isa is None else isa
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._num_threads = threads or num_threads()
        self._pool = self._new_pool()
        self.packed = open_weights(folder, weights, library=library, pool=self._pool)
        self.shape = self.packed.shape
        self._model = _kernel_model(self.packed)
        self.cache_type: type[np.float32 | np.uint16] = np.uint16 if self._model.narrow else np.float32  # bits
        self._columns = -(-self.shape.vocab_size // PANEL) * PANEL
        self._calls_unscreened, self._credit = 0, _MOST_CREDIT

    def __del__(self, getpid: Callable[[], int] = os.getpid) -> None:  # when the interpreter ends, os is gone before
        # Threads do not survive a fork, and a child cannot end those of its parent.
        if getattr(self, "_pool", None) and self._process == getpid():
            self._library.gk_pool_free(self._pool)

    def _new_pool(self) -> int:
        pool: int | None = self._library.gk_pool_new(self._num_threads)
        if pool is None:
            raise MemoryError
        return pool

    def new_scores(self, count: int) -> NDArray[np.float32]:
        """Memory for scores behind so many tokens. Fresh memory for every reading costs as much as a few rows do."""
        return np.empty((count, self._columns), dtype=np.float32)

    def new_bounds(self, count: int) -> NDArray[np.float32]:
        """Memory for `pick` to pick so many tokens in."""
        return self.new_scores(2 * min(count, _TOKENS_AT_ONCE))

    def _after_fork(self) -> None:
        """The threads of a forked process are gone, also one that held the lock."""
        if self._process != os.getpid():
            self._process, self._lock, self._pool = os.getpid(), threading.Lock(), self._new_pool()

    def choose(
        self,
        logits: Sequence[NDArray[np.float32]],
        scores: Sequence[NDArray[np.float32]],
        *,
        keys: Sequence[int],
        rules: DrawingRules,
        forbidden: Sequence[Sequence[int]] | None = None,
    ) -> list[tuple[int, float]]:
        """Choose a token of each of several rows, as `array_sampling.choose` does.

        Args:
            logits: a row's scores as the model gives them.
            scores: the same after penalties, from which is chosen, or the very same arrays. They are written to, and
                hold again what they held.
            keys: of the draws.
            rules: of the draws.
            forbidden: ids that are not chosen, of each row.

        Returns:
            Each token with its log-probability in the model's own distribution.

        Raises:
            ModelError: the logits are not numbers.
        """
        rows = (Choice * len(scores))()
        for row, logits_V, scores_V, key in zip(rows, logits, scores, keys, strict=True):
            assert logits_V.strides == scores_V.strides == (4,)
            row.logits, row.scores, row.key = logits_V.ctypes.data, scores_V.ctypes.data, key % (1 << 64)
        for row, ids in zip(rows, forbidden or (), strict=forbidden is not None):
            assert all(0 <= identifier < self.shape.vocab_size for identifier in ids)
            row.forbidden, row.kept, row.num_forbidden = (c_int32 * len(ids))(*ids), (c_float * len(ids))(), len(ids)
        self._after_fork()
        with self._lock:
            self._library.gk_choose(
                c_void_p(self._pool), self._isa, rows, len(rows), self.shape.vocab_size, byref(rules.for_kernel())
            )
        for row in rows:
            check_scores(row.log_probability)
        return [(row.id, row.log_probability) for row in rows]

    def read(
        self,
        caches: Sequence[TextCache],
        tokens: Sequence[Sequence[int]],
        *,
        num_scored: Sequence[int] | None = None,
        into: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Read some tokens of each of several texts.

        Args:
            caches: of the texts, with room for the tokens.
            tokens: at least one for each text.
            num_scored: for how many of each text's last tokens the scores behind them are wanted; by default one.
            into: what `new_scores` gave, for at least as many scores; by default new memory.

        Returns:
            logits_NV: of the first text's tokens, then those of the second, and so on.
        """
        scored = [1] * len(caches) if num_scored is None else num_scored
        logits = self.new_scores(sum(scored)) if into is None else into[: sum(scored)]
        done = 0
        for part in _parts(caches, tokens, scored):
            self._forward(part, logits[done:])
            done += sum(part.scored)
        return logits[:, : self.shape.vocab_size]

    def pick(
        self,
        caches: Sequence[TextCache],
        tokens: Sequence[Sequence[int]],
        draws: Sequence[Draw],
        *,
        rules: DrawingRules,
        num_scored: Sequence[int] | None = None,
        into: NDArray[np.float32] | None = None,
    ) -> list[int]:
        """Read some tokens of each of several texts, and choose what comes next: the tokens of `read` and `choose`.

        They are the same bit for bit; but most scores of a float32 head are not computed, and none are given.

        Args:
            caches: of the texts, with room for the tokens.
            tokens: at least one for each text.
            draws: how to choose behind each token that is scored, in the order of `read`.
            rules: of the draws.
            num_scored: behind how many of each text's last tokens to choose; by default one.
            into: what `new_bounds` gave, for at least as many draws; by default new memory.

        Raises:
            ModelError: the scores are not numbers.
        """
        scored = [1] * len(caches) if num_scored is None else num_scored
        memory = self.new_bounds(sum(scored)) if into is None else into
        picked: list[int] = []
        for part in _parts(caches, tokens, scored):
            picks = (Pick * sum(part.scored))()
            for pick, draw in zip(picks, draws[len(picked) :], strict=False):
                assert len(draw.forbidden) <= self._columns  # the kernel puts aside what stood there
                assert all(0 <= identifier < self.shape.vocab_size for identifier in draw.forbidden)
                ids = (c_int32 * len(draw.forbidden))(*draw.forbidden)
                pick.forbidden, pick.num_forbidden, pick.key = ids, len(ids), draw.key % (1 << 64)
            self._forward(part, memory, picks=picks, rules=rules)
            picked += [pick.id for pick in picks]
        if -1 in picked:
            raise _not_numbers()
        return picked

    def _forward(
        self,
        part: "_Part",
        logits: NDArray[np.float32],
        *,
        picks: "Array[Pick] | None" = None,
        rules: DrawingRules | None = None,
    ) -> None:
        caches, counts, ids, scored = part.caches, part.counts, part.ids, part.scored
        self._after_fork()
        rows = (Row * len(caches))()
        for row, cache, count, num_scored in zip(rows, caches, counts, scored, strict=True):
            assert cache.length + count <= min(cache.capacity, self.shape.n_positions)
            row.keys, row.values = cache.keys.ctypes.data, cache.values.ctypes.data
            row.capacity, row.past, row.count, row.scored = cache.own_capacity, cache.length, count, num_scored
            if cache.source is not None:
                row.shared_keys, row.shared_values = cache.source.keys.ctypes.data, cache.source.values.ctypes.data
                row.shared, row.shared_capacity = cache.num_shared, cache.source.own_capacity
        assert all(0 <= identifier < self.shape.vocab_size for identifier in ids)
        with self._lock:  # the kernel's threads work at one call at a time, and ctypes lets others run meanwhile
            screened = picks is not None and self._is_screened()
            failed = self._library.gk_forward(
                c_void_p(self._pool),
                byref(self._model),
                self._isa,
                rows,
                len(caches),
                (c_int32 * len(ids))(*ids),
                c_void_p(logits.ctypes.data),
                self._columns,
                picks,
                None if rules is None else byref(rules.for_kernel()),
                screened,
            )
        if failed < 0:
            raise MemoryError
        if screened:
            self._credit = min(self._credit - _COST_IN_VAIN if failed else self._credit + 1, _MOST_CREDIT)
            if self._credit < 0:
                self._calls_unscreened, self._credit = _CALLS_UNSCREENED, 0
        for cache, count in zip(caches, counts, strict=True):
            cache.length += count

    def _is_screened(self) -> bool:
        """Whether to ask the rounded head first, if there is one."""
        if self._calls_unscreened > 0:
            self._calls_unscreened -= 1
            return False
        return bool(self._model.rounded_head.weights)


def check_scores(log_probability: float) -> None:
    """Check the scores of a row by a log-probability that all of them went into.

    Raises:
        ModelError: they are not numbers.
    """
    if not math.isfinite(log_probability):
        raise _not_numbers()


def _not_numbers() -> ModelError:
    """What is raised for scores that are not numbers."""
    return ModelError("the model's scores are not numbers (NaN or infinite): its weights are damaged")


@dataclass(frozen=True)
class _Part:
    """What a call of the kernel reads: of each row tokens, and how many of the last of them are scored."""

    caches: Sequence[TextCache]
    counts: Sequence[int]
    ids: Sequence[int]
    scored: Sequence[int]


def _parts(caches: Sequence[TextCache], tokens: Sequence[Sequence[int]], scored: Sequence[int]) -> Iterator[_Part]:
    for slices in _slices([len(ids) for ids in tokens]):
        yield _Part(
            caches=[caches[row] for row, _, _ in slices],
            counts=[end - begin for _, begin, end in slices],
            ids=[identifier for row, begin, end in slices for identifier in tokens[row][begin:end]],
            scored=[max(end - max(len(tokens[row]) - scored[row], begin), 0) for row, begin, end in slices],
        )


def _slices(lengths: Sequence[int]) -> Iterator[list[tuple[int, int, int]]]:
    """Cut texts into calls of up to `_TOKENS_AT_ONCE` tokens: of each, rows with where they begin and end."""
    slices: list[tuple[int, int, int]] = []
    room = _TOKENS_AT_ONCE
    for row, length in enumerate(lengths):
        begin = 0
        while begin < length:
            end = min(begin + room, length)
            slices.append((row, begin, end))
            room -= end - begin
            begin = end
            if room == 0:
                yield slices
                slices, room = [], _TOKENS_AT_ONCE
    if slices:
        yield slices


def _kernel_model(packed: PackedWeights) -> Model:
    """The structure that the kernel reads; it points into the packed weights, which have to outlive it."""
    shape = packed.shape
    layers = (Layer * shape.n_layer)()
    for number, layer in enumerate(layers):
        name = f"transformer.h.{number}"
        for norm in ("ln_1", "ln_2"):
            setattr(layer, f"{norm}_weight", packed.address(f"{name}.{norm}.weight"))
            setattr(layer, f"{norm}_bias", packed.address(f"{name}.{norm}.bias"))
        layer.attention = packed.linear(f"{name}.attn.c_attn.weight", bias=f"{name}.attn.c_attn.bias")
        layer.projection = packed.linear(f"{name}.attn.c_proj.weight", bias=f"{name}.attn.c_proj.bias")
        layer.expand = packed.linear(f"{name}.mlp.c_fc.weight", bias=f"{name}.mlp.c_fc.bias")
        layer.contract = packed.linear(f"{name}.mlp.c_proj.weight", bias=f"{name}.mlp.c_proj.bias")
        layer.scale = shape.attention_scale(number)
    return Model(
        n_embd=shape.n_embd,
        n_layer=shape.n_layer,
        n_head=shape.n_head,
        n_inner=shape.n_inner,
        n_positions=shape.n_positions,
        narrow=packed.weights != "fp32",
        epsilon=shape.layer_norm_epsilon,
        positions=packed.address("transformer.wpe.weight"),
        ln_f_weight=packed.address("transformer.ln_f.weight"),
        ln_f_bias=packed.address("transformer.ln_f.bias"),
        embedding=packed.linear("transformer.wte.weight", bias=None),
        head=packed.linear(head_name(is_tied=packed.is_tied), bias=None),
        rounded_head=packed.linear(ROUNDED_HEAD, bias=None) if ROUNDED_HEAD in packed.parts else Linear(),
        layers=layers,
    )
