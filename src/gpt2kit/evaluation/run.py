"""`gpt2kit evaluate`: from a model to a report."""

import math
import time
from statistics import median

from gpt2kit.console import warn
from gpt2kit.errors import DataError
from gpt2kit.evaluation.breakdown import Breakdown, break_down, training_counts
from gpt2kit.evaluation.canaries import read_canaries
from gpt2kit.evaluation.comparison import compare
from gpt2kit.evaluation.curve import Curve, read_curve
from gpt2kit.evaluation.findings import Evaluation, Findings
from gpt2kit.evaluation.grammar import GrammarChecker
from gpt2kit.evaluation.ground import (
    HeldOutChoice,
    Remarks,
    find_held_out,
    find_prompt_form,
    find_protocol,
    find_sentence_space,
    open_data,
)
from gpt2kit.evaluation.heldout import openings, placed_training_texts
from gpt2kit.evaluation.likelihood import FEWEST_UNITS, Likelihood, TokenDocument, summarise, token_nats
from gpt2kit.evaluation.mauve import MauveReader
from gpt2kit.evaluation.models import ModelRecord, find_model, find_other
from gpt2kit.evaluation.probes import Probes
from gpt2kit.evaluation.publish import publish
from gpt2kit.evaluation.report import STEM
from gpt2kit.evaluation.samples import GivenTexts, generate_texts, human_texts, read_given
from gpt2kit.evaluation.settings import EvaluateSettings
from gpt2kit.evaluation.surprise import Surprise, surprise_of
from gpt2kit.evaluation.texts import TextReport, TextSet, measure_texts
from gpt2kit.files import numbered_report
from gpt2kit.generation import LanguageModel, load
from gpt2kit.model.folder import file_hashes
from gpt2kit.tokens import Tokenizer

_ORDER: tuple[str, ...] = ("model", "base", "other", "human")
SAMPLES_READ = 6  # of each set of texts: those that the report shows


def evaluate(settings: EvaluateSettings) -> Evaluation:
    """Measure a model on held-out text, and the texts it generates.

    Args:
        settings: see `EvaluateSettings`.

    Returns:
        What was found; the report is in `settings.output_dir`.

    Raises:
        UsageError: the model, the data or the samples are not there, or a setting does not fit them.
        ModelError: a model's files are damaged.
        DataError: the data or the samples are damaged.
        DiskError: the report cannot be written.
        NetworkError: a model has to be fetched and cannot be.

    Example:
        >>> evaluation = evaluate(EvaluateSettings(model_dir="models/mine", data_dir="data/processed"))
        >>> print(evaluation.to_text())
    """
    run = _Run(settings)
    with numbered_report(settings.output_dir, STEM) as stem:
        return publish(run.measure(), stem)


