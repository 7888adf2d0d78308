"""Training and writing on an NVIDIA GPU: the same as on a CPU, or as without graphs, up to rounding."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gpt2kit
from gpt2kit import GenerateSettings, PreparedData, TrainSettings
from gpt2kit.generation import gpu_decoding, stream
from gpt2kit.model import GPT2, GPT2Config
from gpt2kit.model import gpt2 as gpt2_module
from gpt2kit.tokens import PackedBatches
from gpt2kit.training.ranks import Ranks
from gpt2kit.training.steps import StepRunner

PROMPTS = ["Once upon a time", "The", "There was a king who had three daughters, and the youngest of them was"]


def a_model(vocabulary: int = 5003, dropout: float = 0.0) -> GPT2:
    off = {"resid_pdrop": dropout, "embd_pdrop": dropout, "attn_pdrop": dropout}
    model = GPT2(GPT2Config(n_layer=3, n_embd=256, n_head=4, n_positions=256, vocab_size=vocabulary, **off))
    model.initialise(torch.Generator().manual_seed(1))
    return model.train()


def loss_and_gradients(
    model: GPT2, arguments: dict[str, Tensor], device: torch.device, *, bf16: bool = False, compiled: bool = False
) -> tuple[float, dict[str, Tensor]]:
    model = copy.deepcopy(model).to(device)
    if compiled:
        for block in model.transformer.h:
            block.compile()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        nats = model.loss(**{name: tensor.to(device) for name, tensor in arguments.items()}, gradient_scale=0.01)
    (nats * 0.01).backward()
    return float(nats), {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}


def worst(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected)


@pytest.fixture
def arguments() -> dict[str, Tensor]:
    ids = torch.randint(5003, (4, 257), generator=torch.Generator().manual_seed(0))
    targets = ids[:, 1:].clone()
    segments = torch.zeros(4, 256, dtype=torch.int64)
    segments[0, 100:], segments[1, 30:], segments[1, 70:], segments[3, 200:] = 1, 1, 2, -1
    targets[0, :50] = targets[3, 200:] = -100
    return {"input_ids_BT": ids[:, :-1].contiguous(), "target_ids_BT": targets, "segment_ids_BT": segments}


def test_loss_and_gradients_are_those_of_the_cpu(gpu: torch.device, arguments: dict[str, Tensor]) -> None:
    model = a_model()
    for segments in (True, False):
        if not segments:
            del arguments["segment_ids_BT"]
        loss, gradients = loss_and_gradients(model, arguments, torch.device("cpu"))
        for bf16, compiled in ((False, False), (True, False), (True, True)):
            found, its_gradients = loss_and_gradients(model, arguments, gpu, bf16=bf16, compiled=compiled)
            assert found == pytest.approx(loss, rel=2e-5 if bf16 else 1e-6)
            assert worst(its_gradients, gradients) < (0.02 if bf16 else 1e-5)


def test_segments_by_their_kernel_as_by_a_mask(
    gpu: torch.device, arguments: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = a_model()
    loss, gradients = loss_and_gradients(model, arguments, gpu, bf16=True)
    monkeypatch.setattr(gpt2_module, "takes_segments", lambda *_: False)
    by_mask, its_gradients = loss_and_gradients(model, arguments, gpu, bf16=True)
    assert loss == pytest.approx(by_mask, rel=1e-5)
    assert worst(gradients, its_gradients) < 0.01


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_graphs_give_the_gradients_of_plain_steps(
    gpu: torch.device, prepared: PreparedData, precision: torch.dtype
) -> None:
    store = prepared.store("train")

    def run(*, graphs: bool) -> list[tuple[float, float]]:
        model = a_model(prepared.tokenizer.vocab_size, dropout=0.1).to(gpu)
        ranks = Ranks.join(gpu)
        runner = StepRunner(
            model, seed=0, device=gpu, dtype=precision, ranks=ranks, gradient_clip=1.0, on_halved=lambda _: None
        )
        if not graphs:
            runner._graphs = None
        batches = PackedBatches(store, context=64, batch_size=5, seed=0, end_of_text=prepared.tokenizer.end_of_text)
        found = []
        for step in range(6):  # 2 rows, 2 that are added, and 1
            one = runner.gradients(batches, step, micro_batch_size=2, loss_scale=1.0, stop_requested=False)
            found.append((one.loss, one.gradient_norm))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.01 * parameter.grad
        if graphs:
            assert runner._graphs is not None
            assert len(runner._graphs._recordings) == 3
        return found

    within = 1e-4 if precision == torch.float32 else 2e-3
    for (loss, norm), (plain_loss, plain_norm) in zip(run(graphs=True), run(graphs=False), strict=True):
        assert loss == pytest.approx(plain_loss, rel=within)
        assert norm == pytest.approx(plain_norm, rel=within * 10)


def test_a_training_validates_writes_samples_and_goes_on(
    gpu: torch.device, prepared: PreparedData, tmp_path: Path
) -> None:
    settings = TrainSettings(
        data_dir=prepared.folder,
        model_output_dir=tmp_path / "model",
        n_layer=2,
        n_head=4,
        n_embd=64,
        context=64,
        batch_size=6,
        micro_batch_size=2,
        max_steps=12,
        eval_every=4,
        sample_tokens=5,
        tensorboard=False,
        learning_rate=1e-2,
        device=str(gpu),
    )
    result = gpt2kit.train(settings)
    assert result.status == "finished"
    assert result.validation_loss < result.validation_loss_before
    on_the_cpu = gpt2kit.train(
        settings.model_copy(update={"device": "cpu", "precision": "fp32", "model_output_dir": tmp_path / "cpu"})
    )
    assert result.validation_loss_before == pytest.approx(on_the_cpu.validation_loss_before, rel=1e-3)
    assert result.validation_loss == pytest.approx(on_the_cpu.validation_loss, rel=0.02)


@pytest.mark.parametrize(
    "how", [{"temperature": 0.0}, {"seed": 3, "nsamples": 4}, {"seed": 5, "repetition_penalty": 1.2, "top_k": 40}]
)
def test_texts_in_fp32_are_those_of_the_cpu(gpu: torch.device, how: dict[str, Any]) -> None:
    settings = GenerateSettings(max_new_tokens=60, **how)
    texts = [
        [sample.text for sample in gpt2kit.generate(model, PROMPTS, settings)]
        for model in (gpt2kit.load("nano", device=name, precision="fp32", engine="torch") for name in ("cpu", "cuda"))
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "how",
    [
        {"temperature": 0.0},
        {"seed": 3, "nsamples": 4},
        {"seed": 3, "nsamples": 20, "temperature": 1.0, "top_p": 1.0},
        {"seed": 5, "top_k": 40, "min_new_tokens": 30},
        {"seed": 5, "stop": (".",)},
    ],
)
def test_texts_in_bf16_are_those_of_the_plain_loop(
    gpu: torch.device, how: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_decoding, "can_read", lambda _: False)  # that kernel rounds less
    model = gpt2kit.load("nano", device="cuda", precision="bf16", engine="torch")
    settings = GenerateSettings(max_new_tokens=100, logprobs=True, **how)
    quick = gpt2kit.generate(model, PROMPTS, settings)
    assert "".join(stream(model, PROMPTS[0], settings)) == quick[0].text
    monkeypatch.setattr(gpu_decoding, "can_decode", lambda *_, **__: False)
    plain = gpt2kit.generate(model, PROMPTS, settings)
    assert [(one.text, one.ids, one.finish_reason) for one in quick] == [
        (one.text, one.ids, one.finish_reason) for one in plain
    ]
    assert [one.logprob for one in quick] == pytest.approx([one.logprob for one in plain], rel=1e-4)


@pytest.mark.parametrize(
    "how", [{"temperature": 0.0}, {"temperature": 0.0, "min_new_tokens": 30}, {"seed": 3}, {"seed": 5, "top_k": 40}]
)
def test_one_text_has_the_log_probability_that_exact_arithmetic_gives_it(
    gpu: torch.device, how: dict[str, Any]
) -> None:
    model = gpt2kit.load("nano", device="cuda", precision="bf16", engine="torch")
    exact = copy.deepcopy(model.model).float()
    assert gpu_decoding.can_read(model.model)
    settings = GenerateSettings(max_new_tokens=100, logprobs=True, **how)
    # Alone; and the last of several that goes on, behind columns of longer prompts.
    alone = [gpt2kit.generate(model, [prompt], settings)[0] for prompt in PROMPTS]
    of_several = gpt2kit.generate(model, PROMPTS, settings.model_copy(update={"stop": (".",)}))
    for sample in [*alone, *of_several]:
        prompt = model.tokenizer.encode(sample.prompt)
        prompt = [model.tokenizer.end_of_text] * (sample.num_prompt_tokens - len(prompt)) + list(prompt)
        ids_1T = torch.tensor([[*prompt, *sample.ids]], device=gpu)
        with torch.inference_mode():
            logprobs_TV = exact.logits(exact(ids_1T[:, :-1]))[0].log_softmax(1)
        expected = logprobs_TV.gather(1, ids_1T[0, 1:, None])[len(prompt) - 1 :].sum()
        # What is left is the prompt, which is read in bf16, and keys and values, which are kept in it.
        assert sample.logprob == pytest.approx(float(expected), rel=0.01)
