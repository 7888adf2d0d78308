"""The tables of bench-generate."""

from benchmarks.core.page import table
from benchmarks.core.program import Results, records_of
from benchmarks.core.rounds import Record
from benchmarks.core.statistics import spread
from benchmarks.tables.common import (
    NOTHING,
    cell,
    circumstances,
    contestants_table,
    limit,
    memories,
    ratio_cell,
    share_cell,
)

_MEGA = 1e6
_MILLI = 1e3
# Contestants whose weights have as many bits are compared with each other.
_CLASSES = {4: "fp32", 2: "bf16", 1: "8-bit", 0.5: "4-bit"}
_TASKS = {
    "single_per_second": "one text",
    "first_token_seconds": "first token",
    "prompt_per_second": "prompt",
    "batch_per_second": "32 texts",
    "samples_per_second": "samples of one prompt",
    "cold_seconds": "cold process",
}


def tables(results: Results) -> dict[str, str]:
    """The parts of docs/benchmarks.md."""
    tokens = results["settings"]["sizes"]["tokens"]

    def cells(name: str, record: Record) -> list[str]:
        read_bytes = results["weight_bytes"][name] * results["parameters"]
        most = [rate and rate / read_bytes for rate in limit(results, "read_bytes_per_second")]
        return [
            cell(record, "single_per_second"),
            share_cell(record.by_round("single_per_second"), most),
            _agreement(record, tokens),
            cell(record, "first_token_seconds", scale=_MILLI),
            cell(record, "prompt_per_second"),
            cell(record, "batch_per_second"),
            cell(record, "samples_per_second"),
            cell(record, "cold_seconds"),
            cell(record, "cold_peak_memory_bytes", scale=1 / _MEGA),
        ]

    header = [
        "contestant",
        "one text, tokens/s",
        "of the memory limit",
        "same tokens as the reference",
        "first token, ms",
        "prompt, tokens/s",
        "32 texts, tokens/s",
        "samples of one prompt, tokens/s",
        "cold process, s",
        "its peak memory, MB",
    ]
    body = f"{circumstances(results)}\n\n{contestants_table(results, header, cells)}"
    body += (
        "\n\nThe quicker of gpt2kit's against the best other with weights of as many bits, the median of the ratios "
        f"within rounds (above 1 gpt2kit is quicker):\n\n{_ratios(results)}"
    )
    if tasks := _failed_tasks(results):
        body += "\n" + tasks
    return {"generate" if results["machine"]["gpu"] is None else "generate-gpu": body}


def _ratios(results: Results) -> str:
    """How many times as quick as the best other, task by task, for each class of weights."""
    rows = []
    for size, name in _CLASSES.items():
        if size not in results["weight_bytes"].values():
            continue
        cells = [name]
        for key in _TASKS:
            ours, other = (_best(results, key, size, ours=own) for own in (True, False))
            if ours is None or other is None:
                cells.append(NOTHING)
                continue
            mine, theirs = ours[1].by_round(key), other[1].by_round(key)
            times = ratio_cell(theirs, mine) if _is_time(key) else ratio_cell(mine, theirs)
            cells.append(f"{times} ({other[0]})")
        rows.append(cells)
    return table(["weights", *_TASKS.values()], rows)


def _is_time(key: str) -> bool:
    return key.endswith("_seconds")


def _agreement(record: Record, tokens: int) -> str:
    found = record.all("agreeing_tokens")
    return f"{min(found):.0f} of {tokens}" if found else NOTHING


def _failed_tasks(results: Results) -> str:
    """Why single tasks of contestants have no figure."""
    lines = []
    for name, record in records_of(results).items():
        found: dict[str, str] = {}
        for values in record.rounds:
            found = values | found
        lines += [f"- {name}, {key.removesuffix('_reason')}: {found[key]}" for key in found if key.endswith("_reason")]
    return "\n".join(lines)


def readme_rows(results: Results) -> list[list[str]]:
    """Rows for README.md: what, ours, the best other, for each class of weights."""
    rows = []
    gpu = results["machine"]["gpu"]
    where = "" if gpu is None else f" on an {gpu.partition(',')[0]}"
    for size, name in _CLASSES.items():
        for what, key in (("one text", "single_per_second"), ("32 texts", "batch_per_second")):
            ours, other = _best(results, key, size, ours=True), _best(results, key, size, ours=False)
            if ours is None or other is None:
                continue
            (_, mine), (their_name, theirs) = ours, other
            times = ratio_cell(mine.by_round(key), theirs.by_round(key))
            # Measured in a process that writes one text.
            memory = (
                memories(mine, theirs, "cold_peak_memory_bytes")
                if key == "single_per_second" and gpu is None
                else NOTHING
            )
            what_exactly = f"write {what}{where}, {name} weights, tokens/s"
            other_figure = f"{cell(theirs, key)} ({their_name})"
            rows.append([what_exactly, cell(mine, key), other_figure, times, memory])
    return rows


def _best(results: Results, key: str, size: float, *, ours: bool) -> tuple[str, Record] | None:
    """The quickest of ours or of the others with weights of that size."""
    found = [
        (name, record)
        for name, record in records_of(results).items()
        if record.all(key) and results["weight_bytes"][name] == size and results["contestants"][name]["ours"] == ours
    ]
    choose = min if _is_time(key) else max
    return choose(found, key=lambda pair: spread(pair[1].all(key)).median, default=None)
