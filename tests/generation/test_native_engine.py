"""Texts of the native engine: PyTorch's, from the same prompts, settings and seed, without PyTorch in the process."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit import GenerateSettings, generate, load
from gpt2kit.errors import UsageError
from gpt2kit.generation import array_sampling, language_model, sampling
from gpt2kit.generation.decoding import Penalties
from gpt2kit.generation.rules import CutoffRules, PenaltyRules
from gpt2kit.native.engine import NativeEngine, TextCache
from gpt2kit.native.library import load_library
from gpt2kit.tokens import Tokenizer

needs_kernel = pytest.mark.skipif(load_library() is None, reason="the kernel was not compiled")
NANO = Path(language_model.__file__).parents[1] / "nano"
WAYS = [
    {"temperature": 0},
    {"seed": 1, "temperature": 1, "top_p": 1},
    {"seed": 2},
    {"seed": 3, "top_k": 40, "top_p": 0.95},
    {"seed": 4, "typical_p": 0.9, "repetition_penalty": 1.2},
    {"seed": 5, "min_p": 0.05, "frequency_penalty": 0.5, "presence_penalty": 0.2, "no_repeat_ngram_size": 3},
    {"seed": 6, "stop": ("e ", "."), "min_new_tokens": 5},
    {"seed": 7, "chat": True, "system": "Be brief."},
]


@pytest.fixture(scope="module")
def nano(tmp_path_factory) -> Path:
    """A copy, for quantised weights are kept beside a model."""
    return Path(
        shutil.copytree(NANO, tmp_path_factory.mktemp("nano") / "nano", ignore=shutil.ignore_patterns("native"))
    )


@needs_kernel
@pytest.mark.parametrize("logprobs", [True, False])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_texts_are_pytorchs(nano: Path, way: dict, logprobs: bool) -> None:
    settings = GenerateSettings(nsamples=2, max_new_tokens=30, logprobs=logprobs, **way)
    prompts = ["Once upon a time", "The king said to", "", "Once upon a time"]
    native, network = (load(nano, engine=engine) for engine in ("native", "torch"))
    expected = generate(network, prompts, settings)
    found = generate(native, prompts, settings)
    assert [sample.ids for sample in found] == [sample.ids for sample in expected]
    assert [sample.finish_reason for sample in found] == [sample.finish_reason for sample in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logprob == (pytest.approx(other.logprob, abs=1e-3) if logprobs else None)


@needs_kernel
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_texts_beyond_the_context_are_pytorchs(model_folder: Path, keep: float) -> None:
    settings = GenerateSettings(max_new_tokens=120, min_new_tokens=120, seed=1, window_keep=keep)  # the context is 48
    prompts = ["The king", "The old fox and the king ran to the river", ""]
    native, network = (load(model_folder, engine=engine) for engine in ("native", "torch"))
    assert [s.ids for s in generate(native, prompts, settings)] == [s.ids for s in generate(network, prompts, settings)]


@needs_kernel
@pytest.mark.parametrize("way", [{}, {"top_p": 1}])
@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
def test_a_text_does_not_depend_on_its_batch(model_folder: Path, weights: str, way: dict) -> None:
    model = load(model_folder, weights=weights, engine="native")
    prompts = ["The king", "The old fox", "", "The fox ran to the river"]
    settings = GenerateSettings(nsamples=3, max_new_tokens=60, seed=1, logprobs=True, **way)
    together = generate(model, prompts, settings)
    in_small_batches = generate(model, prompts, settings.model_copy(update={"batch_size": 2}))
    alone = generate(model, prompts[1:2], settings)
    assert together == in_small_batches
    assert [(s.ids, s.logprob) for s in together[3:6]] == [(s.ids, s.logprob) for s in alone]


rules = st.builds(
    CutoffRules,
    temperature=st.floats(0.05, 5),
    top_k=st.integers(0, 60),
    top_p=st.floats(0.01, 1),
    min_p=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
    typical_p=st.sampled_from([1.0, 0.2, 0.9]),
)


@given(seed=st.integers(0, 10_000), rules=rules, spread=st.sampled_from([0.1, 1.0, 5.0]))
def test_cut_offs_are_those_of_the_tensor_functions(seed: int, rules: CutoffRules, spread: float) -> None:
    scores_V = (np.random.default_rng(seed).standard_normal(50) * spread).astype(np.float32)
    scores_V[seed % 50] = -np.inf
    ids_N, kept_N = array_sampling.cut_off(scores_V, rules)
    tensor_V = torch.from_numpy(scores_V)[None]
    cutoffs = sampling.Cutoffs(**vars(rules))
    _, sure_V, is_unclear = cutoffs.bounds(tensor_V, slack=1e-5)
    possible_V, *_ = cutoffs.bounds(tensor_V, slack=1e-5)
    if is_unclear.any():
        return
    # Up to the rounding of sums: what is surely kept is, and what surely is not is not.
    assert set(torch.nonzero(sure_V[0] > -torch.inf).flatten().tolist()) <= set(ids_N.tolist())
    assert set(ids_N.tolist()) <= set(torch.nonzero(possible_V[0] > -torch.inf).flatten().tolist())
    np.testing.assert_allclose(kept_N, possible_V[0].numpy()[ids_N], rtol=1e-5, atol=1e-6)


@given(key=st.integers(0, 2**63 - 1))
def test_noise_is_that_of_the_tensor_function(key: int) -> None:
    ids = np.arange(300)
    expected = sampling.gumbel_noise(torch.full((300,), key, dtype=torch.int64), torch.from_numpy(ids))
    np.testing.assert_allclose(array_sampling.gumbel_noise(key, ids), expected.numpy(), rtol=1e-6, atol=1e-7)


@given(
    prompt=st.lists(st.integers(0, 19), min_size=1, max_size=12),
    text=st.lists(st.integers(0, 19), max_size=30),
    repetition=st.sampled_from([1.0, 0.5, 1.7]),
    frequency=st.sampled_from([0.0, 0.7, -0.3]),
    presence=st.sampled_from([0.0, 1.1]),
    size=st.integers(0, 4),
    least=st.sampled_from([0, 10]),
    seed=st.integers(0, 1000),
)
def test_penalties_are_those_of_the_tensor_functions(
    prompt: list, text: list, repetition: float, frequency: float, presence: float, size: int, least: int, seed: int
) -> None:
    rules = PenaltyRules(
        end_of_text=0,
        forbidden=(18, 19),
        min_new_tokens=least,
        repetition=repetition,
        frequency=frequency,
        presence=presence,
        no_repeat_ngram_size=size,
    )
    scores_V = np.random.default_rng(seed).standard_normal(20).astype(np.float32)
    expected = Penalties(**vars(rules)).apply(torch.from_numpy(scores_V)[None], [prompt], [text])[0].numpy()
    found = array_sampling.penalised(scores_V, rules, prompt=prompt, text=text)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@needs_kernel
def test_quantised_weights_lose_little(nano: Path) -> None:
    """At most 0.5% of perplexity at 8 bits, 3% at 4 (Grimms' tales; recipes/nano/quantised.py takes unread prose)."""
    tale = NANO.parents[2] / "data" / "raw" / "grimm" / "the-twelve-huntsmen.txt"
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(tale.parent.glob("*.txt")))[:40_000]
    ids = Tokenizer.from_folder(nano).encode(text)
    windows = [ids[begin : begin + 256] for begin in range(0, len(ids) - 256, 256)]
    perplexity = {}
    for weights in ("fp32", "int8", "int4"):
        engine = NativeEngine(nano, weights=weights)
        nats = 0.0
        for window in windows:
            logits = engine.read([TextCache(engine, 256)], [window], num_scored=[256])[:-1].astype(np.float64)
            logsumexp = np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)) + logits.max(axis=1)
            nats += float((logsumexp - logits[np.arange(255), window[1:]]).sum())
        perplexity[weights] = math.exp(nats / (255 * len(windows)))
    assert perplexity["int8"] <= 1.005 * perplexity["fp32"]
    assert perplexity["int4"] <= 1.03 * perplexity["fp32"]


