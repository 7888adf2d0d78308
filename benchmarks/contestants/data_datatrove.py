"""datatrove: JSON lines to shuffled token files, one process for each file. It neither cleans nor splits here."""

import shutil
import tempfile
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.tokens import DocumentTokenizer

from benchmarks.contestants.texts import num_bytes
from benchmarks.core.child import Arguments, contestant, seconds_since_start
from benchmarks.core.places import WORK

_TOKEN_BYTES = 2


def measure(arguments: Arguments) -> dict[str, float]:
    """Read, tokenise and write all text."""
    load_seconds = seconds_since_start()
    source = Path(arguments["texts"])
    work = Path(tempfile.mkdtemp(prefix="datatrove-", dir=WORK))
    try:
        started = time.perf_counter()
        LocalPipelineExecutor(
            pipeline=[
                JsonlReader(str(source / "jsonl")),
                DocumentTokenizer(
                    str(work / "tokens"),
                    tokenizer_name_or_path=str(Path(arguments["model"]) / "tokenizer.json"),
                    eos_token="<|endoftext|>",
                    local_working_dir=str(work / "local"),
                ),
            ],
            tasks=2,
            workers=min(2, arguments["threads"]),
            logging_dir=str(work / "logs"),
        ).run()
        seconds = time.perf_counter() - started
        tokens = sum(path.stat().st_size for path in (work / "tokens").rglob("*.ds")) // _TOKEN_BYTES
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if not tokens:
        raise RuntimeError("it wrote no tokens")
    return {"bytes_per_second": num_bytes(source) / seconds, "tokens": tokens, "load_seconds": load_seconds}


if __name__ == "__main__":
    contestant(measure)
