"""What graphs are told of a micro-batch, in shapes that stay the same."""

import numpy as np

from gpt2kit.training.graphs import SteadyShapes


def targets(*counts: bool) -> np.ndarray:
    return np.where(np.array(counts), 5, -100).reshape(2, -1)


def test_places_hold_all_that_count_and_never_become_fewer() -> None:
    shapes = SteadyShapes()
    few = np.arange(32) % 8 == 3
    places = shapes.places(targets(*few))
    assert len(places) == 4
    assert set(np.flatnonzero(few)) <= set(places)

    more = np.arange(32) % 2 == 0
    assert set(np.flatnonzero(more)) <= set(shapes.places(targets(*more)))
    again = shapes.places(targets(*few))
    assert len(again) == 16
    assert set(np.flatnonzero(few)) <= set(again)
    assert len(set(again)) == 16
    assert list(again) == sorted(again)


def test_all_places_are_taken_as_they_are() -> None:
    assert list(SteadyShapes().places(targets(*[True] * 32))) == list(range(32))


def test_nothing_to_learn_from_has_no_places() -> None:
    assert len(SteadyShapes().places(targets(*[False] * 32))) == 0


def test_starts_of_segments_are_filled_up_by_empty_ones() -> None:
    shapes = SteadyShapes()
    starts = shapes.starts(np.array([[0, 0, 1, 1], [0, 1, 1, -1]]))
    assert starts.dtype == np.int32
    assert list(starts[:5]) == [0, 2, 4, 5, 7]
    assert set(starts[5:]) == {8}
    assert len(shapes.starts(np.array([[0, 0, 0, 0], [0, 0, 0, 0]]))) == len(starts)


def test_starts_grow_when_there_are_more_segments_than_places() -> None:
    shapes = SteadyShapes()
    before = len(shapes.starts(np.zeros((1, 64), dtype=np.int64)))
    starts = shapes.starts(np.arange(64)[None])
    assert len(starts) > 64 > before
    assert list(starts[:64]) == list(range(64))


def test_segments_are_told_of_from_the_first_on() -> None:
    shapes = SteadyShapes()
    assert not shapes.have_segments(False)
    assert shapes.have_segments(True)
    assert shapes.have_segments(False)
