"""What a model has read of several texts: the cache, and the window of each text that is in it.

Rows of different lengths stand in one cache with padding on their left; positions count from the first real token.

When a row's window holds as many tokens as the model has positions, and another one comes, only the last share of them
(`keep`) stays: it is read again from position 0 on, and the text goes on behind it. When that happens depends on the
row alone, and never on the others in the batch.

Shapes: L layers, B rows, H heads, T tokens of a row, S columns of the cache, K width of a head, D model width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gpt2kit.model import GPT2, GPT2Config, KVCache, kernels
from gpt2kit.model.graph import StepGraph

_TOKENS_AT_ONCE = 8192  # of prompts: bounds the activations
_SPARE_COLUMNS = 64  # beyond the context, so that rows are moved to the left only now and then


def num_columns(config: GPT2Config, *, longest: int, max_new_tokens: int) -> int:
    """Columns that a cache needs for rows whose prompts have up to `longest` tokens."""
    return min(longest + max_new_tokens, config.n_positions + _SPARE_COLUMNS)


class Reader:
    """Reads tokens into a cache, and holds the last hidden state of each row.

    Args:
        model: the network, in eval mode.
        windows: the tokens of each row, from one to n_positions; equal ones are read once.
        max_new_tokens: how many more will come, at most.
        keep: share of the context that stays when it is full.

    Attributes:
        hidden_BD: hidden state of the last token of each row.
        windows: the tokens in the cache, for each row.
    """

    def __init__(
        self, model: GPT2, windows: Sequence[Sequence[int]], *, max_new_tokens: int, keep: float = 0.5
    ) -> None:
        self.model = model
        self.windows = [list(window) for window in windows]
        n_positions = model.config.n_positions
        self._num_kept = min(max(int(n_positions * keep), 1), max(n_positions - 1, 1))
        longest = max(map(len, self.windows))
        self._cache = self._new_cache(
            len(windows), num_columns(model.config, longest=longest, max_new_tokens=max_new_tokens)
        )
        self._cache.length = longest
        self._graph = self._new_graph()
        self.hidden_BD = torch.zeros(
            len(windows), model.config.n_embd, device=model.device, dtype=model.transformer.wte.weight.dtype
        )
        self._read_windows(range(len(windows)))

    @property
    def cache(self) -> KVCache:
        """The keys and values of what was read."""
        return self._cache

    def step(self, ids: Sequence[int]) -> None:
        """Read one more token for each row."""
        if self._cache.length == self._cache.max_length:
            self._move_left()
        n_positions = self.model.config.n_positions
        full = [row for row, window in enumerate(self.windows) if len(window) == n_positions]
        positions = [min(len(window), n_positions - 1) for window in self.windows]
        if len(full) == len(self.windows):
            self._cache.length += 1
        elif self._graph is not None:
            self.hidden_BD = self._graph.read(ids, positions, self._padding(self._cache.length + 1))
        else:
            hidden_B1D = self.model(
                self._tensor(ids)[:, None],
                position_ids_BT=self._tensor(positions)[:, None],
                cache=self._cache,
                key_mask_BS=self._key_mask(self._cache.length + 1),
            )
            self.hidden_BD = hidden_B1D[:, -1]
        for window, identifier in zip(self.windows, ids, strict=True):
            window.append(identifier)
            if len(window) > n_positions:
                del window[: -self._num_kept]
        self._read_windows(full)

    def select(self, rows: Sequence[int]) -> None:
        """Keep, repeat or reorder rows."""
        self.windows = [list(self.windows[row]) for row in rows]
        rows_B = self._tensor(rows)
        self._cache.select(rows_B)
        self.hidden_BD = self.hidden_BD[rows_B]
        self._graph = self._new_graph()

    def read_alone(self, row: int) -> Tensor:
        """The hidden state [1, D] of a row, computed from its window alone: no batch, no padding, no cache."""
        hidden_1TD: Tensor = self.model(self._tensor(self.windows[row])[None])
        return hidden_1TD[:, -1]

    def _read_windows(self, rows: Sequence[int]) -> None:
        """Read the windows of some rows anew, into the last columns of the cache."""
        if not rows:
            return
        places: dict[tuple[int, ...], list[int]] = {}
        for row in rows:
            places.setdefault(tuple(self.windows[row]), []).append(row)
        windows = sorted(places, key=len)
        while windows:
            num_rows = max(_TOKENS_AT_ONCE // len(windows[-1]), 1)
            self._read_together(windows[-num_rows:], places)
            del windows[-num_rows:]

    def _read_together(self, windows: list[tuple[int, ...]], places: dict[tuple[int, ...], list[int]]) -> None:
        T = len(windows[-1])
        padding_B1 = self._tensor([T - len(window) for window in windows])[:, None]
        columns_T = torch.arange(T, device=self.model.device)
        cache = self._new_cache(len(windows), T)
        hidden_BTD = self.model(
            self._tensor([[0] * (T - len(window)) + list(window) for window in windows]),
            position_ids_BT=(columns_T - padding_B1).clamp(min=0),
            cache=cache,
            key_mask_BS=columns_T >= padding_B1 if len(windows[0]) < T else None,
        )
        sources = [source for source, window in enumerate(windows) for _ in places[window]]
        targets_B = self._tensor([row for window in windows for row in places[window]])
        sources_B = self._tensor(sources)
        end = self._cache.length
        self._cache.keys_LBHSK[:, targets_B, :, end - T : end] = cache.keys_LBHSK[:, sources_B]
        self._cache.values_LBHSK[:, targets_B, :, end - T : end] = cache.values_LBHSK[:, sources_B]
        self.hidden_BD[targets_B] = hidden_BTD[sources_B, -1]

    def _key_mask(self, num_columns: int) -> Tensor | None:
        """True for the columns that hold a row's window; None when all do."""
        padding = self._padding(num_columns)
        if not any(padding):
            return None
        columns_S = torch.arange(num_columns, device=self.model.device)
        return columns_S >= self._tensor(padding)[:, None]

    def _padding(self, num_columns: int) -> list[int]:
        """How many columns are before each row's window, once it has a token more."""
        return [num_columns - min(len(window) + 1, num_columns) for window in self.windows]

    def _new_graph(self) -> StepGraph | None:
        return StepGraph(self.model, self._cache) if kernels.available(self.model.transformer.wte.weight) else None

    def _move_left(self) -> None:
        """Leave out the columns that are padding in every row."""
        cache = self._cache
        spare = cache.length - max(map(len, self.windows))
        for tensor_LBHSK in (cache.keys_LBHSK, cache.values_LBHSK):
            tensor_LBHSK[:, :, :, : cache.length - spare] = tensor_LBHSK[:, :, :, spare : cache.length].clone()
        cache.length -= spare

    def _new_cache(self, batch_size: int, max_length: int) -> KVCache:
        return KVCache(
            self.model.config,
            batch_size=batch_size,
            max_length=max_length,
            device=self.model.device,
            dtype=self.model.transformer.wte.weight.dtype,
        )

    def _tensor(self, values: Sequence[int] | Sequence[list[int]]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.model.device)
