"""The model folder: round trips with transformers, and every lie a folder can tell."""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_gpt2 import Pair, make_theirs, random_ids, tiny
from torch import Tensor

from gpt2kit.errors import DataError, Gpt2kitError, ModelError, UsageError
from gpt2kit.model import GPT2, load_model, read_config, save_model

WEIGHTS = "model.safetensors"


def logits(model: GPT2) -> Tensor:
    with torch.no_grad():
        return model.logits(model(random_ids(2, 5)))


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def edit_weights(folder: Path, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(edit(load_file(folder / WEIGHTS)), folder / WEIGHTS, metadata={"format": "pt"})


# ------------------------------------------------------------------ round trips


def test_transformers_opens_ours(pair: Pair, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    save_model(pair.ours, tmp_path)
    theirs, information = AutoModelForCausalLM.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(information.values())
    for name, parameter in theirs.named_parameters():
        assert torch.equal(parameter, pair.ours.get_parameter(name)), name
    kept = {name: value for name, value in pair.theirs.config.to_dict().items() if name in vars(pair.ours.config)}
    assert {name: getattr(theirs.config, name) for name in kept} == kept
    assert theirs.generation_config.eos_token_id == pair.ours.config.eos_token_id


def test_ours_opens_ours_and_says_nothing(pair: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(pair.ours, tmp_path)
    again = load_model(tmp_path)
    load_model(pair.folder)
    assert capsys.readouterr().err == ""
    assert again.config == pair.ours.config
    assert not again.training
    for name, tensor in pair.ours.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    assert (again.lm_head.weight is again.transformer.wte.weight) == pair.ours.config.tie_word_embeddings


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_model(tiny(), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["config.json", "generation_config.json", WEIGHTS]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_saving_leaves_other_files_alone(model_folder: Path) -> None:
    (model_folder / "notes.txt").write_text("mine")
    save_model(tiny(seed=7), model_folder)
    assert (model_folder / "notes.txt").read_text() == "mine"
    assert torch.equal(logits(load_model(model_folder)), logits(tiny(seed=7)))
    assert not list(model_folder.glob("*.partial"))


def test_a_full_disk_leaves_the_old_model(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import SafetensorError

    from gpt2kit.errors import DiskError
    from gpt2kit.model import weights

    def full(_tensors: object, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise SafetensorError('I/O error: No space left on device (os error 28) path: "x"')

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(DiskError, match="no space to write"):
        save_model(tiny(seed=7), model_folder)
    assert torch.equal(logits(load_model(model_folder)), logits(tiny()))
    assert not list(model_folder.glob("*.partial"))


def test_keys_without_prefix_and_old_buffers(model_folder: Path) -> None:
    """As in the first files on the Hub: no `transformer.`, and the causal mask saved with every block."""
    expected = logits(load_model(model_folder))

    def old(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        buffers: dict[str, Tensor] = {}
        for block in range(3):
            buffers[f"h.{block}.attn.bias"] = torch.ones(1, 1, 24, 24, dtype=torch.uint8).tril()
            buffers[f"h.{block}.attn.masked_bias"] = torch.tensor(-1e4)
        return {name.removeprefix("transformer."): tensor for name, tensor in weights.items()} | buffers

    edit_weights(model_folder, old)
    assert torch.equal(logits(load_model(model_folder)), expected)


def test_transformers_base_model_without_head(tmp_path: Path) -> None:
    theirs = make_theirs()
    theirs.transformer.save_pretrained(tmp_path)
    assert "wte.weight" in load_file(tmp_path / WEIGHTS)
    with torch.no_grad():
        torch.testing.assert_close(logits(load_model(tmp_path)), theirs(random_ids(2, 5)).logits, rtol=3e-5, atol=3e-5)


def test_shards(tmp_path: Path) -> None:
    theirs = make_theirs()
    theirs.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-0*.safetensors"))) > 2
    with torch.no_grad():
        torch.testing.assert_close(logits(load_model(tmp_path)), theirs(random_ids(2, 5)).logits, rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_stored_in_another_dtype(model_folder: Path, dtype: torch.dtype) -> None:
    edit_weights(model_folder, lambda weights: {name: tensor.to(dtype) for name, tensor in weights.items()})
    model = load_model(model_folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.transformer.wte.weight, tiny().transformer.wte.weight.to(dtype).float())


def test_a_head_that_is_not_the_embedding_is_used_as_transformers_does(
    model_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoModelForCausalLM

    edit_weights(model_folder, lambda weights: weights | {"lm_head.weight": weights["transformer.wte.weight"] * 2})
    ours = load_model(model_folder)
    assert "the weights hold a different lm_head.weight, so it is used" in capsys.readouterr().err
    assert not ours.config.tie_word_embeddings
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(model_folder).eval()(random_ids(2, 5)).logits
    torch.testing.assert_close(logits(ours), expected, rtol=3e-5, atol=3e-5)


def test_a_head_equal_to_the_embedding_stays_tied(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_weights(model_folder, lambda weights: weights | {"lm_head.weight": weights["transformer.wte.weight"].clone()})
    ours = load_model(model_folder)
    assert capsys.readouterr().err == ""
    assert ours.lm_head.weight is ours.transformer.wte.weight


def test_a_head_alone_is_the_embedding_too(model_folder: Path) -> None:
    edit_weights(model_folder, lambda weights: weights | {"lm_head.weight": weights.pop("transformer.wte.weight")})
    assert torch.equal(logits(load_model(model_folder)), logits(tiny()))


# ------------------------------------------------------------------ lies and damage


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere: there is no such model folder") as caught:
        load_model(tmp_path / "nowhere")
    assert caught.value.exit_code == 2


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.json is not there; it should hold the model's configuration"):
        load_model(tmp_path)


def test_no_weights(model_folder: Path) -> None:
    (model_folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"holds no model\.safetensors"):
        load_model(model_folder)


@pytest.mark.parametrize("kept", [0, 5, 8, 100, 5_000, -1])
def test_truncated_weights(model_folder: Path, kept: int) -> None:
    path = model_folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelError, match=r"model\.safetensors: is cut short .*fetch or save it again"):
        load_model(model_folder)


def test_garbled_weights(model_folder: Path) -> None:
    path = model_folder / WEIGHTS
    path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(ModelError, match=r"model\.safetensors: is not a safetensors file"):
        load_model(model_folder)


def test_a_header_that_is_not_json(model_folder: Path) -> None:
    path = model_folder / WEIGHTS
    content = path.read_bytes()
    path.write_bytes(content[:8] + b"?" * 20 + content[28:])
    with pytest.raises(ModelError, match=r"model\.safetensors: is damaged"):
        load_model(model_folder)


class _Bomb:
    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.touched,))


@pytest.mark.parametrize("write", ["zip", "plain"])
def test_a_pickle_named_safetensors_is_not_opened(model_folder: Path, tmp_path: Path, write: str) -> None:
    bomb = {"transformer.wte.weight": _Bomb(tmp_path / "touched")}
    if write == "zip":
        torch.save(bomb, model_folder / WEIGHTS)
    else:
        (model_folder / WEIGHTS).write_bytes(pickle.dumps(bomb))
    with pytest.raises(ModelError, match="is a pickle under the name of a safetensors file, and is not opened"):
        load_model(model_folder, allow_pickle=True)
    assert not (tmp_path / "touched").exists()


def test_a_pickle_alone_is_refused_unless_allowed(model_folder: Path) -> None:
    weights = load_file(model_folder / WEIGHTS)
    torch.save(weights, model_folder / "pytorch_model.bin")
    (model_folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=r"has only pytorch_model\.bin, a pickle.*--allow_pickle if you trust it"):
        load_model(model_folder)
    assert torch.equal(logits(load_model(model_folder, allow_pickle=True)), logits(tiny()))


def test_an_allowed_pickle_runs_no_code(model_folder: Path, tmp_path: Path) -> None:
    torch.save({"transformer.wte.weight": _Bomb(tmp_path / "touched")}, model_folder / "pytorch_model.bin")
    (model_folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="cannot be read as plain weights") as caught:
        load_model(model_folder, allow_pickle=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "content", [[1, 2], {"a": 3}, {1: torch.ones(2)}, torch.ones(2), {"a": torch.eye(2).to_sparse()}]
)
def test_a_pickle_of_something_else(model_folder: Path, content: Any) -> None:
    torch.save(content, model_folder / "pytorch_model.bin")
    (model_folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="does not hold a plain dictionary of tensors"):
        load_model(model_folder, allow_pickle=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_embd": 64}, r"config\.json says .* is \[\d+.*\], and the weights hold \[\d+"),
        ({"vocab_size": 98}, r"config\.json says .*weight is \[98, 48\], and the weights hold \[97, 48\]"),
        ({"n_positions": 25}, r"wpe\.weight is \[25, 48\], and the weights hold \[24, 48\]"),
        ({"n_inner": 191}, r"c_fc\.weight is \[48, 191\], and the weights hold \[48, 192\]"),
        ({"n_layer": 2}, r"config\.json says n_layer 2, and the weights hold 3 layers"),
        ({"n_layer": 10_000_000}, r"config\.json says n_layer 10000000, and the weights hold 3 layers"),
        ({"vocab_size": 10_000_000, "n_positions": 10_000_000}, r"is \[10000000, 48\]"),
        ({"n_embd": 16_000_000}, r"16000000"),
        ({"n_embd": 10**15}, r"n_embd is 1000000000000000; it must be from 1"),
        ({"tie_word_embeddings": False}, r"the weights lack lm_head\.weight, which config\.json calls for"),
        ({"model_type": "llama"}, r"config\.json: model_type is 'llama'; gpt2kit reads GPT-2 models"),
        ({"model_type": ["gpt2"]}, r"model_type is \['gpt2'\]"),
        ({"n_layer": "3"}, r"config\.json: n_layer is '3'; it should be int"),
        ({"n_layer": 3.0}, r"n_layer is 3\.0; it should be int"),
        ({"n_layer": True}, r"n_layer is True; it should be int"),
        ({"n_layer": None}, r"n_layer is None; it should be int"),
        ({"n_layer": -1}, r"config\.json: the configuration's n_layer is -1; it must be from 1"),
        ({"layer_norm_epsilon": float("nan")}, r"layer_norm_epsilon is nan; it must be above 0"),
        ({"attn_pdrop": float("nan")}, r"attn_pdrop is nan; it must be from 0 to 1"),
        ({"initializer_range": float("inf")}, r"initializer_range is inf"),
        ({"scale_attn_weights": 1}, r"scale_attn_weights is 1; it should be bool"),
        ({"activation_function": "mish"}, r"activation_function 'mish' is none of gelu_new"),
        ({"add_cross_attention": True}, r"add_cross_attention is set; only the plain GPT-2"),
        ({"quantization_config": {"bits": 4}}, r"the weights are quantised"),
    ],
)
def test_a_configuration_that_lies(model_folder: Path, values: dict[str, Any], message: str) -> None:
    edit_config(model_folder, **values)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(model_folder)
    assert "\n" not in str(caught.value)
    assert str(model_folder) in str(caught.value)


def test_unknown_settings_are_named(model_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_config(model_folder, n_layers=12, zebra=1)
    load_model(model_folder)
    assert "config.json: ignored unknown settings n_layers, zebra" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"n_layer": 1' + "0" * 5_000 + "}", "[" * 100_000, "\udcff", '{"n_layer": 1e999}']
)
def test_a_configuration_that_is_no_configuration(model_folder: Path, text: str) -> None:
    (model_folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises((DataError, ModelError), match=r"config\.json"):
        read_config(model_folder)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda w: w | {"transformer.h.0.extra": torch.ones(1)}, r"hold transformer\.h\.0\.extra, which no GPT-2"),
        (lambda w: w | {"score.weight": torch.ones(1)}, r"hold transformer\.score\.weight"),
        (
            lambda w: {name: t for name, t in w.items() if "ln_f" not in name},
            r"lack transformer\.ln_f\.bias, transformer\.ln_f\.weight, which",
        ),
        (
            lambda w: {name: t for name, t in w.items() if ".attn." not in name},
            r"lack .* and 9 more, which config\.json calls for",
        ),
        (
            lambda w: w | {"wpe.weight": w["transformer.wpe.weight"].clone()},
            r"hold '.*wpe\.weight' twice",
        ),
        (
            lambda w: {name: t.to(torch.int8) for name, t in w.items()},
            r"' is torch\.int8; gpt2kit reads floating",
        ),
        (lambda w: {name.replace("h.2", "h.9"): t for name, t in w.items()}, r"lack transformer\.h\.2\."),
        (lambda w: {name: t.reshape(-1) for name, t in w.items()}, r"and the weights hold \["),
        (lambda w: {}, r"the weights hold 0 layers"),
    ],
)
def test_weights_that_lie(
    model_folder: Path, edit: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    edit_weights(model_folder, edit)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(model_folder)
    assert "\n" not in str(caught.value)


def test_a_header_that_claims_terabytes(model_folder: Path) -> None:
    header = json.dumps(
        {"transformer.wte.weight": {"dtype": "F32", "shape": [1 << 20, 1 << 20], "data_offsets": [0, 1 << 42]}}
    ).encode()
    (model_folder / WEIGHTS).write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ModelError, match="is cut short"):
        load_model(model_folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, r"has no weight_map"),
        ({"weight_map": ["a"]}, r"has no weight_map"),
        ({"weight_map": {"a": "../../etc/passwd"}}, r"names a file outside the folder: \.\./\.\./etc/passwd"),
        ({"weight_map": {"a": "gone.safetensors"}}, r"names gone\.safetensors, which is not in the folder"),
        ({"weight_map": {"a": 3}}, r"names 3, which is not in the folder"),
    ],
)
def test_a_list_of_shards_that_lies(model_folder: Path, index: dict[str, Any], message: str) -> None:
    (model_folder / WEIGHTS).unlink()
    (model_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=message):
        load_model(model_folder)


def test_every_error_is_the_packages_own() -> None:
    assert issubclass(ModelError, Gpt2kitError)
    assert (ModelError.exit_code, UsageError.exit_code) == (1, 2)
