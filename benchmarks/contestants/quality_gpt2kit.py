"""gpt2kit fine-tunes nano on tiny Shakespeare; when each checkpoint was there is noted, its loss is measured later."""

import threading
import time
from pathlib import Path

import gpt2kit
import gpt2kit.training.run  # PyTorch too, which the planning would load else, and take off the clock
from benchmarks.core.child import Arguments, contestant, seconds_since_start

_POLL_SECONDS = 0.02


def measure(arguments: Arguments) -> dict[str, object]:
    """Train at gpt2kit's defaults, but for more checkpoints, which its own clock pays for."""
    folder = Path(arguments["folder"])
    settings = gpt2kit.TrainSettings(
        data_dir=arguments["data"],
        model_output_dir=folder,
        base="nano",
        keep_checkpoints=1000,
        **arguments["settings"],
    )
    started = seconds_since_start()
    plan = gpt2kit.train(settings.model_copy(update={"dry_run": True})).plan
    planning_seconds = seconds_since_start() - started  # done again by the run itself
    seen: dict[str, float] = {}
    threading.Thread(target=_watch, args=(folder / "training" / "checkpoints", seen), daemon=True).start()
    every = max(plan.total_steps // arguments["checkpoints"], 1)
    result = gpt2kit.train(settings.model_copy(update={"save_every": every}))
    total_seconds = seconds_since_start() - planning_seconds
    time.sleep(2 * _POLL_SECONDS)
    points = [
        {"seconds": min(seconds - planning_seconds, total_seconds), "folder": name}
        for name, seconds in sorted(seen.items())
    ]
    return {"points": points, "steps": result.steps, "tokens": result.tokens_seen, "total_seconds": total_seconds}


def _watch(checkpoints: Path, seen: dict[str, float]) -> None:
    while True:
        for path in checkpoints.glob("step-*/state.json"):
            seen.setdefault(str(path.parent), seconds_since_start())
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    contestant(measure)
