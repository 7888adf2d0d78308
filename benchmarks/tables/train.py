"""The tables of bench-train."""

from typing import Any

from benchmarks.core.page import figure, table
from benchmarks.core.program import Results, records_of
from benchmarks.core.rounds import Record
from benchmarks.core.statistics import spread
from benchmarks.tables.common import (
    GIGA,
    NOTHING,
    cell,
    circumstances,
    contestants_table,
    limit,
    memories,
    ratio_cell,
    share_cell,
)

DEFAULTS, NANOGPT = "Trainer, defaults", "nanoGPT's loop, compiled"
_WITHOUT_DROPOUT = ("Trainer, best settings", "Trainer, best settings, compiled", NANOGPT, "nanoGPT's loop, eager")
_SAME_LOSS_NATS, _SAME_LOSS_NATS_IN_BF16 = 1e-4, 1e-2
# GPT-2 124M: parameters that are multiplied (the position table is only added), of them those of one block.
_LAYERS, _WIDTH, _VOCABULARY = 12, 768, 50_257
_BLOCK = 12 * _WIDTH**2
_MULTIPLIED = _LAYERS * _BLOCK + _VOCABULARY * _WIDTH


def flops_per_token(name: str, *, context: int) -> float:
    """What a training step has to multiply for a token: 2 for the forward pass, 2 for the gradients of the inputs, 2
    for those of the weights that are trained, times the weights; and the attention, counted in full (Chowdhery et al.
    2022, appendix B). Below the last weight that is trained there is no backward pass; embeddings lie below all blocks.
    """
    attention = 12 * _LAYERS * _WIDTH * context
    if "LoRA" in name:
        return 4 * _MULTIPLIED + attention
    if "embeddings frozen" in name:
        upper_half = 4 * _BLOCK * _LAYERS / 2 + 2 * _VOCABULARY * _WIDTH
        return 2 * _MULTIPLIED + upper_half + attention * 2 / 3
    if "frozen" in name:
        return 6 * _MULTIPLIED - 2 * _BLOCK * _LAYERS / 2 + attention
    return 6 * _MULTIPLIED + attention


def tables(results: Results) -> dict[str, str]:
    """The parts of docs/benchmarks.md."""
    records = records_of(results)
    context = results["settings"]["context"]
    on_gpu = results["machine"]["gpu"] is not None
    memory = "peak_gpu_memory_bytes" if on_gpu else "peak_memory_bytes"
    rate = {name: record.by_round("tokens_per_second") for name, record in records.items()}

    def share(name: str) -> str:
        key = "bf16_flops_per_second" if on_gpu or "bf16" in name else "fp32_flops_per_second"
        most = [rate and rate / flops_per_token(name, context=context) for rate in limit(results, key)]
        return share_cell(rate[name], most)

    def cells(name: str, record: Record) -> list[str]:
        return [
            cell(record, "tokens_per_second"),
            ratio_cell(rate[name], rate.get(DEFAULTS, [])),
            ratio_cell(rate[name], rate.get(NANOGPT, [])),
            share(name),
            cell(record, memory, scale=1 / GIGA),
            cell(record, "begun_seconds"),
            cell(record, "first_step_seconds"),
            _loss(
                name, record, results.get("expected", {}), within=_SAME_LOSS_NATS_IN_BF16 if on_gpu else _SAME_LOSS_NATS
            ),
        ]

    header = [
        "contestant",
        "tokens/s",
        "x Trainer, defaults",
        "x nanoGPT's loop",
        "of the matrix limit",
        "peak memory, GB",
        "first step begins after, s",
        "and ends after, s",
        "first loss",
    ]
    body = f"{circumstances(results)}\n\n{contestants_table(results, header, cells)}"
    if on_gpu:
        rows = f"{results['settings']['rows']} x {context:,} tokens a step, in bf16 but for the Trainer's defaults."
        return {"train-gpu": body.replace("\n\n", f" {rows}\n\n", 1)}
    return {"train": body, "costs": _costs(results.get("costs", {}))}


def _loss(name: str, record: Record, expected: dict[str, float], *, within: float) -> str:
    losses = record.all("first_loss")
    if not losses or not expected:
        return NOTHING
    key = "gpt2kit" if name.startswith("gpt2kit") else "shifted" if name.startswith("Trainer") else "all"
    same = max(abs(loss - expected[key]) for loss in losses) < within
    sign = "=" if same else "\u2260"
    return f"{losses[0]:.4f} {sign} {expected[key]:.4f}"


def _costs(costs: dict[str, Any]) -> str:
    if not costs:
        return "Not measured yet."
    if "reason" in costs:
        return f"Could not be measured: {costs['reason']}"
    rows = [
        ["steps of the planned run", f"{costs['planned_steps']:,}"],
        ["seconds of a step", figure(costs["step_seconds"])],
        ["logging and data, seconds a step", figure(max(costs["overhead_seconds"], 0.0))],
        [
            f"a validation of {costs['validation_tokens']:,} tokens with sample and checkpoint, seconds",
            figure(costs["validation_seconds"]),
        ],
        ["such validations in the run", f"{costs['planned_validations']}"],
        ["**share of the time beside the steps**", f"{costs['share_beside_steps']:.1%}"],
        ["**share of positions that are padding**", f"{costs['share_padding']:.2%}"],
    ]
    return table(["gpt2kit at its defaults", ""], rows)


def readme_rows(results: Results) -> list[list[str]]:
    """Rows for README.md: what, ours, the other: the same with the same dropout, the quickest of those without."""
    records = {name: record for name, record in records_of(results).items() if record.rounds}
    on_gpu = results["machine"]["gpu"] is not None
    quickest = max(
        (name for name in _WITHOUT_DROPOUT if name in records),
        key=lambda name: spread(records[name].all("tokens_per_second")).median,
        default="",
    )
    if on_gpu:
        ours = "gpt2kit, no dropout, compiled"
        what = f"fine-tune it on an {results['machine']['gpu'].partition(',')[0]}, tokens/s"
        return [
            _readme_row(what, records[ours], other, records[other], memory="peak_gpu_memory_bytes")
            for other in dict.fromkeys((quickest, "Trainer, best settings, compiled"))
            if ours in records and other in records
        ]
    return [
        _readme_row(what, records[ours], other, records[other])
        for what, ours, other in (
            ("fine-tune GPT-2 124M at the defaults, tokens/s", "gpt2kit, defaults", DEFAULTS),
            ("fine-tune it without dropout, tokens/s", "gpt2kit, no dropout", quickest),
            ("the same with LoRA, tokens/s", "gpt2kit, LoRA", "Trainer with peft LoRA"),
        )
        if ours in records and other in records
    ]


def _readme_row(what: str, ours: Record, name: str, other: Record, *, memory: str = "peak_memory_bytes") -> list[str]:
    peaks = memories(ours, other, memory)
    times = ratio_cell(ours.by_round("tokens_per_second"), other.by_round("tokens_per_second"))
    return [what, cell(ours, "tokens_per_second"), f"{cell(other, 'tokens_per_second')} ({name})", times, peaks]
