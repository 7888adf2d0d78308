"""Whatever is done to a model's files, they are read, or refused with an error of the package in one line."""

import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_gpt2 import tiny

from gpt2kit.errors import Gpt2kitError
from gpt2kit.model import add_lora, load_model, save_adapter, save_model
from gpt2kit.model.weights import read_safetensors

WEIGHTS = "model.safetensors"
SMALL = {"vocab_size": 11, "n_positions": 6, "n_embd": 4, "n_layer": 1, "n_head": 2}
QUICK = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-5, 20)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["gpt2", "gelu", "float32"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def save_small(folder: Path) -> None:
    save_model(tiny(**SMALL), folder)


def save_small_adapter(folder: Path) -> None:
    save_small(folder / "base")
    model = tiny(**SMALL)
    add_lora(model, rank=2, alpha=4, dropout=0.0, targets=["c_attn", "c_fc"])
    save_adapter(model, folder, base="base")


def files_after(save: Callable[[Path], None]) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save(folder)
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


MODEL, ADAPTER = files_after(save_small), files_after(save_small_adapter)
CONFIG = json.loads(MODEL["config.json"])
ADAPTER_CONFIG = json.loads(ADAPTER["adapter_config.json"])


def outcome(folder: Path, files: dict[str, bytes]) -> str:
    """ "read", or the message of the package's error; anything else goes up and fails the test."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    try:
        load_model(folder)
    except Gpt2kitError as error:
        return str(error)
    return "read"


def assert_one_line(text: str) -> None:
    assert text
    assert "\n" not in text


@QUICK
@given(changes=st.dictionaries(st.sampled_from(sorted(CONFIG)) | st.text(max_size=8), values, max_size=4))
def test_any_configuration(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = json.dumps(CONFIG | changes).encode()
    assert_one_line(outcome(tmp_path, MODEL | {"config.json": config}))


@QUICK
@given(changes=st.dictionaries(st.sampled_from(sorted(ADAPTER_CONFIG)) | st.text(max_size=8), values, max_size=4))
def test_any_adapter_configuration(tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    config = json.dumps(ADAPTER_CONFIG | changes).encode()
    assert_one_line(outcome(tmp_path, ADAPTER | {"adapter_config.json": config}))


@QUICK
@given(data=st.data(), name=st.sampled_from([WEIGHTS, "config.json"]))
def test_any_bytes_replaced(tmp_path: Path, data: st.DataObject, name: str) -> None:
    content = bytearray(MODEL[name])
    start = data.draw(st.integers(0, min(len(content), 400)))
    end = data.draw(st.integers(start, len(content)))
    content[start:end] = data.draw(st.binary(max_size=12))
    assert_one_line(outcome(tmp_path, MODEL | {name: bytes(content)}))


@QUICK
@given(
    header=st.dictionaries(
        st.sampled_from(["transformer.wte.weight", "h.0.attn.bias", "lm_head.weight", "a\nb", "__metadata__", ""]),
        st.fixed_dictionaries(
            {},
            optional={
                "dtype": st.sampled_from(["F32", "BF16", "I8", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "C64", "X", 3]),
                "shape": st.lists(st.integers(-2, 2**64), max_size=3) | scalars,
                "data_offsets": st.lists(st.integers(0, 2**64), max_size=3) | scalars,
            },
        )
        | values,
        max_size=3,
    ),
    body=st.binary(max_size=40),
    lie=st.sampled_from([0, 0, 0, 1, -1, 2**62]),
)
def test_any_header(tmp_path: Path, header: dict[str, Any], body: bytes, lie: int) -> None:
    text = json.dumps(header).encode()
    content = struct.pack("<Q", max(0, len(text) + lie)) + text + body
    assert_one_line(outcome(tmp_path, MODEL | {WEIGHTS: content}))


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16", "F64", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"])
def test_tensors_of_any_kind_are_read_or_refused(tmp_path: Path, dtype: str) -> None:
    size = {"F32": 4, "F64": 8, "I64": 8, "F16": 2, "BF16": 2}.get(dtype, 1)
    header = json.dumps({"t": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2 * size]}}).encode()
    path = tmp_path / WEIGHTS
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(2 * size))
    assert read_safetensors(path)["t"].shape == (2,)


def test_every_tensor_has_aligned_memory_of_its_own(tmp_path: Path) -> None:
    written = {
        "odd": torch.arange(3.0).to(torch.bfloat16),  # the next one then begins at no multiple of four bytes
        "matrix": torch.arange(6.0).view(2, 3),
        "scalar": torch.tensor(7.0, dtype=torch.float64),
        "empty": torch.empty(0, 4),
    }
    save_file(written, tmp_path / WEIGHTS)
    found = read_safetensors(tmp_path / WEIGHTS)
    (tmp_path / WEIGHTS).write_bytes(bytes((tmp_path / WEIGHTS).stat().st_size))  # nothing is mapped any more
    for name, tensor in written.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name
        if tensor.is_floating_point() and tensor.numel():
            assert found[name].data_ptr() % 64 == 0
            assert found[name].untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


def test_undamaged_files_are_read(tmp_path: Path) -> None:
    assert outcome(tmp_path / "a", MODEL) == "read"
    assert outcome(tmp_path / "b", ADAPTER) == "read"
