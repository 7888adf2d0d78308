"""What the tables of all benchmarks share: the machine, the limits, contestants that cannot run."""

from collections.abc import Sequence
from typing import Any

from benchmarks.core.page import figure, table, with_range
from benchmarks.core.program import Results, records_of
from benchmarks.core.rounds import Record
from benchmarks.core.statistics import median_ratio, spread

GIGA = 1e9
NOTHING = "\u2013"
Figures = Sequence[float | None]  # one a round
_LIMITS = {
    "fp32_flops_per_second": "fp32 matrix rate {} GFLOP/s",
    "bf16_flops_per_second": "bf16 matrix rate {} GFLOP/s",
    "read_bytes_per_second": "memory read at {} GB/s",
}


def circumstances(results: Results) -> str:
    """A paragraph: machine, limits, when, from which commit, versions."""
    machine, versions = results["machine"], results["versions"]
    processor = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / GIGA:.0f} GB"
    where = " and ".join(filter(None, (machine.get("gpu"), processor)))
    limits = [
        words.format(with_range(spread(found), scale=1 / GIGA))
        for key, words in _LIMITS.items()
        if (found := Record(results["limits"]).all(key))
    ]
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)
    without = results["settings"].get("without")
    left_out = f" Left out of this run: {'; '.join(without)}." if without else ""
    instructions = ", ".join(machine["instructions"]) or "none that matter"
    return (
        f"Measured {results['created'][:10]} at commit {results['commit']} on {where} ({instructions}); "
        f"{results['settings']['threads']} threads; medians of {results['settings']['rounds']} rounds, with the "
        f"smallest and the largest. Limits in the same run: {'; '.join(limits) or 'not measured'}. "
        f"Versions: {named}.{left_out}"
    )


def limit(results: Results, key: str) -> list[float | None]:
    """A limit of the machine, one figure a round."""
    return Record(results["limits"]).by_round(key)


def contestants_table(results: Results, header: Sequence[str], cells: Any) -> str:
    """A row for each contestant that has figures, and under the table why the others have none.

    Args:
        results: the benchmark's results.
        header: the first column and the others.
        cells: a function of (name, record) that gives the other cells.
    """
    records = records_of(results)
    ours = {name for name, values in results["contestants"].items() if values["ours"]}
    rows = [
        [f"**{name}**" if name in ours else name, *cells(name, record)]
        for name, record in records.items()
        if record.rounds
    ]
    reasons = [f"- {name} cannot run: {record.reason}" for name, record in records.items() if record.reason is not None]
    return table(header, rows) + ("\n\n" + "\n".join(reasons) if reasons else "")


def cell(record: Record, key: str, *, scale: float = 1.0) -> str:
    """A figure with its range, or a dash."""
    values = record.all(key)
    return with_range(spread(values), scale=scale) if values else NOTHING


def ratio_cell(values: Figures, others: Figures) -> str:
    """The median ratio within rounds, or a dash."""
    return figure(median_ratio(values, others)) if _meet(values, others) else NOTHING


def share_cell(values: Figures, limits: Figures) -> str:
    """The median share of a limit within rounds, in percent, or a dash."""
    return f"{median_ratio(values, limits):.0%}" if _meet(values, limits) else NOTHING


def memories(ours: Record, other: Record, key: str) -> str:
    """Two peak memories against each other, for a table without ranges: medians, or a dash."""
    peaks = [record.all(key) for record in (ours, other)]
    return " against ".join(f"{figure(spread(each).median / GIGA)} GB" if each else NOTHING for each in peaks)


def _meet(values: Figures, others: Figures) -> bool:
    return any(None not in pair for pair in zip(values, others, strict=False))
