"""Time to quality: how long gpt2kit needs for the validation loss that the Trainer's defaults reach in ten minutes.

    make bench-quality                    # about twenty minutes; needs GPT2KIT_CORPORA
    make bench-quality BENCH="--quick"    # a trial of one minute each

Both begin with nano and read tiny Shakespeare. What it measures and how is told in docs/benchmarks.md.
"""

import shutil
from typing import Any

from benchmarks import assets, pages
from benchmarks.core.places import ROOT, WORK
from benchmarks.core.process import Outcome, run_contestant
from benchmarks.core.program import choose, keep, options, parser, run_benchmark, slug
from benchmarks.core.rounds import Contestant

NAME = "quality"
TRAINER = "Trainer, defaults"
CONTEXT_TOKENS = 256
_LONGEST_SECONDS = 3600.0
_QUICK_STEPS = 60  # of gpt2kit, whose runs are as long as its defaults make them


def _ours(name: str, **settings: Any) -> Contestant:
    return Contestant(name, "quality_gpt2kit", {"settings": settings}, ours=True, timeout_seconds=_LONGEST_SECONDS)


CONTESTANTS = [
    Contestant(
        TRAINER, "quality_trainer", {}, "transformers", ("transformers", "torch"), timeout_seconds=_LONGEST_SECONDS
    ),
    _ours("gpt2kit, defaults"),
    _ours("gpt2kit, context 256", context=CONTEXT_TOKENS),
    _ours("gpt2kit, context 256, Muon", context=CONTEXT_TOKENS, optimizer="muon"),
]


def main() -> None:
    """Run the benchmark, draw the curves and write the tables."""
    made = parser(__doc__)
    made.add_argument("--minutes", type=float, default=None, help="time of the Trainer (10; 1 in quick mode)")
    arguments = made.parse_args()
    arguments.rounds = arguments.rounds or 1
    chosen, contestants = options(arguments), choose(CONTESTANTS, arguments)
    minutes = arguments.minutes or (1.0 if chosen.quick else 10.0)
    assets.ensure("quality")
    common = {
        "data": str(assets.QUALITY_DATA),
        "tokens": str(assets.QUALITY_TOKENS),
        "base": str(ROOT / "src" / "gpt2kit" / "nano"),
        "context": CONTEXT_TOKENS,
        "seconds": 60 * minutes,
        "checkpoints": 5 if chosen.quick else 30,
        "threads": chosen.threads,
    }

    def measure(one: Contestant, number: int) -> Outcome:
        """Train, then measure every checkpoint."""
        log = WORK / "logs" / NAME / f"{slug(one.name)}-{number + 1}.log"
        folder = WORK / "quality" / slug(one.name)
        shutil.rmtree(folder, ignore_errors=True)
        how: dict[str, Any] = {"threads": chosen.threads, "timeout_seconds": one.timeout_seconds}
        told: dict[str, Any] = common | dict(one.arguments) | {"folder": str(folder)}
        if chosen.quick and one.ours:
            told["settings"] = told["settings"] | {"max_steps": _QUICK_STEPS}
        trained = run_contestant(one.module, told, log=log, **how)
        if trained.reason is not None:
            return trained
        points = trained.values["points"]
        folders = [common["base"], *(point["folder"] for point in points)]
        measured = run_contestant(
            "quality_measure", common | {"folders": folders}, log=log.with_name(f"loss-{log.name}"), **how
        )
        shutil.rmtree(folder, ignore_errors=True)
        if measured.reason is not None:
            return measured
        seconds = [0.0, *(point["seconds"] for point in points)]
        curve = [list(pair) for pair in zip(seconds, measured.values["losses"], strict=True)]
        values = {key: value for key, value in trained.values.items() if key != "points"}
        return Outcome(trained.seconds, trained.peak_memory_bytes, values | {"curve": curve})

    settings = {"minutes": minutes, "context": CONTEXT_TOKENS}
    results = run_benchmark(NAME, contestants, chosen, common=common, settings=settings, measure=measure)
    keep(NAME, results, trial=chosen.is_trial)
    draw(results, WORK / "quality.svg" if chosen.is_trial else ROOT / "docs" / "images" / "benchmark-quality.svg")
    pages.show(NAME, results, write=not chosen.is_trial)


def draw(results: dict[str, Any], target: Any) -> None:
    """The curves of the first round as a picture."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = NAME  # the same picture from the same figures
    figure, axes = pyplot.subplots(figsize=(7.2, 4.0), layout="constrained")
    for name, values in results["contestants"].items():
        if values["rounds"]:
            seconds, losses = zip(*values["rounds"][0]["curve"], strict=True)
            axes.plot([second / 60 for second in seconds], losses, label=name, linewidth=2 if values["ours"] else 1.5)
    axes.set_xlabel("minutes since the start of the process")
    axes.set_ylabel("validation loss, nats per token")
    axes.set_title("nano learns tiny Shakespeare", loc="left")
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main()
