"""What the figures say, in words: every sentence carries the figures it rests on."""

from gpt2kit.evaluation.comparison import Comparison
from gpt2kit.evaluation.likelihood import FEWEST_UNITS, Likelihood
from gpt2kit.evaluation.quality_words import quality_verdict, quality_warnings
from gpt2kit.evaluation.statistics import Figure, Interval
from gpt2kit.evaluation.texts import TextFigures, TextReport

FEWEST_TEXTS = 30
FEWEST_WORDS = 2000
# A figure this much off the human one is spoken of; smaller differences are called none.
_MUCH_LESS, _MUCH_MORE = 0.85, 1.15
_RECITES_SHARE = 0.05
_LOOPS_SHARE = 0.05


def likelihood_verdict(own: Likelihood, comparison: Comparison | None, *, other: str) -> list[str]:
    """How well it predicts, and against the other model.

    Args:
        own: the model's likelihood.
        comparison: with the other model, if there is one.
        other: what to call that one, e.g. "its base model gpt2".
    """
    lines = [
        f"Perplexity {own.perplexity:,.2f}{_interval(own.perplexity_interval, digits=2)} on {own.num_tokens:,} "
        f"held-out tokens; {own.bits_per_byte:.3f} bits per byte{_interval(own.bits_per_byte_interval, digits=3)}."
    ]
    if comparison is None:
        return lines
    saved = comparison.bits_per_byte_saved
    if comparison.num_units < 2:
        lines.append(
            f"{saved.value:+.3f} bits per byte saved against {other}; whether that is more than chance cannot be told "
            "from a single stretch of text."
        )
        return lines
    if not comparison.is_clear:
        lines.append(
            f"No clear difference from {other} ({saved.value:+.3f} bits per byte saved"
            f"{_interval(saved.interval, digits=3)})."
        )
        return lines
    better = saved.value > 0
    word = "Better" if better else "WORSE"
    drop = comparison.perplexity_drop
    if drop is None:
        figures = (
            f"{abs(saved.value):.3f} bits per byte {'fewer' if better else 'more'}{_interval(saved.interval, digits=3)}"
        )
    elif better:
        figures = f"perplexity {100 * drop.value:.1f}% lower{_percent(drop.interval)}"
    else:
        # 1 - own/other is negative; said as own/other - 1, how much higher.
        higher = None if drop.interval is None else (-drop.interval[1], -drop.interval[0])
        figures = f"perplexity {-100 * drop.value:.1f}% higher{_percent(higher)}"
    lines.append(f"{word} than {other}: {figures}, on the same text.")
    return lines


def text_verdict(report: TextReport, *, copy_words: int) -> list[str]:
    """Variety, loops, copies, length and coherence of the model's texts, against human text where there is some."""
    model, human = report.sets.get("model"), report.sets.get("human")
    if model is None:
        return []
    lines = [
        *_length(model, human),
        *_variety(model, human),
        *_loops(model, human),
        *_copies(model, human, copy_words=copy_words),
        *_invention(model, human),
        *_coherence(model, human, report.shuffled_coherence),
        *quality_verdict(report),
    ]
    return lines


def warnings_on_size(own: Likelihood, report: TextReport | None) -> list[str]:
    """What is too small to trust."""
    found = []
    if own.num_documents < FEWEST_UNITS:
        found.append(
            f"held-out documents: only {own.num_documents}. The intervals are made over {own.num_units} windows, say "
            "nothing about other documents and are likely too narrow"
        )
    if report is not None and "model" in report.sets:
        model = report.sets["model"]
        if model.num_texts < FEWEST_TEXTS or model.num_words < FEWEST_WORDS:
            found.append(
                f"only {model.num_texts} texts of {model.num_words:,} words in all (better: {FEWEST_TEXTS} and "
                f"{FEWEST_WORDS:,}): the figures on texts are rough; raise --num_samples or --sample_tokens"
            )
        found += quality_warnings(report)
        if "human" in report.sets and report.compared_texts < min(each.num_texts for each in report.sets.values()):
            found.append(
                f"texts left out of the figures on n-grams, because one of the sets has fewer than 8 words there: "
                f"{report.num_left_out}"
            )
    return found


def _length(model: TextFigures, human: TextFigures | None) -> list[str]:
    own, theirs = _value(model, "words_per_text"), _value(human, "words_per_text")
    if own is None:
        return []
    if not theirs or _MUCH_LESS <= own / theirs <= _MUCH_MORE:
        return [f"Its texts are {own:.0f} words long" + (f", as the human ones ({theirs:.0f})." if theirs else ".")]
    word = "shorter" if own < theirs else "longer"
    return [f"Its texts are {word} than the human ones: {own:.0f} words against {theirs:.0f}."]


