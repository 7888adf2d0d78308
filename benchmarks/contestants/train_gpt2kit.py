"""gpt2kit itself: `gpt2kit.train` with its own data, packing, logging; its `metrics.jsonl` tells when steps end.

The process ends after the last measured step. What validation, samples and checkpoints cost is measured by
`train_costs`.
"""

import json
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.assets import FIRST_TARGETS
from benchmarks.core.child import Arguments, contestant, report, seconds_since_start
from benchmarks.core.places import WORK

_POLL_SECONDS = 0.005
_NEVER = 1_000_000


def measure(arguments: Arguments) -> dict[str, object]:
    """Train; never returns, since the watcher ends the process when it has seen enough."""
    import gpt2kit

    work = Path(tempfile.mkdtemp(prefix="run-", dir=WORK))
    folder = work / "model"
    threading.Thread(target=_watch, args=(folder, work, arguments), daemon=True).start()
    gpt2kit.train(
        gpt2kit.TrainSettings(
            data_dir=arguments["data"],
            model_output_dir=folder,
            base=arguments["model"],
            context=arguments["context"],
            batch_size=arguments["rows"],
            max_steps=arguments["warmup_steps"] + arguments["measured_steps"] + 1,  # the last one is never reached
            eval_every=_NEVER,
            save_every=_NEVER,
            sample_tokens=0,
            packing="run_on",
            **arguments["settings"],
        )
    )
    raise RuntimeError("the training ended before it was measured")


def _watch(folder: Path, work: Path, arguments: Arguments) -> None:
    from benchmarks.contestants.steps import StepClock

    clock = StepClock(arguments)
    metrics = folder / "training" / "metrics.jsonl"
    expected = json.loads(Path(arguments["batches"]).with_suffix(".json").read_text(encoding="utf-8"))
    first_loss: float | None = None
    num_bytes = 0
    while len(clock.ends) < clock.num_steps:
        time.sleep(_POLL_SECONDS)
        if not metrics.exists() or metrics.stat().st_size == num_bytes:  # reading it would hold up the training
            continue
        num_bytes = metrics.stat().st_size
        records = _train_records(metrics)
        if len(records) > len(clock.ends):
            clock.tick()
            if len(records) == 1:
                first_loss, seconds = records[0]["loss"], expected[FIRST_TARGETS] / records[0]["tokens_per_second"]
    assert first_loss is not None
    assert clock.first_step_seconds is not None
    clock.begun_seconds = clock.first_step_seconds - seconds
    report(clock.report(first_loss) | {"watched_seconds": seconds_since_start()})
    shutil.rmtree(work, ignore_errors=True)
    os._exit(0)


def _train_records(metrics: Path) -> list[dict[str, float]]:
    lines = metrics.read_text(encoding="utf-8").split("\n")[:-1]  # a line is whole when its end is there
    return [record for record in map(json.loads, lines) if record["kind"] == "train"]


if __name__ == "__main__":
    contestant(measure)
