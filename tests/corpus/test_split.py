"""The split: shares, determinism, and identical contents together."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.corpus.split import TEST, TRAIN, VALIDATION, assign_splits

UNITS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 1000)), min_size=1, max_size=80)
FRACTIONS = st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.45])


def assign(units: list[tuple[int, int]], validation: float, test: float) -> np.ndarray:
    keys = np.array([key for key, _ in units], dtype=np.uint64)
    chars = np.array([number for _, number in units], dtype=np.int64)
    return assign_splits(keys, chars, validation_fraction=validation, test_fraction=test)


@given(UNITS, FRACTIONS, FRACTIONS)
def test_equal_keys_stay_together_and_no_split_is_empty_needlessly(units, validation: float, test: float) -> None:
    splits = assign(units, validation, test)
    by_key: dict[int, set[int]] = {}
    for (key, _), split in zip(units, splits, strict=True):
        by_key.setdefault(key, set()).add(int(split))
    assert all(len(found) == 1 for found in by_key.values())
    wanted = [TRAIN, *([VALIDATION] if validation else []), *([TEST] if test else [])]
    assert set(splits.tolist()) == set(wanted[: len(by_key)]) or len(by_key) >= len(wanted)
    assert set(splits.tolist()) <= set(wanted)
    if len(by_key) >= len(wanted):
        assert set(splits.tolist()) == set(wanted)


@given(UNITS, st.randoms())
def test_the_order_of_units_makes_no_difference(units, random) -> None:
    order = list(range(len(units)))
    random.shuffle(order)
    plain = assign(units, 0.2, 0.1)
    shuffled = assign([units[index] for index in order], 0.2, 0.1)
    assert [int(plain[index]) for index in order] == shuffled.tolist()


def test_shares_are_reached() -> None:
    draw = np.random.default_rng(0)
    keys = draw.integers(0, 1 << 63, 5000).astype(np.uint64)
    chars = draw.integers(100, 3000, 5000)
    splits = assign_splits(keys, chars, validation_fraction=0.05, test_fraction=0.2)
    assert abs(chars[splits == VALIDATION].sum() / chars.sum() - 0.05) < 0.002
    assert abs(chars[splits == TEST].sum() / chars.sum() - 0.2) < 0.002


def test_a_test_split_added_later_leaves_validation_as_it_was() -> None:
    units = [(key * 7919 % 1009, 100) for key in range(500)]
    without, with_test = assign(units, 0.1, 0.0), assign(units, 0.1, 0.2)
    assert ((without == VALIDATION) == (with_test == VALIDATION)).all()


def test_one_giant_is_passed_over() -> None:
    splits = assign([(0, 1_000_000), *((key, 1000) for key in range(1, 100))], 0.05, 0.0)
    assert splits[0] == TRAIN
    assert (splits == VALIDATION).sum() > 40
