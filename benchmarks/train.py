"""Fine-tuning GPT-2 124M: gpt2kit and its peers, in turn, each in a process of its own.

    make bench-train                                  # all, five rounds
    make bench-train BENCH="--quick --only gpt2kit"   # a trial
    make bench-train BENCH="--xl"                     # gpt2-xl instead, one row a step: what memory it takes

On a machine with an NVIDIA GPU it measures that, with rows of 1,024 tokens, and writes tables of their own.

What it measures and how is told in docs/benchmarks.md.
"""

from dataclasses import dataclass
from typing import Any

from benchmarks import assets, pages
from benchmarks.core.machine import gpu
from benchmarks.core.places import WORK
from benchmarks.core.process import run_contestant
from benchmarks.core.program import choose, keep, options, parser, run_benchmark
from benchmarks.core.rounds import Contestant, say

NAME, XL_NAME, GPU_NAME, GPU_XL_NAME = "train", "xl", "train-gpu", "xl-gpu"
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
    _ours("lower half and embeddings frozen", dropout=0.0, freeze_layers=6, freeze_embeddings=True),
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
GPU_CONTESTANTS = [
    _ours("defaults"),
    _ours("no dropout, compiled", dropout=0.0, compile="on", micro_batch_size=32),
    _ours("no dropout, compiled, 16 rows at a time", dropout=0.0, compile="on", micro_batch_size=16),
    _trainer("Trainer, defaults", {"dropout": True, "training": {}}),
    _trainer("Trainer, best settings", _BEST),
    _trainer("Trainer, best settings, compiled", _COMPILED),
    Contestant("nanoGPT's loop, compiled", "train_nanogpt", {"compile": True}, packages=("torch",)),
]
GPU_XL_CONTESTANTS = [
    _ours("full, AdamW", dropout=0.0),
    _ours("LoRA", dropout=0.0, method="lora"),
    _trainer("Trainer, best settings", _BEST),
]


@dataclass(frozen=True)
class _Measured:
    """What is measured, by whether there is a GPU and which model it is."""

    name: str
    contestants: list[Contestant]
    context: int
    rows: int
    warmup_steps: int
    steps: int


def _measured(*, xl: bool) -> _Measured:
    if gpu() is None:
        return (
            _Measured(XL_NAME, XL_CONTESTANTS, context=256, rows=1, warmup_steps=2, steps=3)
            if xl
            else _Measured(NAME, CONTESTANTS, context=256, rows=8, warmup_steps=2, steps=3)
        )
    return (
        _Measured(GPU_XL_NAME, GPU_XL_CONTESTANTS, context=1024, rows=8, warmup_steps=4, steps=5)
        if xl
        else _Measured(GPU_NAME, GPU_CONTESTANTS, context=1024, rows=32, warmup_steps=5, steps=15)
    )


def main() -> None:
    """Run the benchmark and write its tables."""
    made = parser(__doc__)
    made.add_argument("--context", type=int, default=None, help="tokens in a row (256; 1024 on a GPU)")
    made.add_argument("--rows", type=int, default=None, help="rows in a step (8; 1 with --xl; on a GPU 32, and 8)")
    made.add_argument("--xl", action="store_true", help="gpt2-xl in place of GPT-2 124M")
    made.add_argument(
        "--warmup-steps", type=int, default=None, help="steps before the measured ones (2; more on a GPU)"
    )
    made.add_argument("--measured-steps", type=int, default=None, help="of a round (3; more on a GPU; 1 in quick mode)")
    made.add_argument("--no-costs", action="store_true", help="leave out what validation and checkpoints cost")
    arguments = made.parse_args()
    measured = _measured(xl=arguments.xl)
    chosen, contestants = options(arguments), choose(measured.contestants, arguments)
    name, model = measured.name, assets.XL_MODEL if arguments.xl else assets.MODEL
    context, rows = arguments.context or measured.context, arguments.rows or measured.rows
    warmup_steps = measured.warmup_steps if arguments.warmup_steps is None else arguments.warmup_steps
    steps = arguments.measured_steps or (1 if chosen.quick else measured.steps)
    shape = {"context": context, "rows": rows, "steps": warmup_steps + steps}
    assets.ensure("xl-model" if arguments.xl else "model", "batches", **shape)
    common = {
        "model": str(model),
        "data": str(assets.TRAIN_DATA),
        "batches": str(assets.batches_file(**shape)),
        "context": context,
        "rows": rows,
        "warmup_steps": warmup_steps,
        "measured_steps": steps,
    }
    settings = {key: common[key] for key in ("context", "rows", "warmup_steps", "measured_steps")}
    results = run_benchmark(name, contestants, chosen, common=common, settings=settings)
    if not arguments.xl:  # the losses to expect are those of the small model
        results["expected"] = assets.expected_losses(**shape)
    if name == NAME and not (arguments.no_costs or chosen.only):
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
