"""What starting from nano is worth: fine-tuned against trained from scratch, for the same time, on four styles.

    .venv/bin/python recipes/nano/transfer.py --corpora PATH

For each style the text is prepared, nano is fine-tuned for a minute, and a model of nano's shape is trained from
scratch for the same time on the same text, once with AdamW and once with Muon. All are measured on the same held-out
part of the text and continue the same prompt with the same seed. Writes `docs/transfer.md`, and the figures as JSON to
the output folder. Runs that are finished there are not made again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt2kit.evaluation import EvaluateSettings, evaluate
from gpt2kit.files import read_json, read_json_lines
from gpt2kit.generation import GenerateSettings, generate, load
from gpt2kit.hub import resolve_base
from gpt2kit.model.folder import read_config
from gpt2kit.tokens import PreparedData

PAGE = Path(__file__).parent.parent.parent / "docs" / "transfer.md"
SECONDS = 60  # of training steps; validations and the start of the program come on top
TRIAL_STEPS = 12
ROWS, CONTEXT = 8, 256
FINE_TUNING = {"base": "nano", "optimizer": "muon", "learning_rate": 3e-3}
SAMPLE_TOKENS = 110


@dataclass(frozen=True)
class Style:
    """A style to learn: its text, and a prompt that belongs to it."""

    name: str
    file: str
    prompt: str
    chat: bool = False


STYLES = (
    Style("fairy tales (Andersen)", "andersen_fairy_tales.txt", "There was once a little"),
    Style("a detective author (Conan Doyle)", "conan_doyle_sherlock_holmes.txt", "It was late in the evening when"),
    Style("Shakespeare's plays", "tinyshakespeare.txt", "KING HENRY:\n"),
    Style("dialogues (ordering coffee)", "dialogues.jsonl", "Hi, I would like to order a coffee.", chat=True),
)


@dataclass(frozen=True)
class Arm:
    """A way to come to a model: what it took, how well it predicts held-out text, and how it writes."""

    name: str
    seconds: float
    tokens: int
    bits_per_byte: float
    text: str


def main() -> None:
    """Make all runs and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", required=True, type=Path, help="folder with finetune/")
    parser.add_argument("--output_dir", default=Path("results/transfer"), type=Path, help="folder for the runs")
    arguments = parser.parse_args()
    found = {style: measure(style, arguments.corpora, arguments.output_dir) for style in STYLES}
    PAGE.write_text(page(found), encoding="utf-8")
    figures = {style.name: [asdict(arm) for arm in arms] for style, arms in found.items()}
    (arguments.output_dir / "transfer.json").write_text(json.dumps(figures, indent=2), encoding="utf-8")
    print(f"written: {PAGE}")


def measure(style: Style, corpora: Path, output_dir: Path) -> list[Arm]:
    """Nano as it is, nano fine-tuned, and two models from scratch."""
    folder = output_dir / Path(style.file).stem
    data = folder / "data"
    gpt2kit(
        "prepare", corpora / "finetune" / style.file, "--data_dir", data, "--base", "nano",
        "--validation_fraction", "0.05", "--test_fraction", "0.1",
    )  # fmt: skip
    config = read_config(resolve_base("nano"))
    scratch = {"from_scratch": True, "n_layer": config.n_layer, "n_head": config.n_head, "n_embd": config.n_embd}
    steps = steps_that_fit(data, output_dir)
    arms: dict[str, dict[str, Any]] = {
        "from scratch, AdamW": scratch | {"optimizer": "adamw", "learning_rate": 2e-3},
        "from scratch, Muon": scratch | {"optimizer": "muon", "learning_rate": 1e-2},
        "fine-tuned": FINE_TUNING,
    }
    for name, settings in arms.items():
        train(data, folder / name, settings | {"max_steps": steps[settings["optimizer"]]})
    return [
        arm("nano as it is", "nano", data, style),
        *(arm(name, folder / name, data, style) for name in arms),
    ]


def steps_that_fit(data: Path, output_dir: Path) -> dict[str, int]:
    """How many steps of each optimizer fit into the time; found out once, so that runs can be gone on with."""
    record = output_dir / "steps.json"
    if not record.exists():
        tokens = PreparedData.open(data).store("train")
        assert tokens.loss_mask_N is None  # the first style is plain text, every token of which counts
        steps = {}
        for optimizer in ("adamw", "muon"):
            trial = {"base": "nano", "optimizer": optimizer, "max_steps": TRIAL_STEPS}
            rows = [r for r in read_json_lines(train(data, output_dir / f"trial_{optimizer}", trial)) if "loss" in r]
            rate = statistics.median(row["tokens_per_second"] for row in rows)
            steps[optimizer] = int(SECONDS * rate / (ROWS * CONTEXT))
        record.write_text(json.dumps(steps), encoding="utf-8")
    return dict(json.loads(record.read_text(encoding="utf-8")))


