"""The demo's picture: the loss as it fell, the texts' figures beside those of human texts, and a text."""

from pathlib import Path
from typing import Any

from gpt2kit.evaluation import Evaluation
from gpt2kit.files import read_json_lines
from gpt2kit.hub import BUILT_IN
from gpt2kit.runtime import require_extra
from gpt2kit.training import TrainingResult

_SHOWN_LINES = 6
_FIGURES = {"distinct_2": "distinct-2", "self_bleu": "self-BLEU", "rep_2": "rep-2", "coherence": "coherence"}


def draw(path: Path, training: TrainingResult, evaluation: Evaluation, *, about: str, words: str) -> None:
    """Draw it into a PNG.

    Args:
        path: the file.
        training: whose losses are drawn.
        evaluation: whose figures are drawn.
        about: what the model writes.
        words: a text it wrote, in lines; the first few are shown.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figures = require_extra("matplotlib.figure", extra="plots", purpose="drawing the demo's picture")
    figure = figures.Figure(figsize=(11, 6), dpi=120, layout="constrained")
    figure.suptitle(
        f"{BUILT_IN}, a GPT-2 of {training.plan.parameters / 1e6:.1f} million parameters, fine-tuned on {about} in "
        f"{training.seconds / 60:.1f} minutes"
    )
    panels = figure.add_gridspec(2, 2, width_ratios=(3, 2), height_ratios=(5, 3))
    _draw_losses(figure.add_subplot(panels[0, 0]), training, evaluation)
    _draw_figures(figure.add_subplot(panels[0, 1]), evaluation)
    story = figure.add_subplot(panels[1, :])
    story.axis("off")
    lines = words.splitlines()
    shown = "\n".join(lines[:_SHOWN_LINES]) + (" ..." if len(lines) > _SHOWN_LINES else "")
    story.text(0.5, 0.5, shown, ha="center", va="center", family="serif", fontsize=12, style="italic")
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
    before, after = (evaluation.likelihood[role].bits_per_byte for role in ("base", "model"))
    axes.set_title(f"held out: {before:.2f} bits per byte before, {after:.2f} after", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _draw_figures(axes: Any, evaluation: Evaluation) -> None:
    sets = evaluation.to_dict()["texts"]["sets"]
    for offset, role, color, label in (
        (-0.2, "model", "#b3452c", "its texts"),
        (0.2, "human", "#999999", "human texts"),
    ):
        figures = sets[role]["figures"]
        shown = [name for name in _FIGURES if figures.get(name) is not None]
        values = [figures[name]["value"] for name in shown]
        axes.bar([place + offset for place in range(len(shown))], values, width=0.4, color=color, label=label)
        axes.set_xticks(range(len(shown)), [_FIGURES[name] for name in shown])
    axes.set_title("the nearer to human texts, the better", fontsize=10)
    axes.legend(frameon=False)
