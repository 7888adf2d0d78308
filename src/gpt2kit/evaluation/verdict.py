"""What the figures say, in words: every sentence carries the figures it rests on."""

from gpt2kit.evaluation.comparison import Comparison
from gpt2kit.evaluation.differences import FEWEST_COMPARED, MUCH_MORE, is_above, judge, overlap
from gpt2kit.evaluation.likelihood import FEWEST_UNITS, Likelihood
from gpt2kit.evaluation.memory_words import remedy_for
from gpt2kit.evaluation.quality_words import quality_verdict, quality_warnings
from gpt2kit.evaluation.repetition_words import loops_words, variety_words
from gpt2kit.evaluation.statistics import Figure, Interval, number_text
from gpt2kit.evaluation.texts import SHORTEST_COMPARED_WORDS, TextFigures, TextReport

FEWEST_TEXTS = 30
FEWEST_WORDS = 2000
_RECITES_SHARE = 0.05
_MOSTLY = 0.5  # of the texts cut by a limit: their mean length is the limit's


def likelihood_verdict(own: Likelihood, comparison: Comparison | None, *, other: str) -> list[str]:
    """How well it predicts, and against the other model.

    Args:
        own: the model's likelihood.
        comparison: with the other model, if there is one.
        other: what to call that one, e.g. "its base model gpt2".
    """
    lines = [
        f"Perplexity {number_text(own.perplexity, digits=2)}{_interval(own.perplexity_interval, digits=2)} on "
        f"{own.num_tokens:,} held-out tokens; {own.bits_per_byte:.3f} bits per byte"
        f"{_interval(own.bits_per_byte_interval, digits=3)}."
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
        figures = f"perplexity {number_text(-100 * drop.value, digits=1)}% higher{_percent(higher)}"
    lines.append(f"{word} than {other}: {figures}, on the same text.")
    return lines


def text_verdict(report: TextReport, *, copy_words: int, epochs: float | None = None) -> list[str]:
    """Variety, loops, copies, length and coherence of the model's texts, against human text where there is enough.

    Args:
        report: the figures.
        copy_words: the shortest run that counts as copied.
        epochs: how often the model read its training text, if that is known.
    """
    model, human = report.sets.get("model"), report.sets.get("human")
    if model is None:
        return []
    lines = _why_not_compared(report)
    if human is not None and min(model.num_texts, human.num_texts) < FEWEST_COMPARED:
        human = None
    # Figures on n-grams are made of the places where all sets have a text.
    beside = human if report.compared_texts >= FEWEST_COMPARED else None
    return [
        *lines,
        *_length(model, human),
        *variety_words(model, beside, is_enough=report.compared_texts >= FEWEST_TEXTS),
        *loops_words(model, beside, is_comparable=report.compared_texts >= FEWEST_COMPARED),
        *_copies(model, human, copy_words=copy_words, epochs=epochs),
        *_invention(model, human),
        *_coherence(model, human, report.shuffled_coherence),
        *quality_verdict(report),
    ]


def warnings_on_size(own: Likelihood, report: TextReport | None) -> list[str]:
    """What is too small to trust."""
    found = []
    if own.num_documents < FEWEST_UNITS:
        found.append(
            f"held-out documents: only {own.num_documents}. The intervals are made over {own.num_units} windows, say "
            "nothing about other documents and are likely too narrow"
        )
    if report is not None and "model" in report.sets:
        found += _warnings_on_texts(report)
        found += quality_warnings(report)
    return found


def _why_not_compared(report: TextReport) -> list[str]:
    """A sentence where there are too few texts to set the model's against human ones."""
    model, human = report.sets["model"], report.sets.get("human")
    if human is None:
        return []
    if min(model.num_texts, human.num_texts) < FEWEST_COMPARED:
        return [
            f"Not set against human text, for there are too few texts: {model.num_texts} of its own, "
            f"{human.num_texts} human, and it takes {FEWEST_COMPARED} of each."
        ]
    if report.compared_texts < FEWEST_COMPARED:
        return [
            f"Variety and repetition are not set against human text: only {report.compared_texts} places have texts "
            f"of {SHORTEST_COMPARED_WORDS} words from all, and it takes {FEWEST_COMPARED}."
        ]
    return []


def _warnings_on_texts(report: TextReport) -> list[str]:
    """Sets of few texts, those that stand alone, and human texts that are not independent."""
    model, human = report.sets["model"], report.sets.get("human")
    found = []
    if _is_small(model):
        found.append(_small("texts", model, remedy="more or longer ones help (--num_samples, --sample_tokens)"))
    # As many human texts as few others need no warning of their own.
    if human is not None and _is_small(human) and not (_is_small(model) and human.num_texts >= model.num_texts):
        found.append(_small("human texts", human, remedy="more held-out text helps"))
    sizes = [each.num_texts for each in report.sets.values()]
    if min(sizes) < max(sizes):
        found.append(
            f"figures on n-grams compare only the first {min(sizes)} texts of each set, as many as the smallest has"
        )
    if "human" in report.sets and report.compared_texts < min(sizes):
        found.append(
            f"texts left out of the figures on n-grams, because one of the sets has fewer than "
            f"{SHORTEST_COMPARED_WORDS} words there: {report.num_left_out}; {report.compared_texts} are compared"
        )
    if human is not None and human.num_sources == 1 < human.num_texts:
        found.append(
            f"all {human.num_texts} human texts come from one document: they are not independent, and the intervals "
            "of human figures say nothing of other documents and are likely too narrow"
        )
    return found


def _has_enough(model: TextFigures) -> bool:
    """Whether so many texts say anything that a share of their words without an interval is the same in all of them."""
    return model.num_texts - model.num_empty >= FEWEST_COMPARED


def _is_small(each: TextFigures) -> bool:
    return each.num_texts < FEWEST_TEXTS or each.num_words < FEWEST_WORDS


def _small(what: str, each: TextFigures, *, remedy: str) -> str:
    return (
        f"only {each.num_texts} {what} of {each.num_words:,} words in all (better: {FEWEST_TEXTS} and "
        f"{FEWEST_WORDS:,}): the figures on texts are rough; {remedy}"
    )


def _length(model: TextFigures, human: TextFigures | None) -> list[str]:
    """A length that a limit made is not one of the text."""
    own = model.figures.get("words_per_text")
    theirs = None if human is None else human.figures.get("words_per_text")
    if own is None:
        return []
    said = f"Its texts are {own.value:.0f} words long"
    if model.num_cut is not None and model.num_cut > _MOSTLY * model.num_texts:
        return [f"{said}; a limit cut off {model.num_cut} of {model.num_texts}, so this is no length of its own."]
    if human is None or theirs is None or model.num_cut is None:
        return [f"{said}."]
    if human.num_cut is None or human.num_cut > _MOSTLY * human.num_texts:
        return [f"{said}; the human ones were cut ({theirs.value:.0f} words) and go on, so lengths do not compare."]
    word = judge(own, theirs, is_enough=min(model.num_texts, human.num_texts) >= FEWEST_TEXTS)
    if word == "alike":
        return [f"{said}, about as the human ones ({theirs.value:.0f})."]
    if word == "unclear":
        return [f"{said}, human ones {theirs.value:.0f}: from so few texts no difference can be told."]
    how = "shorter" if word == "less" else "longer"
    return [f"Its texts are {how} than the human ones: {own.value:.0f} words against {theirs.value:.0f}."]


def _copies(model: TextFigures, human: TextFigures | None, *, copy_words: int, epochs: float | None) -> list[str]:
    own = model.figures.get("copied")
    theirs = None if human is None else human.figures.get("copied")
    if own is None:
        return []
    longest = model.matches[0] if model.matches else None
    where = ""
    if longest is not None:
        place = ", ".join(part for part in (longest.source, longest.place) if part)
        where = f"; the longest copy is {longest.num_words} words, from {place}"
    is_many = own.value > _RECITES_SHARE + (0.0 if theirs is None else theirs.value)
    is_clear = is_above(own, theirs, by=_RECITES_SHARE, is_enough=_has_enough(model))
    shown = _share(own, with_interval=is_many and not is_clear)
    figures = f"{shown} of its words stand in runs of {copy_words} or more copied from the training text"
    if theirs is not None:
        figures += f" (human held-out text: {_share(theirs, with_interval=is_many and not is_clear)})"
    if is_clear:
        return [f"RECITES: {figures}{where}. {remedy_for(epochs)}"]
    if is_many:
        return [f"Whether it recites is unclear from so few texts: {figures}{where}."]
    return [f"No sign of reciting: {figures}{where}."]


def _invention(model: TextFigures, human: TextFigures | None) -> list[str]:
    """Only where it stands out: human text has new words too."""
    if human is None or "unseen_words" not in model.figures or "unseen_words" not in human.figures:
        return []
    own, theirs = model.figures["unseen_words"], human.figures["unseen_words"]
    if own.value <= MUCH_MORE * theirs.value or overlap(own, theirs):
        return []
    if own.interval is None and not _has_enough(model):
        return []
    return [
        f"Makes up words: {100 * own.value:.1f}% of its words are not in the training text "
        f"(human: {100 * theirs.value:.1f}%)."
    ]


def _coherence(model: TextFigures, human: TextFigures | None, floor: Figure | None) -> list[str]:
    own = model.figures.get("coherence")
    theirs = None if human is None else human.figures.get("coherence")
    if own is None or theirs is None or floor is None:
        return []
    figures = (
        f"(neighbouring sentences {own.value:.3f}; human {theirs.value:.3f}, human sentences shuffled "
        f"{floor.value:.3f})"
    )
    if theirs.value <= floor.value:
        return [f"Coherence says nothing here: human text does not come out above shuffled sentences {figures}."]
    if own.value <= floor.value:
        return [f"Its sentences hang together no better than sentences in random order {figures}."]
    # Texts with two sentences that can be compared may be few where texts are many.
    if own.interval is None or theirs.interval is None:
        return [f"Whether its sentences hang together cannot be told from so few pairs of them {figures}."]
    if overlap(own, theirs):
        return [f"How its sentences hang together cannot be told from human text {figures}."]
    position = (own.value - floor.value) / (theirs.value - floor.value)
    if position > 1:
        return [f"Its sentences are more alike than a human's {figures}: read whether it dwells on one thing."]
    how = "little" if position < 0.5 else "less well than a human's"
    return [f"Its sentences hang together {how} {figures}."]


def _share(figure: Figure, *, with_interval: bool) -> str:
    return f"{100 * figure.value:.1f}%{_percent(figure.interval) if with_interval else ''}"


def _interval(interval: Interval | None, *, digits: int) -> str:
    if interval is None:
        return ""
    return f" (95% interval {number_text(interval[0], digits=digits)} to {number_text(interval[1], digits=digits)})"


def _percent(interval: Interval | None) -> str:
    if interval is None:
        return ""
    low, high = (number_text(100 * bound, digits=1) for bound in interval)
    return f" (95% interval {low} to {high})"
