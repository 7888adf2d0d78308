"""Runs of a study, one after the other: text, training, measurement, record. Started by `experiments.runs`."""

import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from experiments.runs import TEST_CONTEXT
from experiments.texts import Text, make
from gpt2kit.evaluation import EvaluateSettings, Evaluation, evaluate
from gpt2kit.files import read_json, read_json_lines, to_json, write_atomically
from gpt2kit.runtime import peak_memory_bytes, provenance
from gpt2kit.training import TrainSettings, train

EXCERPT_TOKENS = 25  # given, and asked for: short enough that small texts hold many


def main() -> None:
    """Do what the files named on the command line order."""
    for file in sys.argv[1:]:
        order = read_json(Path(file), what="an order of the studies")
        started = time.monotonic()
        record = {name: value for name, value in order.items() if name != "paths"} | work(order)
        record["seconds"] = round(time.monotonic() - started, 2)
        record["provenance"] = provenance()
        path = Path(order["paths"]["record"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_json(record))
        left = ["measurements"] if order["keep"] else ["measurements", "model"]
        for name in left:
            shutil.rmtree(order["paths"][name], ignore_errors=True)


def work(order: dict[str, Any]) -> dict[str, Any]:
    """Train and measure.

    Returns:
        Of an untrained model only `bits_per_byte` of the test text, and `memory` where it was ordered. Of others
        `training` (sizes, seconds, losses), `validations`, `train_losses`, `peak_memory_bytes` and `last` too.
    """
    paths = {name: Path(path) for name, path in order["paths"].items()}
    data, test_file = make(Text(**order["text"]), paths["texts"])
    if order["untrained"]:
        return _measured(_evaluate(order["settings"]["base"], data.folder, test_file, paths, order), order)
    folder = paths["model"]
    result = train(TrainSettings(data_dir=data.folder, model_output_dir=folder, **order["settings"]))
    if result.status == "interrupted":  # saved; a record would pass it off as finished
        raise SystemExit("interrupted; the same command goes on")
    peak = peak_memory_bytes(torch.device("cpu"))
    rows = list(read_json_lines(folder / "training" / "metrics.jsonl"))
    steps = [row for row in rows if row["kind"] == "train"]
    found: dict[str, Any] = {
        "training": {
            "parameters": result.plan.parameters,
            "trainable_parameters": result.plan.trainable_parameters,
            "train_tokens": result.plan.train_tokens,
            "learning_rate": result.plan.learning_rate,
            "batch_size": result.plan.batch_size,
            "total_steps": result.plan.total_steps,
            "steps": result.steps,
            "tokens_seen": result.tokens_seen,
            "seconds": round(result.seconds, 2),
            "tokens_per_second": statistics.median(row["tokens_per_second"] for row in steps),
            "validation_loss_before": result.validation_loss_before,
            "validation_loss": result.validation_loss,
            "best_step": result.best_step,
            "ending": result.ending,
            "threads": torch.get_num_threads(),
        },
        "validations": [[row["step"], row["validation_loss"]] for row in rows if row["kind"] == "validation"],
        "train_losses": [[row["step"], row["loss"]] for row in steps],
        "peak_memory_bytes": peak,
    }
    if order["test"]:
        found |= _measured(_evaluate(folder, data.folder, test_file, paths, order), order)
    if order["last"]:
        checkpoint = max((folder / "training" / "checkpoints").glob("step-*"))
        found["last"] = _measured(_evaluate(checkpoint, data.folder, test_file, paths, order), order)
    return found


def _evaluate(
    model: Path | str, data: Path, test_file: Path, paths: dict[str, Path], order: dict[str, Any]
) -> Evaluation:
    settings = EvaluateSettings(
        model_dir=str(model),
        data_dir=data,
        output_dir=paths["measurements"],
        text=test_file,
        context=TEST_CONTEXT,
        compare_with="none",
        num_samples=0,
        picture=False,
        device="cpu",
        membership=order["memory"],
        extraction=200 if order["memory"] else 0,
        extraction_prompt_tokens=(EXCERPT_TOKENS,),
        extraction_tokens=EXCERPT_TOKENS,
    )
    return evaluate(settings)


def _measured(evaluation: Evaluation, order: dict[str, Any]) -> dict[str, Any]:
    likelihood = evaluation.likelihood["model"]
    found: dict[str, Any] = {"bits_per_byte": likelihood.bits_per_byte, "perplexity": likelihood.perplexity}
    if order["memory"]:
        memory = evaluation.memory.to_dict()
        found["memory"] = {
            "extraction": memory["extraction"]["model"][0],
            "membership": memory["membership"],
        }
    return found


if __name__ == "__main__":
    main()
