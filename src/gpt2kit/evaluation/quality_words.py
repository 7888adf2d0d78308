"""What vocabulary, reading ease, topic, MAUVE and grammar say in words: only where the model's texts stand out."""

from gpt2kit.evaluation.differences import MUCH_LESS, MUCH_MORE, overlap
from gpt2kit.evaluation.mauve import FEWEST_MAUVE_TEXTS
from gpt2kit.evaluation.statistics import Figure
from gpt2kit.evaluation.texts import TextFigures, TextReport

FEWEST_SENTENCES = 100
FEWEST_LONG_WORDS = 50
_RANDOM_VARIETY = 3.0  # times the human MTLD: no writer comes near it
_GRADES = 2.0
_ENDLESS = 3.0  # times the human words a sentence: verse, lists, or no full stops
_MAUVE_GAP = 0.1
_DRIFT = 0.05


def quality_verdict(report: TextReport) -> list[str]:
    """Sentences on the figures whose interval does not overlap the human one's, and that are well off it."""
    model, human = report.sets.get("model"), report.sets.get("human")
    if model is None or human is None:
        return []
    return [
        *_vocabulary(model, human),
        *_reading(model, human),
        *_topic(model, human, report.floors),
        *_mauve(model, human),
        *_grammar(model, human),
    ]


def quality_warnings(report: TextReport) -> list[str]:
    """Which of these figures are made of too little."""
    model = report.sets.get("model")
    if model is None:
        return []
    found = []
    sentences, words = model.num_sentences, model.num_words
    if "words_per_sentence" in model.figures and sentences < FEWEST_SENTENCES:
        found.append(f"{sentences} sentences: reading ease and words a sentence are rough below {FEWEST_SENTENCES}")
    if words and words / model.num_texts < FEWEST_LONG_WORDS:
        found.append(
            f"texts of {words / model.num_texts:.0f} words on average: MTLD, MATTR and topic drift need "
            f"{FEWEST_LONG_WORDS} or more; raise --sample_tokens"
        )
    if "mauve" in model.figures and model.num_texts < FEWEST_MAUVE_TEXTS:
        found.append(
            f"MAUVE of {model.num_texts} texts is rough (better: {FEWEST_MAUVE_TEXTS}; the paper takes 5,000); raise "
            "--num_samples"
        )
    return found


def _vocabulary(model: TextFigures, human: TextFigures) -> list[str]:
    pair = _apart(model, human, "mtld")
    if pair is None or MUCH_LESS <= pair[0] / max(pair[1], 1e-9) <= MUCH_MORE:
        return []
    if pair[0] > _RANDOM_VARIETY * pair[1]:
        return [
            f"Its words hardly come again (MTLD {pair[0]:,.0f} against {pair[1]:.0f}): a sign of words without "
            "connection, not of a rich vocabulary."
        ]
    word = "poorer" if pair[0] < pair[1] else "richer"
    return [f"Its vocabulary is {word} than the human one (MTLD {pair[0]:.0f} against {pair[1]:.0f})."]


def _reading(model: TextFigures, human: TextFigures) -> list[str]:
    sentences = _apart(model, human, "words_per_sentence")
    if sentences is not None and sentences[0] > _ENDLESS * sentences[1]:
        return [
            f"Hardly ends a sentence ({sentences[0]:.0f} words to one against {sentences[1]:.0f}): reading ease and "
            "school grade say nothing of such texts."
        ]
    pair = _apart(model, human, "grade_level")
    if pair is None or abs(pair[0] - pair[1]) < _GRADES:
        return []
    word = "Easier" if pair[0] < pair[1] else "Harder"
    return [f"{word} to read than human text (school grade {pair[0]:.1f} against {pair[1]:.1f})."]


def _topic(model: TextFigures, human: TextFigures, floors: dict[str, Figure]) -> list[str]:
    lines = []
    pair, floor = _apart(model, human, "prompt_similarity"), floors.get("prompt_similarity")
    if pair is not None and floor is not None and pair[0] < pair[1] and pair[1] > floor.value:
        lines.append(
            f"Follows its prompt less than human text does (similarity {pair[0]:.3f}; human {pair[1]:.3f}, prompts "
            f"with other texts {floor.value:.3f})."
        )
    pair, ends = _apart(model, human, "topic_drift"), _apart(model, human, "first_to_last")
    # A text that repeats a passage early has a drift too, without ending elsewhere.
    if pair is not None and ends is not None and pair[0] > pair[1] + _DRIFT and ends[0] < ends[1]:
        lines.append(
            f"Leaves its topic: loses {pair[0]:.3f} of similarity on the way (human: {pair[1]:.3f}), and its end is "
            f"less like its beginning (similarity {ends[0]:.3f}; human {ends[1]:.3f})."
        )
    return lines


def _mauve(model: TextFigures, human: TextFigures) -> list[str]:
    own, most = model.figures.get("mauve_halves"), human.figures.get("mauve_halves")
    if own is None or most is None:
        return []
    if own.value > most.value - _MAUVE_GAP:
        return [
            f"MAUVE sees little difference from human text ({own.value:.2f}, human text against human text "
            f"{most.value:.2f}). That is no proof of quality: to a small reader, words in random order look nearly as "
            "good."
        ]
    return [
        f"A model that reads them tells its texts from human ones: MAUVE {own.value:.2f}, human text against human "
        f"text {most.value:.2f}."
    ]


def _grammar(model: TextFigures, human: TextFigures) -> list[str]:
    pair = _apart(model, human, "grammar_errors")
    if pair is None or pair[0] <= MUCH_MORE * pair[1]:
        return []
    return [f"More grammar errors than human text: {pair[0]:.1f} in 1,000 words against {pair[1]:.1f}."]


def _apart(model: TextFigures, human: TextFigures, name: str) -> tuple[float, float] | None:
    """The model's and the human figure, when both have intervals and these do not overlap."""
    own, theirs = model.figures.get(name), human.figures.get(name)
    if own is None or theirs is None or own.interval is None or theirs.interval is None or overlap(own, theirs):
        return None
    return own.value, theirs.value
