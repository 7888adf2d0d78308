"""`gpt2kit compare`: several models, one text, one report."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gpt2kit.comparison import report as reports
from gpt2kit.comparison.measure import Measured, measure_model
from gpt2kit.comparison.page import html_page
from gpt2kit.comparison.pairs import Pair, Rank, all_pairs, ranking, ranking_words, too_few_words
from gpt2kit.comparison.picture import draw
from gpt2kit.comparison.settings import CompareSettings
from gpt2kit.errors import MissingExtraError
from gpt2kit.evaluation.ground import (
    HeldOutChoice,
    Remarks,
    find_held_out,
    find_prompt_form,
    find_protocol,
    find_sentence_space,
    open_data,
    prompt_text,
)
from gpt2kit.evaluation.heldout import openings, placed_training_texts
from gpt2kit.evaluation.likelihood import FEWEST_UNITS, Likelihood
from gpt2kit.evaluation.models import find_model
from gpt2kit.evaluation.texts import TextReport, TextSet, measure_texts
from gpt2kit.evaluation.verdict import FEWEST_TEXTS
from gpt2kit.files import explained_disk_errors, numbered_report, to_json, write_atomically
from gpt2kit.runtime import provenance

FORMAT = "gpt2kit comparison"
FORMAT_VERSION = 1
HUMAN = "human"
_STEM = "comparison"


@dataclass(frozen=True)
class ModelComparison:
    """What a comparison found.

    Attributes:
        likelihood: of the held-out text, by model, in the order they were given.
        pairs: every two models.
        ranking: the models, the best first.
        texts: the figures of their texts and of human ones; None when left out.
        verdict: what it says, in sentences.
        warnings: what not to trust.
        notes: what was left out, and why.
        values: everything that the report's JSON holds.
        report: the Markdown report; JSON, HTML and the picture lie beside it under the same name.
    """

    likelihood: dict[str, Likelihood]
    pairs: list[Pair]
    ranking: list[Rank]
    texts: TextReport | None
    verdict: list[str]
    warnings: list[str]
    notes: list[str]
    values: dict[str, Any] = field(repr=False)
    report: Path
    _text: str = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return self.values

    def to_text(self) -> str:
        """The comparison as tables and words."""
        return self._text


def compare(settings: CompareSettings) -> ModelComparison:
    """Measure several models on the same held-out text, and what they write from the same prompts.

    Args:
        settings: see `CompareSettings`.

    Returns:
        What was found; the report is in `settings.output_dir`.

    Raises:
        UsageError: a model or the data are not there, or a setting does not fit them.
        ModelError: a model's files are damaged.
        DataError: the data are damaged.
        DiskError: the report cannot be written.
        NetworkError: a model has to be fetched and cannot be.

    Example:
        >>> found = compare(CompareSettings(models=("nano", "models/mine"), data_dir="data/processed"))
        >>> print(found.to_text())
    """
    run = _Run(settings)
    with numbered_report(settings.output_dir, _STEM) as stem:
        return run.measure_and_report(stem)


def titled(names: Sequence[str]) -> list[str]:
    """What to call models: the last part of a path where that tells them apart, numbered where a name comes again."""
    short = [Path(name).name or name for name in names]
    different = {part: len({name for name, other in zip(names, short, strict=True) if other == part}) for part in short}
    titles = [part if different[part] == 1 and part != HUMAN else name for name, part in zip(names, short, strict=True)]
    seen: Counter[str] = Counter()
    numbered = []
    for title in titles:
        seen[title] += 1
        numbered.append(title if seen[title] == 1 and title != HUMAN else f"{title} ({seen[title]})")
    return numbered


class _Run:
    """One comparison: what it is made of, then what it finds."""

    def __init__(self, settings: CompareSettings) -> None:
        self.settings = settings
        self.started = time.monotonic()
        self.remarks = Remarks()
        titles = titled(settings.models)
        self.records = [
            replace(find_model(name, role="model"), name=title)
            for name, title in zip(settings.models, titles, strict=True)
        ]
        self.data = open_data(settings.data_dir, text=settings.text, remarks=self.remarks)
        chosen = HeldOutChoice(settings.text, settings.split, settings.max_tokens, settings.seed)
        self.held_out = find_held_out(self.data, chosen, trained=self.records, remarks=self.remarks)
        self.protocol = find_protocol(self.records, context=settings.context, stride=settings.stride)
        self.end_of_text_first = find_prompt_form(
            self.records, asked=settings.end_of_text_first, num_samples=settings.num_samples, remarks=self.remarks
        )

    def measure_and_report(self, stem: Path) -> ModelComparison:
        """Measure every model, compare, and write it under a number."""
        settings = self.settings
        found = openings(
            self.held_out,
            number=settings.num_samples,
            prompt_words=settings.prompt_words,
            continuation_words=settings.sample_tokens,
        )
        if len(found) < settings.num_samples:
            self.remarks.note(
                f"the held-out text has room for {len(found)} prompts; {settings.num_samples} were asked for"
            )
        measured = [
            measure_model(
                record,
                self.held_out,
                found,
                protocol=self.protocol,
                end_of_text_first=self.end_of_text_first,
                settings=settings,
            )
            for record in self.records
        ]
        self._say_which_are_the_same()
        readings = [each.reading for each in measured]
        pairs = all_pairs(readings, seed=settings.seed)
        if len({reading.tokenizer for reading in readings}) > 1:
            self.remarks.note(
                "the models have different tokenizers: perplexity compares only among those of the same letter"
            )
        sets = {each.record.name: each.texts for each in measured if each.texts is not None}
        if sets and measured[0].human is not None:
            sets[HUMAN] = measured[0].human
        texts = self._measure_texts(sets)
        self._warn_of_size(readings[0].likelihood, texts)
        return self._report(stem, measured, pairs, texts, sets)

    def _say_which_are_the_same(self) -> None:
        by_files: dict[str, list[str]] = {}
        for record in self.records:
            by_files.setdefault(record.sha256, []).append(record.name)
        for names in by_files.values():
            if len(names) > 1:
                self.remarks.note(f"{' and '.join(names)} are the same model: their files are the same, byte for byte")

    def _measure_texts(self, sets: dict[str, TextSet]) -> TextReport | None:
        if not sets:
            return None
        data = self.data
        return measure_texts(
            sets,
            training=None if data is None else lambda: placed_training_texts(data),
            space=find_sentence_space(data, seed=self.settings.seed, remarks=self.remarks),
            copy_words=self.settings.copy_words,
            seed=self.settings.seed,
        )

    def _warn_of_size(self, likelihood: Likelihood, texts: TextReport | None) -> None:
        if likelihood.num_documents < FEWEST_UNITS:
            self.remarks.warn(
                f"held-out documents: only {likelihood.num_documents}. The intervals of each model's figures are made "
                f"over {likelihood.num_units} windows of them and are likely too narrow; nothing is judged by them"
            )
        if texts is not None and texts.compared_texts < FEWEST_TEXTS:
            self.remarks.warn(
                f"figures on n-grams are made of only {texts.compared_texts} texts of each model and are rough; raise "
                "--num_samples"
            )

    def _report(
        self,
        stem: Path,
        measured: Sequence[Measured],
        pairs: list[Pair],
        texts: TextReport | None,
        sets: dict[str, TextSet],
    ) -> ModelComparison:
        readings = [each.reading for each in measured]
        ranks = ranking(readings, pairs)
        too_few = too_few_words(readings[0].likelihood.num_documents, len(pairs))
        if too_few:
            self.remarks.warn(f"{too_few}: measure on more documents, or compare fewer models")
        verdict = ranking_words(ranks, too_few=too_few)
        has_picture = self._draw(stem, measured, pairs, texts)
        values = self._values(measured, pairs, ranks, texts, sets) | {"verdict": verdict}
        tables = reports.Tables(measured, pairs, texts, copy_words=self.settings.copy_words)
        write_atomically(stem.with_suffix(".json"), to_json(values))
        write_atomically(stem.with_suffix(".html"), html_page(values, tables, sets))
        write_atomically(stem.with_suffix(".md"), reports.markdown_text(values, tables, sets, stem, has_picture))
        return ModelComparison(
            likelihood={reading.title: reading.likelihood for reading in readings},
            pairs=pairs,
            ranking=ranks,
            texts=texts,
            verdict=verdict,
            warnings=self.remarks.warnings,
            notes=self.remarks.notes,
            values=values,
            report=stem.with_suffix(".md"),
            _text=reports.terminal_text(values, tables, stem, has_picture),
        )

    def _draw(self, stem: Path, measured: Sequence[Measured], pairs: Sequence[Pair], texts: TextReport | None) -> bool:
        if not self.settings.picture:
            return False
        path = stem.with_suffix(".png")
        try:
            with explained_disk_errors(path):
                draw(path, [each.reading for each in measured], pairs, texts, copy_words=self.settings.copy_words)
        except MissingExtraError as error:
            self.remarks.note(f"no picture: {error}")
            return False
        return True

    def _values(
        self,
        measured: Sequence[Measured],
        pairs: Sequence[Pair],
        ranks: Sequence[Rank],
        texts: TextReport | None,
        sets: dict[str, TextSet],
    ) -> dict[str, Any]:
        held_out, data, protocol = self.held_out, self.data, self.protocol
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "models": [
                each.record.to_dict() | {"tokenizer": each.reading.tokenizer, "cost": each.cost.to_dict()}
                for each in measured
            ],
            "data": {
                "origin": held_out.origin,
                "fingerprint": None if data is None else data.manifest["fingerprint"],
                "num_documents": len(held_out.documents),
                "num_documents_in_all": held_out.num_documents_in_all,
            },
            "protocol": {"context": protocol.context, "stride": protocol.stride, "text": protocol.to_text()},
            "prompts": {"end_of_text_first": self.end_of_text_first, "text": prompt_text(self.end_of_text_first)},
            "likelihood": {each.reading.title: each.reading.likelihood.to_dict() for each in measured},
            "pairs": [pair.to_dict() for pair in pairs],
            "ranking": [vars(rank) for rank in ranks],
            "texts": None if texts is None else texts.to_dict(),
            "samples": {
                name: {"prompts": each.prompts, "texts": each.texts, "sources": each.sources}
                for name, each in sets.items()
            },
            "warnings": self.remarks.warnings,
            "notes": self.remarks.notes,
            "settings": self.settings.to_dict(),
            "provenance": provenance(),
            "seconds": round(time.monotonic() - self.started, 3),
        }
