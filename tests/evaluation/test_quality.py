"""Vocabulary, reading ease, topic and self-BLEU without a text: known answers, planted faults, independent judges."""

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.evaluation.coherence import SentenceSpace, passages, prompt_similarity, topic_figures
from gpt2kit.evaluation.diversity import distinct, self_bleu, self_bleu_and_losses
from gpt2kit.evaluation.jackknife import deal, jackknife_figure, t_quantile
from gpt2kit.evaluation.lexical import mattr, mtld_factors, plain_words, zipf_exponents, zipf_slopes
from gpt2kit.evaluation.quality_words import quality_warnings
from gpt2kit.evaluation.readability import (
    count_syllables,
    finished_sentences,
    grade_level,
    looks_english,
    read,
    reading_ease,
)
from gpt2kit.evaluation.set_figures import distinct_figure, said_once_figure, self_bleu_figures, zipf_figures
from gpt2kit.evaluation.texts import TextReport, TextSet, measure_texts
from gpt2kit.evaluation.verdict import text_verdict

texts_of_words = st.lists(st.lists(st.sampled_from("abcdef"), max_size=12), min_size=3, max_size=7)
TOPICS = {
    "sea": "ship sail captain storm wave harbour sailor anchor island whale".split(),
    "kitchen": "soup bread oven butter cook spoon kettle flour onion plate".split(),
    "war": "soldier sword battle army general fort cannon siege enemy shield".split(),
}


def sentences(topic: str, *, seed: int, number: int = 12) -> str:
    draw = random.Random(f"{topic}{seed}")
    return " ".join(
        " ".join(["Then", *(draw.choice(TOPICS[topic] + ["the", "and", "of"]) for _ in range(9))]) + "."
        for _ in range(number)
    )


@pytest.fixture(scope="module")
def space() -> SentenceSpace:
    pytest.importorskip("sklearn")
    training = [sentences(topic, seed=seed) for topic in TOPICS for seed in range(12)]
    return SentenceSpace(passages(training, max_characters=10**6), seed=0)


def zipf_counts(exponent: float, *, ranks: int = 400, words: int = 200_000) -> np.ndarray:
    shares = np.arange(1, ranks + 1) ** -exponent
    return np.round(words * shares / shares.sum()).astype(np.int64)[None]


@pytest.mark.parametrize("exponent", [0.6, 1.0, 1.7])
def test_zipfs_exponent_of_exact_counts_is_found_both_ways(exponent):
    assert zipf_exponents(zipf_counts(exponent))[0] == pytest.approx(exponent, abs=0.005)
    assert zipf_slopes(zipf_counts(exponent))[0] == pytest.approx(exponent, abs=0.02)


def test_zipfs_exponent_is_where_scipy_finds_the_likelihood_greatest():
    optimize = pytest.importorskip("scipy.optimize")
    counts = np.sort(np.random.default_rng(0).geometric(0.02, size=60))[::-1].copy()
    logs = np.log(np.arange(1, 61))

    def loss(s: float) -> float:
        return s * float(counts @ logs) + counts.sum() * math.log(float(np.exp(-s * logs).sum()))

    best = optimize.minimize_scalar(loss, bounds=(0, 4), method="bounded", options={"xatol": 1e-9}).x
    mixed = np.random.default_rng(1).permutation(np.concatenate([counts, np.zeros(5, dtype=np.int64)]))
    assert zipf_exponents(mixed[None])[0] == pytest.approx(best, abs=1e-5)
    assert zipf_slopes(mixed[None])[0] == pytest.approx(-np.polyfit(logs, np.log(counts), 1)[0], abs=1e-9)
    assert np.isnan(zipf_exponents(np.array([[5, 3, 1]]))[0])
    assert np.isnan(zipf_slopes(np.array([[5, 3, 1]]))[0])


