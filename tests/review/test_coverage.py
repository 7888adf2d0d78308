"""Do the 95% intervals of the strengths hold the truth 95% of the time?"""

from itertools import combinations

import numpy as np
import pytest

from gpt2kit.review.strengths import Outcome, Strengths, maximise

REPEATS = 1000
TRUE = np.array([0.0, 0.3, 0.9, -0.5])
PAIRS = list(combinations(range(len(TRUE)), 2))


def logistic(x):
    return 1 / (1 + np.exp(-x))


def design():
    rows = np.zeros((len(PAIRS), len(TRUE)))
    for row, (first, second) in enumerate(PAIRS):
        rows[row, first], rows[row, second] = 1, -1
    return rows


def judged(generator, chances, *, tie_share):
    """Scores with these means: a tie with a chance of `tie_share` times the smaller side's, else a win or not."""
    ties = tie_share * np.minimum(chances, 1 - chances)
    drawn = generator.random(chances.shape)
    wins = chances - ties / 2
    return np.where(drawn < wins, 1.0, np.where(drawn < wins + ties, 0.5, 0.0))


def covered(scores_of, true, *, prompts, people):
    """The share of intervals of differences that hold the true one, and the share over all repeats."""
    hits = []
    for repeat in range(REPEATS):
        generator = np.random.Generator(np.random.PCG64(repeat))
        outcomes = []
        for prompt in range(prompts):
            for _, scores in enumerate(scores_of(generator, people)):
                outcomes += [
                    Outcome(first, second, float(score), prompt)
                    for (first, second), score in zip(PAIRS, scores, strict=True)
                ]
        strengths = Strengths(outcomes, len(TRUE))
        assert len(strengths.groups) == 1
        for first, second in PAIRS:
            low, high = strengths.difference(first, second).interval
            hits.append(low <= true[first] - true[second] <= high)
    return float(np.mean(hits))


@pytest.mark.slow
@pytest.mark.parametrize(("tie_share", "prompts"), [(0.0, 40), (0.8, 40), (0.8, 15)])
def test_intervals_cover_independent_judgements(tie_share, prompts):
    chances = logistic(design() @ TRUE)

    def scores_of(generator, people):
        return [judged(generator, chances, tie_share=tie_share) for _ in range(people)]

    assert 0.93 <= covered(scores_of, TRUE, prompts=prompts, people=1) <= 0.97


@pytest.mark.slow
def test_intervals_cover_when_judgements_of_a_prompt_hang_together():
    """Each text is a lucky or unlucky one, and three people read the same: thrice the answers, not thrice the news."""
    noise = 1.0
    generator = np.random.Generator(np.random.PCG64(99))
    luck = noise * generator.standard_normal((200_000, len(TRUE)))
    expected = logistic((TRUE + luck) @ design().T).mean(axis=0)
    true, _ = maximise(design(), expected)  # what the model says of the mean over prompts

    def scores_of(generator, people):
        chances = logistic(design() @ (TRUE + noise * generator.standard_normal(len(TRUE))))
        return [judged(generator, chances, tie_share=0.5) for _ in range(people)]

    assert 0.93 <= covered(scores_of, true, prompts=40, people=3) <= 0.97
