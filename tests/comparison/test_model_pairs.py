"""The test by random signs and its correction, against counting by hand."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.comparison.pairs import Rank, ranking_words, sign_flip_p, smallest_p
from gpt2kit.comparison.run import titled
from gpt2kit.evaluation.statistics import holm


@pytest.mark.parametrize("seed", range(4))
def test_few_documents_are_counted_out(seed):
    differences = np.random.default_rng(seed).normal(0.5, 1, size=9)
    found = abs(differences.sum())
    reached = [abs(np.dot(signs, differences)) >= found - 1e-9 for signs in product((-1, 1), repeat=9)]
    assert sign_flip_p(differences, seed=0) == np.mean(reached)


def test_drawn_signs_come_near_all_signs():
    differences = np.random.default_rng(3).normal(0.4, 1, size=16)
    signs = np.array(list(product((-1, 1), repeat=16)))
    exact = (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean()
    assert sign_flip_p(differences, seed=0) == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))
    assert sign_flip_p(differences, seed=0) == sign_flip_p(differences, seed=0)


def test_no_difference_and_the_clearest_one():
    assert sign_flip_p(np.zeros(30), seed=0) == 1.0
    assert sign_flip_p([], seed=0) == 1.0
    assert sign_flip_p(np.ones(5), seed=0) == 2 / 2**5
    assert sign_flip_p(np.ones(100), seed=0) == 1 / 20_001


@pytest.mark.slow
def test_without_a_difference_small_p_values_are_as_rare_as_they_say():
    generator = np.random.default_rng(0)
    p_values = np.array([sign_flip_p(generator.standard_t(4, size=12), seed=0) for _ in range(1000)])
    assert 0.03 < (p_values <= 0.05).mean() < 0.07


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferronis_and_keeps_the_order(p_values):
    corrected = holm(p_values)
    for p, found in zip(p_values, corrected, strict=True):
        assert p <= found <= min(1.0, len(p_values) * p) + 1e-12
    order = sorted(range(len(p_values)), key=lambda k: p_values[k])
    assert [corrected[k] for k in order] == sorted(corrected)


def test_how_small_p_can_get():
    assert smallest_p(5, 1) == 2 / 2**5
    assert smallest_p(14, 3) == 3 * 2 / 2**14
    assert smallest_p(1000, 45) == pytest.approx(45 / 20_001)
    assert smallest_p(2, 6) == 1.0


def test_titles_tell_models_apart():
    assert titled(["nano", "models/a", "models/b/"]) == ["nano", "a", "b"]
    assert titled(["x/model", "y/model"]) == ["x/model", "y/model"]
    assert titled(["nano", "nano", "nano"]) == ["nano", "nano (2)", "nano (3)"]
    assert titled(["my/human", "nano"]) == ["my/human", "nano"]


def test_a_ranking_that_nothing_is_clear_in():
    ranks = [Rank("a", 1.0, [], [], ["b", "c"]), Rank("b", 1.1, [], [], ["a", "c"]), Rank("c", 1.2, [], [], ["a", "b"])]
    lines = ranking_words(ranks)
    assert lines[0].startswith("No model is clearly the best")
    assert lines[1] == "1. a (1.0000 bits per byte): not told apart from b and c."