def _variety(model: TextFigures, human: TextFigures | None) -> list[str]:
    own, theirs = _value(model, "distinct_2"), _value(human, "distinct_2")
    if own is None:
        return []
    if not theirs:
        return [f"{100 * own:.0f}% of its word pairs are different ones (distinct-2)."]
    figures = f"(distinct-2 {own:.3f} against {theirs:.3f})"
    if own / theirs < _MUCH_LESS:
        return [f"Less varied than human text {figures}."]
    if own / theirs > _MUCH_MORE:
        return [f"More varied than human text {figures}: often a sign of words without connection."]
    return [f"About as varied as human text {figures}."]


def _loops(model: TextFigures, human: TextFigures | None) -> list[str]:
    looping, repeated = _value(model, "looping_texts"), _value(model, "rep_4")
    usual, usually_looping = _value(human, "rep_4"), _value(human, "looping_texts")
    lines = []
    if looping is not None and looping > (usually_looping or 0.0) + _LOOPS_SHARE:
        beside = "" if usually_looping is None else f" (human: {100 * usually_looping:.0f}%)"
        lines.append(
            f"REPEATS ITSELF: {100 * looping:.0f}% of its texts fall into a loop{beside}. A higher temperature, top_p, "
            "or a repetition penalty helps."
        )
    if repeated is not None and repeated > (usual or 0.0) + _LOOPS_SHARE:
        beside = "" if usual is None else f" (human: {100 * usual:.1f}%)"
        lines.append(
            f"Says again what it said: {100 * repeated:.1f}% of the four-word runs of a text stand in it before"
            f"{beside}."
        )
    return lines or ["It does not repeat itself more than humans do."] * (repeated is not None and human is not None)


def _copies(model: TextFigures, human: TextFigures | None, *, copy_words: int) -> list[str]:
    own, theirs = _value(model, "copied"), _value(human, "copied")
    if own is None:
        return []
    longest = model.matches[0] if model.matches else None
    where = ""
    if longest is not None:
        place = ", ".join(part for part in (longest.source, longest.place) if part)
        where = f"; the longest copy is {longest.num_words} words, from {place}"
    figures = f"{100 * own:.1f}% of its words stand in runs of {copy_words} or more copied from the training text"
    if theirs is not None:
        figures += f" (human held-out text: {100 * theirs:.1f}%)"
    if own > _RECITES_SHARE + (theirs or 0.0):
        return [f"RECITES: {figures}{where}. Train for fewer epochs, or on more text."]
    return [f"No sign of reciting: {figures}{where}."]


def _invention(model: TextFigures, human: TextFigures | None) -> list[str]:
    """Only where it stands out: human text has new words too."""
    if human is None or "unseen_words" not in model.figures or "unseen_words" not in human.figures:
        return []
    own, theirs = model.figures["unseen_words"], human.figures["unseen_words"]
    if own.value <= _MUCH_MORE * theirs.value or _overlap(own, theirs):
        return []
    return [
        f"Makes up words: {100 * own.value:.1f}% of its words are not in the training text "
        f"(human: {100 * theirs.value:.1f}%)."
    ]


def _coherence(model: TextFigures, human: TextFigures | None, floor: Figure | None) -> list[str]:
    own, theirs = _value(model, "coherence"), _value(human, "coherence")
    if own is None or theirs is None or floor is None:
        return []
    figures = f"(neighbouring sentences {own:.3f}; human {theirs:.3f}, human sentences shuffled {floor.value:.3f})"
    if theirs <= floor.value:
        return [f"Coherence says nothing here: human text does not come out above shuffled sentences {figures}."]
    if human is not None and _overlap(model.figures["coherence"], human.figures["coherence"]):
        return [f"Its sentences hang together about as well as a human's {figures}."]
    position = (own - floor.value) / (theirs - floor.value)
    if position > 1:
        return [f"Its sentences are more alike than a human's {figures}: read whether it dwells on one thing."]
    how = "little" if position < 0.5 else "less well than a human's"
    return [f"Its sentences hang together {how} {figures}."]


def _overlap(one: Figure, other: Figure) -> bool:
    """Whether their difference may be chance: the intervals of two figures overlap, or are not known."""
    if one.interval is None or other.interval is None:
        return True
    return one.interval[0] <= other.interval[1] and other.interval[0] <= one.interval[1]


def _value(figures: TextFigures | None, name: str) -> float | None:
    figure = None if figures is None else figures.figures.get(name)
    return None if figure is None else figure.value


def _interval(interval: Interval | None, *, digits: int) -> str:
    return "" if interval is None else f" (95% interval {interval[0]:,.{digits}f} to {interval[1]:,.{digits}f})"


def _percent(interval: Interval | None) -> str:
    return "" if interval is None else f" (95% interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f})"
