"""What a real run of gpt2kit spends beside its steps: validation, samples, checkpoints, logging, data, padding.

A run at the defaults (validations, their size, samples, checkpoints, TensorBoard) is planned; its first three steps are
carried out, with a validation and a checkpoint after the second. From these the shares of the whole planned run follow.
"""

import dataclasses
import json
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.core.child import Arguments, contestant, one_line, report
from benchmarks.core.places import WORK

_POLL_SECONDS = 0.005
_LAST_STEP = 3


def measure(arguments: Arguments) -> dict[str, Any]:
    """Plan, train three steps; never returns, since the watcher ends the process."""
    import gpt2kit
    from gpt2kit.training.plan import make_batches

    work = Path(tempfile.mkdtemp(prefix="costs-", dir=WORK))
    settings = gpt2kit.TrainSettings(
        data_dir=arguments["data"],
        model_output_dir=work / "model",
        base=arguments["model"],
        context=arguments["context"],
        batch_size=arguments["rows"],
        dropout=0.0,
    )
    plan = gpt2kit.train(settings.model_copy(update={"dry_run": True})).plan
    data = gpt2kit.PreparedData.open(Path(arguments["data"]))
    batches = make_batches(settings, data, context=plan.context, batch_size=plan.batch_size)
    facts = dataclasses.asdict(plan) | {
        "filled_share": batches.fill_share(),
        "targets": [batches.targets_in_step(step) for step in range(_LAST_STEP)],
    }
    threading.Thread(target=_watch, args=(work, facts), daemon=True).start()
    gpt2kit.train(
        settings.model_copy(
            update={
                "max_steps": plan.total_steps,
                "eval_tokens": plan.validation_tokens,
                "eval_every": _LAST_STEP - 1,
                "save_every": _LAST_STEP - 1,
            }
        )
    )
    raise RuntimeError("the training ended before it was measured")


def _watch(work: Path, plan: dict[str, Any]) -> None:
    try:
        report(_shares(work / "model" / "training" / "metrics.jsonl", plan))
    except Exception as error:
        report({"reason": one_line(error)})
    shutil.rmtree(work, ignore_errors=True)
    os._exit(0)


def _shares(metrics: Path, plan: dict[str, Any]) -> dict[str, Any]:
    ends: list[float] = []
    records: list[dict[str, Any]] = []
    while len(ends) < _LAST_STEP:
        time.sleep(_POLL_SECONDS)
        lines = metrics.read_text(encoding="utf-8").split("\n")[:-1] if metrics.exists() else []
        records = [record for record in map(json.loads, lines) if record["kind"] == "train"]
        if len(records) > len(ends):
            ends.append(time.perf_counter())
    pairs = zip(plan["targets"], records, strict=True)
    inside = [targets / record["tokens_per_second"] for targets, record in pairs]
    between = [ends[step] - ends[step - 1] - inside[step] for step in range(1, _LAST_STEP)]
    overhead_seconds, validation_seconds = between
    validations = plan["total_steps"] // plan["eval_every"] + 1
    step_seconds = sum(inside) / len(inside)
    others = validations * (validation_seconds - overhead_seconds) + plan["total_steps"] * overhead_seconds
    return {
        "planned_steps": plan["total_steps"],
        "planned_validations": validations,
        "validation_tokens": plan["validation_tokens"],
        "step_seconds": step_seconds,
        "overhead_seconds": overhead_seconds,
        "validation_seconds": validation_seconds,
        "share_beside_steps": others / (others + plan["total_steps"] * step_seconds),
        "share_padding": 1 - plan["filled_share"],
    }


if __name__ == "__main__":
    contestant(measure)