def test_mtld_and_mattr_are_lexicalrichness():
    lexicalrichness = pytest.importorskip("lexicalrichness")
    draw = random.Random(0)
    for size in (60, 150, 400):
        words = [f"w{int(draw.paretovariate(0.7))}" for _ in range(size)]
        judge = lexicalrichness.LexicalRichness(words, preprocessor=None, tokenizer=None)
        forward_and_back = len(words) / mtld_factors(words)
        # Theirs is the mean of two quotients, ours the quotient with the mean of the factors; these differ by little.
        assert forward_and_back == pytest.approx(judge.mtld(threshold=0.72), rel=0.02)
        assert mattr(words) == pytest.approx(judge.mattr(window_size=50), rel=1e-12)


def test_mtld_counts_factors_by_hand():
    # "a b a": two different of three, 0.67, is at or below 0.72: a factor every three words, from both sides.
    assert mtld_factors(list("aba") * 4) == 4.0
    assert mtld_factors([f"w{number}" for number in range(30)]) == 0.0
    # Nine of ten different words, never at 0.72: part of a factor, (1 - 0.9) / 0.28.
    assert mtld_factors([f"w{number}" for number in range(9)] + ["w0"]) == pytest.approx(0.1 / 0.28)
    assert mattr(["a"] * 49) is None
    assert mattr(["a"] * 60) == pytest.approx(1 / 50)


def test_words_said_once_lose_what_is_planted_twice():
    texts = [[f"w{text}_{number}" for number in range(20)] for text in range(10)]
    assert said_once_figure(texts, seed=0).value == 1.0
    texts[1][:10] = texts[0][:10]
    assert said_once_figure(texts, seed=0).value == pytest.approx(180 / 200)
    assert plain_words(["The", ",", "fox", "1st"]) == ["the", "fox", "1st"]


@given(texts_of_words, st.integers(1, 3))
def test_set_figures_without_a_text_are_those_of_the_other_texts(texts, n):
    """The jackknife's quick ways against computing everything again without each text."""
    groups = deal(len(texts), seed=0)
    for measure, figure in (
        (lambda some: distinct(some, n), distinct_figure(texts, n, seed=0)),
        (_once, said_once_figure(texts, seed=0)),
    ):
        whole = measure(texts)
        without = [measure([text for k, text in enumerate(texts) if groups[k] != group]) for group in range(len(texts))]
        if whole is None or None in without:
            assert figure is None or figure.interval is None
            continue
        expected = jackknife_figure(whole, without, within=(0.0, 1.0))
        assert figure.value == pytest.approx(whole)
        assert (figure.interval is None) == (expected.interval is None)
        assert figure.interval is None or figure.interval == pytest.approx(expected.interval)


def _once(texts):
    words = [word for text in texts for word in text]
    return sum(words.count(word) == 1 for word in words) / len(words) if words else None


@given(texts_of_words)
def test_self_bleu_losses_are_what_the_others_score_without_a_text(texts):
    scores, losses = self_bleu_and_losses(texts)
    assert scores == self_bleu(texts)
    for number, loss in enumerate(losses):
        rest = self_bleu(texts[:number] + texts[number + 1 :])
        assert loss == pytest.approx(sum(scores) - scores[number] - sum(rest), abs=1e-9)


@pytest.mark.parametrize("degrees", [4, 9, 31, 49])
def test_students_quantile_is_scipys(degrees):
    stats = pytest.importorskip("scipy.stats")
    assert t_quantile(0.975, degrees=degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-3)


