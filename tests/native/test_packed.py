"""Weights on disk: formats that are read, and quantised weights that are kept beside the model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from gpt2kit.errors import ModelError
from gpt2kit.files import sha256_file
from gpt2kit.model import GPT2
from gpt2kit.native import packed
from gpt2kit.native.checkpoint import Checkpoint, UnsupportedError, can_read
from gpt2kit.native.engine import DrawingRules, NativeEngine, TextCache
from gpt2kit.native.library import load_library

pytestmark = pytest.mark.skipif(load_library() is None, reason="the kernel was not compiled")
IDS = [5, 3, 8, 13, 1]


def scores(folder: Path, **options) -> np.ndarray:
    engine = NativeEngine(folder, **options)
    return engine.read([TextCache(engine, len(IDS))], [IDS])


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "model", ignore=shutil.ignore_patterns("native")))


def change_config(folder: Path, **values) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def change_weights(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_exactly(network: GPT2, copy: Path, dtype: torch.dtype) -> None:
    change_weights(copy, lambda weights: {name: tensor.to(dtype) for name, tensor in weights.items()})
    rounded = GPT2(network.config)
    rounded.load_state_dict({name: tensor.to(dtype).float() for name, tensor in network.state_dict().items()})
    with torch.no_grad():
        expected = rounded.eval().logits(rounded(torch.tensor([IDS]))[:, -1]).numpy()
    np.testing.assert_allclose(scores(copy), expected, atol=1e-4, rtol=0)


def test_names_without_prefix_and_mask_buffers(folder: Path, copy: Path) -> None:
    def as_openai(weights: dict) -> dict:
        renamed = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
        return renamed | {"h.0.attn.bias": torch.ones(1, 1, 4, 4)}

    change_weights(copy, as_openai)
    assert np.array_equal(scores(copy), scores(folder))


def test_an_unknown_tensor_is_refused(copy: Path) -> None:
    change_weights(copy, lambda weights: weights | {"transformer.extra": torch.ones(2)})
    with pytest.raises(ModelError, match=r"'transformer\.extra', which no GPT-2"):
        Checkpoint(copy)


def test_a_missing_tensor_and_a_wrong_shape_are_refused(copy: Path) -> None:
    change_weights(copy, lambda weights: {k: v for k, v in weights.items() if k != "transformer.ln_f.bias"})
    with pytest.raises(ModelError, match="lack"):
        Checkpoint(copy)
    change_weights(copy, lambda weights: weights | {"transformer.ln_f.bias": torch.ones(3)})
    with pytest.raises(ModelError, match=r"transformer\.ln_f\.bias is"):
        Checkpoint(copy)


def test_a_cut_file_is_refused(copy: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match="cut short"):
        Checkpoint(copy)


def test_another_activation_is_left_to_pytorch(copy: Path) -> None:
    change_config(copy, activation_function="relu")
    assert not can_read(copy)
    with pytest.raises(UnsupportedError, match="relu"):
        Checkpoint(copy)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_quantised_weights_are_kept_and_used(copy: Path, weights: str) -> None:
    first = scores(copy, weights=weights)
    kept = copy / "native" / f"{weights}.bin"
    written = kept.stat().st_mtime_ns
    assert np.array_equal(scores(copy, weights=weights), first)
    assert kept.stat().st_mtime_ns == written
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


def test_the_hashes_of_kept_weights_are_those_of_the_files(copy: Path) -> None:
    for _ in range(2):
        known = NativeEngine(copy, weights="int8").packed.hashes
    assert set(known) == {"config.json", "model.safetensors"}
    assert known == {name: sha256_file(copy / name) for name in known}


def test_a_damaged_file_is_made_anew(copy: Path, capsys: pytest.CaptureFixture) -> None:
    first = scores(copy, weights="int8")
    kept = copy / "native" / "int8.bin"
    whole = kept.read_bytes()
    for damaged in (b"", b"{}\n", whole[:5000], whole[:-1], whole[:6000] + b"\xff" + whole[6001:], b"x" * len(whole)):
        kept.write_bytes(damaged)
        assert np.array_equal(scores(copy, weights="int8"), first)
        assert kept.read_bytes() == whole


def test_a_stale_file_is_made_anew(copy: Path) -> None:
    scores(copy, weights="int8")
    change_weights(copy, lambda weights: {name: 2 * tensor for name, tensor in weights.items()})
    expected = scores(copy, weights="int8")
    shutil.rmtree(copy / "native")
    assert np.array_equal(scores(copy, weights="int8"), expected)


def test_a_copied_model_keeps_its_file(copy: Path, tmp_path: Path) -> None:
    scores(copy, weights="int8")
    twin = Path(shutil.copytree(copy, tmp_path / "twin", copy_function=shutil.copyfile))
    (twin / "model.safetensors").touch()
    before = (twin / "native" / "int8.bin").stat().st_mtime_ns
    scores(twin, weights="int8")
    assert (twin / "native" / "int8.bin").stat().st_mtime_ns == before


def test_a_folder_that_cannot_be_written(copy: Path, capsys: pytest.CaptureFixture) -> None:
    (copy / "native").write_text("a file where the folder should be")
    assert np.isfinite(scores(copy, weights="int8")).all()
    assert "not kept" in capsys.readouterr().err


def test_weights_that_are_not_numbers(copy: Path) -> None:
    change_weights(copy, lambda weights: {name: tensor * torch.nan for name, tensor in weights.items()})
    with pytest.raises(ModelError, match="NaN"):
        scores(copy, weights="int8")
    engine = NativeEngine(copy)
    rows = list(engine.read([TextCache(engine, 8)], [[1, 2, 3]]))
    with pytest.raises(ModelError, match="not numbers"):
        engine.choose(rows, rows, keys=[0], rules=DrawingRules())


def test_a_model_that_is_replaced_while_it_is_packed_is_packed_again(
    copy: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a training that saves a better model: the old weights once were kept under the new file's hash."""
    change_weights(copy, lambda weights: {name: tensor * 2 for name, tensor in weights.items()})
    pack = packed._pack

    def replaced(*arguments, **options):
        found = pack(*arguments, **options)
        if not (copy / "again").exists():
            (copy / "again").touch()
            shutil.copy(folder / "model.safetensors", copy / "model.safetensors")
        return found

    monkeypatch.setattr(packed, "_pack", replaced)
    found = scores(copy, weights="int8")
    assert np.array_equal(found, scores(folder, weights="int8"))
    assert np.array_equal(scores(copy, weights="int8"), found)


def test_kept_weights_of_another_shape_are_not_taken(copy: Path) -> None:
    expected = scores(copy, weights="int8")
    path = copy / "native" / "int8.bin"
    heads = json.loads(path.read_bytes().partition(b"\n")[0])["shape"]["n_head"]
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"n_head": %d' % heads, b'"n_head": 8', 1).ljust(len(data)))
    assert np.array_equal(scores(copy, weights="int8"), expected)


def test_a_vector_that_holds_no_number_is_named(copy: Path) -> None:
    def spoil(weights: dict) -> dict:
        weights["transformer.ln_f.bias"][0] = float("nan")
        return weights

    change_weights(copy, spoil)
    with pytest.raises(ModelError, match=r"transformer\.ln_f\.bias holds numbers that are infinite or none"):
        NativeEngine(copy, weights="int8")
