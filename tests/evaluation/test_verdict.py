"""The verdict in words: what is said follows from the figures, and nothing is said that they do not show."""

import pytest

from gpt2kit.evaluation.likelihood import Likelihood
from gpt2kit.evaluation.statistics import Figure
from gpt2kit.evaluation.texts import TextFigures, TextReport, TextSet, measure_texts
from gpt2kit.evaluation.verdict import text_verdict, warnings_on_size


def figures(*, num_texts: int = 40, num_cut: int | None = 0, num_sources: int = 40, **found: object) -> TextFigures:
    """A set with some figures: a value, or a value with the ends of its interval."""
    made = {}
    for name, value in found.items():
        made[name] = Figure(value) if isinstance(value, (int, float)) else Figure(value[0], tuple(value[1:]))
    return TextFigures("m", num_texts, 100 * num_texts, 10 * num_texts, made, {}, [], num_cut, num_sources)


def verdict(model: TextFigures, human: TextFigures, *, compared: int = 40, **floors: float) -> str:
    marks = {name: Figure(value) for name, value in floors.items()}
    report = TextReport({"model": model, "human": human}, compared, 100 * compared, 0, marks)
    return " ".join(text_verdict(report, copy_words=8))


@pytest.mark.parametrize(
    ("own", "theirs", "said"),
    [
        ((0.30, 0.25, 0.35), (0.32, 0.28, 0.36), "cannot be told from human text (neighbouring"),
        ((0.40, 0.30, 0.45), 0.42, "cannot be told from so few pairs"),
        (0.40, (0.42, 0.40, 0.44), "cannot be told from so few pairs"),
        (-0.073, 0.35, "no better than sentences in random order"),
        ((0.19, 0.1, 0.4), (0.35, 0.3, 0.4), "no better than sentences in random order"),
        ((0.22, 0.2, 0.24), (0.35, 0.3, 0.4), "hang together little"),
        ((0.30, 0.28, 0.32), (0.38, 0.35, 0.4), "less well than a human's"),
        ((0.50, 0.48, 0.52), (0.38, 0.35, 0.4), "more alike than a human's"),
        ((0.50, 0.48, 0.52), (0.18, 0.15, 0.2), "says nothing here"),
    ],
)
def test_coherence_is_called_alike_only_where_nothing_else_is_known(own, theirs, said):
    found = verdict(figures(coherence=own), figures(coherence=theirs), coherence=0.190)
    assert said in found
    assert "about as well" not in found


def test_few_texts_are_not_set_against_human_ones():
    own = {"words_per_text": 100, "distinct_2": 0.8, "copied": 0.0, "coherence": 0.4, "rep_4": 0.0, "rep_2": 0.0}
    found = verdict(figures(**own), figures(num_texts=1, **own), compared=1, coherence=0.1)
    assert "too few texts: 40 of its own, 1 human" in found
    for word in ("as the human", "as varied", "repetition", "hang together"):
        assert word not in found
    of_pairs = verdict(figures(**own), figures(**own), compared=4)
    assert "only 4 places have texts of 8 words" in of_pairs
    assert "as varied" not in of_pairs
    assert "about as the human ones" in of_pairs
    some = verdict(figures(**own), figures(num_texts=17, **own), compared=17)
    assert "From so few texts it cannot be told whether it is as varied" in some
    assert "human ones 100: from so few texts no difference can be told" in some


def test_what_is_too_small_to_trust_is_said_of_humans_and_of_pairs_too():
    measured = Likelihood(10.0, 10.0, 1.0, None, None, 1.0, 100, 100, 50, "document", 50, 1.0, [])
    sets = {"model": figures(), "human": figures(num_texts=17, num_sources=1)}
    warnings = " ".join(warnings_on_size(measured, TextReport(sets, 15, 1500, 2)))
    assert "only 17 human texts of 1,700 words" in warnings
    assert "only the first 17 texts of each set" in warnings
    assert "because one of the sets has fewer than 8 words there: 2; 15 are compared" in warnings
    assert "all 17 human texts come from one document" in warnings
    both = {"model": figures(num_texts=17), "human": figures(num_texts=17)}
    assert [line[:13] for line in warnings_on_size(measured, TextReport(both, 17, 1700, 0))] == ["only 17 texts"]
    enough = TextReport({"model": figures(), "human": figures()}, 40, 4000, 0)
    assert warnings_on_size(measured, enough) == []


