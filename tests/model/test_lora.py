"""LoRA: our arithmetic, and peft's folder in both directions."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_gpt2 import random_ids, randomise, tiny
from torch import Tensor

from gpt2kit.errors import ModelError, UsageError
from gpt2kit.model import GPT2, add_lora, load_model, merge_adapter, merge_lora, read_config, save_adapter, save_model
from gpt2kit.model.adapters import attach_saved_adapter, base_folder, load_lora_weights, tokenizer_folder
from gpt2kit.model.lora import lora_weights, resolve_targets

CLOSE = {"rtol": 3e-5, "atol": 3e-5}
TARGET_SETS = [
    ["c_attn"],
    ["c_proj"],
    ["c_fc"],
    ["c_attn", "c_proj", "c_fc"],
    ["attn.c_attn", "attn.c_proj"],
    ["mlp.c_fc", "mlp.c_proj"],
    ["mlp.c_proj"],
]


def logits(model: GPT2) -> Tensor:
    with torch.no_grad():
        return model.logits(model(random_ids(2, 9)))


def their_logits(model: Any) -> Tensor:
    with torch.no_grad():
        scores: Tensor = model(random_ids(2, 9)).logits
    return scores


def adapted(targets: Sequence[str], *, rank: int = 3, alpha: float = 5.0) -> GPT2:
    """A tiny model whose adapter is not zero."""
    model = tiny()
    add_lora(model, rank=rank, alpha=alpha, dropout=0.0, targets=targets)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if ".lora_" in name:
                tensor.normal_(0, 0.3, generator=generator)
    return model.eval()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    save_model(tiny(), tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    save_adapter(adapted(["c_attn", "c_fc"]), tmp_path / "adapter", base=str(base))
    return tmp_path / "adapter"


def their_adapter(base: Path, folder: Path, **settings: Any) -> Any:
    """An adapter made, trained (at random) and saved by peft; returns peft's model."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns that it sets fan_in_fan_out itself
        model = get_peft_model(
            AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **settings)
        )
        randomise(torch.nn.ModuleDict({"lora": _only_lora(model)}), seed=5, scale=0.3)
        model.eval().save_pretrained(folder)
    return model