def train(data: Path, folder: Path, settings: dict[str, Any]) -> Path:
    """Train in a process of its own; returns the run's metrics."""
    shared = {
        "data_dir": data, "model_output_dir": folder, "batch_size": ROWS, "context": CONTEXT, "patience": 0,
        "sample_tokens": 0, "eval_tokens": 8192, "eval_every": max(settings["max_steps"] // 4, 1),
    }  # fmt: skip
    words: list[Any] = []
    for name, value in (shared | settings).items():
        words += [f"--{name}"] if value is True else [f"--{name}", value]
    gpt2kit("train", *words)
    return folder / "training" / "metrics.jsonl"


def arm(name: str, model: str | Path, data: Path, style: Style) -> Arm:
    """Measure a model on the test split and let it write."""
    settings = EvaluateSettings(
        model_dir=str(model),
        data_dir=data,
        output_dir=data.parent / "measurements",
        split="test",
        context=CONTEXT,
        compare_with="none",
        num_samples=0,
        picture=False,
    )
    likelihood = evaluate(settings).likelihood["model"]
    result = Path(model) / "training" / "result.json"
    run: dict[str, Any] = {"seconds": 0.0, "tokens_seen": 0}
    if result.exists():
        run = read_json(result, what="a training run")
    writing = GenerateSettings(top_p=0.9, seed=0, max_new_tokens=SAMPLE_TOKENS, chat=style.chat)
    text = generate(load(model, device="cpu"), [style.prompt], writing)[0].text
    return Arm(name, run["seconds"], run["tokens_seen"], likelihood.bits_per_byte, text)


def page(found: dict[Style, list[Arm]]) -> str:
    """The page for the docs."""
    rows, samples = [], []
    for style, arms in found.items():
        before, adamw, muon, tuned = arms
        gain_adamw, gain_muon = (1 - tuned.bits_per_byte / scratch.bits_per_byte for scratch in (adamw, muon))
        rows.append(
            f"| {style.name} | {before.bits_per_byte:.3f} | {adamw.bits_per_byte:.3f} | {muon.bits_per_byte:.3f} "
            f"| **{tuned.bits_per_byte:.3f}** | {gain_adamw:.0%} | {gain_muon:.0%} "
            f"| {tuned.seconds:.0f} / {adamw.seconds:.0f} / {muon.seconds:.0f} |"
        )
        samples.append(f"## {style.name[0].upper()}{style.name[1:]}\n\nPrompt: `{style.prompt.strip()}`")
        samples += [f"**{arm.name}**\n\n{quotation(style, arm)}" for arm in arms]
    return (
        "\n\n".join(
            [
                "# What starting from nano is worth",
                "<!-- Written by recipes/nano/transfer.py; its first lines say how. -->",
                f"Nano fine-tuned by Muon for {SECONDS} seconds of steps on two CPU cores, beside models of the same "
                "shape and tokenizer trained from scratch for the same time on the same text, by AdamW (at 2e-3) and "
                "by Muon (at 1e-2); both rates are better than the defaults for so short a run. Bits per byte on a "
                "tenth of each text that none of them saw; lower is better. Seconds are of the whole run, with its "
                "validations.",
                "| style | nano as it is | from scratch, AdamW | from scratch, Muon | nano fine-tuned "
                "| gain over AdamW | gain over Muon | seconds (fine-tuned / AdamW / Muon) |\n"
                "|---|---:|---:|---:|---:|---:|---:|---:|\n" + "\n".join(rows),
                "Each model goes on from the same prompt with the same seed (0), at top-p 0.9; one try, unselected.",
                *samples,
            ]
        )
        + "\n"
    )


def quotation(style: Style, arm: Arm) -> str:
    """A text as a Markdown quotation, verse lines kept."""
    text = arm.text if style.chat else style.prompt + arm.text
    return "\n".join(f"> {line}\\" if line else ">" for line in text.strip().splitlines()).removesuffix("\\")


def gpt2kit(*words: Any) -> None:
    """Run a gpt2kit command."""
    command = [sys.executable, "-m", "gpt2kit", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)


if __name__ == "__main__":
    main()
