"""Batches of token ids as a pure function of (seed, step).

The stream convention: a document is stored as `t1 .. tn EOT`; its inputs are `EOT t1 .. tn` and its targets
`t1 .. tn EOT`. So the input at any place is the token stored before the target, every stored token is predicted exactly
once in an epoch, and the first token of a document is predicted from end-of-text.

Legend of the shapes: B rows, T tokens in a row (the context), W windows, R rows of an epoch.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import numpy.typing as npt

from gpt2kit.errors import DataError
from gpt2kit.runtime import derive_seed
from gpt2kit.tokens.store import TokenStore
from gpt2kit.tokens.windows import RowPlan, cut_windows, fill_rows, length_counts, num_filled_rows, plan_rows

Packing = Literal["document", "run_on"]
IGNORED = -100  # the target that no loss is taken on, as in torch's cross-entropy
_CACHED_PLANS = 2
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of tokens to train on or to measure.

    Attributes:
        input_ids_BT: what the model reads; end-of-text where a row is padded.
        target_ids_BT: what it should predict at each place; -100 where no loss is taken.
        position_ids_BT: positions, which start at 0 in each segment.
        segment_ids_BT: segments of a row numbered 0, 1, ...; attention stays within one. -1 where a row is padded.
        num_targets: targets with loss in these rows.
        single_segment: no row holds more than one segment, so plain causal attention is all it needs (padding comes
            last, where causal attention does not see it).
    """

    input_ids_BT: IntArray
    target_ids_BT: IntArray
    position_ids_BT: IntArray
    segment_ids_BT: IntArray
    num_targets: int
    single_segment: bool


