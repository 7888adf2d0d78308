"""`gpt2kit evaluate`: from a model to a report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2kit.evaluation.settings import EvaluateSettings


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        values: everything in the report's JSON: likelihood, texts, settings, provenance.
        report: the Markdown report; the JSON and the picture lie beside it under the same name.
    """

    values: dict[str, Any]
    report: Path

    def to_dict(self) -> dict[str, Any]:
        """The evaluation as JSON values."""
        return self.values

    def to_text(self) -> str:
        """The evaluation as tables and a verdict in words."""
        return str(self.values)


def evaluate(settings: EvaluateSettings) -> Evaluation:
    """Measure a model on held-out text, and the texts it generates.

    Args:
        settings: see `EvaluateSettings`.

    Returns:
        What was found; the report is in `settings.output_dir`.

    Example:
        >>> evaluation = evaluate(EvaluateSettings(model_dir="models/mine", data_dir="data/processed"))
        >>> print(evaluation.to_text())
    """
    raise NotImplementedError
