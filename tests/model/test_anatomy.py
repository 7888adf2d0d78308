"""inspect: counts and costs that are true, attention that is the model's own, a lens that ends at its output."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_gpt2 import PLAIN, random_ids, tiny

from gpt2kit.errors import MissingExtraError, ModelError, UsageError
from gpt2kit.model import GPT2, GPT2Config, ModelReport, add_lora, inspect, save_adapter, save_model
from gpt2kit.model import reading as reading_module
from gpt2kit.model.anatomy import count_parts, measure_costs, short_number
from gpt2kit.model.gpt2 import AttentionMask, Block
from gpt2kit.model.reading import attention_weights, read_blocks, visible
from gpt2kit.tokens import Tokenizer, train_tokenizer

TEXT = "the king saw the fox. the fox saw the king.\nthe old miller had $5 and a golden bird."


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer([TEXT] * 3, vocab_size=300)


@pytest.fixture
def folder(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    save_model(tiny(vocab_size=tokenizer.vocab_size), tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def report(folder: Path) -> ModelReport:
    return inspect(folder, prompt="the king saw $5")


# ------------------------------------------------------------------ parts and costs


def test_the_124m_model_has_124m_parameters() -> None:
    with torch.device("meta"):
        parts = count_parts(GPT2(GPT2Config()))
    assert {part.name: part.parameters for part in parts} == {
        "token embedding": 38_597_376,
        "position embedding": 786_432,
        "attention": 28_348_416,
        "MLP": 56_669_184,
        "layer norms": 38_400,
        "head": 0,
    }
    assert sum(part.parameters for part in parts) == 124_439_808


@pytest.mark.parametrize(
    "shape", [{}, {"n_inner": 70}, {"tie_word_embeddings": False}, {"n_layer": 1, "n_head": 3}], ids=str
)
def test_the_stated_formulas_give_the_counts(shape: dict[str, int]) -> None:
    model = tiny(**shape)
    config = model.config
    symbols = {
        "V": config.vocab_size,
        "C": config.n_positions,
        "D": config.n_embd,
        "L": config.n_layer,
        "F": config.inner_width,
    }
    for part in count_parts(model):
        expected = 0
        if not part.formula.startswith("0, tied"):
            expression = part.formula.replace("·", "*").replace("²", "**2")
            for joined in ("4D", "2DF", "2D", "2L"):
                expression = expression.replace(joined, "*".join(joined))
            expected = eval(expression, {}, symbols)
        assert part.parameters == expected, part
    assert sum(part.parameters for part in count_parts(model)) == sum(p.numel() for p in model.parameters())


def test_flops_are_those_that_torch_counts() -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model, T = tiny(), 20
    costs = measure_costs(model.config, parameters=0)
    ids_BT = random_ids(1, T)
    # The plain kernel, whose products torch can count; every token meets all T, and those ahead are masked.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.logits(model(ids_BT))
    assert counter.get_total_flops() == T * (costs.flops_per_token + T * costs.attention_flops_per_seen_token)


def test_costs_of_the_124m_model() -> None:
    costs = measure_costs(GPT2Config(), parameters=124_439_808)
    assert costs.weights_fp32_bytes == 497_759_232
    assert costs.cache_bytes_per_token == 2 * 12 * 768 * 4
    assert costs.cache_bytes_full_context == 1024 * costs.cache_bytes_per_token
    assert costs.lora_parameters == 1_179_648  # peft says the same for r=8 on c_attn, c_proj, c_fc
    assert costs.flops_per_token == 2 * (12 * 12 * 768 * 768 + 50257 * 768)


def test_lora_parameters_are_those_of_an_adapter() -> None:
    model = tiny()
    add_lora(model, rank=8, alpha=8, dropout=0.0, targets=["c_attn", "c_proj", "c_fc"])
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert measure_costs(model.config, parameters=0).lora_parameters == trained


def test_cache_bytes_are_those_of_the_cache() -> None:
    from gpt2kit.model import KVCache

    config = GPT2Config(**PLAIN)
    cache = KVCache(config, batch_size=1, max_length=24, device=torch.device("cpu"), dtype=torch.float32)
    held = cache.keys_LBHSK.nbytes + cache.values_LBHSK.nbytes
    assert measure_costs(config, parameters=0).cache_bytes_full_context == held


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1_000, "1K"), (999_600, "1M"), (124_439_808, "124M"), (5e12, "5T")]
)
def test_short_numbers(number: float, text: str) -> None:
    assert short_number(number) == text


# ------------------------------------------------------------------ attention and lens


def test_attention_is_the_blocks_own() -> None:
    """Rows sum to 1, nothing looks ahead, and the weights applied to the values give what the fused kernel gives."""
    model = tiny(scale_attn_by_inverse_layer_idx=True)
    block = model.transformer.h[1]
    assert isinstance(block, Block)
    x_BTD = torch.randn(2, 9, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        weights_BHTS = attention_weights(block.attn, x_BTD)
        _, _, v_BHSK = block.attn.queries_keys_values(x_BTD)
        mixed_BTD = (weights_BHTS @ v_BHSK).transpose(1, 2).reshape(x_BTD.shape)
        torch.testing.assert_close(
            block.attn.c_proj(mixed_BTD), block.attn(x_BTD, AttentionMask(is_causal=True)), rtol=1e-5, atol=1e-5
        )
    torch.testing.assert_close(weights_BHTS.sum(-1), torch.ones(2, 4, 9))
    assert not weights_BHTS.triu(diagonal=1).any()


def test_attention_is_that_of_transformers() -> None:
    from tiny_gpt2 import make_theirs

    theirs, ours = make_theirs(), tiny()
    ids_T = random_ids(10)
    with torch.no_grad():
        expected = theirs(ids_T[None], output_attentions=True, output_hidden_states=True)
    streams, attentions = read_blocks(ours, ids_T)
    for layer, weights_HTS in enumerate(attentions):
        torch.testing.assert_close(weights_HTS, expected.attentions[layer][0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(streams[layer], expected.hidden_states[layer][0], rtol=1e-4, atol=1e-4)


def test_the_lens_ends_at_the_models_output(report: ModelReport, tokenizer: Tokenizer) -> None:
    reading = report.prompt
    assert reading is not None
    model = tiny(vocab_size=tokenizer.vocab_size)
    ids = tokenizer.encode("the king saw $5")
    with torch.no_grad():
        probabilities_TV = model.logits(model(torch.tensor([ids])))[0].softmax(-1)
    best = probabilities_TV[-1].topk(5)
    assert [candidate.id for candidate in reading.next_tokens] == best.indices.tolist()
    assert [candidate.probability for candidate in reading.next_tokens] == pytest.approx(best.values.tolist(), rel=1e-4)
    assert [token.id for token in reading.tokens] == ids
    for place in range(1, len(ids)):
        expected = probabilities_TV[place - 1, ids[place]].item()
        assert reading.tokens[place].probability == pytest.approx(expected, rel=1e-4)
        assert reading.tokens[place].rank == int((probabilities_TV[place - 1] > expected * (1 + 1e-6)).sum()) + 1
    assert reading.tokens[0].probability is None
    assert reading.layers[-1].rank_of_answer == 1
    assert [layer.layer for layer in reading.layers] == [0, 1, 2, 3]
    entropy = -(probabilities_TV[-1] * probabilities_TV[-1].log()).sum().item()
    assert reading.layers[-1].entropy_nats == pytest.approx(entropy, rel=1e-3)
    assert reading.lens_probability_LT.shape == (4, len(ids))


def test_head_summaries() -> None:
    """One head on the token before, one spread evenly, one always on the first: each is named for what it does."""
    T = 5
    previous = torch.diag(torch.ones(T - 1), -1)
    previous[0, 0] = 1
    even = torch.tril(torch.ones(T, T)) / torch.arange(1, T + 1)[:, None]
    first = torch.zeros(T, T)
    first[:, 0] = 1
    heads = reading_module._summarise_heads(torch.stack([previous, even, first])[None].numpy())
    assert [head.head for head in heads] == [1, 2, 3]
    assert heads[0].on_previous == 1
    assert heads[0].distance_tokens == 1
    assert heads[1].on_itself == pytest.approx(sum(1 / t for t in range(2, T + 1)) / 4)
    assert heads[1].last_row == pytest.approx([0.2] * 5)
    assert heads[2].on_first == 1
    assert heads[2].distance_tokens == pytest.approx(2.5)


def test_visible() -> None:
    assert visible(" a\n\tb\x00é") == "·a↵→b�é"


# ------------------------------------------------------------------ the report


def test_text_says_everything(report: ModelReport) -> None:
    text = report.to_text()
    for words in (
        "3 layers of 4 heads, width 48",
        "L·(4D² + 4D)",
        "0, tied to the token embedding",
        f"{report.parameters:,}",
        "keys and values of a token, fp32",
        "What comes next",
        "logit lens",
        "embeddings",
        "block 3",
        "Where the heads look",
    ):
        assert words in text
    assert max(len(line) for line in text.splitlines()[1:]) <= 140  # the first holds the folder's name


def test_json_is_json(report: ModelReport) -> None:
    values = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert values["parameters"] == report.parameters
    assert len(values["prompt"]["heads"]) == 12
    assert values["config"]["n_embd"] == 48


def test_without_prompt(folder: Path) -> None:
    report = inspect(str(folder))
    assert report.prompt is None
    assert "What comes next" not in report.to_text()
    assert report.to_dict()["prompt"] is None


def test_an_adapter_and_its_base(folder: Path, tmp_path: Path, tokenizer: Tokenizer) -> None:
    model = tiny(vocab_size=tokenizer.vocab_size)
    add_lora(model, rank=4, alpha=8, dropout=0.0, targets=["c_attn"])
    save_adapter(model, tmp_path / "adapter", base=str(folder))
    report = inspect(tmp_path / "adapter", prompt="the king")  # reads with the tokenizer of the base
    assert report.adapter is not None
    assert report.adapter.parameters == 3 * 4 * (48 + 144)
    assert report.parameters == inspect(folder).parameters
    assert f"an adapter on {folder}: LoRA of rank 4, alpha 8, 2,304 trained parameters" in report.to_text()


def test_an_empty_prompt_is_end_of_text(folder: Path, tokenizer: Tokenizer) -> None:
    reading = inspect(folder, prompt="").prompt
    assert reading is not None
    assert [token.id for token in reading.tokens] == [tokenizer.end_of_text]
    assert reading.to_text()


def test_a_prompt_beyond_the_context(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"the prompt has [\d,]+ tokens, and at most 24 can be inspected"):
        inspect(folder, prompt=TEXT * 5)


def test_a_tokenizer_of_another_model(folder: Path) -> None:
    save_model(tiny(vocab_size=50), folder)
    with pytest.raises(ModelError, match="vocabulary has 50 entries: they do not belong together"):
        inspect(folder, prompt="the king")


def test_no_tokenizer(model_folder: Path) -> None:
    assert inspect(model_folder).parameters > 0
    with pytest.raises(ModelError, match="a model folder without tokenizer"):
        inspect(model_folder, prompt="the king")


# ------------------------------------------------------------------ the picture


@pytest.mark.parametrize(
    ("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")]
)
def test_pictures(report: ModelReport, tmp_path: Path, suffix: str, start: bytes) -> None:
    path = tmp_path / "new" / f"anatomy{suffix}"
    report.draw(path)
    assert path.read_bytes().startswith(start)


def test_a_picture_shows_parts_words_and_heads(report: ModelReport, tmp_path: Path) -> None:
    from gpt2kit.model.drawing import _figure

    figure = _figure(report)
    bars, following, lens, attention = (axes for part in figure.subfigs for axes in part.axes)
    assert len(bars.patches) == 6
    assert len(following.patches) == 5
    assert report.prompt is not None
    assert lens.images[0].get_array().shape == report.prompt.lens_probability_LT.shape
    T = len(report.prompt.tokens)
    words = [label.get_text().replace("\\$", "$") for label in attention.get_yticklabels(minor=True)]
    assert words == [token.token for token in report.prompt.tokens] * 3
    tile = attention.get_xticks()[1] - attention.get_xticks()[0]
    shown = attention.images[0].get_array()
    head = shown[int(2 * tile) : int(2 * tile) + T, int(tile) : int(tile) + T]  # block 3, head 2
    lower = np.tri(T, dtype=bool)
    assert np.allclose(head[lower], report.prompt.attention_LHTS[2, 1][lower])
    assert np.ma.getmaskarray(head)[~lower].all()


def test_the_same_report_gives_the_same_picture(report: ModelReport, tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        report.draw(tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_characters_without_a_glyph_do_not_stop_the_picture(folder: Path, tmp_path: Path) -> None:
    inspect(folder, prompt="日本 $a$ 🦊").draw(tmp_path / "anatomy.png")
    assert (tmp_path / "anatomy.png").stat().st_size > 10_000


def test_a_long_prompt_is_drawn(tmp_path: Path, tokenizer: Tokenizer) -> None:
    save_model(tiny(vocab_size=tokenizer.vocab_size, n_positions=300, n_layer=2, n_head=2, n_embd=8), tmp_path)
    tokenizer.save(tmp_path)
    report = inspect(tmp_path, prompt="a" * 256)
    assert report.prompt is not None
    assert len(report.prompt.tokens) == 256
    report.draw(tmp_path / "anatomy.png")
    assert math.isfinite(report.prompt.layers[-1].entropy_nats)


def test_another_kind_of_file(report: ModelReport, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"anatomy\.doc: a picture is written as one of \.png, \.svg, \.pdf"):
        report.draw(tmp_path / "anatomy.doc")


def test_without_matplotlib(report: ModelReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"drawing a model needs matplotlib: pip install 'gpt2kit\[plots\]'"):
        report.draw(tmp_path / "anatomy.png")
