"""The plan: resolved defaults, memory, micro-batches."""

import functools
from collections.abc import Callable

import pytest
import torch

from gpt2kit import TrainSettings, train
from gpt2kit.model import GPT2Config
from gpt2kit.training.memory import is_out_of_memory, training_flops_per_token, training_memory_bytes
from gpt2kit.training.plan import default_learning_rate, fitting_rows

Make = Callable[..., TrainSettings]


def test_steps_cover_the_epochs(settings: Make) -> None:
    one = train(settings(max_steps=None, epochs=1.0, dry_run=True)).plan
    three = train(settings(max_steps=None, epochs=3.0, dry_run=True)).plan
    # Packing may differ by a row between epochs.
    assert three.total_steps == pytest.approx(3 * one.total_steps, abs=3)
    assert one.total_steps * 8 * 32 >= one.train_tokens
    assert one.warmup_steps == round(0.05 * one.total_steps)


def test_a_small_text_gets_smaller_steps(settings: Make) -> None:
    few = train(settings(max_steps=None, epochs=1.0, batch_size=None, dry_run=True)).plan
    many = train(settings(max_steps=None, epochs=100.0, batch_size=None, dry_run=True)).plan
    assert [few.batch_size, many.batch_size] == [4, 8]
    assert train(settings(batch_size=None, dry_run=True)).plan.batch_size == 8  # of max_steps nothing is concluded


def test_counts_of_the_124m_model_are_the_known_ones() -> None:
    from gpt2kit.model import GPT2

    with torch.device("meta"):
        model = GPT2(GPT2Config())
    assert sum(parameter.numel() for parameter in model.parameters()) == 124_439_808
    # 6 per weight of blocks and head, and 12·L·D·T for attention: (6·123.5 M + 12·12·768·1024)
    flops = training_flops_per_token(GPT2Config(), context=1024, trainable_share=1.0)
    assert flops == pytest.approx(6 * 123_532_032 + 6 * 12 * 768 * 1024, rel=0.01)


def test_lora_trains_little(fine_tuning: Make) -> None:
    plan = train(fine_tuning(method="lora", lora_rank=2, dry_run=True)).plan
    assert plan.trainable_parameters == 2 * 2 * ((32 + 96) + (32 + 32) + (32 + 128) + (128 + 32))


@pytest.mark.parametrize(
    ("parameters", "asked", "expected"),
    [
        (1_557_611_200, {}, 5e-5),
        (124_439_808, {}, 5e-5),
        (124_439_808, {"method": "lora"}, 3e-4),
        (124_439_808, {"optimizer": "muon"}, 3e-4),
        (81_912_576, {}, 7.6e-5),
        (1_000_000, {}, 5e-4),
        (1_000_000, {"optimizer": "adafactor"}, 4e-3),
    ],
)
def test_a_small_base_model_learns_faster(parameters: int, asked: dict[str, str], expected: float) -> None:
    settings = TrainSettings.model_validate(asked)
    rate = default_learning_rate(settings, parameters=parameters, from_scratch=False)
    assert rate == pytest.approx(expected, rel=0.01)


def test_from_scratch_the_rate_goes_by_the_optimizer() -> None:
    for optimizer, expected in (("adamw", 1e-3), ("muon", 5e-3), ("adafactor", 8e-3)):
        asked = TrainSettings.model_validate({"optimizer": optimizer, "from_scratch": True})
        assert default_learning_rate(asked, parameters=10, from_scratch=True) == expected
    assert default_learning_rate(TrainSettings(learning_rate=0.5), parameters=10, from_scratch=False) == 0.5


def test_memory_grows_with_rows_and_shrinks_with_checkpointing() -> None:
    def memory(rows: int, *, gradient_checkpointing: bool = False, kept_probabilities: float = 0.0) -> int:
        return training_memory_bytes(
            GPT2Config(),
            parameters=124_439_808,
            trainable=124_439_808,
            rows=rows,
            context=1024,
            kept_probabilities=kept_probabilities,
            gradient_checkpointing=gradient_checkpointing,
        )

    assert memory(1) < memory(2) < memory(2, kept_probabilities=0.6)
    assert memory(8, gradient_checkpointing=True) < memory(8) / 2
    assert memory(1) > 16 * 124_439_808


def test_memory_on_a_gpu_is_near_what_was_measured() -> None:
    """GPT-2 124M in bf16 on an H100, rows of 1,024 tokens, not compiled (docs/lab-log.md)."""
    for rows, measured in ((4, 3.90e9), (8, 6.68e9)):
        estimated = training_memory_bytes(
            GPT2Config(),
            parameters=124_439_808,
            trainable=124_439_808,
            rows=rows,
            context=1024,
            kept_probabilities=0.0,
            gradient_checkpointing=False,
            on_gpu=True,
            dtype=torch.bfloat16,
        )
        assert measured <= estimated <= 1.25 * measured


def test_a_factored_optimizer_needs_no_memory_for_moments(settings: Make) -> None:
    plans = [train(settings(optimizer=kind, dry_run=True)).plan for kind in ("adamw", "muon", "adafactor")]
    whole, partly, none = (plan.memory_bytes for plan in plans)
    assert whole - none == 8 * plans[0].trainable_parameters
    assert none < partly < whole


def test_kinds_of_memory_running_out() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))


def test_gradients_come_where_the_only_rows_activations_were() -> None:
    """GPT-2 124M on a CPU, rows of 256 tokens: 2.7 GB were measured with 4 and with 8 of 8 rows (docs/lab-log.md)."""

    def memory(rows: int, trainable: int) -> int:
        return training_memory_bytes(
            GPT2Config(),
            parameters=124_439_808,
            trainable=trainable,
            rows=rows,
            context=256,
            kept_probabilities=0.0,
            gradient_checkpointing=False,
            in_arena=True,
            accumulates=rows < 8,
        )

    assert 2.7e9 < memory(4, 124_439_808) < 3.1e9
    assert memory(8, 124_439_808) - memory(4, 124_439_808) < 0.1e9
    assert memory(8, 1_000_000) - memory(4, 1_000_000) > 0.3e9
    for trainable, expected in ((124_439_808, 8), (1_000_000, 4)):
        needed = functools.partial(memory, trainable=trainable)
        assert fitting_rows(8, needed, context=256, available=10**12, device=torch.device("cpu")) == expected


@pytest.mark.parametrize(("shape", "context", "expected"), [({}, 256, 2), ({"n_layer": 2, "n_embd": 48}, 256, 8)])
def test_on_a_cpu_rows_are_few_where_each_takes_much_memory(shape: dict[str, int], context: int, expected: int) -> None:
    def memory(rows: int) -> int:
        return training_memory_bytes(
            GPT2Config(**shape),
            parameters=10,
            trainable=10,
            rows=rows,
            context=context,
            kept_probabilities=0.0,
            gradient_checkpointing=False,
        )

    rows = fitting_rows(8, memory, context=context, available=10**12, device=torch.device("cpu"))
    assert rows == expected
