"""The tables of bench-data."""

from benchmarks.core.program import Results, records_of
from benchmarks.core.rounds import Record
from benchmarks.tables.common import GIGA, cell, circumstances, contestants_table, ratio_cell

_MEGA = 1e6
_TOKENIZERS = "tokenizers"


def tables(results: Results) -> dict[str, str]:
    """The parts of docs/benchmarks.md."""
    records = records_of(results)
    theirs = records.get(_TOKENIZERS, Record()).by_round("bytes_per_second")

    def cells(_: str, record: Record) -> list[str]:
        return [
            cell(record, "bytes_per_second", scale=1 / _MEGA),
            ratio_cell(record.by_round("bytes_per_second"), theirs),
            f"{record.rounds[0]['tokens']:,}",
            cell(record, "peak_memory_bytes", scale=1 / GIGA),
            cell(record, "load_seconds"),
        ]

    header = ["contestant", "MB/s", "x tokenizers", "tokens found", "peak memory, GB", "ready after, s"]
    size = f"{results['settings']['mebibytes']} MiB of English books."
    return {"data": f"{circumstances(results)} {size}\n\n{contestants_table(results, header, cells)}"}


def readme_rows(results: Results) -> list[list[str]]:
    """Rows for README.md: what, ours, the best other."""
    records = records_of(results)
    ours, other = records.get("gpt2kit prepare", Record()), records.get("datatrove", Record())
    if not (ours.rounds and other.rounds):
        return []
    mine, theirs = (cell(record, "bytes_per_second", scale=1 / _MEGA) for record in (ours, other))
    times = ratio_cell(ours.by_round("bytes_per_second"), other.by_round("bytes_per_second"))
    memory = " against ".join(cell(record, "peak_memory_bytes", scale=1 / GIGA) + " GB" for record in (ours, other))
    return [["prepare text, MB/s", mine, f"{theirs} (datatrove, which does less)", times, memory]]
