"""The demo's road: prepare sample text, fine-tune nano on it, write texts, measure them, draw what came out."""

import textwrap
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from gpt2kit.console import say, text_table, warn
from gpt2kit.demo.picture import draw
from gpt2kit.demo.tasks import TASKS, Task
from gpt2kit.errors import MissingExtraError, UsageError
from gpt2kit.evaluation import EvaluateSettings, Evaluation, evaluate
from gpt2kit.files import explained_disk_errors
from gpt2kit.generation import GenerateSettings, Sample
from gpt2kit.generation import run as generate_into_files
from gpt2kit.hub import BUILT_IN
from gpt2kit.tokens import PreparedData, PrepareSettings, prepare
from gpt2kit.training import TrainingResult, TrainSettings, train

_LINE_WIDTH = 96
_SHOWN_STORIES = 2
_CONTEXT = 256


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes:
        task: what it was for.
        data: the prepared sample text.
        training: the training's result.
        samples: the generated texts.
        texts: the readable file they are in.
        evaluation: the figures.
        picture: curves, figures and a text in one picture; None without matplotlib.
        seconds: how long it all took.
    """

    task: Task
    data: PreparedData
    training: TrainingResult
    samples: tuple[Sample, ...]
    texts: Path
    evaluation: Evaluation
    picture: Path | None
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "data_dir": str(self.data.folder),
            "training": self.training.to_dict(),
            "samples": [sample.to_dict() for sample in self.samples],
            "texts": str(self.texts),
            "evaluation": str(self.evaluation.report),
            "evaluation_page": str(self.evaluation.page),
            "picture": None if self.picture is None else str(self.picture),
            "seconds": self.seconds,
        }

    def to_text(self) -> str:
        """What was made and where, how well it predicts before and after, some texts, and what to try next."""
        train_split = self.data.manifest["splits"]["train"]
        rows = [
            ("prepared text", f"{self.data.folder}  ({train_split['num_tokens']:,} tokens to learn from)"),
            ("model", f"{self.training.model_dir}  ({self.training.plan.parameters / 1e6:.1f} M parameters)"),
            ("generated texts", f"{self.texts}"),
            ("measurements", f"{self.evaluation.page}  (open it in a browser)"),
        ]
        if self.picture is not None:
            rows.append(("picture", f"{self.picture}"))
        shown = self.samples[:_SHOWN_STORIES] if self.task is TASKS["story"] else self.samples
        return "\n\n".join(
            [
                text_table(rows, ["made", f"in {timedelta(seconds=round(self.seconds))}"]),
                f"Bits per byte on {self.task.held_out} it has not seen, before and after: {self._figures()}",
                *(_shown(sample, self.task) for sample in shown),
                "Try next: " + "\n          ".join(self.task.try_next),
            ]
        )

    def _figures(self) -> str:
        before, after = (self.evaluation.likelihood[role].bits_per_byte for role in ("base", "model"))
        return f"{before:.2f} -> {after:.2f} (lower is better)"


def run(*, task: str = "story", root: Path = Path()) -> DemoResult:
    """Prepare sample text, fine-tune nano on it, write texts, measure them, and draw what came out.

    The results of the task "story" go where the project's own commands look for them, so that they can be tried on
    it; those of the others into folders of their own. What is there already from the same files and settings is not
    made again.

    Args:
        task: one of `TASKS`.
        root: the project's folder; the sample text is below it.

    Raises:
        UsageError: there is no such task or no sample text, or a folder is in use for other things.
    """
    if task not in TASKS:
        raise UsageError(f"--task {task}: should be {', '.join(TASKS)}")
    chosen = TASKS[task]
    started = time.monotonic()
    raw = root / chosen.raw
    if not any(path.is_file() and not path.name.startswith(".") for path in raw.rglob("*")):
        raise UsageError(f"{raw}: no texts here; run the demo in a clone of the gpt2kit repository")
    _step(1, f"prepare the sample text ({chosen.about})")
    data = prepare(
        PrepareSettings(
            input=raw, data_dir=root / chosen.data_dir, base=BUILT_IN, validation_fraction=0.05, test_fraction=0.05
        )
    )
    _step(2, f"fine-tune {BUILT_IN}, the small GPT-2 in this package, on it")
    training = train(
        TrainSettings(
            data_dir=data.folder,
            model_output_dir=root / chosen.model_dir,
            context=_CONTEXT,
            epochs=chosen.epochs,
            optimizer=chosen.optimizer,
        )
    )
    if training.status == "interrupted":
        raise KeyboardInterrupt
    _step(3, "write texts")
    written = generate_into_files(
        GenerateSettings(
            model_dir=str(training.model_dir),
            output_dir=root / chosen.results / "generated_texts",
            prompt=chosen.prompts,
            chat=chosen.chat,
            nsamples=chosen.nsamples,
            max_new_tokens=chosen.max_new_tokens,
            top_p=0.9,
            seed=0,
        )
    )
    _step(4, "measure the model and its texts")
    evaluation = evaluate(
        EvaluateSettings(
            model_dir=str(training.model_dir),
            data_dir=data.folder,
            output_dir=root / chosen.results / "evaluation_metrics",
        )
    )
    samples = tuple(written.samples)
    return DemoResult(
        task=chosen,
        data=data,
        training=training,
        samples=samples,
        texts=written.files[0],
        evaluation=evaluation,
        picture=_picture(root / chosen.results / "demo.png", chosen, training, evaluation, samples),
        seconds=time.monotonic() - started,
    )


def _step(number: int, what: str) -> None:
    say(f"\n[{number}/4] {what}")


def _shown(sample: Sample, task: Task) -> str:
    """A text as it is shown in the terminal."""
    if task.chat:
        return (
            textwrap.fill(f"You:   {sample.prompt}", _LINE_WIDTH)
            + "\n"
            + textwrap.fill(f"Model: {sample.text}", _LINE_WIDTH, subsequent_indent=" " * 7)
        )
    text = (sample.prompt + sample.text).strip()
    if task.keeps_lines:
        return "\n".join(textwrap.fill(line, _LINE_WIDTH) for line in text.splitlines())
    return textwrap.fill(text, _LINE_WIDTH)


def _picture(
    path: Path, task: Task, training: TrainingResult, evaluation: Evaluation, samples: tuple[Sample, ...]
) -> Path | None:
    words = "\n".join(_shown(sample, task) for sample in samples[: 3 if task.chat else 1])
    try:
        with explained_disk_errors(path):
            draw(path, training, evaluation, about=task.about, words=words)
    except MissingExtraError as error:
        warn(f"no picture: {error}")
        return None
    return path
