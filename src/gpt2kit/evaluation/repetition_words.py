"""What variety and repetition of texts say in words: among texts, and within a text."""

from gpt2kit.evaluation.differences import MUCH_MORE, is_above, judge, overlap
from gpt2kit.evaluation.statistics import Figure
from gpt2kit.evaluation.texts import Metric, TextFigures

_SHARE = Metric("", "", is_share=True)
_LOOPS_SHARE = 0.05  # of texts, more than humans
_ALIKE_SHARE = 0.05  # likewise
_REPEATED_SHARE = 0.02  # of the pairs or four-word runs of a text, more than in human ones
_REPEATED_ALONE = 0.05  # of four-word runs, where there is no human text; of pairs, that says nothing
_RUNS = {"rep_2": "word pairs", "rep_4": "four-word runs"}


def variety_words(model: TextFigures, human: TextFigures | None, *, is_enough: bool) -> list[str]:
    """How much the texts differ from each other.

    Args:
        model: the model's figures.
        human: the human ones; None where they do not compare.
        is_enough: whether there are texts enough to call them alike.
    """
    own = model.figures.get("distinct_2")
    lines = _one_text(model, human)
    if own is None:
        return lines
    theirs = None if human is None else human.figures.get("distinct_2")
    if theirs is None:
        return [*lines, f"{100 * own.value:.0f}% of its word pairs are different ones (distinct-2)."]
    figures = f"(distinct-2 {own.value:.3f} against {theirs.value:.3f})"
    said = {
        "less": f"Less varied than human text {figures}.",
        "more": f"More varied than human text {figures}: often a sign of words without connection.",
        "alike": f"About as varied as human text {figures}.",
        "unclear": f"From so few texts it cannot be told whether it is as varied as human text {figures}.",
    }
    return [*lines, said[judge(own, theirs, is_enough=is_enough)]]


def _one_text(model: TextFigures, human: TextFigures | None) -> list[str]:
    """Texts that are one another, or much alike."""
    own, same = model.figures.get("self_bleu"), model.figures.get("alike_texts")
    if own is None or same is None:
        return []
    theirs = None if human is None else human.figures.get("self_bleu")
    usual = None if human is None else human.figures.get("alike_texts")
    beside = "" if theirs is None else f" against {theirs.value:.3f}"
    if is_above(same, usual, by=_ALIKE_SHARE):
        of_humans = "" if usual is None else f" (human: {_percent(usual)})"
        return [
            f"WRITES ONE TEXT AGAIN: {_percent(same)} of its texts are copies of another one of them, or nearly"
            f"{of_humans}; self-BLEU {own.value:.3f}{beside}. A higher temperature helps."
        ]
    if theirs is not None and own.value > MUCH_MORE * theirs.value and not overlap(own, theirs):
        return [f"Its texts are more like each other than human ones are (self-BLEU {own.value:.3f}{beside})."]
    return []


def loops_words(model: TextFigures, human: TextFigures | None, *, is_comparable: bool = True) -> list[str]:
    """How much a text repeats itself.

    Args:
        model: the model's figures.
        human: the human ones; None where they do not compare.
        is_comparable: whether the figures on n-grams are made of five texts or more.
    """
    found = [*_loops(model, human), *_said_again(model, human, is_enough=is_comparable)]
    if found or human is None:
        return found
    own, theirs = model.figures, human.figures
    if not {*_RUNS, "looping_texts"} <= own.keys() & theirs.keys():
        return []
    runs = (
        f"{what} said before {_percent(own[name])} (human: {_percent(theirs[name])})" for name, what in _RUNS.items()
    )
    loops = f"texts with a loop {_percent(own['looping_texts'])} (human: {_percent(theirs['looping_texts'])})"
    return [f"Not clearly more repetition within a text than in human ones: {', '.join(runs)}, {loops}."]


def _loops(model: TextFigures, human: TextFigures | None) -> list[str]:
    own = model.figures.get("looping_texts")
    theirs = None if human is None else human.figures.get("looping_texts")
    if own is None or own.value <= (0.0 if theirs is None else theirs.value) + _LOOPS_SHARE:
        return []
    beside = "" if theirs is None else f" (human: {_percent(theirs)})"
    figures = f"{_percent(own)} of its texts fall into a loop{beside}"
    if is_above(own, theirs, by=_LOOPS_SHARE):
        return [f"REPEATS ITSELF: {figures}. A higher temperature, top_p, or a repetition penalty helps."]
    return [f"Whether it repeats itself is unclear from so few texts: {figures}."]


def _said_again(model: TextFigures, human: TextFigures | None, *, is_enough: bool) -> list[str]:
    parts = []
    for name, what in _RUNS.items():
        own, theirs = model.figures.get(name), None if human is None else human.figures.get(name)
        if own is None or (theirs is None and name == "rep_2"):
            continue
        least = _REPEATED_ALONE if theirs is None else _REPEATED_SHARE
        if is_above(own, theirs, by=least, is_enough=is_enough):
            parts.append(f"{_percent(own)} of the {what}" + ("" if theirs is None else f" (human: {_percent(theirs)})"))
    return [f"Says again what it said: {' and '.join(parts)} of a text stand in it before."] if parts else []


def _percent(figure: Figure) -> str:
    return _SHARE.show(Figure(figure.value))