@pytest.mark.parametrize(
    ("model", "human", "said"),
    [
        ({"num_cut": 39}, {"num_cut": 40}, "150 words long; a limit cut off 39 of 40, so this is no length of its own"),
        ({"num_cut": None}, {"num_cut": 40}, "150 words long."),
        ({"num_cut": 0}, {"num_cut": 40}, "the human ones were cut (150 words) and go on, so lengths do not compare"),
        ({"num_cut": 0}, {"num_cut": 0}, "about as the human ones (150)"),
    ],
)
def test_a_length_that_a_limit_made_is_not_compared(model, human, said):
    found = verdict(figures(words_per_text=150, **model), figures(words_per_text=150, **human))
    assert found.startswith("Its texts are")
    assert said in found


def test_longer_and_shorter_texts():
    human = figures(words_per_text=(100, 95, 105))
    assert "shorter than the human ones: 50 words against 100" in verdict(figures(words_per_text=(50, 45, 55)), human)
    assert "longer than the human ones: 150" in verdict(figures(words_per_text=(150, 120, 180)), human)
    assert "no difference can be told" in verdict(figures(words_per_text=(150, 90, 180)), human)


def test_reciting_is_an_alarm_only_where_the_difference_is_clear():
    human = figures(copied=(0.04, 0.0, 0.132))
    unclear = verdict(figures(copied=(0.109, 0.025, 0.225)), human)
    assert "RECITES" not in unclear
    assert "Whether it recites is unclear from so few texts: 10.9% (95% interval 2.5 to 22.5) of its words" in unclear
    assert "human held-out text: 4.0% (95% interval 0.0 to 13.2)" in unclear
    assert "RECITES: 30.0% of its words" in verdict(figures(copied=(0.3, 0.2, 0.4)), human)
    assert "RECITES: 100.0%" in verdict(figures(copied=1.0), figures(copied=0.0))  # all texts alike: no interval
    assert "No sign of reciting" in verdict(figures(copied=(0.05, 0.0, 0.2)), human)


def test_repetition_is_worded_by_what_was_measured():
    calm = {"rep_2": (0.056, 0.038, 0.074), "rep_4": 0.0, "looping_texts": (0.0, 0.0, 0.088)}
    human = figures(**calm)
    often = verdict(figures(**calm | {"rep_2": (0.145, 0.101, 0.207)}), human)
    assert "Says again what it said: 14.5% of the word pairs (human: 5.6%) of a text stand in it before" in often
    assert "Not clearly more repetition" not in often
    alike = verdict(human, human)
    assert "word pairs said before 5.6% (human: 5.6%), four-word runs said before 0.0%" in alike
    assert "than humans do" not in alike
    loops = verdict(figures(**calm | {"looping_texts": (0.25, 0.14, 0.4)}), human)
    assert "REPEATS ITSELF: 25.0% of its texts fall into a loop (human: 0.0%)" in loops
    some = verdict(figures(**calm | {"looping_texts": (0.075, 0.03, 0.2)}), human)
    assert "Whether it repeats itself is unclear from so few texts: 7.5%" in some


