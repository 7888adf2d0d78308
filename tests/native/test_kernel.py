"""The kernel against PyTorch, against itself, and its instruction sets against each other."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt2kit.generation.array_sampling import choose, log_sum_exp
from gpt2kit.generation.rules import CutoffRules
from gpt2kit.model import GPT2, GPT2Config, save_model
from gpt2kit.native.engine import DrawingRules, NativeEngine, TextCache
from gpt2kit.native.library import ISAS, best_isa, load_library

library = load_library()
pytestmark = pytest.mark.skipif(library is None, reason="the kernel was not compiled")
PRESENT = range(best_isa(library) + 1) if library else ()


def random_ids(engine: NativeEngine, count: int, *, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, engine.shape.vocab_size, count).tolist()


def read_whole(engine: NativeEngine, ids: list[int], *, step: int | None = None) -> np.ndarray:
    """The scores behind every token, reading `step` tokens at a time."""
    cache, step = TextCache(engine, len(ids)), step or len(ids)
    parts = [ids[begin : begin + step] for begin in range(0, len(ids), step)]
    return np.concatenate([engine.read([cache], [part], num_scored=[len(part)]) for part in parts])


@pytest.mark.parametrize("isa", PRESENT, ids=ISAS[: len(PRESENT)])
def test_scores_are_pytorchs(network: GPT2, folder: Path, isa: int) -> None:
    engine = NativeEngine(folder, isa=isa)
    ids = random_ids(engine, network.config.n_positions)
    with torch.no_grad():
        expected = network.logits(network(torch.tensor([ids])))[0].numpy()
    # Sums in another order, of scores up to 10: 1e-5 at most is seen.
    np.testing.assert_allclose(read_whole(engine, ids), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("isa", PRESENT, ids=ISAS[: len(PRESENT)])
def test_tokens_at_once_and_one_by_one_give_the_same_bits(folder: Path, isa: int, weights: str) -> None:
    engine = NativeEngine(folder, weights=weights, isa=isa)
    ids = random_ids(engine, 37)
    whole = read_whole(engine, ids)
    assert np.array_equal(whole, read_whole(engine, ids, step=1))
    assert np.array_equal(whole, read_whole(engine, ids, step=7))


@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
def test_a_batch_changes_no_bit(folder: Path, weights: str) -> None:
    engine = NativeEngine(folder, weights=weights)
    texts = [random_ids(engine, length, seed=length) for length in (3, 17, 1, 9, 30, 12, 2, 8, 25, 5, 6, 7, 31, 4)]
    caches = [TextCache(engine, 40) for _ in texts]
    together = engine.read(caches, texts)
    next_together = engine.read(caches, [[1]] * len(texts))
    for row, ids in enumerate(texts):
        alone = read_whole(engine, [*ids, 1])
        assert np.array_equal(together[row], alone[-2])
        assert np.array_equal(next_together[row], alone[-1])


@pytest.mark.parametrize("weights", ["fp32", "int8", "int4"])
def test_instruction_sets_agree_up_to_rounding(folder: Path, weights: str) -> None:
    engines = [NativeEngine(folder, weights=weights, isa=isa, threads=2) for isa in PRESENT]
    ids = random_ids(engines[0], 20)
    first, *others = [read_whole(engine, ids) for engine in engines]
    for other in others:
        # Rounding to 8 bits in between can turn a last bit into 1/127 of an activation.
        np.testing.assert_allclose(other, first, atol=1e-4 if weights == "fp32" else 0.1, rtol=0)


@pytest.mark.parametrize("tokens_at_once", [1, 20])
@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("isa", PRESENT, ids=ISAS[: len(PRESENT)])
def test_the_greatest_weights_and_activations_overflow_nothing(
    tmp_path: Path, isa: int, weights: str, tokens_at_once: int
) -> None:
    """Every activation and weight as large as others of its group, and neighbours of one sign."""
    D = 64
    network = GPT2(GPT2Config(vocab_size=D, n_positions=D, n_embd=D, n_layer=1, n_head=1, n_inner=D)).eval()
    signs = torch.where((torch.arange(D)[:, None] + torch.arange(D)) % D < D // 2, 1.0, -1.0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.zero_()
            if "ln_" in name and name.endswith("weight"):
                parameter.fill_(1)
            elif "wte" in name or ("mlp" in name and name.endswith("weight")):
                parameter.copy_(signs)
    save_model(network, tmp_path)
    exact, rounded = NativeEngine(tmp_path, isa=isa), NativeEngine(tmp_path, weights=weights, isa=isa)
    expected = read_whole(exact, list(range(D)))
    assert np.abs(expected).max() > 50
    np.testing.assert_allclose(read_whole(rounded, list(range(D)), step=tokens_at_once), expected, atol=1, rtol=0)


def test_a_long_prompt_is_read_in_parts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = NativeEngine(folder)
    texts = [random_ids(engine, 33), random_ids(engine, 8, seed=1)]
    expected = np.concatenate([read_whole(engine, texts[0])[-5:], read_whole(engine, texts[1])[-2:]])
    monkeypatch.setattr("gpt2kit.native.engine._TOKENS_AT_ONCE", 10)
    found = engine.read([TextCache(engine, 40) for _ in texts], texts, num_scored=[5, 2])
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("length", [5, 16, 21, 32, 37])
def test_texts_that_share_a_beginning_go_on_as_one_alone(folder: Path, length: int) -> None:
    engine = NativeEngine(folder)
    ids = random_ids(engine, length)
    source = TextCache(engine, 40)
    engine.read([source], [ids])
    branches = [TextCache(engine, 40, source=source) for _ in range(3)]
    first = engine.read([*branches, source], [[3], [4], [5], [6]])
    second = engine.read([branches[0], source, branches[2]], [[7, 8], [9], [1]])
    for row, token in enumerate((3, 4, 5, 6)):
        assert np.array_equal(first[row], read_whole(engine, [*ids, token])[-1])
    for row, tokens in enumerate(([3, 7, 8], [6, 9], [5, 1])):
        assert np.array_equal(second[row], read_whole(engine, [*ids, *tokens])[-1])


RULES = [
    *(DrawingRules(temperature) for temperature in (0.0, 0.01, 0.7, 1.0, 30.0)),
    *(DrawingRules(temperature=1, top_k=k) for k in (1, 2, 40, 10_000)),
    *(DrawingRules(temperature=0.8, top_p=p) for p in (1e-6, 0.1, 0.5, 0.9, 0.999)),
    *(DrawingRules(temperature=1.5, min_p=p) for p in (0.01, 0.3, 1.0)),
    DrawingRules(temperature=1.3, top_k=30, top_p=0.8),
    DrawingRules(temperature=1e-20, top_k=30, top_p=0.8, min_p=0.1),
    DrawingRules(temperature=5, top_k=50, top_p=0.95, min_p=0.2),
]


@pytest.mark.parametrize("isa", PRESENT, ids=ISAS[: len(PRESENT)])
@pytest.mark.parametrize("rules", RULES, ids=str)
def test_choices_are_those_of_the_sampler_in_numpy(folder: Path, isa: int, rules: DrawingRules) -> None:
    engine = NativeEngine(folder, isa=isa)
    V = engine.shape.vocab_size
    generator = np.random.default_rng(int(rules.temperature * 100))
    scores_NV = generator.normal(size=(300, V)).astype(np.float32)
    scores_NV *= generator.choice([0.1, 1, 10], size=(300, 1)).astype(np.float32)
    scores_NV[::3, 5:9] = -np.inf
    scores_NV[1::5] = scores_NV[1::5].round()  # ties
    logits_NV = scores_NV + np.float32(0.5)
    logits_NV[::3, 5:9] = 1.0
    keys = [int(key) for key in generator.integers(0, 1 << 63, 300)]
    cutoffs = CutoffRules(rules.temperature, rules.top_k, rules.top_p, rules.min_p) if rules.temperature > 0 else None
    found = engine.choose(list(logits_NV), list(scores_NV), keys=keys, rules=rules)
    for row, (identifier, log_probability) in enumerate(found):
        assert identifier == choose(scores_NV[row], cutoffs, key=keys[row])
        expected = logits_NV[row, identifier] - log_sum_exp(logits_NV[row])
        assert log_probability == pytest.approx(expected, abs=3e-5)


def test_draws_that_are_cut_off_come_as_often_as_they_should(folder: Path) -> None:
    """Where a draw falls outside of top-p it is made again among fewer tokens, which must not favour any."""
    engine = NativeEngine(folder)
    scores_V = np.full(engine.shape.vocab_size, -np.inf, dtype=np.float32)
    scores_V[:6] = np.log(np.array([0.3, 0.25, 0.2, 0.1, 0.1, 0.05], dtype=np.float32))
    found = engine.choose(
        [scores_V] * 6000, [scores_V] * 6000, keys=range(6000), rules=DrawingRules(temperature=1, top_p=0.7)
    )
    counts = np.bincount([identifier for identifier, _ in found], minlength=6)
    assert counts[3:].sum() == 0
    expected = 6000 * np.array([0.4, 1 / 3, 0.8 / 3])
    assert np.abs(counts[:3] - expected).max() < 4 * np.sqrt(expected.max())


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_what_is_forbidden_is_not_chosen_and_stays_in_the_logits(folder: Path, temperature: float) -> None:
    engine = NativeEngine(folder)
    generator = np.random.default_rng(1)
    logits_NV = generator.normal(size=(60, engine.shape.vocab_size)).astype(np.float32)
    forbidden = [tuple(logits_NV[row].argsort()[::-1][:count].tolist()) for row, count in enumerate([0, 1, 2, 9] * 15)]
    forbidden[1] *= 2  # named twice
    before_NV, keys = logits_NV.copy(), list(range(60))
    rules = CutoffRules(temperature) if temperature > 0 else None
    found = engine.choose(
        list(logits_NV), list(logits_NV), keys=keys, rules=DrawingRules(temperature), forbidden=forbidden
    )
    assert np.array_equal(logits_NV, before_NV)
    for row, (identifier, log_probability) in enumerate(found):
        scores_V = logits_NV[row].copy()
        scores_V[list(forbidden[row])] = -np.inf
        assert identifier == choose(scores_V, rules, key=keys[row])
        assert log_probability == pytest.approx(logits_NV[row, identifier] - log_sum_exp(logits_NV[row]), abs=3e-5)


def test_threads_change_no_bit(folder: Path) -> None:
    ids = random_ids(NativeEngine(folder), 30)
    one, three = (read_whole(NativeEngine(folder, threads=threads), ids) for threads in (1, 3))
    assert np.array_equal(one, three)


def test_threads_of_the_program_can_share_an_engine(folder: Path) -> None:
    """Two calls at once once shared the kernel's threads, and waited for each other for ever."""
    engine = NativeEngine(folder, threads=2)
    ids = random_ids(engine, 30)
    expected = read_whole(engine, ids)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: read_whole(engine, ids, step=5), range(30)))
    assert all(np.array_equal(each, expected) for each in found)


def test_the_end_of_the_interpreter_is_quiet(folder: Path) -> None:
    program = "import sys; from pathlib import Path; from gpt2kit.native.engine import NativeEngine; "
    program += "kept = [NativeEngine(Path(sys.argv[1]))]; NativeEngine.kept = kept"
    found = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=True)
    assert found.stderr == ""
