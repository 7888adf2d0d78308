"""Turn the trained nano into the folder inside the package: half precision, measured, with its card.

.venv/bin/python recipes/nano/ship.py --model_dir models/nano --corpora PATH
"""

import argparse
import json
import math
import platform
import re
import tempfile
from pathlib import Path
from string import Template
from typing import Any

import torch
import zstandard
from matplotlib.figure import Figure

from gpt2kit.evaluation import EvaluateSettings, evaluate
from gpt2kit.files import read_json, read_json_lines
from gpt2kit.generation import GenerateSettings, generate, load
from gpt2kit.model import load_model
from gpt2kit.model.folder import WEIGHTS, read_config, save_model, weights_of
from gpt2kit.model.weights import read_safetensors
from gpt2kit.tokens import Tokenizer

HERE = Path(__file__).parent
FOLDER = HERE.parent.parent / "src" / "gpt2kit" / "nano"
PROMPT = "Once upon a time there was"
SEEDS = range(10)
TOP_P = 0.9
SAMPLE_TOKENS = 120
STRIDE = 256


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_dir", required=True, type=Path, help="what `gpt2kit train` made")
    parser.add_argument("--corpora", required=True, type=Path, help="folder with prose_heldout.jsonl.zst")
    arguments = parser.parse_args()
    training = arguments.model_dir / "training"
    save_in_half_precision(arguments.model_dir)
    draw_curve(training / "metrics.jsonl", FOLDER / "curve.png")
    run, result = (read_json(training / name, what="a training run") for name in ("run.json", "result.json"))
    values = {
        **{name: str(value) for name, value in vars(read_config(FOLDER)).items()},
        "vocab_size": f"{read_config(FOLDER).vocab_size:,}",
        "learning_rate": str(result["plan"]["learning_rate"]),
        "parameters": f"{result['plan']['parameters']:,}",
        "tokens": f"{result['tokens_seen']:,}",
        "steps": f"{result['steps']:,}",
        "epochs": f"{result['plan']['epochs']:.2f}",
        "minutes": f"{result['seconds'] / 60:.0f}",
        "machine": f"{torch.get_num_threads()} cores of {processor()}",
        "dtype": result["plan"]["dtype"],
        "validation_loss": f"{result['validation_loss']:.3f}",
        "torch": run["provenance"]["versions"]["torch"],
        "heldout": held_out_table(arguments.corpora),
        "stride": str(STRIDE),
        "samples": samples(),
        "prompt": PROMPT,
        "top_p": str(TOP_P),
        "sample_tokens": str(SAMPLE_TOKENS),
    }
    card = Template((HERE / "card.md").read_text(encoding="utf-8")).substitute(values)
    (FOLDER / "README.md").write_text(card, encoding="utf-8")
    size = sum(path.stat().st_size for path in FOLDER.iterdir())
    print(f"{FOLDER}: {size / 1e6:.1f} MB")


def processor() -> str:
    """The processor's name, as Linux tells it; elsewhere its architecture."""
    table = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", table.read_text(encoding="utf-8")) if table.exists() else []
    return str(names[0]) if names else platform.machine()


def save_in_half_precision(model_dir: Path) -> None:
    """Save the model as float16; `config.json` keeps float32, in which every reader then computes."""
    model = load_model(model_dir)
    halves = {name: tensor.half() for name, tensor in weights_of(model).items()}
    save_model(model, FOLDER, weights=halves)
    Tokenizer.from_folder(model_dir).save(FOLDER, model_max_length=model.config.n_positions)
    saved = read_safetensors(FOLDER / WEIGHTS)
    worst = max(float((saved[name].float() - tensor).abs().max()) for name, tensor in weights_of(model).items())
    print(f"largest change of a weight by rounding: {worst:.1e}")


def held_out_table(corpora: Path) -> str:
    """Bits per byte on each book of `prose_heldout`, and on all of them, as a Markdown table."""
    reader = zstandard.ZstdDecompressor().stream_reader((corpora / "prose_heldout.jsonl.zst").open("rb"))
    books = [json.loads(line) for line in reader.read().decode("utf-8").splitlines()]
    rows, nats, num_bytes, num_tokens = [], 0.0, 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        for book in books:
            text = Path(temporary) / "book.txt"
            text.write_text(book["text"], encoding="utf-8", newline="")
            measured = likelihood(text, Path(temporary))
            rows.append(
                f"| {book['title']}, {book['author']} | {measured.num_bytes:,} | {measured.bits_per_byte:.4f} |"
            )
            nats += measured.nats
            num_bytes += measured.num_bytes
            num_tokens += measured.num_tokens
    bits_per_byte = nats / math.log(2) / num_bytes
    print(f"held out: {bits_per_byte:.4f} bits per byte, {nats / num_tokens:.4f} nats per token")
    return "\n".join(
        [
            "| book | bytes | bits per byte |",
            "|---|---:|---:|",
            *rows,
            f"| **all** | {num_bytes:,} | **{bits_per_byte:.4f}** |",
        ]
    )


def likelihood(text: Path, temporary: Path) -> Any:
    """The likelihood of a text under the folder's model."""
    settings = EvaluateSettings(
        model_dir=str(FOLDER),
        data_dir=temporary / "none",
        output_dir=temporary / "results",
        text=text,
        stride=STRIDE,
        compare_with="none",
        num_samples=0,
        picture=False,
    )
    return evaluate(settings).likelihood["model"]


def samples() -> str:
    """One text for each seed, as quotations."""
    model = load(FOLDER, device="cpu")
    texts = []
    for seed in SEEDS:
        settings = GenerateSettings(top_p=TOP_P, seed=seed, max_new_tokens=SAMPLE_TOKENS)
        text = PROMPT + generate(model, [PROMPT], settings)[0].text
        texts.append(f"**Seed {seed}**\n\n" + "\n".join(f"> {line}".rstrip() for line in text.splitlines()))
    return "\n\n".join(texts)


def draw_curve(metrics: Path, picture: Path) -> None:
    """Training and validation loss over the tokens read."""
    records = list(read_json_lines(metrics))
    figure = Figure(figsize=(7, 4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for kind, name, style, color, label in (
        ("train", "loss", "-", "#8fb3d9", "training text"),
        ("validation", "validation_loss", "o-", "#b3452c", "a book kept out of training"),
    ):
        chosen = [record for record in records if record["kind"] == kind]
        axes.plot([r["step"] for r in chosen], [r[name] for r in chosen], style, color=color, label=label, markersize=4)
    axes.set(xlabel="step", ylabel="nats per token", title="Pre-training of nano", ylim=(None, 8))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(picture)


if __name__ == "__main__":
    main()