class PackedBatches:
    """The batches of a token store: any step, or some rows of it, can be had directly and at any time.

    Args:
        store: the tokens.
        context: tokens in a row.
        batch_size: rows in a batch. A batch may end with rows that are all padding, so that the shape stays; the
            padding is spread evenly over an epoch.
        seed: of the order of the windows and of where long documents are cut; 0 is a seed.
        packing: "document": documents and windows of long ones are laid into rows whole, attention and positions are
            confined to each. "run_on": the store's documents end to end, cut into rows, attention runs over
            document borders (how GPT-2 was trained).
        end_of_text: the id that precedes the first document, and pads rows.
        shuffle: False gives the same rows in the store's order in each epoch, for measuring.
        even: spread the rows evenly over the batches, so that an epoch does not end with a batch of one row. False
            gives whole batches as long as there are rows: the first rows are then the same in batches of any size.

    The plan of an epoch is made when it is first needed, and the last two are kept: about 20 bytes a window, and 50 to
    60 while it is made. A billion tokens in documents of 500 are 2.3 million windows of up to 1,024: 40 MB kept, 110 MB
    and a second to make.

    Raises:
        DataError: the store is empty.
    """

    def __init__(
        self,
        store: TokenStore,
        *,
        context: int,
        batch_size: int,
        seed: int,
        packing: Packing = "document",
        end_of_text: int,
        shuffle: bool = True,
        even: bool = True,
    ) -> None:
        if store.num_tokens == 0:
            raise DataError(f"{store.folder}: holds no tokens; prepare more text")
        if context < 1 or batch_size < 1:
            raise ValueError(f"context {context} and batch_size {batch_size} must be at least 1")
        self.store = store
        self.context = context
        self.batch_size = batch_size
        self.seed = seed
        self.packing = packing
        self.end_of_text = end_of_text
        self.shuffle = shuffle
        self.even = even
        self._first_steps = [0]  # the first step of each epoch planned so far, and of the one after
        self._row_counts: list[int] = []
        self._plans: OrderedDict[int, RowPlan] = OrderedDict()

    def steps_in_epoch(self, epoch: int = 0) -> int:
        """Batches in an epoch; epochs differ slightly, since long documents are cut elsewhere in each."""
        self._count_epochs(epoch + 1)
        return self._first_steps[epoch + 1] - self._first_steps[epoch]

    def total_steps(self, epochs: float) -> int:
        """Batches in a number of epochs, which may have a fraction; at least 1."""
        whole = int(epochs)
        self._count_epochs(whole)
        steps = self._first_steps[whole]
        if epochs > whole:
            steps += ceil((epochs - whole) * self.steps_in_epoch(whole))
        return max(steps, 1)

    def locate(self, step: int) -> tuple[int, int]:
        """The epoch a step lies in, and its number within that epoch."""
        while self._first_steps[-1] <= step:
            self._count_epochs(len(self._first_steps))
        epoch = int(np.searchsorted(self._first_steps, step, side="right")) - 1
        return epoch, step - self._first_steps[epoch]

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """The batch of a step, a pure function of the seed and the step.

        Args:
            step: counted from 0 over all epochs.
            rows: only these of its rows, for one of several processes.
        """
        plan, chosen = self._rows_of(step, rows)
        starts_W, lengths_W, rows_W = plan.windows_of(chosen)
        shape = (self._num_rows_in(rows), self.context)
        input_ids_BT = np.full(shape, self.end_of_text, dtype=np.int64)
        target_ids_BT = np.full(shape, IGNORED, dtype=np.int64)
        position_ids_BT = np.zeros(shape, dtype=np.int64)
        segment_ids_BT = np.full(shape, -1, dtype=np.int64)
        if len(starts_W):
            first_of_row_W = np.diff(rows_W, prepend=-1) != 0
            window_W = np.arange(len(starts_W))
            segment_W = window_W - np.maximum.accumulate(np.where(first_of_row_W, window_W, 0))
            before_W = np.cumsum(lengths_W) - lengths_W  # tokens in the windows before each
            row_before_W = np.maximum.accumulate(np.where(first_of_row_W, before_W, 0))
            position_N = np.arange(int(lengths_W.sum())) - np.repeat(before_W, lengths_W)
            stored_N = np.repeat(starts_W, lengths_W) + position_N
            place_N = np.repeat(rows_W * self.context + before_W - row_before_W, lengths_W) + position_N
            target_N = self.store.ids_N[stored_N].astype(np.int64)
            input_N = self.store.ids_N[np.maximum(stored_N - 1, 0)].astype(np.int64)
            input_N[stored_N == 0] = self.end_of_text
            if self.store.loss_mask_N is not None:
                target_N[self.store.loss_mask_N[stored_N] == 0] = IGNORED
            input_ids_BT.reshape(-1)[place_N] = input_N
            target_ids_BT.reshape(-1)[place_N] = target_N
            position_ids_BT.reshape(-1)[place_N] = position_N
            segment_ids_BT.reshape(-1)[place_N] = np.repeat(segment_W, lengths_W)
        return Batch(
            input_ids_BT=input_ids_BT,
            target_ids_BT=target_ids_BT,
            position_ids_BT=position_ids_BT,
            segment_ids_BT=segment_ids_BT,
            num_targets=int(np.count_nonzero(target_ids_BT != IGNORED)),
            single_segment=bool(segment_ids_BT.max(initial=-1) <= 0),
        )

    def targets_in_step(self, step: int) -> int:
        """Targets with loss in the whole batch of a step, whichever rows this process takes."""
        plan, chosen = self._rows_of(step, None)
        starts_W, lengths_W, _ = plan.windows_of(chosen)
        mask_N = self.store.loss_mask_N
        if mask_N is None:
            return int(lengths_W.sum())
        return sum(
            int(np.count_nonzero(mask_N[start : start + length]))
            for start, length in zip(starts_W.tolist(), lengths_W.tolist(), strict=True)
        )

    def fill_share(self, epoch: int = 0) -> float:
        """The share of an epoch's places, in rows that are not all padding, that hold a token."""
        self._count_epochs(epoch + 1)
        return self.store.num_tokens / (self._row_counts[epoch] * self.context)

    def _num_rows_in(self, rows: slice | None) -> int:
        return self.batch_size if rows is None else len(range(*rows.indices(self.batch_size)))

    def _rows_of(self, step: int, rows: slice | None) -> tuple[RowPlan, npt.NDArray[np.int64]]:
        """The plan of a step's epoch, and which of its rows are asked for; -1 stands for a row of padding."""
        if step < 0:
            raise ValueError(f"step {step} must be at least 0")
        epoch, step = self.locate(step)
        num_rows, num_steps = self._row_counts[epoch], self.steps_in_epoch(epoch)
        if self.even:
            start, stop = step * num_rows // num_steps, (step + 1) * num_rows // num_steps
        else:
            start, stop = step * self.batch_size, min((step + 1) * self.batch_size, num_rows)
        chosen = np.full(self.batch_size, -1, dtype=np.int64)
        chosen[: stop - start] = np.arange(start, stop)
        return self._plan(epoch), chosen if rows is None else chosen[rows]

    def _count_epochs(self, count: int) -> None:
        while len(self._row_counts) < count:
            epoch = len(self._row_counts)
            if epoch and not self.shuffle:
                num_rows = self._row_counts[0]
            else:
                counts = length_counts((lengths_W for _, lengths_W in self._cut(epoch)), self.context)
                packed = self.packing == "document"
                num_rows = num_filled_rows(counts, self.context) if packed else int(counts.sum())
            self._row_counts.append(num_rows)
            self._first_steps.append(self._first_steps[-1] + -(-num_rows // self.batch_size))

    def _cut(self, epoch: int) -> Iterator[tuple[IntArray, npt.NDArray[np.int32]]]:
        if self.packing == "run_on":
            document_starts_D1 = np.asarray([0, self.store.num_tokens], dtype=np.int64)
        else:
            document_starts_D1 = self.store.document_starts_D1
        seed = derive_seed(self.seed, "windows", epoch) if self.shuffle else None
        return cut_windows(document_starts_D1, self.context, seed=seed)

    def _plan(self, epoch: int) -> RowPlan:
        epoch = epoch if self.shuffle else 0
        if epoch not in self._plans:
            starts, lengths = zip(*self._cut(epoch), strict=True)
            starts_W, lengths_W = np.concatenate(starts), np.concatenate(lengths)
            del starts, lengths
            seed = derive_seed(self.seed, "order", epoch) if self.shuffle else None
            if self.packing == "document":
                plan = fill_rows(starts_W, lengths_W, self.context, seed=seed)
            else:
                plan = plan_rows(starts_W, lengths_W, np.arange(len(starts_W) + 1), seed=seed)
            self._plans[epoch] = plan
            while len(self._plans) > _CACHED_PLANS:
                self._plans.popitem(last=False)
        self._plans.move_to_end(epoch)
        return self._plans[epoch]
