"""Sets of texts side by side: planted loops, copies and shuffles move each figure the right way, and by how much."""

import random

import pytest

from gpt2kit.errors import DataError, MissingExtraError
from gpt2kit.evaluation.coherence import SentenceSpace, coherence, passages, shuffled
from gpt2kit.evaluation.memorisation import TrainingText
from gpt2kit.evaluation.texts import TextReport, TextSet, cut_alike, measure_texts
from gpt2kit.evaluation.verdict import text_verdict
from gpt2kit.evaluation.words import split_sentences, split_words

TOPICS = {
    "sea": "ship sail captain storm wave harbour sailor anchor island whale".split(),
    "kitchen": "soup bread oven butter cook spoon kettle flour onion plate".split(),
    "war": "soldier sword battle army general fort cannon siege enemy shield".split(),
    "garden": "rose apple tree seed spade gardener bee blossom hedge root".split(),
}


def passage(topic: str, *, seed: int, sentences: int = 12) -> str:
    draw = random.Random(f"{topic}{seed}")
    common = ["the", "and", "a", "near", "with", "of"]
    said = [[draw.choice(TOPICS[topic] + common) for _ in range(11)] for _ in range(sentences)]
    return " ".join(" ".join(["Then", *words]) + "." for words in said)


TRAINING = [passage(topic, seed=seed) for topic in TOPICS for seed in range(15)]
HUMAN = [passage(topic, seed=seed) for topic in TOPICS for seed in range(100, 110)]


@pytest.fixture(scope="module")
def space() -> SentenceSpace:
    pytest.importorskip("sklearn")
    return SentenceSpace(passages(TRAINING, max_characters=10**6), seed=0)


def measure(model: list[str], space: SentenceSpace | None = None) -> TextReport:
    sets = {
        "model": TextSet("m", model, [""] * len(model), ended=[True] * len(model)),
        "human": TextSet("human", HUMAN, [""] * len(HUMAN)),
    }
    training = [TrainingText(text, f"{number}.txt") for number, text in enumerate(TRAINING)]
    return measure_texts(sets, training=lambda: training, space=space, copy_words=8, seed=0)


def value(report: TextReport, name: str, *, of: str = "model") -> float:
    return report.sets[of].figures[name].value


def test_texts_like_human_ones_get_human_figures_and_a_calm_verdict(space):
    report = measure([passage(topic, seed=seed) for topic in TOPICS for seed in range(200, 210)], space)
    for name in ("words_per_text", "distinct_1", "distinct_2", "distinct_3", "self_bleu", "coherence"):
        assert value(report, name) == pytest.approx(value(report, name, of="human"), rel=0.15)
    for name in ("looping_texts", "words_in_loops", "copied", "copied_13"):
        assert value(report, name) == 0
    verdict = " ".join(text_verdict(report, copy_words=8))
    assert "About as varied" in verdict
    assert "Not clearly more repetition" in verdict
    assert "No sign of reciting" in verdict
    assert "cannot be told from human text" in verdict


def test_loops_are_measured_by_their_share():
    model = list(HUMAN)
    model[:10] = ["so they went on and on and came to the wood again. " * 12] * 10
    report = measure(model)
    assert value(report, "looping_texts") == 10 / 40
    assert value(report, "rep_4") > 0.2
    assert value(report, "distinct_2") < 0.85 * value(report, "distinct_2", of="human")
    verdict = " ".join(text_verdict(report, copy_words=8))
    assert "REPEATS ITSELF: 25.0% of its texts" in verdict
    assert "Less varied than human text" in verdict


def test_copies_are_measured_by_their_share_and_named():
    recited = TRAINING[7].split()[:60]
    model = [" ".join(recited + f"Then {text}".split()[:60]) for text in HUMAN]
    report = measure(model)
    # 60 of 120 words of every text; a chance hit at the seam may add a word
    assert value(report, "copied") == pytest.approx(0.5, abs=0.01)
    assert value(report, "longest_copy_words") == pytest.approx(60, abs=1)
    assert report.sets["model"].copied_by_length[50] == pytest.approx(0.5, abs=0.01)
    assert report.sets["model"].copied_by_length[100] == 0
    best = report.sets["model"].matches[0]
    assert (best.source, best.first_word) == ("7.txt", 0)
    assert [match.text_index for match in report.sets["model"].matches] == sorted(
        match.text_index for match in report.sets["model"].matches
    )
    [sentence] = [line for line in text_verdict(report, copy_words=8) if "RECITES" in line]
    assert "from 7.txt" in sentence
    assert "Train for fewer epochs" in sentence
    assert "epochs" not in " ".join(text_verdict(report, copy_words=8, epochs=1.0))
    assert "0.0%" in sentence  # the human text beside it


