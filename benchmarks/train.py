"""Fine-tuning GPT-2 124M: gpt2kit and its peers, in turn, each in a process of its own.

    make bench-train                                  # all, five rounds
    make bench-train BENCH="--quick --only gpt2kit"   # a trial
    make bench-train BENCH="--xl"                     # gpt2-xl instead, one row a step: what memory it takes

What it measures and how is told in docs/benchmarks.md.
"""

from typing import Any

from benchmarks import assets, pages
from benchmarks.core.places import WORK
from benchmarks.core.process import run_contestant
from benchmarks.core.program import choose, keep, options, parser, run_benchmark
from benchmarks.core.rounds import Contestant, say

NAME, XL_NAME = "train", "xl"
_HUGGING_FACE = ("transformers", "accelerate", "torch")
_BEST: dict[str, Any] = {
    "dropout": False,
    "loading": {"attn_implementation": "sdpa"},
    "training": {"optim": "adamw_torch_fused"},
}
_COMPILED = _BEST | {"training": _BEST["training"] | {"torch_compile": True}}


def _ours(name: str, **settings: Any) -> Contestant:
    return Contestant(f"gpt2kit, {name}", "train_gpt2kit", {"settings": settings}, packages=("torch",), ours=True)


def _trainer(name: str, arguments: dict[str, Any], *packages: str) -> Contestant:
    return Contestant(name, "train_trainer", arguments, "transformers", (*_HUGGING_FACE, *packages))


CONTESTANTS = [
    _ours("defaults"),
    _ours("no dropout", dropout=0.0),
    _ours("LoRA", dropout=0.0, method="lora"),
    _ours("lower half frozen", dropout=0.0, freeze_layers=6),
    _ours("bf16", dropout=0.0, precision="bf16"),
    _ours("Muon", dropout=0.0, optimizer="muon"),
    _ours("Adafactor", dropout=0.0, optimizer="adafactor"),
    _trainer("Trainer, defaults", {"dropout": True, "training": {}}),
    _trainer("Trainer, best settings", _BEST),
    _trainer("Trainer, best settings, compiled", _COMPILED),
    _trainer("Trainer, lower half frozen", _BEST | {"frozen_layers": 6}),
    _trainer("Trainer with peft LoRA", _BEST | {"lora_rank": 8}, "peft"),
    Contestant("nanoGPT's loop, compiled", "train_nanogpt", {"compile": True}, packages=("torch",)),
    Contestant("nanoGPT's loop, eager", "train_nanogpt", {"compile": False}, packages=("torch",)),
]
# 1.5 billion parameters: in fp32 the weights alone are 6.2 GB, and as much again the gradients and each of AdamW's two.
XL_CONTESTANTS = [
    _ours("LoRA", dropout=0.0, method="lora"),
    _ours("Adafactor", dropout=0.0, optimizer="adafactor"),
    _trainer("Trainer with peft LoRA", _BEST | {"lora_rank": 8}, "peft"),
    _trainer("Trainer, best settings", _BEST),
]


def main() -> None:
    """Run the benchmark and write its tables."""
    made = parser(__doc__)
    made.add_argument("--context", type=int, default=256, help="tokens in a row (256; 1024 is usual on a GPU)")
    made.add_argument("--rows", type=int, default=None, help="rows in a step (8; 1 with --xl)")
    made.add_argument("--xl", action="store_true", help="gpt2-xl in place of GPT-2 124M")
    made.add_argument("--warmup-steps", type=int, default=2, help="steps before the measured ones (2)")
    made.add_argument("--measured-steps", type=int, default=None, help="measured steps of a round (3; 1 in quick mode)")
    made.add_argument("--no-costs", action="store_true", help="leave out what validation and checkpoints cost")
    arguments = made.parse_args()
    chosen, contestants = options(arguments), choose(XL_CONTESTANTS if arguments.xl else CONTESTANTS, arguments)
    name, model = (XL_NAME, assets.XL_MODEL) if arguments.xl else (NAME, assets.MODEL)
    rows = arguments.rows or (1 if arguments.xl else 8)
    steps = arguments.measured_steps or (1 if chosen.quick else 3)
    shape = {"context": arguments.context, "rows": rows, "steps": arguments.warmup_steps + steps}
    assets.ensure("xl-model" if arguments.xl else "model", "batches", **shape)
    common = {
        "model": str(model),
        "data": str(assets.TRAIN_DATA),
        "batches": str(assets.batches_file(**shape)),
        "context": arguments.context,
        "rows": rows,
        "warmup_steps": arguments.warmup_steps,
        "measured_steps": steps,
    }
    settings = {key: common[key] for key in ("context", "rows", "warmup_steps", "measured_steps")}
    results = run_benchmark(name, contestants, chosen, common=common, settings=settings)
    if not arguments.xl:  # the losses to expect are those of the small model
        results["expected"] = assets.expected_losses(**shape)
    if not (arguments.xl or arguments.no_costs or chosen.only):
        results["costs"] = costs(common, threads=chosen.threads)
    keep(name, results, trial=chosen.is_trial)
    pages.show(name, results, write=not chosen.is_trial)


def costs(common: dict[str, Any], *, threads: int) -> dict[str, Any]:
    """What validation, samples, checkpoints and logging cost in a run at gpt2kit's defaults, measured once."""
    assets.ensure("costs-data")
    say("what validation, samples and checkpoints cost")
    outcome = run_contestant(
        "train_costs",
        common | {"threads": threads, "data": str(assets.COSTS_DATA)},
        log=WORK / "logs" / NAME / "costs.log",
        threads=threads,
        timeout_seconds=1800,
    )
    return outcome.values if outcome.reason is None else {"reason": outcome.reason}


if __name__ == "__main__":
    main()
