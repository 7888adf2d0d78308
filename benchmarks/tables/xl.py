"""The table of bench-train with gpt2-xl."""

from benchmarks.core.program import Results
from benchmarks.core.rounds import Record
from benchmarks.tables.common import GIGA, cell, circumstances, contestants_table


def tables(results: Results) -> dict[str, str]:
    """The part of docs/benchmarks.md."""

    on_gpu = results["machine"]["gpu"] is not None
    memory = "peak_gpu_memory_bytes" if on_gpu else "peak_memory_bytes"

    def cells(_: str, record: Record) -> list[str]:
        return [
            cell(record, memory, scale=1 / GIGA),
            cell(record, "tokens_per_second"),
            cell(record, "begun_seconds"),
            cell(record, "first_step_seconds"),
        ]

    header = ["contestant", "peak memory, GB", "tokens/s", "first step begins after, s", "and ends after, s"]
    rows = f"{results['settings']['rows']} x {results['settings']['context']} tokens a step."
    return {
        "xl-gpu" if on_gpu else "xl": f"{circumstances(results)} {rows}\n\n{contestants_table(results, header, cells)}"
    }


def readme_rows(_: Results) -> list[list[str]]:
    """Nothing for README.md."""
    return []
