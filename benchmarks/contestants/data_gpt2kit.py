"""gpt2kit's whole road: `gpt2kit.prepare` from text files to tokens on the disk, with cleaning and split."""

import shutil
import tempfile
import time
from pathlib import Path

import gpt2kit
from benchmarks.contestants.texts import num_bytes
from benchmarks.core.child import Arguments, contestant, seconds_since_start
from benchmarks.core.places import WORK


def measure(arguments: Arguments) -> dict[str, float]:
    """Prepare all text."""
    load_seconds = seconds_since_start()
    source = Path(arguments["texts"])
    work = Path(tempfile.mkdtemp(prefix="prepared-", dir=WORK))
    try:
        started = time.perf_counter()
        data = gpt2kit.prepare(
            gpt2kit.PrepareSettings(input=source / "txt", data_dir=work / "data", base=arguments["model"])
        )
        seconds = time.perf_counter() - started
        tokens = sum(split["num_tokens"] for split in data.manifest["splits"].values())
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {"bytes_per_second": num_bytes(source) / seconds, "tokens": tokens, "load_seconds": load_seconds}


if __name__ == "__main__":
    contestant(measure)
