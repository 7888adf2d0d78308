"""The scores' functions against those of `transformers`, the draw's distribution, and the promise about rounding."""

import math

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2kit.generation import array_sampling
from gpt2kit.generation.sampling import (
    Cutoffs,
    choose,
    count_penalties,
    forbid_repeated_ngrams,
    gumbel_noise,
    min_p,
    repetition_penalty,
    top_k,
    top_p,
    typical,
)

seeds = st.integers(0, 10_000)


def scores(seed: int, *, rows: int = 3, width: int = 40, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * scale


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 45), st.integers(1, 98), st.sampled_from([0.1, 1.0, 3.0, 8.0]))
def test_cutoffs_are_those_of_transformers(seed, k, percent, scale):
    p = (percent + 0.1234) / 100  # not where a sum could end
    scores_BV = scores(seed, scale=scale)
    expected = transformers.TopKLogitsWarper(k)(None, scores_BV)
    assert torch.equal(top_k(scores_BV, k), expected)
    assert torch.equal(top_p(scores_BV, p), transformers.TopPLogitsWarper(p)(None, scores_BV))
    assert torch.equal(min_p(scores_BV, p), transformers.MinPLogitsWarper(p)(None, scores_BV))
    assert torch.equal(typical(scores_BV, p), transformers.TypicalLogitsWarper(p)(None, scores_BV))


def test_neutral_values_cut_nothing_off():
    scores_BV = scores(0)
    for cutoffs in (Cutoffs(), Cutoffs(top_k=40), Cutoffs(top_k=1000), Cutoffs(2.0)):
        expected_BV = (scores_BV / cutoffs.temperature).softmax(dim=1)
        torch.testing.assert_close(cutoffs.apply(scores_BV).softmax(dim=1), expected_BV)


def test_top_p_of_a_large_vocabulary_sorts_more_only_where_needed():
    scores_BV = torch.cat([scores(0, rows=2, width=12_000, scale=0.1), scores(1, rows=2, width=12_000, scale=6.0)])
    expected = transformers.TopPLogitsWarper(0.9)(None, scores_BV)
    assert expected[0].isfinite().sum() > 8192 > 512 > expected[2].isfinite().sum()
    # Sums over 12,000 numbers differ in their last digits, so one token at the border may too.
    differing_B = (top_p(scores_BV, 0.9).isfinite() != expected.isfinite()).sum(dim=1)
    assert differing_B.max() <= 1


def test_typical_and_min_p_together_leave_something():
    """Typical may take away the most probable token, and min-p all others: then the best of the typical ones stays."""
    scores_BV = torch.tensor([[0.0, -1.0, -1.0, -1.0, -1.1]])
    cutoffs = Cutoffs(temperature=1.0, min_p=1.0, typical_p=0.5)
    kept_BV = cutoffs.apply(scores_BV)
    assert (kept_BV > -torch.inf).tolist() == [[False, True, True, True, False]]
    assert choose(scores_BV, cutoffs, keys=[5], slack=1e-4).is_close_B.all()  # and so it is made again, without slack
    assert choose(scores_BV, cutoffs, keys=[5]).ids_B.item() in (1, 2, 3)
    ids_N, _ = array_sampling.cut_off(scores_BV[0].numpy(), cutoffs)
    assert ids_N.tolist() == [1, 2, 3]


@settings(max_examples=40, deadline=None)
@given(seeds, st.floats(0.5, 3.0), st.lists(st.integers(0, 39), max_size=30), st.integers(1, 4))
def test_penalties_are_those_of_transformers(seed, penalty, history, size):
    scores_BV = scores(seed, rows=1)
    seen_BV = torch.zeros(1, 40, dtype=torch.bool)
    seen_BV[0, history] = True
    ids_BT = torch.tensor([history], dtype=torch.long)
    expected = transformers.RepetitionPenaltyLogitsProcessor(penalty)(ids_BT, scores_BV)
    torch.testing.assert_close(repetition_penalty(scores_BV, seen_BV, penalty=penalty), expected)
    expected = transformers.NoRepeatNGramLogitsProcessor(size)(ids_BT, scores_BV)
    assert torch.equal(forbid_repeated_ngrams(scores_BV, [history], size=size), expected)


