"""The plan of an epoch: documents cut into windows, windows laid into rows, rows put in order.

Everything is a pure function of its arguments. Random numbers are the raw output of a bit generator, which numpy keeps
the same in all its versions (it does not promise that for permutations), so a run can be resumed on another machine.

Legend of the shapes: D documents, W windows, R rows.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# A document of more windows than this may be cut into one more than it needs, so that the cuts can lie anywhere.
_FREELY_CUT_WINDOWS = 8
_DOCUMENTS_AT_A_TIME = 1 << 16

Int64Array = npt.NDArray[np.int64]
Int32Array = npt.NDArray[np.int32]
IndexArray = npt.NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, slots=True)
class RowPlan:
    """Which windows stand in which row of an epoch.

    Attributes:
        starts_W: where each window begins in the store, row by row.
        lengths_W: tokens in each.
        row_starts_R1: where each row begins in these two, and W.
        order_R: the rows in the order they are used.
    """

    starts_W: Int64Array
    lengths_W: Int32Array
    row_starts_R1: Int64Array
    order_R: IndexArray

    def windows_of(self, rows_B: Int64Array) -> tuple[Int64Array, Int64Array, Int64Array]:
        """The windows of some rows, given by their place in the order; -1 is a row without windows.

        Returns:
            Start and length of each window, and the index into `rows_B` of its row.
        """
        filled_B = np.flatnonzero(rows_B >= 0)
        chosen = self.order_R[rows_B[filled_B]]
        firsts = self.row_starts_R1[chosen]
        counts = self.row_starts_R1[chosen + 1] - firsts
        rows_W = np.repeat(filled_B, counts)
        windows_W = np.repeat(firsts - (np.cumsum(counts) - counts), counts) + np.arange(len(rows_W))
        return self.starts_W[windows_W], self.lengths_W[windows_W].astype(np.int64), rows_W


def cut_windows(
    document_starts_D1: Int64Array, context: int, *, seed: int | None
) -> Iterator[tuple[Int64Array, Int32Array]]:
    """Cut documents into windows of at most `context` tokens; shorter documents stay whole.

    All windows of a long document are full but one, or two in a very long one. With a seed, which one that is (how long
    it is, in a very long one) is random, so that the cuts lie elsewhere for each seed. A document of up to eight
    windows is cut into as few as possible: each cut takes context from the tokens behind it. Without a seed, the
    window that is not full is the last.

    Args:
        document_starts_D1: where each document begins, and the end of the last.
        context: the longest window, in tokens.
        seed: of the cuts, or None.

    Yields:
        Start and length of each window, in the order of the store, for some documents at a time: the arrays made on
        the way are several times larger than the windows.
    """
    generator = None if seed is None else np.random.PCG64(seed)
    for first in range(0, len(document_starts_D1) - 1, _DOCUMENTS_AT_A_TIME):
        yield _cut_some(document_starts_D1[first : first + _DOCUMENTS_AT_A_TIME + 1], context, generator)


def _cut_some(
    document_starts_D1: Int64Array, context: int, generator: np.random.PCG64 | None
) -> tuple[Int64Array, Int32Array]:
    lengths_D = np.diff(document_starts_D1)
    counts_D = -(-lengths_D // context)
    # Window `short_at` has `short` tokens; those before and behind it are full, but for the last one of a document.
    short_D = lengths_D - (counts_D - 1) * context
    short_at_D = counts_D - 1
    if generator is not None:
        long = np.flatnonzero(counts_D > 1)
        share = (generator.random_raw(len(long)) >> np.uint64(11)) * 2.0**-53  # uniform in [0, 1)
        short_at_D[long] = (share * counts_D[long]).astype(np.int64)
        very_long = counts_D[long] > _FREELY_CUT_WINDOWS
        freely, share = long[very_long], share[very_long]
        short_at_D[freely] = 0
        short_D[freely] = 1 + (share * context).astype(np.int64)
        counts_D[freely] = 1 - (short_D[freely] - lengths_D[freely]) // context  # the rest divided, rounded up
    total = np.cumsum(counts_D)
    number_W = np.arange(int(counts_D.sum())) - np.repeat(total - counts_D, counts_D)
    missing_W = np.repeat(context - short_D, counts_D)
    short_at_W = np.repeat(short_at_D, counts_D)
    offset_W = number_W * context - missing_W * (number_W > short_at_W)
    end_W = (number_W + 1) * context - missing_W * (number_W >= short_at_W)
    lengths_W = np.minimum(end_W, np.repeat(lengths_D, counts_D)) - offset_W
    return np.repeat(document_starts_D1[:-1], counts_D) + offset_W, lengths_W.astype(np.int32)


def length_counts(lengths_of_blocks: Iterable[Int32Array], context: int) -> Int64Array:
    """How many windows there are of each length from 0 to `context`."""
    counts = np.zeros(context + 1, dtype=np.int64)
    for lengths_W in lengths_of_blocks:
        counts += np.bincount(lengths_W, minlength=context + 1)
    return counts


def num_filled_rows(counts: Int64Array, context: int) -> int:
    """The rows that `fill_rows` lays windows of these lengths into."""
    return sum(repeats for _, repeats in _row_patterns(counts, context))


def fill_rows(starts_W: Int64Array, lengths_W: Int32Array, context: int, *, seed: int | None) -> RowPlan:
    """Lay windows into as few rows as first-fit-decreasing finds.

    Only lengths matter for that, so it is done on the histogram of lengths: its cost depends on the number of
    different lengths, and hardly on the number of windows. Which of the windows of a length goes where is random.

    Args:
        starts_W: where each window begins in the store.
        lengths_W: tokens in each, at most `context`.
        context: tokens in a row.
        seed: of the choice among windows of the same length and of the order of the rows; None keeps the store's
            order as far as possible.
    """
    # Windows of the same length stand together, in random order among themselves.
    if seed is None:
        by_length_W = _order(lengths_W)
    else:
        by_length_W = _permutation(len(lengths_W), seed)
        by_length_W = by_length_W[_order(lengths_W[by_length_W])]
    counts = length_counts([lengths_W], context)
    next_of_length = (np.cumsum(counts) - counts).tolist()
    chosen: list[IndexArray] = []
    widths: list[Int64Array] = []
    for pattern, repeats in _row_patterns(counts, context):
        columns = []
        for length, times in pattern:
            first = next_of_length[length]
            next_of_length[length] = first + repeats * times
            columns.append(by_length_W[first : first + repeats * times].reshape(repeats, times))
        rows = columns[0] if len(columns) == 1 else np.concatenate(columns, axis=1)
        chosen.append(rows.reshape(-1))
        widths.append(np.full(repeats, rows.shape[1], dtype=np.int64))
    del by_length_W
    windows_W = np.concatenate(chosen)
    del chosen
    row_starts_R1 = np.concatenate([[0], np.cumsum(np.concatenate(widths))])
    return plan_rows(
        starts_W[windows_W],
        lengths_W[windows_W],
        row_starts_R1,
        seed=None if seed is None else seed ^ 1,
    )


def plan_rows(starts_W: Int64Array, lengths_W: Int32Array, row_starts_R1: Int64Array, *, seed: int | None) -> RowPlan:
    """Put rows in order: a random one, or without a seed that of the first window of each in the store."""
    if seed is None:
        order_R = _order(starts_W[row_starts_R1[:-1]])
    else:
        order_R = _permutation(len(row_starts_R1) - 1, seed)
    return RowPlan(starts_W, lengths_W, row_starts_R1, order_R)


def _row_patterns(counts: Int64Array, context: int) -> Iterator[tuple[list[tuple[int, int]], int]]:
    """First-fit-decreasing by rows: fill a row with the longest window that still fits, again and again.

    That gives the rows of the usual formulation (each window into the first row it fits in, longest first). A row is
    repeated for as long as there are windows for it.

    Args:
        counts: how many windows there are of each length.
        context: tokens in a row.

    Yields:
        A row as (length, times) pairs, longest first, and how many rows are like it.
    """
    left = counts.tolist()
    lengths = [length for length in range(1, len(left)) if left[length]]
    while lengths:
        pattern: list[tuple[int, int]] = []
        space = context
        place = len(lengths)
        while space and (place := bisect_right(lengths, space, 0, place)):
            length = lengths[place - 1]
            times = min(left[length], space // length)
            pattern.append((length, times))
            space -= length * times
            place -= 1
        repeats = min(left[length] // times for length, times in pattern)
        for length, times in pattern:
            left[length] -= repeats * times
            if not left[length]:
                del lengths[bisect_right(lengths, length) - 1]
        yield pattern, repeats


def _permutation(length: int, seed: int) -> IndexArray:
    return _order(np.random.PCG64(seed).random_raw(length))


def _order(keys_W: npt.NDArray[Any]) -> IndexArray:
    """The indices that sort some keys, equal ones in their order; in 32 bits where that is enough."""
    order_W = np.argsort(keys_W, kind="stable")
    return order_W.astype(np.int32) if len(order_W) <= np.iinfo(np.int32).max else order_W
