"""`gpt2kit demo`: the whole road on the sample text, with the settings a user would get."""

import textwrap
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from gpt2kit.console import say, text_table, warn
from gpt2kit.errors import MissingExtraError, UsageError
from gpt2kit.evaluation import EvaluateSettings, Evaluation, evaluate
from gpt2kit.files import explained_disk_errors, read_json_lines
from gpt2kit.generation import GenerateSettings, Sample
from gpt2kit.generation import run as generate_into_files
from gpt2kit.runtime import require_extra
from gpt2kit.tokens import PreparedData, PrepareSettings, prepare
from gpt2kit.training import TrainingResult, TrainSettings, train

PROMPT = "Once upon a time there was a king"
_LINE_WIDTH = 96
_SHOWN_SAMPLES = 2


@dataclass(frozen=True)
class DemoResult:
    """What the demo made.

    Attributes:
        data: the prepared sample text.
        training: the training's result.
        samples: the generated texts.
        texts: the readable file they are in.
        evaluation: the figures.
        picture: curves, figures and a text in one picture; None without matplotlib.
        seconds: how long it all took.
    """

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
            "picture": None if self.picture is None else str(self.picture),
            "seconds": self.seconds,
        }

    def to_text(self) -> str:
        """What was made and where, the loss before and after, two paragraphs, and what to try next."""
        train_split = self.data.manifest["splits"]["train"]
        rows = [
            ("prepared text", f"{self.data.folder}  ({train_split['num_tokens']:,} tokens to learn from)"),
            ("model", f"{self.training.model_dir}  ({self.training.plan.parameters / 1e6:.1f} M parameters)"),
            ("generated texts", f"{self.texts}"),
            ("measurements", f"{self.evaluation.report}"),
        ]
        if self.picture is not None:
            rows.append(("picture", f"{self.picture}"))
        paragraphs = [
            textwrap.fill(sample.prompt + sample.text, _LINE_WIDTH) for sample in self.samples[:_SHOWN_SAMPLES]
        ]
        return "\n\n".join(
            [
                text_table(rows, ["made", f"in {timedelta(seconds=round(self.seconds))}"]),
                f"Loss on tales it has not seen, before and after: {self._losses()}",
                *paragraphs,
                'Try next: gpt2kit generate --prompt "The princess opened the door" --nsamples 3\n'
                "          gpt2kit inspect models/gpt2_fine_tuned --prompt 'Once upon a'",
            ]
        )

    def _losses(self) -> str:
        before, after = self.training.validation_loss_before, self.training.validation_loss
        if before is None or after is None:
            return "not measured"
        return f"{before:.2f} -> {after:.2f} nats per token (perplexity {self.training.perplexity:.0f} now)"


def run(*, root: Path = Path()) -> DemoResult:
    """Prepare the sample text, train a small model on it, write texts, measure them, and draw what came out.

    Everything goes where the project's own commands look for it, so that they can be tried on the result. What is
    there already from the same files and settings is not made again.

    Args:
        root: the project's folder; `data/raw` is below it.

    Raises:
        UsageError: there is no sample text, or a folder is in use for other things.
    """
    started = time.monotonic()
    raw = root / "data" / "raw"
    if not any(path.is_file() and not path.name.startswith(".") for path in raw.rglob("*")):
        raise UsageError(f"{raw}: no texts here; run the demo in a clone of the gpt2kit repository")
    _step(1, "prepare the sample text")
    data = prepare(
        PrepareSettings(
            input=raw,
            data_dir=root / "data" / "processed",
            from_scratch=True,
            validation_fraction=0.05,
            test_fraction=0.05,
        )
    )
    _step(2, "train a small GPT-2 on it, from scratch")
    training = train(TrainSettings(data_dir=data.folder, model_output_dir=root / "models" / "gpt2_fine_tuned"))
    if training.status == "interrupted":
        raise KeyboardInterrupt
    _step(3, "write texts")
    written = generate_into_files(
        GenerateSettings(
            model_dir=str(training.model_dir),
            output_dir=root / "results" / "generated_texts",
            prompt=(PROMPT,),
            nsamples=4,
            max_new_tokens=150,
            seed=0,
        )
    )
    _step(4, "measure the model and its texts")
    evaluation = evaluate(
        EvaluateSettings(
            model_dir=str(training.model_dir),
            data_dir=data.folder,
            output_dir=root / "results" / "evaluation_metrics",
        )
    )
    samples = tuple(written.samples)
    picture = _picture(root / "results" / "demo.png", training, evaluation, samples[0])
    return DemoResult(
        data=data,
        training=training,
        samples=samples,
        texts=written.files[0],
        evaluation=evaluation,
        picture=picture,
        seconds=time.monotonic() - started,
    )