_COMMAND = """
import sys
from gpt2kit.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
loaded = {"torch", "transformers", "huggingface_hub"} & set(sys.modules)
assert not loaded, loaded
"""


@needs_kernel
@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_the_command_runs_without_pytorch(nano: Path, tmp_path: Path, weights: str) -> None:
    command = ["generate", "--model_dir", str(nano), "--prompt", "Once upon a time", "--max_new_tokens", "8"]
    options = ["--engine", "native", "--weights", weights, "--output_dir", str(tmp_path / "texts"), "--seed", "1"]
    subprocess.run([sys.executable, "-c", _COMMAND, *command, *options], check=True, timeout=120, capture_output=True)
    header = json.loads((tmp_path / "texts" / "generated_0001.jsonl").read_text().split("\n")[0])
    assert (header["engine"], header["weights"], header["device"]) == ("native", weights, "cpu")
    assert f"--weights={weights}" in header["again"]


def test_without_the_library_pytorch_writes(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = GenerateSettings(max_new_tokens=10, seed=1)
    expected = generate(load(model_folder, engine="torch"), ["The king"], settings)
    monkeypatch.setattr(language_model, "load_library", lambda: None)
    model = load(model_folder)
    assert generate(model, ["The king"], settings) == expected
    with pytest.raises(UsageError, match="not compiled"):
        load(model_folder, engine="native")
    with pytest.raises(UsageError, match="not compiled"):
        generate(model, ["The king"], GenerateSettings(engine="native"))


@needs_kernel
def test_auto_is_native_where_it_can_be(model_folder: Path) -> None:
    assert load(model_folder).native_for(engine="auto", weights="auto", can_decode=True) is not None
    assert load(model_folder).native_for(engine="auto", weights="auto", can_decode=False) is None
    assert load(model_folder).native_for(engine="torch", weights="auto", can_decode=True) is None
    assert load(model_folder, precision="bf16").native_for(engine="auto", weights="auto", can_decode=True) is None


@needs_kernel
def test_a_network_that_was_taken_in_hand_writes_itself(model_folder: Path) -> None:
    """Its weights may have been changed since."""
    model = load(model_folder)
    with torch.no_grad():
        model.model.lm_head.weight.zero_()
    sample = generate(model, ["The king"], GenerateSettings(temperature=0, max_new_tokens=3, logprobs=True))[0]
    assert sample.logprob == pytest.approx(-3 * math.log(model.config.vocab_size), rel=1e-4)


@needs_kernel
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"engine": "native", "num_beams": 2},
            "--engine native writes by greedy search and sampling only: leave it out",
        ),
        (
            {"weights": "int8", "num_beams": 2},
            "--weights int8 is of the native engine, which writes by greedy search and",
        ),
        ({"engine": "torch", "weights": "int4"}, "--weights int4 needs --engine native"),
    ],
)
def test_what_an_engine_cannot_do_is_said(model_folder: Path, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        generate(load(model_folder), ["The king"], GenerateSettings(**options))


@needs_kernel
def test_what_the_native_engine_cannot_open_is_said(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not compute in bf16"):
        load(model_folder, engine="native", precision="bf16")
    with pytest.raises(UsageError, match="on a CPU only"):
        load(model_folder, engine="native", device="cuda")
    with pytest.raises(UsageError, match="needs --engine native"):
        load(model_folder, engine="torch", weights="int8")


@needs_kernel
def test_weights_can_be_chosen_for_a_text(model_folder: Path) -> None:
    model = load(model_folder)
    settings = GenerateSettings(max_new_tokens=10, seed=1, weights="int8")
    assert generate(model, ["The king"], settings) == generate(
        load(model_folder, weights="int8"), ["The king"], settings
    )


@needs_kernel
def test_texts_of_one_prompt_with_a_forbidden_token_are_those_of_the_texts_alone(nano: Path) -> None:
    """They share the scores behind the prompt, in which each thread blots out end-of-text for a while."""
    settings = GenerateSettings(
        nsamples=64, max_new_tokens=1, min_new_tokens=1, temperature=1, top_p=1, seed=3, logprobs=True
    )
    model = load(nano, engine="native")
    for _ in range(5):
        together = generate(model, ["Once upon a time"], settings)
        alone = generate(model, ["Once upon a time"], settings.model_copy(update={"batch_size": 1}))
        assert [(s.ids, s.logprob) for s in together] == [(s.ids, s.logprob) for s in alone]


@needs_kernel
def test_rounded_weights_for_one_text_are_not_those_of_the_next(nano: Path) -> None:
    model = load(nano)
    settings = GenerateSettings(max_new_tokens=30, seed=1)
    [first] = generate(model, ["The king"], settings)
    generate(model, ["The king"], settings.model_copy(update={"weights": "int8"}))
    assert generate(model, ["The king"], settings) == [first]
    assert generate(model, ["The king"], settings.model_copy(update={"weights": "fp32"})) == [first]
    rounded = load(nano, weights="int8")
    assert generate(rounded, ["The king"], settings.model_copy(update={"weights": "fp32"})) == [first]
    assert rounded._network is None  # by the native engine