def opened_by_peft(folder: Path, base: Path) -> Any:
    """An adapter's folder as peft opens it; its warnings about missing or unexpected tensors are errors here."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).eval()


def _only_lora(model: Any) -> torch.nn.Module:
    holder = torch.nn.Module()
    for number, (name, parameter) in enumerate(model.named_parameters()):
        if "lora_" in name:
            holder.register_parameter(f"p{number}", parameter)
    return holder


# ------------------------------------------------------------------ our arithmetic


def test_a_fresh_adapter_changes_nothing_and_freezes_the_rest() -> None:
    model = tiny()
    before = logits(model)
    add_lora(model, rank=4, alpha=8, dropout=0.0, targets=["c_attn"], generator=torch.Generator().manual_seed(0))
    assert torch.equal(logits(model), before)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == [
        f"transformer.h.{block}.attn.c_attn.{name}" for block in range(3) for name in ("lora_A", "lora_B")
    ]
    A = model.get_parameter("transformer.h.0.attn.c_attn.lora_A")
    assert A.shape == (4, 48)
    assert 0 < A.abs().max().item() <= 48**-0.5


def test_the_update_is_alpha_over_rank_times_b_a() -> None:
    model = adapted(["mlp.c_fc"], rank=3, alpha=5.0)
    weights = lora_weights(model)
    plain = tiny()
    with torch.no_grad():
        for block in range(3):
            name = f"transformer.h.{block}.mlp.c_fc"
            plain.get_parameter(f"{name}.weight").add_(
                (weights[f"{name}.lora_B"] @ weights[f"{name}.lora_A"]).T * 5 / 3
            )
    torch.testing.assert_close(logits(model), logits(plain), **CLOSE)
    assert (logits(model) - logits(tiny())).abs().max() > 0.1


@pytest.mark.parametrize("targets", TARGET_SETS, ids="+".join)
def test_merged_equals_unmerged(targets: list[str]) -> None:
    model = adapted(targets)
    expected = logits(model)
    merge_lora(model)
    assert not lora_weights(model)
    assert model.state_dict().keys() == tiny().state_dict().keys()
    torch.testing.assert_close(logits(model), expected, **CLOSE)


def test_only_the_adapter_learns() -> None:
    model = adapted(["c_attn", "c_proj"]).train()
    model.loss(random_ids(2, 8), random_ids(2, 8, seed=2)).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None and bool(parameter.grad.any())) == (".lora_" in name), name


def test_targets() -> None:
    assert resolve_targets(["c_proj"]) == ("attn.c_proj", "mlp.c_proj")
    assert resolve_targets(["mlp.c_fc", "c_attn", "c_attn"]) == ("attn.c_attn", "mlp.c_fc")
    with pytest.raises(UsageError, match=r"--lora_targets q_proj: GPT-2's layers are attn\.c_attn"):
        resolve_targets(["c_attn", "q_proj"])


# ------------------------------------------------------------------ both directions


@pytest.mark.parametrize("targets", TARGET_SETS, ids="+".join)
def test_peft_loads_ours(base: Path, tmp_path: Path, targets: list[str]) -> None:
    ours = adapted(targets)
    save_adapter(ours, tmp_path / "ours", base=str(base))
    theirs = opened_by_peft(tmp_path / "ours", base)
    torch.testing.assert_close(their_logits(theirs), logits(ours), **CLOSE)
    assert sum("lora_" in name for name, _ in theirs.named_parameters()) == len(lora_weights(ours))


@pytest.mark.parametrize(
    "settings",
    [
        *({"target_modules": targets, "r": 4, "lora_alpha": 6} for targets in TARGET_SETS),
        {"target_modules": "all-linear", "r": 2, "lora_alpha": 4},
        {"target_modules": r".*\.attn\.c_(attn|proj)", "r": 2, "lora_alpha": 4},
        {"target_modules": ["c_attn"], "r": 4, "lora_alpha": 6, "use_rslora": True},
        {"target_modules": ["c_attn"], "r": 4, "lora_alpha": 6, "lora_dropout": 0.3},
        {"target_modules": None},
        {"target_modules": ["c_fc"], "init_lora_weights": "gaussian"},
    ],
    ids=str,
)
def test_we_load_theirs(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = their_adapter(base, tmp_path / "theirs", **settings)
    torch.testing.assert_close(logits(load_model(tmp_path / "theirs")), their_logits(theirs), **CLOSE)
    unmerged = attach_saved_adapter(tmp_path / "theirs", load_base=load_model).eval()
    torch.testing.assert_close(logits(unmerged), their_logits(theirs), **CLOSE)


def test_theirs_saved_again_by_us_is_theirs(base: Path, tmp_path: Path) -> None:
    theirs = their_adapter(base, tmp_path / "theirs", target_modules=["c_attn", "mlp.c_proj"], r=4, use_rslora=True)
    model = attach_saved_adapter(tmp_path / "theirs", load_base=load_model)
    save_adapter(model, tmp_path / "ours", base=str(base))
    again = opened_by_peft(tmp_path / "ours", base)
    torch.testing.assert_close(their_logits(again), their_logits(theirs), **CLOSE)


def test_theirs_of_a_model_without_head(base: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = get_peft_model(AutoModel.from_pretrained(base), LoraConfig(target_modules=["c_attn"]))
        randomise(_only_lora(theirs), seed=5, scale=0.3)
        theirs.eval().save_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        expected_BTD = theirs(random_ids(2, 9)).last_hidden_state
        torch.testing.assert_close(load_model(tmp_path / "theirs")(random_ids(2, 9)), expected_BTD, **CLOSE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_modules": ["c_attn"], "use_dora": True}, "use_dora is set, which gpt2kit does not read"),
        ({"target_modules": ["c_attn"], "bias": "all"}, "bias is 'all'"),
        ({"target_modules": ["c_attn"], "rank_pattern": {"h.0.attn.c_attn": 2}}, "rank_pattern is set"),
        ({"target_modules": ["c_attn"], "layers_to_transform": [0]}, "layers_to_transform is set"),
        ({"target_modules": ["c_attn"], "modules_to_save": ["ln_f"]}, "modules_to_save is set"),
        ({"target_modules": ["wte", "c_attn"]}, "lora_embedding_A"),
    ],
    ids=str,
)
def test_other_kinds_of_theirs_are_refused_by_name(
    base: Path, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    their_adapter(base, tmp_path / "theirs", **settings)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(tmp_path / "theirs")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ bases


def test_the_base_may_lie_beside_the_adapter(adapter: Path, tmp_path: Path) -> None:
    expected = logits(load_model(adapter))
    whole = tmp_path / "elsewhere"
    save_model(tiny(), whole / "base")
    save_adapter(adapted(["c_attn", "c_fc"]), whole, base="base")
    assert torch.equal(logits(load_model(whole)), expected)
    assert read_config(whole) == tiny().config


def test_an_adapter_on_an_adapter(adapter: Path, tmp_path: Path) -> None:
    upper = load_model(adapter)
    add_lora(upper, rank=2, alpha=2, dropout=0.0, targets=["mlp.c_proj"])
    randomise(_only_lora(upper), seed=8, scale=0.3)
    save_adapter(upper, tmp_path / "upper", base=str(adapter))
    torch.testing.assert_close(logits(load_model(tmp_path / "upper")), logits(upper), **CLOSE)
    assert read_config(tmp_path / "upper") == tiny().config
    merge_adapter(tmp_path / "upper", tmp_path / "merged")
    torch.testing.assert_close(logits(load_model(tmp_path / "merged")), logits(upper), **CLOSE)


def test_bases_in_a_circle(tmp_path: Path) -> None:
    model = adapted(["c_attn"])
    save_adapter(model, tmp_path / "a", base=str(tmp_path / "b"))
    save_adapter(model, tmp_path / "b", base=str(tmp_path / "a"))
    with pytest.raises(ModelError, match="base_model_name_or_path leads back to"):
        load_model(tmp_path / "a")
    save_adapter(model, tmp_path / "c", base=".")
    with pytest.raises(ModelError, match="base_model_name_or_path leads back to"):
        base_folder(tmp_path / "c")


def test_a_base_that_is_gone(adapter: Path, base: Path) -> None:
    base.rename(base.with_name("moved"))
    with pytest.raises(UsageError, match="no such folder"):
        load_model(adapter)


def test_a_base_of_another_shape(adapter: Path, base: Path) -> None:
    save_model(tiny(n_embd=32), base)
    with pytest.raises(ModelError, match=r"safetensors: .*lora_A is \[3, 48\], and .* call for \[3, 32\]"):
        load_model(adapter)


def test_a_base_with_fewer_layers(adapter: Path, base: Path) -> None:
    save_model(tiny(n_layer=2), base)
    with pytest.raises(ModelError, match=r"adapts transformer\.h\.2\.attn\.c_attn, which is no layer of the base"):
        load_model(adapter)


# ------------------------------------------------------------------ damage


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"r": 4}, r"lora_A is \[3, 48\], and adapter_config\.json and the base model call for \[4, 48\]"),
        ({"r": 10**9}, r"call for \[1000000000, 48\]"),
        ({"r": 0}, r"r is 0; it should be the rank"),
        ({"r": "8"}, r"r is '8'"),
        ({"r": None}, r"r is None"),
        ({"lora_alpha": None}, r"lora_alpha is None; it should be a number"),
        ({"lora_alpha": float("nan")}, r"lora_alpha is nan"),
        ({"lora_dropout": 2}, r"lora_dropout is 2; it should be a number from 0 to 1"),
        ({"target_modules": []}, r"target_modules is \[\]; it should name the adapted layers"),
        ({"target_modules": ["c_attn"]}, r"its layers are not those adapter_config\.json names.*mlp\.c_fc"),
        ({"target_modules": ["c_attn", "c_fc", "c_proj"]}, r"its layers are not those adapter_config\.json names"),
        ({"peft_type": "IA3"}, r"peft_type is 'IA3'; gpt2kit reads LoRA adapters"),
        ({"base_model_name_or_path": None}, r"names no base model"),
        ({"init_lora_weights": "pissa"}, r"init_lora_weights is 'pissa'"),
    ],
)
def test_an_adapter_configuration_that_lies(adapter: Path, values: dict[str, Any], message: str) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    with pytest.raises(ModelError, match=message) as caught:
        load_model(adapter)
    assert "\n" not in str(caught.value)


def test_missing_and_pickled_adapter_weights(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"the adapter's weights are not there$"):
        load_model(adapter)
    (adapter / "adapter_model.bin").write_bytes(b"\x80")
    with pytest.raises(ModelError, match=r"adapter_model\.bin is a pickle, and is not opened"):
        load_model(adapter)


def test_truncated_adapter_weights(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors: is cut short"):
        load_model(adapter)


def test_half_an_adapter(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    del weights["base_model.model.transformer.h.1.mlp.c_fc.lora_B.weight"]
    save_file(weights, path)
    with pytest.raises(ModelError, match=r"lacks transformer\.h\.1\.mlp\.c_fc\.lora_B"):
        load_model(adapter)


def test_weights_into_a_model_of_another_rank(adapter: Path) -> None:
    model = tiny()
    add_lora(model, rank=4, alpha=5, dropout=0.0, targets=["c_attn", "c_fc"])
    with pytest.raises(ModelError, match=r"lora_A is \[3, 48\]"):
        load_lora_weights(model, adapter / "adapter_model.safetensors")


# ------------------------------------------------------------------ merging into a folder


def test_a_merged_folder_is_a_plain_model_for_transformers(adapter: Path, base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    (base / "vocab.json").write_text("{}")
    (base / "merges.txt").write_text("#version: 0.2\n")
    merged = merge_adapter(adapter, tmp_path / "new" / "merged")
    assert sorted(path.name for path in merged.iterdir()) == [
        "config.json", "generation_config.json", "merges.txt", "model.safetensors", "vocab.json",
    ]  # fmt: skip
    assert [path.name for path in merged.parent.iterdir()] == ["merged"]
    theirs = AutoModelForCausalLM.from_pretrained(merged).eval()
    torch.testing.assert_close(their_logits(theirs), logits(adapted(["c_attn", "c_fc"])), **CLOSE)
    assert torch.equal(logits(load_model(merged)), logits(load_model(adapter)))


def test_the_adapters_own_tokenizer_comes_first(adapter: Path, base: Path, tmp_path: Path) -> None:
    (base / "tokenizer.json").write_text("of the base")
    assert tokenizer_folder(adapter) == base
    (adapter / "tokenizer.json").write_text("of the adapter")
    merged = merge_adapter(adapter, tmp_path / "merged")
    assert (merged / "tokenizer.json").read_text() == "of the adapter"


def test_merging_without_any_tokenizer_says_so(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merge_adapter(adapter, tmp_path / "merged")
    assert "neither it nor its base model has a tokenizer" in capsys.readouterr().err


def test_merging_never_writes_over_anything(adapter: Path, base: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in base.iterdir()}
    with pytest.raises(UsageError, match="exists and holds something; name a new folder"):
        merge_adapter(adapter, base)
    with pytest.raises(UsageError, match="exists and holds something"):
        merge_adapter(adapter, base / "config.json")
    assert {path: path.read_bytes() for path in base.iterdir()} == before
    (tmp_path / "empty").mkdir()
    assert (merge_adapter(adapter, tmp_path / "empty") / "model.safetensors").is_file()


def test_merging_what_is_no_adapter(base: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is no adapter's folder"):
        merge_adapter(base, tmp_path / "merged")
    with pytest.raises(UsageError, match=r"there is no such adapter folder"):
        merge_adapter(tmp_path / "nowhere", tmp_path / "merged")


def test_a_merge_that_fails_leaves_nothing(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gpt2kit.model import merge

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merge, "save_model", fail)
    with pytest.raises(Exception, match="no space to write"):
        merge_adapter(adapter, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]