def test_frequency_and_presence_penalties():
    counts_BV = torch.tensor([[0, 1, 3]])
    found = count_penalties(torch.zeros(1, 3), counts_BV, frequency=0.5, presence=0.25)
    assert found.tolist() == [[0.0, -0.75, -1.75]]


def test_the_inputs_stay_as_they_are():
    scores_BV = scores(0)
    before = scores_BV.clone()
    Cutoffs(0.7, 5, 0.9, 0.1, 0.9).apply(scores_BV)
    forbid_repeated_ngrams(scores_BV, [[1, 2, 1]] * 3, size=2)
    choose(scores_BV, Cutoffs(), keys=[1, 2, 3], slack=0.1)
    assert torch.equal(scores_BV, before)


def test_draws_have_the_distribution_of_the_scores():
    num_draws = 20_000
    scores_1V = torch.tensor([[2.0, 1.0, 0.0, -1.0, -torch.inf, 0.5]])
    drawn = choose(scores_1V.expand(num_draws, -1), Cutoffs(), keys=range(num_draws)).ids_B
    observed_V = torch.bincount(drawn, minlength=6).double()
    expected_V = scores_1V[0].double().softmax(0) * num_draws
    assert observed_V[4] == 0
    possible = expected_V > 0
    chi_squared = ((observed_V - expected_V)[possible] ** 2 / expected_V[possible]).sum().item()
    # The keys are fixed, so this holds always or never; 18.5 is the 99.9% quantile with 4 degrees of freedom.
    assert chi_squared < 18.5


def test_noise_is_a_gumbel_variable_without_correlations():
    keys_N = torch.arange(400).repeat_interleave(400)
    ids_N = torch.arange(400).repeat(400)
    noise_N = gumbel_noise(keys_N, ids_N).double()
    assert noise_N.isfinite().all()
    assert noise_N.mean().item() == pytest.approx(0.5772, abs=0.015)  # Euler's constant
    assert noise_N.var().item() == pytest.approx(math.pi**2 / 6, abs=0.03)
    grid = noise_N.view(400, 400)
    for pair in (
        torch.stack([grid[:-1].flatten(), grid[1:].flatten()]),
        torch.stack([grid[:, :-1].flatten(), grid[:, 1:].flatten()]),
    ):
        assert torch.corrcoef(pair)[0, 1].abs().item() < 0.012
    assert torch.equal(gumbel_noise(keys_N[:5], ids_N[:5]), gumbel_noise(keys_N, ids_N)[:5])


@settings(max_examples=150, deadline=None)
@given(
    seeds,
    st.sampled_from([0.3, 1.0, 2.0]),
    st.sampled_from([0, 3, 20]),
    st.sampled_from([0.5, 0.9, 1.0]),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([0.6, 1.0]),
    st.sampled_from([1e-4, 1e-2, 0.2]),
)
def test_a_choice_that_is_not_close_survives_any_rounding(seed, temperature, k, p, m, t, slack):
    cutoffs = Cutoffs(temperature, k, p, m, t)
    scores_BV = scores(seed, rows=24)
    keys = range(seed, seed + 24)
    for how in (cutoffs, None):
        choice = choose(scores_BV, how, keys=keys, slack=slack)
        for number in range(4):
            generator = torch.Generator().manual_seed(seed + number)
            rounding_BV = (torch.rand(scores_BV.shape, generator=generator) * 2 - 1) * slack
            if number % 2:
                rounding_BV = rounding_BV.sign() * slack
            other = choose(scores_BV + rounding_BV * 0.999, how, keys=keys)
            sure_B = ~choice.is_close_B
            assert torch.equal(choice.ids_B[sure_B], other.ids_B[sure_B])


def test_few_choices_are_close_and_ties_always_are():
    scores_BV = scores(0, rows=2000)
    for how in (
        None,
        Cutoffs(0.8, 0, 0.9),
        Cutoffs(0.8, 20, 0.9),
        Cutoffs(1.0, typical_p=0.9),
        Cutoffs(1.0, 0, 0.9, 0.05),
    ):
        assert choose(scores_BV, how, keys=range(2000), slack=5e-4).is_close_B.float().mean() < 0.02
    tied_1V = torch.tensor([[1.0, 3.0, 3.0]])
    assert choose(tied_1V, None, keys=[], slack=1e-6).is_close_B.all()
