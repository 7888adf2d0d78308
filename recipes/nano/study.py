"""The small runs that nano's shape, optimizer and learning rate were chosen by.

Run from the project's folder, after `make nano CORPORA=path` has prepared its data:

    .venv/bin/python recipes/nano/study.py optimizer --data_dir data/nano/data --output_dir results/nano_study

Each run is one `gpt2kit train` in a process of its own; a run that is there already is not made again. The table goes
to stdout, the figures of every run into its folder.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

# What the runs share: nano's own recipe, shortened.
COMMON = {
    "from_scratch": "true",
    "context": "512",
    "batch_size": "16",
    "schedule": "linear",
    "final_learning_rate_ratio": "0",
    "weight_decay": "0.1",
    "adam_beta2": "0.95",
    "precision": "bf16",
    "patience": "0",
    "sample_tokens": "0",
    "n_layer": "6",
    "n_head": "4",
    "n_embd": "256",
    "max_steps": "80",
    "optimizer": "muon",
    "learning_rate": "5e-3",
    "eval_tokens": "65536",
}
STUDIES: dict[str, list[dict[str, str]]] = {
    "optimizer": [
        {"optimizer": optimizer, "learning_rate": rate}
        for optimizer, rates in (("adamw", ("2e-3", "4e-3")), ("muon", ("2e-3", "5e-3", "1e-2")))
        for rate in rates
    ],
    "shape": [
        {"n_layer": layers, "n_head": heads, "n_embd": width}
        for layers, heads, width in (("6", "2", "256"), ("8", "4", "256"), ("4", "5", "320"))
    ],
    "batch": [{"batch_size": rows, "max_steps": steps} for rows, steps in (("8", "160"), ("16", "80"))],
    "length": [{"max_steps": steps} for steps in ("80", "160", "320")],
}


def main() -> None:
    """Make the runs of one study and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--data_dir", required=True, type=Path, help="prepared data")
    parser.add_argument("--output_dir", required=True, type=Path, help="folder for the runs")
    arguments = parser.parse_args()
    print("| run | parameters | tokens | seconds | nats per token |\n|---|---:|---:|---:|---:|")
    for changes in STUDIES[arguments.study]:
        name = "-".join(f"{key}_{value}" for key, value in changes.items())
        result = one_run(COMMON | changes, arguments.data_dir, arguments.output_dir / name)
        print(
            f"| {', '.join(f'{key} {value}' for key, value in changes.items())} "
            f"| {result['plan']['parameters'] / 1e6:.2f} M | {result['tokens_seen']:,} | {result['seconds']:.0f} "
            f"| {result['validation_loss']:.3f} |",
            flush=True,
        )


def one_run(settings: dict[str, str], data_dir: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Train with these settings and return `result.json`."""
    command = [sys.executable, "-m", "gpt2kit", "train", "--data_dir", data_dir, "--model_output_dir", folder]
    for name, value in (settings | {"eval_every": settings["max_steps"]}).items():
        command += [f"--{name}"] if value == "true" else [f"--{name}", value]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    values: dict[str, dict[str, float]] = json.loads((folder / "training" / "result.json").read_text(encoding="utf-8"))
    return values


if __name__ == "__main__":
    main()