class _Run:
    """One evaluation: what it is made of, then what it finds."""

    def __init__(self, settings: EvaluateSettings) -> None:
        self.settings = settings
        self.started = time.monotonic()
        self.remarks = Remarks()
        self.featurise = (
            MauveReader(settings.mauve_model, device=settings.device, precision=settings.precision)
            if settings.mauve
            else None
        )
        self.grammar = GrammarChecker() if settings.grammar else None
        self.surprise: dict[str, list[Surprise]] = {}
        self.breakdowns: dict[str, Breakdown] = {}
        self.model = find_model(settings.model_dir, role="model")
        other, why_none = find_other(self.model, settings.compare_with)
        if why_none:
            self.remarks.note(why_none)
        self.records = [self.model] if other is None else [self.model, other]
        self.data = open_data(settings.data_dir, text=settings.text, remarks=self.remarks)
        canaries = None if settings.canaries is None else read_canaries(settings.canaries)
        chosen = HeldOutChoice(settings.text, settings.split, settings.max_tokens, settings.seed, canaries)
        self.held_out = find_held_out(self.data, chosen, trained=self.records, remarks=self.remarks)
        self.protocol = find_protocol(
            self.records, context=settings.context, stride=settings.stride, full_last_window=settings.full_last_window
        )
        self.curve = self._read_curve()
        self.given = None if settings.samples is None else read_given(settings.samples)
        if self.given is not None:
            self._check_writer(self.given)
        for name in settings.without_effect():
            why = "the texts are there (--samples)" if self.given is not None else "no texts are made (--num_samples 0)"
            warn(f"--{name} has no effect: {why}")
        self.end_of_text_first = (
            find_prompt_form(
                self.records,
                asked=settings.end_of_text_first,
                num_samples=settings.num_samples,
                remarks=self.remarks,
            )
            if self.given is None
            else self.given.end_of_text_first
        )
        self.probes = Probes(
            settings,
            records=self.records,
            data=self.data,
            canaries=canaries,
            protocol=self.protocol,
            note=self.remarks.note,
        )

    def _check_writer(self, given: GivenTexts) -> None:
        """Say when another model wrote the given texts."""
        hashes = file_hashes(self.model.folder)
        if any(given.model_hashes.get(name, own) != own for name, own in hashes.items()):
            self.remarks.warn(
                f"--samples {self.settings.samples}: was written by a model with other files than {self.model.name}: "
                "what is said of its texts is said of that other one's"
            )

    def _text_tokens(self, tokenizer: Tokenizer) -> int:
        """The most tokens that human texts may have: as many as the model's, or as given texts typically have."""
        if self.given is None:
            return self.settings.sample_tokens
        if self.given.limit_tokens is not None:
            return self.given.limit_tokens
        typical = max(int(median(len(ids) for ids in tokenizer.encode_batch(self.given.texts.texts))), 1)
        self.remarks.note(
            f"--samples {self.settings.samples} does not say how long its texts could be: the human ones are cut to "
            f"{typical:,} tokens, the median of its texts"
        )
        return typical

    def _read_curve(self) -> Curve | None:
        """The curve of the model's training; a damaged record of it does not end the evaluation."""
        try:
            return read_curve(self.model.folder)
        except DataError as error:
            self.remarks.note(f"the curve of the training is left out: {error}")
            return None

    def measure(self) -> Findings:
        """Measure everything."""
        likelihood: dict[str, Likelihood] = {}
        encoded: dict[str, list[TokenDocument]] = {}
        tokenizers: dict[str, str] = {}
        sets: dict[str, TextSet] = {}
        # The model last, so that it can read the other one's texts too while it is loaded.
        for record in reversed(self.records):
            measured, documents, fingerprint = self._measure_model(record, sets)
            likelihood[record.role], encoded[record.role] = measured, documents
            tokenizers[record.role] = fingerprint
        likelihood = {record.role: likelihood[record.role] for record in self.records}
        for record in self.records:
            if not math.isfinite(likelihood[record.role].perplexity):
                self.remarks.warn(
                    f"the perplexity of {record.name} is too large for a number, and null in the JSON: nats over "
                    "num_tokens is its logarithm; its weights are damaged, or its tokenizer is another model's"
                )
        same_tokenizer = len(set(tokenizers.values())) == 1
        comparison = None
        if len(self.records) == 2:
            role = self.records[1].role
            comparison = compare(
                (likelihood["model"], encoded["model"]),
                (likelihood[role], encoded[role]),
                same_tokenizer=same_tokenizer,
                seed=self.settings.seed,
            )
            if comparison.num_units < FEWEST_UNITS:
                self.remarks.warn(
                    f"the two models are compared over {comparison.num_units} held-out document"
                    f"{'s' * (comparison.num_units > 1)}: no difference can be told from chance with fewer than "
                    f"{FEWEST_UNITS}"
                )
            if not same_tokenizer:
                self.remarks.note("the two models have different tokenizers, so only bits per byte compare")
        sets = {name: sets[name] for name in _ORDER if name in sets}
        return Findings(
            settings=self.settings,
            records=self.records,
            held_out=self.held_out,
            data_fingerprint=None if self.data is None else self.data.manifest["fingerprint"],
            protocol=self.protocol,
            likelihood=likelihood,
            breakdowns=self.breakdowns,
            comparison=comparison,
            same_tokenizer=same_tokenizer,
            sets=sets,
            end_of_text_first=self.end_of_text_first,
            surprise=self.surprise,
            texts=self._measure_texts(sets),
            memory=self.probes.results(sets),
            curve=self.curve,
            warnings=self.remarks.warnings,
            notes=self.remarks.notes,
            seconds=round(time.monotonic() - self.started, 3),
        )

    def _measure_model(
        self, record: ModelRecord, sets: dict[str, TextSet]
    ) -> tuple[Likelihood, list[TokenDocument], str]:
        """Load a model, measure it, and let it write its texts into `sets`."""
        settings = self.settings
        loaded = load(record.folder, device=settings.device, precision=settings.precision, engine="torch")
        documents = self.held_out.encode(loaded.tokenizer)
        started = time.monotonic()
        nats = token_nats(
            loaded.model,
            documents,
            protocol=self.protocol,
            end_of_text=loaded.tokenizer.end_of_text,
            batch_size=settings.batch_size,
            what=f"measuring {record.name}",
        )
        seconds = round(time.monotonic() - started, 3)
        measured = summarise(documents, nats, protocol=self.protocol, seed=settings.seed, seconds=seconds)
        self.breakdowns[record.role] = break_down(
            documents,
            nats,
            protocol=self.protocol,
            seed=settings.seed,
            training_counts_V=training_counts(self.data, loaded.tokenizer),
        )
        self.probes.measure(record.role, loaded, documents, nats)
        self._collect_texts(record, loaded, sets)
        if record is self.model:
            self._measure_surprise(loaded, sets)
        return measured, documents, loaded.tokenizer.fingerprint

    def _collect_texts(self, record: ModelRecord, loaded: LanguageModel, sets: dict[str, TextSet]) -> None:
        """Put a model's texts into `sets`, and with the model measured the human ones."""
        settings, given = self.settings, self.given
        wanted = settings.num_samples if given is None else len(given.texts.texts)
        if not wanted or (given is not None and record is not self.model):
            return
        max_tokens = self._text_tokens(loaded.tokenizer)
        found = openings(
            self.held_out, number=wanted, prompt_words=settings.prompt_words, continuation_words=max_tokens
        )
        if record is self.model and len(found) < wanted:
            self.remarks.note(f"the held-out text has room for {len(found)} prompts; {wanted} were asked for")
        if given is not None:
            sets["model"] = given.texts
        elif found:
            sets[record.role] = generate_texts(
                loaded, found, title=record.name, settings=settings, end_of_text_first=bool(self.end_of_text_first)
            )
        if record is not self.model or not found:
            return
        sets["human"] = human_texts(found, loaded.tokenizer, max_tokens=max_tokens)
        if given is not None and given.texts.prompts[: len(found)] != sets["human"].prompts:
            self.remarks.note("the human texts follow other prompts than the given texts do")

    def _measure_surprise(self, loaded: LanguageModel, sets: dict[str, TextSet]) -> None:
        """Let the model read the texts that the report shows."""
        for name, each in sets.items():
            self.surprise[name] = surprise_of(
                loaded,
                each.prompts[:SAMPLES_READ],
                each.texts[:SAMPLES_READ],
                batch_size=self.settings.batch_size,
                what=f"reading texts ({name})",
            )

    def _measure_texts(self, sets: dict[str, TextSet]) -> TextReport | None:
        if not sets:
            return None
        data = self.data
        report = measure_texts(
            sets,
            training=None if data is None else lambda: placed_training_texts(data),
            space=find_sentence_space(self.data, seed=self.settings.seed, remarks=self.remarks),
            copy_words=self.settings.copy_words,
            seed=self.settings.seed,
            featurise=self.featurise,
            grammar=self.grammar,
        )
        for note in report.notes:
            self.remarks.note(note)
        return report
