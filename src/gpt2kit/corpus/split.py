"""Which document or section goes to which split: by the order of keyed hashes, whatever order the files come in.

Validation takes the lowest hashes and test the highest, until each has its share of the characters. So identical
contents are always together, more text added later moves few documents from one split to another, and a test split
added later leaves the validation split as it was.
"""

import numpy as np
import numpy.typing as npt

TRAIN, VALIDATION, TEST, NOWHERE = range(4)
_NEAR_ENOUGH = 0.99
_REFUSALS = 1000


def assign_splits(
    keys_U: npt.NDArray[np.uint64],
    chars_U: npt.NDArray[np.int64],
    *,
    validation_fraction: float,
    test_fraction: float,
) -> npt.NDArray[np.uint8]:
    """Assign units (documents or sections) to splits.

    Args:
        keys_U: their keyed hashes; units with the same key stay together.
        chars_U: their characters.
        validation_fraction: share of the characters for validation, 0 to 1.
        test_fraction: share for the test.

    Returns:
        TRAIN, VALIDATION or TEST for each. If there are enough units, no split with a share is empty; train comes
        first, then validation.
    """
    unique_G, group_of_unit_U = np.unique(keys_U, return_inverse=True)
    chars_G = np.zeros(len(unique_G))
    np.add.at(chars_G, group_of_unit_U, chars_U)
    split_G = np.full(len(unique_G), TRAIN, dtype=np.uint8)
    total = float(chars_G.sum())
    spare = len(unique_G) - 1 - (validation_fraction > 0 and test_fraction > 0)
    ascending = np.arange(len(unique_G), dtype=np.int64)
    for split, fraction, order in (
        (VALIDATION, validation_fraction, ascending),
        (TEST, test_fraction, ascending[::-1]),
    ):
        if fraction > 0:
            free = order[split_G[order] == TRAIN]
            most = max(spare, 1) if split == VALIDATION else int((split_G == TRAIN).sum()) - 1
            taken = _take(free, chars_G, wanted=fraction * total, most=min(most, len(free) - 1))
            split_G[taken] = split
    return split_G[group_of_unit_U]


def _take(order: npt.NDArray[np.int64], chars_G: npt.NDArray[np.float64], *, wanted: float, most: int) -> list[int]:
    """Take groups in order, passing over those that would lead further beyond `wanted` than it is short before.

    At least one is taken, and `most` at most.
    """
    taken: list[int] = []
    have = 0.0
    refused = 0
    for group in order.tolist():
        if len(taken) >= most or have >= wanted * _NEAR_ENOUGH or refused >= _REFUSALS:
            break
        if have + chars_G[group] / 2 <= wanted:
            taken.append(group)
            have += chars_G[group]
        else:
            refused += 1
    if not taken and most > 0:
        taken = [min(order.tolist(), key=lambda group: (chars_G[group], group))]
    return taken
