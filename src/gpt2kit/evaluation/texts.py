"""Sets of texts side by side: a model's, its base model's, and what humans wrote in the same places."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from gpt2kit.evaluation.coherence import SentenceSpace, coherence, prompt_similarity, shuffled, topic_figures
from gpt2kit.evaluation.diversity import repetition, words_in_loops
from gpt2kit.evaluation.grammar import GrammarChecker, grammar_figure
from gpt2kit.evaluation.lexical import mattr, mtld_factors, plain_words
from gpt2kit.evaluation.mauve import FEWEST_TEXTS, mauve_figures
from gpt2kit.evaluation.memorisation import Copies, Match, TrainingText, batches_of_texts, find_copies
from gpt2kit.evaluation.readability import finished_sentences, looks_english, read
from gpt2kit.evaluation.set_figures import (
    distinct_figure,
    readability_figures,
    said_once_figure,
    self_bleu_figures,
    zipf_figures,
)
from gpt2kit.evaluation.statistics import Figure, Floats, mean_figure, number_text, ratio_figure, share_figure
from gpt2kit.evaluation.words import split_sentences, split_words

SHORTEST_COMPARED_WORDS = 8  # of shorter texts, n-grams say nothing
COPY_LENGTHS = (5, 8, 13, 20, 30, 50, 100)
_MATCHES_KEPT = 20

OpenTraining = Callable[[], Iterable[TrainingText]]
Featurise = Callable[[Sequence[str]], Floats]


@dataclass(frozen=True, slots=True)
class TextSet:
    """Texts of one origin, in the order of their prompts.

    Attributes:
        title: whose they are, for a reader.
        texts: without their prompts.
        prompts: what each went on from.
        ended: whether each ended by itself; None where that has no meaning.
        sources: where the prompts come from.
        num_cut: texts that a limit of length cut off; None where that is not known.
    """

    title: str
    texts: list[str]
    prompts: list[str]
    ended: list[bool] | None = None
    sources: list[str] = field(default_factory=list)
    num_cut: int | None = 0


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of the report.

    Attributes:
        name: its key.
        title: its name for a reader.
        is_share: shown in per cent.
        digits: behind the point.
    """

    name: str
    title: str
    is_share: bool = False
    digits: int = 3

    def show(self, figure: Figure | None) -> str:
        """A figure as text, with its interval."""
        if figure is None:
            return "-"
        text = self._number(figure.value)
        if figure.interval is not None:
            low, high = map(self._number, figure.interval)
            # An interval of no width would look like certainty.
            text += f" ({low} to {high})" if low != high else ""
        return text

    def _number(self, value: float) -> str:
        if self.is_share:
            # An interval of a share may reach beyond what a share can be.
            return f"{100 * min(max(value, 0.0), 1.0):.1f}%"
        return number_text(value, digits=self.digits)


def metrics(copy_words: int) -> list[Metric]:
    """The figures of a set of texts, in the order of the report."""
    return [
        Metric("words_per_text", "words a text", digits=0),
        Metric("words_per_sentence", "words a sentence", digits=1),
        Metric("letters_per_word", "letters a word", digits=2),
        Metric("reading_ease", "reading ease (Flesch)", digits=1),
        Metric("grade_level", "school grade (Flesch-Kincaid)", digits=1),
        Metric("ended", "texts that ended by themselves", is_share=True),
        Metric("distinct_1", "distinct-1"),
        Metric("distinct_2", "distinct-2"),
        Metric("distinct_3", "distinct-3"),
        Metric("self_bleu", "self-BLEU"),
        Metric("alike_texts", "texts that are another one, or nearly", is_share=True),
        Metric("rep_2", "rep-2 (pairs said before)", is_share=True),
        Metric("rep_3", "rep-3", is_share=True),
        Metric("rep_4", "rep-4", is_share=True),
        Metric("zipf", "Zipf's exponent"),
        Metric("zipf_slope", "Zipf's exponent, line through logs"),
        Metric("said_once", "words said only once", is_share=True),
        Metric("mtld", "MTLD (words until variety is used up)", digits=1),
        Metric("mattr", "MATTR (different of 50 words)"),
        Metric("looping_texts", "texts with a loop", is_share=True),
        Metric("words_in_loops", "words in loops", is_share=True),
        Metric("coherence", "coherence of neighbouring sentences"),
        Metric("prompt_similarity", "similarity of prompt and text"),
        Metric("first_to_last", "similarity of beginning and end"),
        Metric("topic_drift", "topic drift (similarity lost on the way)"),
        Metric("mauve", "MAUVE against human text"),
        Metric("mauve_halves", "MAUVE, half against the other human half"),
        Metric("grammar_errors", "grammar errors in 1,000 words", digits=1),
        Metric("copied", f"words copied in runs of {copy_words} or more", is_share=True),
        Metric("copied_13", "words copied in runs of 13 or more", is_share=True),
        Metric("unseen_words", "words that the training text does not have", is_share=True),
        Metric("longest_copy_words", "longest copied run, in words", digits=0),
    ]