def _step(number: int, what: str) -> None:
    say(f"\n[{number}/4] {what}")


def _picture(path: Path, training: TrainingResult, evaluation: Evaluation, sample: Sample) -> Path | None:
    try:
        with explained_disk_errors(path):
            _draw(path, training, evaluation, sample)
    except MissingExtraError as error:
        warn(f"no picture: {error}")
        return None
    return path


def _draw(path: Path, training: TrainingResult, evaluation: Evaluation, sample: Sample) -> None:
    """The loss as it fell, the texts' figures beside those of human texts, and the beginning of a text."""
    figures = require_extra("matplotlib.figure", extra="plots", purpose="drawing the demo's picture")
    figure = figures.Figure(figsize=(11, 6), dpi=120, layout="constrained")
    figure.suptitle(
        f"A GPT-2 of {training.plan.parameters / 1e6:.1f} million parameters, trained from scratch in "
        f"{training.seconds / 60:.1f} minutes"
    )
    panels = figure.add_gridspec(2, 2, width_ratios=(3, 2), height_ratios=(5, 3))
    _draw_losses(figure.add_subplot(panels[0, 0]), training, evaluation)
    _draw_figures(figure.add_subplot(panels[0, 1]), evaluation)
    story = figure.add_subplot(panels[1, :])
    story.axis("off")
    words = textwrap.fill(textwrap.shorten(sample.prompt + sample.text, 560, placeholder=" ..."), 100)
    story.text(0.5, 0.5, words, ha="center", va="center", family="serif", fontsize=12, style="italic")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_losses(axes: Any, training: TrainingResult, evaluation: Evaluation) -> None:
    records = list(read_json_lines(training.model_dir / "training" / "metrics.jsonl"))
    for kind, name, style, color, label in (
        ("train", "loss", "-", "#8fb3d9", "on texts it learns from"),
        ("validation", "validation_loss", "o-", "#b3452c", "on texts it has not seen"),
    ):
        chosen = [record for record in records if record["kind"] == kind]
        axes.plot([r["step"] for r in chosen], [r[name] for r in chosen], style, color=color, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    axes.set_title(
        f"held out: perplexity {evaluation.perplexity:.0f}, {evaluation.bits_per_byte:.2f} bits per byte", fontsize=10
    )
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _draw_figures(axes: Any, evaluation: Evaluation) -> None:
    names = {"distinct_2": "distinct-2", "self_bleu": "self-BLEU", "rep_2": "rep-2", "coherence": "coherence"}
    sets = evaluation.to_dict()["texts"]["sets"]
    for offset, role, color, label in (
        (-0.2, "model", "#b3452c", "its texts"),
        (0.2, "human", "#999999", "real tales"),
    ):
        figures = sets[role]["figures"]
        shown = [name for name in names if figures.get(name) is not None]
        values = [figures[name]["value"] for name in shown]
        axes.bar([place + offset for place in range(len(shown))], values, width=0.4, color=color, label=label)
        axes.set_xticks(range(len(shown)), [names[name] for name in shown])
    axes.set_title("the nearer to real tales, the better", fontsize=10)
    axes.legend(frameon=False)
