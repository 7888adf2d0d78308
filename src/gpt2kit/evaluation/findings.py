"""What an evaluation found, from the figures of its parts to the values that its report holds."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gpt2kit.evaluation.breakdown import Breakdown
from gpt2kit.evaluation.comparison import Comparison
from gpt2kit.evaluation.curve import Curve
from gpt2kit.evaluation.ground import prompt_text
from gpt2kit.evaluation.heldout import HeldOut
from gpt2kit.evaluation.likelihood import Likelihood, Protocol
from gpt2kit.evaluation.models import ModelRecord
from gpt2kit.evaluation.probes import Memory
from gpt2kit.evaluation.settings import EvaluateSettings
from gpt2kit.evaluation.surprise import Surprise
from gpt2kit.evaluation.texts import TextReport, TextSet, metrics
from gpt2kit.runtime import provenance

FORMAT = "gpt2kit evaluation"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Findings:
    """What was measured, before a report is made of it.

    Attributes:
        settings: what was asked.
        records: the models, "model" first.
        held_out: the text they were measured on.
        data_fingerprint: of the prepared data; None without any.
        protocol: how likelihood was measured.
        likelihood: by model.
        breakdowns: the same, part by part.
        comparison: of the two models, or None.
        same_tokenizer: whether all models have the same one, so that figures per token compare.
        sets: the texts that were measured, in the order of the report.
        end_of_text_first: whether an end-of-text stood in front of the prompts that models went on from; None where
            a file of given texts does not say.
        surprise: of the first texts of each set, what the model makes of their tokens.
        texts: their figures; None when left out.
        memory: what is remembered of the training text.
        curve: of the training that made the model, if its folder holds one.
        warnings: what not to trust.
        notes: what was left out, and why.
        seconds: time it took.
    """

    settings: EvaluateSettings
    records: list[ModelRecord]
    held_out: HeldOut
    data_fingerprint: str | None
    protocol: Protocol
    likelihood: dict[str, Likelihood]
    breakdowns: dict[str, Breakdown]
    comparison: Comparison | None
    same_tokenizer: bool
    sets: dict[str, TextSet]
    end_of_text_first: bool | None
    surprise: dict[str, list[Surprise]]
    texts: TextReport | None
    memory: Memory
    curve: Curve | None
    warnings: list[str]
    notes: list[str]
    seconds: float

    @property
    def titles(self) -> dict[str, str]:
        """What to call each set of texts, and each model."""
        return {record.role: record.name for record in self.records} | {"human": "human"}

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "models": {record.role: record.to_dict() for record in self.records},
            "data": {
                "origin": self.held_out.origin,
                "fingerprint": self.data_fingerprint,
                "num_documents": len(self.held_out.documents),
                "num_documents_in_all": self.held_out.num_documents_in_all,
            },
            "likelihood": {
                "protocol": _protocol_values(self.protocol),
                **{role: each.to_dict() for role, each in self.likelihood.items()},
                "comparison": None if self.comparison is None else self.comparison.to_dict(),
            },
            "breakdown": {role: each.to_dict() for role, each in self.breakdowns.items()},
            "prompts": self._prompt_values(),
            "texts": self._text_values(),
            "samples": {name: self._sample_values(name) for name in self.sets},
            "memorisation": self.memory.to_dict(),
            "training": None if self.curve is None else self.curve.to_dict(),
            "warnings": self.warnings,
            "notes": self.notes,
            "settings": self.settings.to_dict(),
            "provenance": provenance(),
            "seconds": self.seconds,
        }

    def _prompt_values(self) -> dict[str, Any] | None:
        """The form of the prompts; None where no texts were measured."""
        if not self.sets:
            return None
        return {"end_of_text_first": self.end_of_text_first, "text": prompt_text(self.end_of_text_first)}

    def _text_values(self) -> dict[str, Any] | None:
        """The figures of texts, with what to call each and how to show it."""
        if self.texts is None:
            return None
        described = [asdict(metric) for metric in metrics(self.settings.copy_words)]
        return {"metrics": described, **self.texts.to_dict()}

    def _sample_values(self, name: str) -> dict[str, Any]:
        each = self.sets[name]
        return {
            "prompts": each.prompts,
            "texts": each.texts,
            "sources": each.sources,
            "copies": self.memory.spans(name, self.texts),
            "surprise": [each.to_dict() for each in self.surprise.get(name, [])],
        }


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        likelihood: of held-out text, by model: "model", and "base" or "other".
        comparison: the two models on the same text, or None.
        texts: the figures of texts, by set: "model", "base" or "other", "human"; None when left out.
        memory: near copies, and what was asked for of extraction, membership and canaries.
        verdict: what it all says, in sentences.
        warnings: what not to trust.
        notes: what was left out, and why.
        values: everything that the report's JSON holds.
        report: the Markdown report; the page for a browser, the JSON and the picture lie beside it under the same name.
    """

    likelihood: dict[str, Likelihood]
    comparison: Comparison | None
    texts: TextReport | None
    memory: Memory
    verdict: list[str]
    warnings: list[str]
    notes: list[str]
    values: dict[str, Any] = field(repr=False)
    report: Path
    _text: str = field(repr=False)

    @property
    def page(self) -> Path:
        """The report as an HTML file."""
        return self.report.with_suffix(".html")

    @property
    def perplexity(self) -> float:
        """The model's perplexity on the held-out text."""
        return self.likelihood["model"].perplexity

    @property
    def bits_per_byte(self) -> float:
        """The model's bits per byte on the held-out text."""
        return self.likelihood["model"].bits_per_byte

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        return self.values

    def to_text(self) -> str:
        """The evaluation as tables and a verdict in words."""
        return self._text


def _protocol_values(protocol: Protocol) -> dict[str, Any]:
    """The protocol as JSON values, with its sentence."""
    return {
        "context": protocol.context,
        "stride": protocol.stride,
        "full_last_window": protocol.full_last_window,
        "text": protocol.to_text(),
    }