@dataclass(frozen=True)
class TextFigures:
    """What was measured on a set of texts.

    Attributes:
        title: whose texts they are.
        num_texts: how many.
        num_words: words in all.
        num_sentences: finished sentences in all.
        num_cut: texts that a limit of length cut off; None where that is not known.
        num_sources: places that the prompts come from, e.g. documents; 0 where that is not known.
        num_empty: texts without a word.
        figures: by the name of the metric; those that could not be measured are left out.
        copied_by_length: share of words in copied runs of at least so many words.
        matches: the longest copied runs.
        copies: all copied runs, by text; empty when they were not looked for.
        lengths: how long texts ("words_per_text") and finished sentences ("words_per_sentence") are: the shortest, the
            tenths, and the longest.
    """

    title: str
    num_texts: int
    num_words: int
    num_sentences: int
    figures: dict[str, Figure]
    copied_by_length: dict[int, float]
    matches: list[Match]
    num_cut: int | None = 0
    num_sources: int = 0
    num_empty: int = 0
    copies: list[Copies] = field(default_factory=list, repr=False)
    lengths: dict[str, list[float]] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "title": self.title,
            "num_texts": self.num_texts,
            "num_words": self.num_words,
            "num_sentences": self.num_sentences,
            "num_cut": self.num_cut,
            "num_sources": self.num_sources,
            "num_empty": self.num_empty,
            "figures": {name: figure.to_dict() for name, figure in self.figures.items()},
            "lengths": self.lengths,
            "copied_by_length": {str(length): share for length, share in self.copied_by_length.items()},
            "matches": [match.to_dict() for match in self.matches],
        }


@dataclass(frozen=True, slots=True)
class CutTexts:
    """Texts of several sets cut to the same lengths, so that figures on n-grams compare.

    Attributes:
        sets: the words of each set's texts.
        num_texts: texts of each set.
        num_words: words of each set.
        num_left_out: places where one of the sets has fewer than eight words.
    """

    sets: dict[str, list[list[str]]]
    num_texts: int
    num_words: int
    num_left_out: int


def cut_alike(sets: Mapping[str, Sequence[str]]) -> CutTexts:
    """Cut the k-th text of every set to the words of the shortest k-th text.

    Args:
        sets: texts of each set; of sets of unequal size, the first ones.
    """
    words = {name: [split_words(text) for text in texts] for name, texts in sets.items()}
    in_common = min((len(texts) for texts in words.values()), default=0)
    lengths = [min(len(texts[number]) for texts in words.values()) for number in range(in_common)]
    kept = [number for number, length in enumerate(lengths) if length >= SHORTEST_COMPARED_WORDS]
    return CutTexts(
        {name: [texts[number][: lengths[number]] for number in kept] for name, texts in words.items()},
        len(kept),
        sum(lengths[number] for number in kept),
        in_common - len(kept),
    )


@dataclass(frozen=True)
class TextReport:
    """What was measured on all sets.

    Attributes:
        sets: the figures of each, by its name ("model", "base", "human").
        compared_texts: texts of each that the figures on n-grams are made of, after cutting them alike.
        compared_words: words in these.
        num_left_out: texts too short for that.
        floors: what figures of similarity come to for human texts without connection: sentences dealt out at random,
            prompts with other prompts' texts.
        notes: figures that were left out, and why.
    """

    sets: dict[str, TextFigures]
    compared_texts: int
    compared_words: int
    num_left_out: int
    floors: dict[str, Figure] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def shuffled_coherence(self) -> Figure | None:
        """The coherence of the human texts' sentences in random order."""
        return self.floors.get("coherence")

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "sets": {name: figures.to_dict() for name, figures in self.sets.items()},
            "compared_texts": self.compared_texts,
            "compared_words": self.compared_words,
            "num_left_out": self.num_left_out,
            "shuffled_coherence": None if self.shuffled_coherence is None else self.shuffled_coherence.to_dict(),
            "floors": {name: figure.to_dict() for name, figure in self.floors.items()},
        }


