"""Tokens that the kernel picks by itself: those that would be chosen from all scores, without most of these."""

from pathlib import Path

import numpy as np
import pytest
import torch

from gpt2kit.errors import ModelError
from gpt2kit.model import GPT2, GPT2Config, save_model
from gpt2kit.native.engine import Draw, DrawingRules, NativeEngine, TextCache
from gpt2kit.native.library import ISAS, best_isa, load_library

library = load_library()
pytestmark = pytest.mark.skipif(library is None, reason="the kernel was not compiled")
PRESENT = range(best_isa(library) + 1) if library else ()
TEMPERATURES = (0.0, 1e-20, 0.01, 0.7, 1.0, 30.0)


def plain(head_VD: torch.Tensor) -> torch.Tensor:
    return head_VD


def with_ties(head_VD: torch.Tensor) -> torch.Tensor:
    return head_VD.mul(20).round().div(20)[torch.arange(len(head_VD)) % 97]


def with_outliers(head_VD: torch.Tensor) -> torch.Tensor:
    head_VD[:, 3] *= 200
    head_VD[17] *= 50
    return head_VD


def all_equal(head_VD: torch.Tensor) -> torch.Tensor:
    return head_VD[:1].expand_as(head_VD).clone()


def nearly_zero(head_VD: torch.Tensor) -> torch.Tensor:
    return head_VD * 1e-30


def with_one(number: float):
    def change(head_VD: torch.Tensor) -> torch.Tensor:
        head_VD[123, 7] = number
        return head_VD

    return change


def model_folder(tmp_path: Path, change=plain, *, width: int = 72, vocab_size: int = 1999) -> Path:
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=64,
        n_embd=width,
        n_layer=1,
        n_head=1,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    network, generator = GPT2(config), torch.Generator().manual_seed(width)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        network.transformer.ln_f.weight.add_(1)
        network.lm_head.weight.copy_(change(network.lm_head.weight.clone()))
    save_model(network, tmp_path)
    return tmp_path


def picked_and_chosen(
    engine: NativeEngine, rules: DrawingRules, *, seed: int = 0, num_texts: int = 5
) -> tuple[list[int], list[int]]:
    """The same texts read twice: tokens that the kernel picked, and those chosen from the scores that it gave."""
    rng = np.random.default_rng(seed)
    V = engine.shape.vocab_size
    tokens = [rng.integers(0, V, int(rng.integers(1, 9))).tolist() for _ in range(num_texts)]
    scored = [int(rng.integers(1, len(ids) + 1)) for ids in tokens]
    logits_NV = engine.read([TextCache(engine, 16) for _ in tokens], tokens, num_scored=scored)
    greatest = [logits_V.argsort()[::-1].tolist() for logits_V in logits_NV]
    forbidden = [ids[: int(rng.integers(0, 4))] * 2 for ids in greatest]
    keys = [int(key) for key in rng.integers(0, 1 << 63, len(logits_NV))]
    chosen = engine.choose(list(logits_NV), list(logits_NV), keys=keys, rules=rules, forbidden=forbidden)
    draws = [Draw(key, ids) for key, ids in zip(keys, forbidden, strict=True)]
    caches = [TextCache(engine, 16) for _ in tokens]
    picked = engine.pick(caches, tokens, draws, rules=rules, num_scored=scored)
    assert [cache.length for cache in caches] == [len(ids) for ids in tokens]
    return picked, [identifier for identifier, _ in chosen]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("change", [plain, with_ties, with_outliers, nearly_zero], ids=lambda change: change.__name__)
@pytest.mark.parametrize("isa", PRESENT, ids=ISAS[: len(PRESENT)])
def test_what_is_picked_would_be_chosen(tmp_path: Path, isa: int, change, temperature: float) -> None:
    engine = NativeEngine(model_folder(tmp_path, change), isa=isa)
    for seed in range(6):
        picked, chosen = picked_and_chosen(engine, DrawingRules(temperature), seed=seed, num_texts=[1, 2, 9][seed % 3])
        assert picked == chosen


CUT_OFF = [
    *(DrawingRules(temperature=0.8, top_p=p) for p in (1e-6, 0.1, 0.5, 0.9, 0.999)),
    *(DrawingRules(temperature=2, top_k=k) for k in (1, 2, 40, 5000)),
    *(DrawingRules(temperature=0.2, top_p=0.9, min_p=p) for p in (0.01, 0.5, 1)),
    DrawingRules(temperature=3, min_p=0.1),
    DrawingRules(temperature=1, top_k=9, top_p=0.8),
]


@pytest.mark.parametrize("change", [plain, with_ties, with_outliers, nearly_zero], ids=lambda change: change.__name__)
@pytest.mark.parametrize("rules", CUT_OFF, ids=str)
@pytest.mark.parametrize("isa", PRESENT, ids=ISAS[: len(PRESENT)])
def test_what_is_picked_of_a_part_would_be_chosen(tmp_path: Path, isa: int, change, rules: DrawingRules) -> None:
    engine = NativeEngine(model_folder(tmp_path, change), isa=isa)
    for seed in range(9):
        picked, chosen = picked_and_chosen(engine, rules, seed=seed, num_texts=[1, 1, 7][seed % 3])
        assert picked == chosen