def test_texts_that_are_one_text_are_named():
    text = "Once upon a time there was a king who had a golden bird that sang in the wood at night."
    words = text.split()
    human = [" ".join(f"w{number}x{place}" for place in range(20 + number % 3)) for number in range(40)]

    def measure(model: list[str]) -> TextReport:
        sets = {"model": TextSet("m", model, [""] * 40), "human": TextSet("human", human, [""] * 40)}
        return measure_texts(sets, training=None, space=None, copy_words=8, seed=0)

    one = measure([text] * 40)
    found = " ".join(text_verdict(one, copy_words=8))
    assert (
        "WRITES ONE TEXT AGAIN: 100.0% of its texts are copies of another one of them, or nearly (human: 0.0%)" in found
    )
    assert one.sets["model"].figures["self_bleu"].value > 0.95
    assert "against 0.000. A higher temperature helps" in found
    # Cut to the human lengths, the text differs in length only: nothing is known of how far the figures vary.
    assert one.sets["model"].figures["distinct_1"].interval is None
    nearly = measure([" ".join([*words[:-1], f"night{number}"]) for number in range(40)])
    assert nearly.sets["model"].figures["alike_texts"].value == 1.0
    assert "WRITES ONE TEXT AGAIN" in " ".join(text_verdict(nearly, copy_words=8))
    assert measure(human).sets["model"].figures["alike_texts"].value == 0.0
    more = verdict(
        figures(self_bleu=(0.4, 0.35, 0.45), alike_texts=0.0), figures(self_bleu=(0.2, 0.18, 0.22), alike_texts=0.0)
    )
    assert "more like each other than human ones are (self-BLEU 0.400 against 0.200)" in more


def test_a_repetition_early_in_a_text_is_not_called_leaving_the_topic():
    human = figures(topic_drift=(0.01, -0.02, 0.04), first_to_last=(0.374, 0.33, 0.41))
    planted = figures(topic_drift=(0.214, 0.17, 0.25), first_to_last=(0.367, 0.33, 0.40))
    assert "Leaves its topic" not in verdict(planted, human)
    leaves = figures(topic_drift=(0.214, 0.17, 0.25), first_to_last=(0.12, 0.08, 0.16))
    assert "its end is less like its beginning (similarity 0.120; human 0.374)" in verdict(leaves, human)


def test_mauve_near_human_text_is_no_silent_praise():
    found = verdict(figures(mauve_halves=0.90), figures(mauve_halves=0.97))
    assert "MAUVE sees little difference" in found
    assert "no proof of quality" in found
    assert "tells its texts from human ones" in verdict(figures(mauve_halves=0.5), figures(mauve_halves=0.97))


def test_random_letters_have_no_rich_vocabulary_and_endless_sentences_no_grade():
    human = figures(mtld=(70, 60, 80), words_per_sentence=(18, 16, 20), grade_level=(6, 5, 7))
    found = verdict(
        figures(mtld=(18_293, 9_000, 20_000), words_per_sentence=(88, 70, 99), grade_level=(35.6, 30, 40)), human
    )
    assert "words hardly come again (MTLD 18,293 against 70)" in found
    assert "richer" not in found
    assert "Hardly ends a sentence (88 words to one against 18)" in found
    assert "Harder to read" not in found


def test_readability_is_left_out_of_each_set_that_is_not_english():
    english = ["And the king said to his daughter that he was going to the wood. She wept in the night."] * 8
    french = ["Le roi dit alors à sa fille qu'il partait pour la forêt. Elle pleura longtemps cette nuit."] * 8
    sets = {"model": TextSet("french", french, [""] * 8), "human": TextSet("human", english, [""] * 8)}
    report = measure_texts(sets, training=None, space=None, copy_words=8, seed=0)
    assert "reading_ease" not in report.sets["model"].figures
    assert "reading_ease" in report.sets["human"].figures
    assert report.notes == ["the texts of french do not look English: readability and grammar errors are left out"]


def test_words_of_a_text_are_no_punctuation_marks():
    sets = {"model": TextSet("m", ["One, two; three!"] * 6, [""] * 6)}
    of_model = measure_texts(sets, training=None, space=None, copy_words=8, seed=0).sets["model"]
    assert (of_model.figures["words_per_text"].value, of_model.num_words) == (3, 18)
    assert of_model.lengths["words_per_text"] == [3.0] * 11