def measure_texts(
    sets: Mapping[str, TextSet],
    *,
    training: OpenTraining | None,
    space: SentenceSpace | None,
    copy_words: int,
    seed: int,
    featurise: Featurise | None = None,
    grammar: GrammarChecker | None = None,
) -> TextReport:
    """Measure sets of texts side by side.

    Args:
        sets: the sets; "human" is the one whose sentences are shuffled for the lower marks of coherence.
        training: opens the training text, for copies of it; None leaves them out.
        space: where sentences are compared; None leaves coherence out.
        copy_words: the shortest run that counts as copied.
        seed: of intervals and shuffles.
        featurise: the hidden states of a model that reads the texts, for MAUVE; None leaves it out.
        grammar: counts grammar errors; None leaves them out.
    """
    cut = cut_alike({name: each.texts for name, each in sets.items()})
    copies = _copies_of(sets, training) if training is not None else {}
    of_mauve = {} if featurise is None else _mauve(sets, featurise, seed=seed)
    english = [name for name, each in sets.items() if looks_english(each.texts)]
    measured = {}
    for name, each in sets.items():
        figures = _own_figures(each, seed=seed) | _compared_figures(cut.sets[name], seed=seed)
        if name in english:
            figures |= _english_figures(each, grammar, seed=seed)
        if space is not None:
            figures |= _coherence_figures(each, space, seed=seed)
        figures |= of_mauve.get(name, {})
        of_set = copies.get(name, [])
        figures |= _copy_figures(of_set, copy_words=copy_words, seed=seed)
        matches = [replace(match, text_index=k) for k, of_text in enumerate(of_set) for match in of_text.matches]
        matches.sort(key=lambda match: -match.num_words)
        measured[name] = TextFigures(
            title=each.title,
            num_texts=len(each.texts),
            num_words=sum(len(plain_words(split_words(text))) for text in each.texts),
            num_sentences=sum(len(finished_sentences(text)) for text in each.texts),
            figures={key: figure for key, figure in figures.items() if figure is not None},
            copied_by_length=_copied_by_length(of_set),
            matches=matches[:_MATCHES_KEPT],
            num_cut=each.num_cut,
            num_sources=len(set(each.sources)),
            num_empty=sum(not text.strip() for text in each.texts),
            copies=of_set,
            lengths=_lengths(each.texts),
        )
    floors = {} if space is None or "human" not in sets else _floors(sets["human"], space, seed=seed)
    notes = _not_english([each.title for name, each in sets.items() if name not in english], of=len(sets))
    if featurise is not None and not of_mauve:
        notes.append(f"MAUVE is left out: it needs {FEWEST_TEXTS} places where every set, and a human, has a text")
    return TextReport(measured, cut.num_texts, cut.num_words, cut.num_left_out, floors, notes)


def _not_english(titles: Sequence[str], *, of: int) -> list[str]:
    """What is left out of sets that the formulas for English say nothing about."""
    if not titles:
        return []
    whose = "" if len(titles) == of else f" of {', '.join(titles)}"
    return [f"the texts{whose} do not look English: readability and grammar errors are left out"]


def _own_figures(each: TextSet, *, seed: int) -> dict[str, Figure | None]:
    """Figures that need no cutting: lengths, loops, and the richness that is made not to hang on length."""
    words = [split_words(text) for text in each.texts]
    plain = [plain_words(text) for text in words]
    looping = [words_in_loops(text) for text in words]
    windows = [share for text in plain if (share := mattr(text)) is not None]
    return {
        "words_per_text": mean_figure([len(text) for text in plain], seed=seed),
        "words_per_sentence": ratio_figure(
            [len(text) for text in plain], [len(finished_sentences(text)) for text in each.texts], seed=seed
        ),
        "letters_per_word": ratio_figure(
            [sum(len(word) for word in text) for text in plain], [len(text) for text in plain], seed=seed
        ),
        "ended": None if each.ended is None else share_figure(each.ended),
        "mtld": ratio_figure([len(text) for text in plain], [mtld_factors(text) for text in plain], seed=seed),
        "mattr": mean_figure(windows, seed=seed),
        "looping_texts": share_figure([count > 0 for count in looping]),
        "words_in_loops": ratio_figure(looping, [len(text) for text in words], seed=seed),
    }


