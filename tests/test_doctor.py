"""The doctor measures this machine, and expects of it what a training would."""

import json
import tomllib
from pathlib import Path

import pytest
import torch

from gpt2kit import doctor
from gpt2kit.cli import main
from gpt2kit.errors import UsageError
from gpt2kit.model import GPT2, GPT2Config, add_lora

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine of known rates: 100 GFLOP/s, 10 GB/s; and no models on it."""
    monkeypatch.setattr(doctor, "matrix_rate", lambda device, dtype: 100e9)
    monkeypatch.setattr(doctor, "_read_rate", lambda device: 10e9)
    monkeypatch.setattr(doctor, "cached_copy", lambda name: None)


def give_memory(monkeypatch: pytest.MonkeyPatch, gigabytes: float) -> None:
    monkeypatch.setattr(doctor, "available_memory_bytes", lambda device: int(gigabytes * 1e9))


def test_a_real_machine_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json", "--device", "cpu"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["matrix_flops"] > 1e9
    assert found["read_bytes_per_second"] > 1e8
    assert found["cores"] >= 1
    assert found["device"] == "cpu"
    assert main(["doctor", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "matrix product" in shown
    assert "Largest to fine-tune here" in shown or "No GPT-2 size fits" in shown


@pytest.mark.parametrize(
    ("name", "parameters"),
    # radford2019language states 117M to 1542M, its errata 124M to 1558M; these are the exact counts of the checkpoints.
    [
        ("distilgpt2", 81_912_576),
        ("gpt2", 124_439_808),
        ("gpt2-medium", 354_823_168),
        ("gpt2-large", 774_030_080),
        ("gpt2-xl", 1_557_611_200),
    ],
)
def test_sizes_are_those_of_the_checkpoints(name: str, parameters: int) -> None:
    layers, heads, width = doctor.MODELS[name]
    assert doctor.count_parameters(GPT2Config(n_layer=layers, n_head=heads, n_embd=width)) == parameters


def test_counts_are_those_of_a_model_that_is_built() -> None:
    config = GPT2Config(vocab_size=101, n_positions=32, n_layer=3, n_head=2, n_embd=16)
    assert doctor.count_parameters(config) == sum(each.numel() for each in GPT2(config).parameters())


def test_a_lora_adapter_has_the_size_that_is_expected() -> None:
    config = GPT2Config(vocab_size=101, n_positions=32, n_layer=3, n_head=2, n_embd=16)
    model = GPT2(config)
    add_lora(model, rank=8, alpha=16, dropout=0.0, targets=("c_attn", "c_proj", "c_fc"))
    trained = sum(each.numel() for name, each in model.named_parameters() if "lora" in name)
    assert doctor.adapter_parameters(config) == trained


@pytest.mark.usefixtures("quick")
def test_less_memory_means_smaller_models(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = []
    for gigabytes in (1, 4, 12, 48):
        give_memory(monkeypatch, gigabytes)
        found = doctor.examine(device="cpu")
        largest.append((found.largest("full"), found.largest("lora")))
        for each in found.expectations:
            assert each.lora.memory_bytes < each.full.memory_bytes
            for method in (each.full, each.lora):
                assert (method.fits == "no") == (method.tokens_per_second is None)
                assert method.fits == "no" or method.memory_bytes <= 0.8 * gigabytes * 1e9
    # 16 bytes a parameter in full, 4 by LoRA, in four fifths of the memory
    assert largest == [(None, None), ("gpt2", "gpt2-medium"), ("gpt2-medium", "gpt2-xl"), ("gpt2-xl", "gpt2-xl")]


@pytest.mark.usefixtures("quick")
def test_speed_follows_from_the_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    give_memory(monkeypatch, 48)
    gpt2 = doctor.examine(device="cpu").expectations[1]
    # 4 bytes a parameter are read for each token
    assert gpt2.generated_tokens_per_second == pytest.approx(10e9 / (4 * 124_439_808))
    # 6 FLOPs per parameter and token; the share of the rate and the attention's part are the training's own business
    ideal = 100e9 / (6 * 124_439_808)
    assert gpt2.full.tokens_per_second is not None
    assert gpt2.lora.tokens_per_second is not None
    assert 0.3 * ideal < gpt2.full.tokens_per_second < ideal
    assert 1.3 < gpt2.lora.tokens_per_second / gpt2.full.tokens_per_second < 1.5


@pytest.mark.usefixtures("quick")
def test_a_machine_that_is_too_small_is_told_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    give_memory(monkeypatch, 0.5)
    assert "a small model from scratch does: --from_scratch" in doctor.examine(device="cpu").to_text()


@pytest.mark.usefixtures("quick")
def test_what_is_missing_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.EXTRAS, "plots", (("no_such_module",), "pictures"))
    shown = doctor.examine(device="cpu").to_text()
    assert "plots missing" in shown
    assert "Missing for pictures: pip install 'gpt2kit[plots]'" in shown


@pytest.mark.usefixtures("quick")
def test_traps_are_pointed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_usable_cores", lambda: 16)
    monkeypatch.setattr(doctor, "free_bytes", lambda folder: 1_000_000_000)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/bin/{name}")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    warnings = "\n".join(doctor.examine(device="cpu").warnings)
    assert "OMP_NUM_THREADS=2 keeps torch from using all 16 cores" in warnings
    assert "little disk space" in warnings
    assert "NVIDIA driver" in warnings


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="--device cuda:99: this machine has no such device"):
        doctor.examine(device="cuda:99")


def test_all_extras_of_the_project_are_known() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(declared) - {"all"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_is_measured() -> None:
    found = doctor.examine(device="cuda")
    assert found.matrix_flops > 1e12
    assert found.read_bytes_per_second > 5e10
    assert found.context == 1024