def test_one_text_among_empty_ones_is_no_alarm():
    recited = " ".join(TRAINING[7].split()[:60])
    alone = " ".join(text_verdict(measure([recited, *[""] * 39]), copy_words=8))
    assert "Whether it recites is unclear from so few texts: 100.0%" in alone
    assert "RECITES" not in alone
    assert "RECITES: 100.0%" in " ".join(text_verdict(measure([recited] * 5 + [""] * 35), copy_words=8))
    again = " ".join(text_verdict(measure(["and on they went " * 5, *[""] * 39]), copy_words=8))
    assert "Says again" not in again
    invented = " ".join(text_verdict(measure(["Blurgh.", *[""] * 39]), copy_words=8))
    assert "Makes up words" not in invented


def test_shuffled_sentences_are_the_lower_mark(space):
    topics = [passage(topic, seed=1).split(". ") for topic in TOPICS]
    mixed = coherence(shuffled(topics, seed=0), space, seed=0)
    whole = coherence(topics, space, seed=0)
    assert whole.figure.value > mixed.figure.value + 0.3
    report = measure([" ".join(text) for text in shuffled([split_sentences(text) for text in HUMAN], seed=1)], space)
    assert value(report, "coherence") == pytest.approx(report.shuffled_coherence.value, abs=0.1)
    assert any("hang together little" in line for line in text_verdict(report, copy_words=8))


def test_shuffling_keeps_every_sentence_and_every_length():
    texts = [["a", "b"], ["c"], [], ["d", "e", "f"]]
    dealt = shuffled(texts, seed=3)
    assert [len(text) for text in dealt] == [2, 1, 0, 3]
    assert sorted(sentence for text in dealt for sentence in text) == list("abcdef")
    assert shuffled(texts, seed=3) == dealt


def test_a_text_that_says_one_thing_is_most_alike(space):
    found = coherence([["The ship met the storm."] * 5], space, seed=0)
    assert found.figure.value == pytest.approx(1.0)
    assert (found.num_pairs, found.num_texts) == (4, 1)
    assert coherence([["One."], []], space, seed=0) is None
    assert coherence([["Xyzzy.", "Plugh."]], space, seed=0) is None


def test_too_little_training_text_for_a_space():
    pytest.importorskip("sklearn")
    with pytest.raises(DataError, match="needs 20 passages"):
        SentenceSpace(["A passage."], seed=0)
    with pytest.raises(DataError, match="no word occurs in two passages"):
        SentenceSpace([f"w{number}" for number in range(30)], seed=0)


def test_a_missing_scikit_learn_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'gpt2kit\[metrics\]'"):
        SentenceSpace(TRAINING, seed=0)


def test_cutting_alike_makes_equal_lengths_and_counts_what_is_too_short():
    cut = cut_alike({"a": ["x " * 20, "y " * 9, "z " * 50], "b": ["u " * 10, "v " * 3, "w " * 60, "more " * 9]})
    assert [len(words) for words in cut.sets["a"]] == [len(words) for words in cut.sets["b"]] == [10, 50]
    assert (cut.num_texts, cut.num_words, cut.num_left_out) == (2, 60, 1)


def test_no_texts_at_all():
    report = measure_texts({"model": TextSet("m", [""], [""])}, training=None, space=None, copy_words=8, seed=0)
    assert report.compared_texts == 0
    assert "distinct_1" not in report.sets["model"].figures
    assert text_verdict(report, copy_words=8) == ["Its texts are 0 words long."]


def test_marks_belong_to_their_letters_and_underscores_to_no_word():
    assert split_words("हिन्दी, e\u0301te\u0301 _very_ don't") == ["हिन्दी", ",", "e\u0301te\u0301", "very", "don't"]
