"""The kernel compiled with sanitizers reads random models: no byte out of bounds, nothing undefined, no data race."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gpt2kit.native

COMPILER = shutil.which("gcc")
SOURCES = Path(gpt2kit.native.__file__).parent
FUZZ = Path(__file__).with_name("fuzz.py")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(COMPILER is None or not sys.platform.startswith("linux"), reason="needs gcc on Linux"),
]


@pytest.mark.parametrize(
    ("sanitizers", "runtimes"),
    [("address,undefined", ("asan", "ubsan")), ("thread", ("tsan",))],
    ids=["memory", "races"],
)
def test_random_models_are_read_cleanly(tmp_path: Path, sanitizers: str, runtimes: tuple[str, ...]) -> None:
    assert COMPILER is not None
    library = tmp_path / "kernel.so"
    names = [subprocess.check_output([COMPILER, f"-print-file-name=lib{name}.so"], text=True) for name in runtimes]
    if not all(Path(name.strip()).is_absolute() for name in names):
        pytest.skip(f"this gcc comes without {sanitizers}")
    options = f"-shared -fPIC -O1 -g -std=gnu11 -Wno-psabi -fno-sanitize-recover=all -fsanitize={sanitizers}".split()
    sources = [str(SOURCES / f"{name}.c") for name in ("kernel", "pack", "pool")]
    subprocess.run([COMPILER, *options, *sources, "-o", str(library), "-lpthread", "-lm"], check=True)
    environment = os.environ | {
        "LD_PRELOAD": " ".join(name.strip() for name in names),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python leaves much to the end of the process
        "TSAN_OPTIONS": "exitcode=66",
    }
    command = [sys.executable, str(FUZZ), str(library), "0", "6"]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "clean\n"), found.stderr[-3000:]