def _compared_figures(texts: Sequence[list[str]], *, seed: int) -> dict[str, Figure | None]:
    """Figures that hang on how much text there is, of texts that were cut alike."""
    found = self_bleu_figures(texts, seed=seed)
    for n in (1, 2, 3):
        found[f"distinct_{n}"] = distinct_figure(texts, n, seed=seed)
    for n in (2, 3, 4):
        shares = [repetition(text, n) for text in texts]
        found[f"rep_{n}"] = mean_figure([share for share in shares if share is not None], seed=seed)
    found |= zipf_figures(texts, seed=seed) | {"said_once": said_once_figure(texts, seed=seed)}
    if not _are_one_text(texts):
        return found
    return {name: None if figure is None else Figure(figure.value) for name, figure in found.items()}


def _are_one_text(texts: Sequence[list[str]]) -> bool:
    """Whether all texts are one, cut in several places: how much figures vary cannot be told from that."""
    longest = max(texts, key=len, default=[])
    return all(longest[: len(text)] == text for text in texts)


def _english_figures(each: TextSet, grammar: GrammarChecker | None, *, seed: int) -> dict[str, Figure | None]:
    readings = [read(text) for text in each.texts]
    found = readability_figures(readings, seed=seed)
    if grammar is not None:
        found["grammar_errors"] = grammar_figure(
            each.texts, [reading.num_words for reading in readings], grammar, seed=seed
        )
    return found


def _coherence_figures(each: TextSet, space: SentenceSpace, *, seed: int) -> dict[str, Figure | None]:
    found = coherence([split_sentences(text) for text in each.texts], space, seed=seed)
    return {
        "coherence": None if found is None else found.figure,
        "prompt_similarity": prompt_similarity(each.prompts, each.texts, space, seed=seed),
        **topic_figures(each.texts, space, seed=seed),
    }


def _floors(human: TextSet, space: SentenceSpace, *, seed: int) -> dict[str, Figure]:
    """The same figures of human texts whose parts do not belong together."""
    mixed = shuffled([split_sentences(text) for text in human.texts], seed=seed)
    found = coherence(mixed, space, seed=seed)
    turned = len(human.prompts) // 2  # neighbours may come from one document
    prompts = human.prompts[turned:] + human.prompts[:turned] if turned else []
    figures = {
        "coherence": None if found is None else found.figure,
        "prompt_similarity": prompt_similarity(prompts, human.texts, space, seed=seed) if prompts else None,
        **topic_figures([" ".join(sentences) for sentences in mixed], space, seed=seed),
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


def _mauve(sets: Mapping[str, TextSet], featurise: Featurise, *, seed: int) -> dict[str, dict[str, Figure]]:
    """MAUVE of the places where every set has a text."""
    if "human" not in sets:
        return {}
    places = [k for k, found in enumerate(zip(*(each.texts for each in sets.values()), strict=False)) if all(found)]
    if not places:
        return {}
    features = {name: featurise([each.texts[k] for k in places]) for name, each in sets.items()}
    return mauve_figures(features, seed=seed)


def _lengths(texts: Sequence[str]) -> dict[str, list[float]]:
    found = {
        "words_per_text": [len(plain_words(split_words(text))) for text in texts],
        "words_per_sentence": [
            len(plain_words(split_words(sentence))) for text in texts for sentence in finished_sentences(text)
        ],
    }
    tenths = np.linspace(0, 1, 11)
    return {name: np.quantile(counts, tenths).round(1).tolist() for name, counts in found.items() if counts}


def _copies_of(sets: Mapping[str, TextSet], training: OpenTraining) -> dict[str, list[Copies]]:
    """Copies of the training text in all sets, in as few passes over it as their size allows."""
    together = [text for each in sets.values() for text in each.texts]
    found: list[Copies] = []
    for lot in batches_of_texts(together):
        found += find_copies(lot, training())
    ordered = iter(found)
    return {name: [next(ordered) for _ in each.texts] for name, each in sets.items()}


def _copy_figures(copies: Sequence[Copies], *, copy_words: int, seed: int) -> dict[str, Figure | None]:
    if not copies:
        return {}
    sizes = [len(each.runs_W) for each in copies]
    return {
        "copied": ratio_figure([each.num_copied(copy_words) for each in copies], sizes, seed=seed),
        "copied_13": ratio_figure([each.num_copied(13) for each in copies], sizes, seed=seed),
        "unseen_words": ratio_figure(
            [each.num_unseen for each in copies], [each.num_bare for each in copies], seed=seed
        ),
        "longest_copy_words": Figure(float(max(each.longest for each in copies))),
    }


def _copied_by_length(copies: Sequence[Copies]) -> dict[int, float]:
    total = sum(len(each.runs_W) for each in copies)
    if not total:
        return {}
    return {length: sum(each.num_copied(length) for each in copies) / total for length in COPY_LENGTHS}
