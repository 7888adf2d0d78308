"""The CUDA kernel that reads a token, run on a CPU with a thread for each of a GPU's; `tests/gpu` has it on a GPU."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from gpt2kit.model import GPT2, GPT2Config, cuda_token
from gpt2kit.model.cache import KVCache
from gpt2kit.model.cuda_token import Shape, kernel_source
from gpt2kit.model.one_token import TokenReader

HERE = Path(__file__).parent
ROOM = 1 << 18  # bytes of shared memory

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def compiled(shape: Shape, folder: Path) -> ctypes.CDLL:
    """The kernel as a library, with a function that runs it."""
    source, library = folder / "kernel.cpp", folder / "kernel.so"
    run = "run_on_cpu(given, PROGRAMS, THREADS + LANES, SHARED_BYTES);"
    kernel = kernel_source().decode()
    source.write_text(f'#include "cuda_on_cpu.h"\n{kernel}\nextern "C" void run(const Arguments *given) {{ {run} }}\n')
    given = [f"-D{name}={number}" for name, number in shape.definitions(shared_bytes=ROOM).items()]
    flags = ["-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-fno-strict-aliasing", "-w"]
    subprocess.run(["g++", *flags, *given, f"-I{HERE}", str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize(
    ("heads", "width", "layers", "inner", "programs", "prompt", "dtype"),
    [
        (4, 64, 2, 256, 5, 5, torch.bfloat16),  # one program attends for a head at most; some rows are nobody's
        (2, 32, 1, 256, 5, 150, torch.float16),  # a head's columns are shared by two
        (3, 48, 1, 96, 7, 210, torch.bfloat16),
    ],
)
def test_a_token_read_by_all_programs_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    heads: int,
    width: int,
    layers: int,
    inner: int,
    programs: int,
    prompt: int,
    dtype: torch.dtype,
) -> None:
    V, steps = 61, 3
    monkeypatch.setattr(cuda_token, "_MOST_WARPS", 2)
    config = GPT2Config(
        n_layer=layers, n_head=heads, n_embd=width, n_inner=inner, vocab_size=V, n_positions=prompt + steps
    )
    generator = torch.Generator().manual_seed(0)
    model = GPT2(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1 + (parameter == 1))
        rounded = {name: value.to(dtype) for name, value in model.state_dict().items()}
    model.load_state_dict({name: value.float() for name, value in rounded.items()})
    half = GPT2(config).to(dtype).eval()
    half.load_state_dict(rounded)
    ids_1T = torch.randint(V, (1, prompt), generator=generator)
    device = torch.device("cpu")
    with torch.inference_mode():
        expected_cache, cache = (
            KVCache(config, batch_size=1, max_length=prompt + steps, device=device, dtype=kind)
            for kind in (torch.float32, dtype)
        )
        model(ids_1T, cache=expected_cache)
        # What the cache holds in half precision, both shall read.
        cache.keys_LBHSK.copy_(expected_cache.keys_LBHSK)
        cache.values_LBHSK.copy_(expected_cache.values_LBHSK)
        expected_cache.keys_LBHSK.copy_(cache.keys_LBHSK)
        expected_cache.values_LBHSK.copy_(cache.values_LBHSK)
        next_1, column_1 = torch.tensor([7]), torch.tensor([prompt])
        bias_V = torch.zeros(V)
        reader = TokenReader(half, cache, ids_1=next_1, column_1=column_1, bias_V=bias_V, programs=programs)
        library, arguments = compiled(reader.shape, tmp_path), reader.arguments()
        for step in range(steps):
            column = prompt + step
            expected_1V = model.logits(model(next_1[None].clone(), cache=expected_cache)[:, -1])
            bias_V.zero_()[expected_1V.argmax()] = -torch.inf if step == 1 else 0.0
            library.run(ctypes.byref(arguments))

            # The token's own key and value are rounded here, and not there.
            torch.testing.assert_close(reader.logits_1V, expected_1V, rtol=0.01, atol=2e-3)
            assert int(column_1) == column + 1
            highest_P, total_P, biased_P, bits_P = reader.summaries_4P
            log_total = (total_P.log() + highest_P).logsumexp(0)
            torch.testing.assert_close(log_total, reader.logits_1V.logsumexp(1)[0], rtol=1e-5, atol=1e-5)
            best = int(bits_P.view(torch.int32)[biased_P.argmax()])
            assert best == int((reader.logits_1V + bias_V).argmax())
            next_1.fill_(best)
            for made_LBHSK, exact_LBHSK in (
                (cache.keys_LBHSK, expected_cache.keys_LBHSK),
                (cache.values_LBHSK, expected_cache.values_LBHSK),
            ):
                torch.testing.assert_close(made_LBHSK.float(), exact_LBHSK, rtol=0.02, atol=4e-3)
                exact_LBHSK.copy_(made_LBHSK)