def test_the_jackknife_of_a_mean_is_the_t_interval():
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).normal(size=20)
    without = (values.sum() - values) / 19
    low, high = jackknife_figure(values.mean(), without).interval
    expected = stats.t.interval(0.95, 19, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(expected, rel=1e-4)
    assert jackknife_figure(0.5, [0.5] * 10).interval is None
    assert jackknife_figure(0.5, [0.4, 0.6]).interval is None
    assert jackknife_figure(0.5, [0.4, math.nan] * 5).interval is None


def test_large_sets_are_left_out_in_fifty_groups_of_like_size():
    groups = deal(1003, seed=0)
    assert sorted(set(np.bincount(groups))) == [20, 21]
    assert len(np.bincount(groups)) == 50
    assert sorted(deal(7, seed=0)) == list(range(7))


@pytest.mark.parametrize(
    ("word", "syllables"),
    [
        *((word, 1) for word in "time moved names King's nth".split()),
        *((word, 2) for word in "wanted little boxes quiet going something people well-known nation settled".split()),
        *((word, 3) for word in "created idea beautiful serious".split()),
    ],
)
def test_syllables(word, syllables):
    assert count_syllables(word) == syllables


def test_reading_ease_by_hand():
    text = "The cat sat on the mat. The little dogs were going home. And the"
    reading = read(text)
    # The two sentences that end; all words, those of the one that breaks off too.
    assert (reading.num_words, reading.num_sentences, reading.num_syllables) == (14, 2, 16)
    assert reading_ease(14, 2, 16) == pytest.approx(206.835 - 1.015 * 7 - 84.6 * 16 / 14)
    assert grade_level(14, 2, 16) == pytest.approx(0.39 * 7 + 11.8 * 16 / 14 - 15.59)
    assert finished_sentences("No end") == []
    assert math.isnan(reading_ease(2, 0, 2))
    assert math.isnan(grade_level(2, 0, 2))


def test_english_is_told_from_other_languages():
    assert looks_english(["And then the king said to his daughter that he was going to the wood."])
    assert not looks_english(["Und dann sagte der König zu seiner Tochter, dass er in den Wald gehe."])
    assert not looks_english([""])


def test_a_text_that_changes_its_topic_drifts_and_one_that_jumps_does_not(space):
    stays = [sentences("sea", seed=seed, number=16) for seed in range(8)]
    changes = [
        sentences("sea", seed=seed, number=8) + " " + sentences("kitchen", seed=seed, number=8) for seed in range(8)
    ]
    jumps = [
        " ".join(sentences(topic, seed=100 * seed + k, number=1) for k in range(6) for topic in TOPICS)
        for seed in range(8)
    ]
    of_stays, of_changes, of_jumps = (topic_figures(texts, space, seed=0) for texts in (stays, changes, jumps))
    assert of_stays["first_to_last"].value > 0.8
    assert abs(of_stays["topic_drift"].value) < 0.05
    assert of_changes["first_to_last"].value < 0.2
    assert of_changes["topic_drift"].value > 0.7
    assert abs(of_jumps["topic_drift"].value) < 0.2
    assert topic_figures(["short text"], space, seed=0) == {"first_to_last": None, "topic_drift": None}


def test_a_text_that_follows_its_prompt_is_like_it(space):
    prompts = [sentences(topic, seed=50, number=2) for topic in TOPICS]
    texts = [sentences(topic, seed=60, number=6) for topic in TOPICS]
    follows = prompt_similarity(prompts, texts, space, seed=0)
    strays = prompt_similarity(prompts, texts[1:] + texts[:1], space, seed=0)
    assert follows.value > 0.8
    assert strays.value < 0.2
    assert prompt_similarity(["", " "], texts[:2], space, seed=0) is None
    half = prompt_similarity(prompts, [texts[0], texts[2], texts[1]], space, seed=0)
    assert half.value == pytest.approx((follows.value + 2 * strays.value) / 3, abs=0.15)


def report_of(model: list[str], human: list[str], **options) -> TextReport:
    sets = {
        "model": TextSet("m", model, ["The king said"] * len(model)),
        "human": TextSet("human", human, ["The king said"] * len(human)),
    }
    return measure_texts(sets, training=None, space=None, copy_words=8, seed=0, **options)


def prose(draw: random.Random, *, length: int, vocabulary: int) -> str:
    common = "the of and to a in that he was into".split()

    def word() -> str:
        return draw.choice(common) if draw.random() < 0.5 else f"w{chr(97 + draw.randrange(vocabulary))}ile"

    return " ".join(" ".join(["And", *(word() for _ in range(length))]) + "." for _ in range(160 // length))


def test_a_poor_vocabulary_and_long_sentences_are_said_in_words():
    draw = random.Random(0)
    human = [prose(draw, length=10, vocabulary=26) for _ in range(30)]
    model = [prose(draw, length=30, vocabulary=2).replace("was", "immediately") for _ in range(30)]
    report = report_of(model, human)
    of_model, of_human = (report.sets[name].figures for name in ("model", "human"))
    assert of_model["words_per_sentence"].value == pytest.approx(31, abs=0.01)
    assert of_human["words_per_sentence"].value == pytest.approx(11, abs=0.01)
    assert of_model["mtld"].value < of_human["mtld"].value / 1.5
    assert of_model["mattr"].value < of_human["mattr"].value - 0.05
    assert of_model["grade_level"].value > of_human["grade_level"].value + 7
    assert report.sets["human"].lengths["words_per_sentence"] == [11.0] * 11
    verdict = " ".join(text_verdict(report, copy_words=8))
    assert "vocabulary is poorer" in verdict
    assert "Harder to read than human text" in verdict


def test_texts_that_are_not_english_have_no_reading_ease_and_that_is_said():
    german = ["Und dann sagte der König zu seiner Tochter, dass er in den Wald gehe. Sie weinte sehr."] * 6
    report = report_of(german, german)
    assert "reading_ease" not in report.sets["model"].figures
    assert report.notes == ["the texts do not look English: readability and grammar errors are left out"]


@pytest.mark.parametrize("words", [12, 200])
def test_few_sentences_and_short_texts_warn(words):
    text = "And the king was in the wood. " * (words // 6)
    warnings = " ".join(quality_warnings(report_of([text] * 8, [text] * 8)))
    assert ("MTLD, MATTR and topic drift need 50 or more" in warnings) == (words == 12)
    assert ("sentences: reading ease" in warnings) == (words == 12)


def test_two_authors_mixed_are_more_varied_than_either_and_copies_are_less():
    draw = random.Random(3)
    one = [[f"a{draw.randrange(60)}" for _ in range(60)] for _ in range(20)]
    other = [[f"b{draw.randrange(60)}" for _ in range(60)] for _ in range(20)]
    mixed = one[:10] + other[:10]
    for n in (1, 2):
        assert distinct_figure(mixed, n, seed=0).value > distinct_figure(one, n, seed=0).value
    # Twice as many words for as much text; all 60 are there in each half.
    assert distinct_figure(mixed, 1, seed=0).value == pytest.approx(2 * distinct_figure(one, 1, seed=0).value)
    copied = one[:10] * 2
    # No pair that the second ten texts do not share with the first.
    assert distinct_figure(copied, 2, seed=0).value == pytest.approx(distinct(one[:10], 2) / 2)
    assert self_bleu_figures(copied, seed=0)["self_bleu"].value == pytest.approx(1.0)
    assert zipf_figures(one, seed=0)["zipf"].value < 0.6  # all words alike


def zipfian_texts(draw: np.random.Generator, *, num_texts: int = 30) -> list[list[str]]:
    """Texts of uneven length that share common words, and each have words of their topic."""
    ranks = 1 / np.arange(1, 2001)
    texts = []
    for _ in range(num_texts):
        topic, size = draw.integers(40), int(draw.integers(60, 140))
        common = draw.choice(2000, p=ranks / ranks.sum(), size=size)
        own = draw.random(size) < draw.uniform(0.05, 0.3)
        texts.append([f"t{topic}_{word % 50}" if mine else f"w{word}" for word, mine in zip(common, own, strict=True)])
    return texts


@pytest.mark.slow
def test_intervals_of_set_figures_cover():
    """1,000 samples of 30 texts; the true value is the mean over them, which is off by a thirtieth of a deviation."""
    found: dict[str, list] = {}
    for repeat in range(1000):
        texts = zipfian_texts(np.random.default_rng([7, repeat]))
        figures = {f"distinct_{n}": distinct_figure(texts, n, seed=repeat) for n in (1, 2, 3)}
        figures |= zipf_figures(texts, seed=repeat)
        figures["once"] = said_once_figure(texts, seed=repeat)
        figures["self_bleu"] = self_bleu_figures(texts, seed=repeat)["self_bleu"]
        for name, figure in figures.items():
            found.setdefault(name, []).append(figure)
    for name, figures in found.items():
        truth = np.mean([figure.value for figure in figures])
        covered = np.mean([figure.interval[0] <= truth <= figure.interval[1] for figure in figures])
        print(f"{name}: {truth:.4f}, covered {covered:.1%}")
        # 1.4 points are two standard errors of the simulation itself.
        assert 0.93 - 0.014 <= covered <= 0.97 + 0.014, name