@pytest.mark.parametrize(
    "rules", [DrawingRules(0.5, top_p=0.9), DrawingRules(0.5, top_k=9), DrawingRules(0.5)], ids=str
)
def test_a_draw_from_a_few_likely_tokens_needs_few_scores(tmp_path: Path, rules: DrawingRules) -> None:
    engine = NativeEngine(model_folder(tmp_path))
    for key in range(200):
        engine.pick([TextCache(engine, 16)], [[key]], [Draw(key)], rules=rules)
    assert engine._calls_unscreened == 0


@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("rules", [DrawingRules(), DrawingRules(0.7), DrawingRules(0.8, top_p=0.9)], ids=str)
def test_rounded_models_pick_from_all_scores(tmp_path: Path, weights: str, rules: DrawingRules) -> None:
    picked, chosen = picked_and_chosen(NativeEngine(model_folder(tmp_path), weights=weights), rules)
    assert picked == chosen


@pytest.mark.parametrize(("width", "vocab_size"), [(64, 1024), (8, 17), (130, 5003)])
def test_every_shape_is_picked_from(tmp_path: Path, width: int, vocab_size: int) -> None:
    engine = NativeEngine(model_folder(tmp_path, width=width, vocab_size=vocab_size))
    for temperature in (0.0, 1.0):
        picked, chosen = picked_and_chosen(engine, DrawingRules(temperature))
        assert picked == chosen


@pytest.mark.parametrize("temperature", [0.0, 0.1])
@pytest.mark.parametrize("isa", PRESENT, ids=ISAS[: len(PRESENT)])
def test_most_scores_are_not_computed(tmp_path: Path, isa: int, temperature: float) -> None:
    """Whatever is in the float32 head for tokens that are far behind, no result shows it."""
    engine = NativeEngine(model_folder(tmp_path, vocab_size=8000), isa=isa)
    text, draw = [5, 6, 7], Draw(key=3)
    logits_V = engine.read([TextCache(engine, 16)], [text])[0]
    [expected] = engine.pick([TextCache(engine, 16)], [text], [draw], rules=DrawingRules(temperature))
    part = engine.packed.parts["lm_head.weight"]
    head = engine.packed.block[part.start : part.end].view(np.float32).reshape(-1, part.inputs, 16)
    panels = logits_V.reshape(-1, 16).max(axis=1)
    is_behind = panels < panels.max() - 2
    is_behind[expected // 16] = False
    assert is_behind.mean() > 0.5
    head[is_behind] = np.inf
    assert engine.pick([TextCache(engine, 16)], [text], [draw], rules=DrawingRules(temperature)) == [expected]


def test_where_all_may_win_all_scores_are_computed(tmp_path: Path) -> None:
    engine = NativeEngine(model_folder(tmp_path, all_equal))
    for temperature in (0.0, 1.0):
        for seed in range(9):  # the first ones ask in vain, those after them do not ask
            picked, chosen = picked_and_chosen(engine, DrawingRules(temperature), seed=seed)
            assert picked == chosen


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("isa", PRESENT, ids=ISAS[: len(PRESENT)])
def test_scores_that_are_no_numbers_are_not_picked_from(
    tmp_path: Path, isa: int, number: float, temperature: float
) -> None:
    engine = NativeEngine(model_folder(tmp_path, with_one(number)), isa=isa)
    logits_V = engine.read([TextCache(engine, 16)], [[1, 2]])[0]
    if logits_V[123] == -np.inf:  # which no token's score suffers from
        [(expected, _)] = engine.choose([logits_V], [logits_V], keys=[0], rules=DrawingRules(temperature))
        assert engine.pick([TextCache(engine, 16)], [[1, 2]], [Draw()], rules=DrawingRules(temperature)) == [expected]
        return
    with pytest.raises(ModelError, match="not numbers"):
        engine.pick([TextCache(engine, 16)], [[1, 2]], [Draw()], rules=DrawingRules(temperature))


@pytest.mark.parametrize("isa", PRESENT, ids=ISAS[: len(PRESENT)])
def test_activations_that_are_no_numbers_are_not_picked_from(tmp_path: Path, isa: int) -> None:
    engine = NativeEngine(model_folder(tmp_path), isa=isa)
    part = engine.packed.parts["transformer.ln_f.bias"]
    engine.packed.block[part.start : part.start + 4].view(np.float32)[0] = np.nan
    with pytest.raises(ModelError, match="not numbers"):
        engine.pick([TextCache(engine, 16)], [[1, 2]], [Draw()], rules=DrawingRules())


def test_many_tokens_are_picked_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = NativeEngine(model_folder(tmp_path))
    expected, _ = picked_and_chosen(engine, DrawingRules(1.0), num_texts=9)
    monkeypatch.setattr("gpt2kit.native.engine._TOKENS_AT_ONCE", 7)
    assert picked_and_chosen(engine, DrawingRules(1.0), num_texts=9) == (expected, expected)
