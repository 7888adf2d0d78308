"""`gpt2kit tasks`: from a model and task files to a report."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2kit.console import text_table
from gpt2kit.evaluation.models import ModelRecord, find_model
from gpt2kit.evaluation.statistics import Figure
from gpt2kit.evaluation.tasks import examples, measure
from gpt2kit.evaluation.tasks.measure import TaskResult
from gpt2kit.evaluation.tasks.settings import TaskSettings
from gpt2kit.files import numbered_report, to_json, write_atomically
from gpt2kit.generation import LanguageModel, load
from gpt2kit.runtime import provenance, require_extra

FORMAT = "gpt2kit tasks"
FORMAT_VERSION = 1
STEM = "tasks"


@dataclass(frozen=True)
class TaskResults:
    """What a model made of its tasks.

    Attributes:
        results: one a task, in the order they were asked for, lm-eval's last.
        values: everything that the report's JSON holds.
        report: the Markdown report; the JSON lies beside it under the same name.
    """

    results: list[TaskResult]
    values: dict[str, Any] = field(repr=False)
    report: Path

    def to_dict(self) -> dict[str, Any]:
        """The results as JSON values."""
        return self.values

    def to_text(self) -> str:
        """The results as a table."""
        protocols = "\n".join(_sentences(self.results))
        files = f"Report: {self.report}, {self.report.with_suffix('.json')}"
        return f"{results_table(self.results)}\n\n{protocols}\n\n{files}"


def run_tasks(settings: TaskSettings) -> TaskResults:
    """Measure a model on tasks.

    Args:
        settings: see `TaskSettings`.

    Raises:
        UsageError: the model or a file is not there, or lm-eval has no such task.
        MissingExtraError: a task of lm-eval is asked for, and lm-eval is not installed.
        ModelError: the model's files are damaged.
        DataError: a task file is not as it should be; the message names file and line.
        DiskError: the report cannot be written.
        NetworkError: a model or lm-eval's data has to be fetched and cannot be.

    Example:
        >>> run_tasks(TaskSettings(model_dir="gpt2", lambada=("lambada_test.jsonl",))).results[0].figures["acc"].value
    """
    started = time.monotonic()
    if settings.harness:
        require_extra("lm_eval", extra="lm-eval", purpose="--harness")
    record = find_model(settings.model_dir, role="model")
    local = list(_read(settings))  # before the model is loaded: a mistake in a file is told at once
    with numbered_report(settings.output_dir, STEM) as stem:
        model = load(record.folder, device=settings.device, precision=settings.precision, engine="torch")
        results = [_measure(model, *task, settings=settings) for task in local]
        if settings.harness:
            from gpt2kit.evaluation.tasks.harness import run_harness

            results += run_harness(model, settings)
        values = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "model": record.to_dict(),
            "results": [each.to_dict() for each in results],
            "settings": settings.to_dict(),
            "provenance": provenance(),
            "seconds": round(time.monotonic() - started, 3),
        }
        write_atomically(stem.with_suffix(".json"), to_json(values))
        write_atomically(stem.with_suffix(".md"), _page(record, results, values))
    return TaskResults(results, values, stem.with_suffix(".md"))


Examples = list[examples.Question] | list[examples.Page]


def _read(settings: TaskSettings) -> Iterator[tuple[str, Path, Examples]]:
    limit = settings.limit
    for path in settings.lambada:
        yield "lambada", path, examples.read_lambada(path, limit=limit)
    for path in settings.wikitext:
        yield "wikitext", path, examples.read_wikitext(path, limit=limit)
    for path in settings.multiple_choice:
        yield "multiple_choice", path, examples.read_multiple_choice(path, limit=limit)
    for path in settings.cloze:
        yield "cloze", path, examples.read_cloze(path, limit=limit)


def _measure(model: LanguageModel, kind: str, path: Path, of: Examples, *, settings: TaskSettings) -> TaskResult:
    pages = [each for each in of if isinstance(each, examples.Page)]
    questions = [each for each in of if isinstance(each, examples.Question)]
    batch_size, seed = settings.batch_size, settings.seed
    if kind == "wikitext":
        # A window of a page is as long as the context, many times a question.
        return measure.measure_wikitext(model, pages, path, batch_size=max(batch_size // 4, 1), seed=seed)
    if kind == "multiple_choice":
        return measure.measure_multiple_choice(model, questions, path, batch_size=batch_size)
    return measure.measure_cloze(model, questions, path, kind=kind, batch_size=batch_size, seed=seed)


def _sentences(results: list[TaskResult]) -> list[str]:
    """How each task was measured, then what is too little to trust."""
    remarks = [f"Warning: {each.remark}." for each in results if each.remark is not None]
    return [*(f"{each.task}: {each.protocol}." for each in results), *remarks]


def results_table(results: list[TaskResult], *, markdown: bool = False) -> str:
    """A row a figure."""
    rows = []
    for result in results:
        for name, figure in result.figures.items():
            value, *bounds = _shown(figure, result.nats.get(name, figure))
            interval = " to ".join(bounds)
            error = f"{result.standard_errors[name]:.4f}" if name in result.standard_errors else ""
            rows.append([result.task, f"{result.num_examples:,}", name, value, interval, error])
    headers = ["task", "examples", "figure", "value", "95% interval", "standard error"]
    return text_table(rows, headers, markdown=markdown, right_align=[1, 3, 4, 5])


def _shown(figure: Figure, nats: Figure) -> list[str]:
    """A figure's value and bounds; what is too large for a number as the power of e that it is."""
    numbers = zip((figure.value, *(figure.interval or ())), (nats.value, *(nats.interval or ())), strict=True)
    return [f"{number:,.4f}" if number < math.inf else f"exp({power:,.1f})" for number, power in numbers]


def _page(record: ModelRecord, results: list[TaskResult], values: dict[str, Any]) -> str:
    made, versions = values["provenance"], values["provenance"]["versions"]
    parts = [
        f"# {record.name} on tasks",
        results_table(results, markdown=True),
        "\n".join(f"- {sentence}" for sentence in _sentences(results)),
        "What each figure is: docs/tasks.md.",
        "## How this was made",
        f"Command: `{' '.join(made['command'])}`  \nMade: {made['created']} with "
        f"{', '.join(f'{name} {version}' for name, version in versions.items() if version)}  \n"
        f"Model: {record.folder}, sha256 {record.sha256}",
        "```json\n" + to_json(values["settings"]).strip() + "\n```",
    ]
    return "\n\n".join(parts) + "\n"
