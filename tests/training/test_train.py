"""Training through its public entry: what it learns, writes, refuses and survives."""

import json
import math
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpt2kit import PreparedData, PrepareSettings, TrainingResult, TrainSettings, prepare, train
from gpt2kit.errors import TrainingError, UsageError
from gpt2kit.model import GPT2, GPT2Config, load_model, save_model
from gpt2kit.model.weights import read_safetensors
from gpt2kit.training.guard import Validation

Make = Callable[..., TrainSettings]


def records(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "training" / "metrics.jsonl").read_text(encoding="utf-8").rstrip("\n").split("\n")
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def losses(result: TrainingResult) -> list[float]:
    return [record["loss"] for record in records(result.model_dir, "train")]


def test_the_loss_falls_and_everything_is_written(settings: Make, prepared: PreparedData) -> None:
    result = train(settings(max_steps=40, eval_every=10, learning_rate=1e-2, sample_tokens=5, tensorboard=True))
    assert result.status == "finished"
    assert result.steps == 40
    assert result.validation_loss_before == pytest.approx(math.log(prepared.tokenizer.vocab_size), rel=0.03)
    assert result.validation_loss is not None
    assert result.validation_loss < 0.75 * result.validation_loss_before
    folder = result.model_dir
    for name in ("config.json", "model.safetensors", "tokenizer.json", "vocab.json", "merges.txt"):
        assert (folder / name).is_file(), name
    train_records = records(folder, "train")
    assert [record["step"] for record in train_records] == list(range(1, 41))
    for key in ("loss", "learning_rate", "gradient_norm", "tokens_per_second", "memory_bytes"):
        assert all(record[key] > 0 for record in train_records), key
    assert [record["step"] for record in records(folder, "validation")] == [0, 10, 20, 30, 40]
    assert [record["step"] for record in records(folder, "sample")] == [0, 10, 20, 30, 40]
    assert list((folder / "training" / "tensorboard").glob("events*"))


def test_transformers_opens_the_result_and_finds_the_same_loss(settings: Make, prepared: PreparedData) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = train(settings()).model_dir
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)("The old king saw the fox.")["input_ids"]
    assert ids == prepared.tokenizer.encode("The old king saw the fox.")
    ids_BT = torch.tensor([ids])
    ours = load_model(folder, device=torch.device("cpu"), dtype=torch.float32)
    nats = ours.loss(ids_BT[:, :-1], ids_BT[:, 1:]).item() / (len(ids) - 1)
    assert nats == pytest.approx(theirs(ids_BT, labels=ids_BT).loss.item(), abs=1e-5)


def test_accumulation_of_eight_ones_is_one_eight(settings: Make, tmp_path: Path) -> None:
    whole = train(settings(micro_batch_size=8, model_output_dir=tmp_path / "whole"))
    parts = train(settings(micro_batch_size=1, model_output_dir=tmp_path / "parts"))
    # Float32 sums in another order: a few units in the last place a step.
    np.testing.assert_allclose(losses(whole), losses(parts), rtol=2e-6)
    assert whole.validation_loss == pytest.approx(parts.validation_loss, rel=2e-6)


def test_run_on_packing_trains_too(settings: Make) -> None:
    result = train(settings(packing="run_on", learning_rate=1e-2))
    assert result.validation_loss is not None
    assert result.validation_loss < (result.validation_loss_before or 0)


def test_gradient_checkpointing_changes_nothing(settings: Make, tmp_path: Path) -> None:
    plain = train(settings(dropout=0.1, model_output_dir=tmp_path / "plain"))
    saved = train(settings(dropout=0.1, gradient_checkpointing=True, model_output_dir=tmp_path / "saved"))
    assert losses(plain) == losses(saved)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precisions_come_close(settings: Make, tmp_path: Path, precision: str) -> None:
    full = train(settings(model_output_dir=tmp_path / "full"))
    half = train(settings(precision=precision, model_output_dir=tmp_path / "half"))
    # bf16 keeps 8 bits of a product's inputs: about 0.4% each, averaged over many tokens.
    np.testing.assert_allclose(losses(full), losses(half), rtol=5e-3)


def test_fine_tuning_starts_from_the_base(fine_tuning: Make, base: Path, prepared: PreparedData) -> None:
    result = train(fine_tuning(max_steps=2, learning_rate=1e-9, warmup_ratio=0.0))
    before = read_safetensors(base / "model.safetensors")
    after = read_safetensors(result.model_dir / "model.safetensors")
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(before[name], after[name], atol=1e-7, rtol=0)
    assert json.loads((result.model_dir / "training" / "run.json").read_text())["base"] == str(base.resolve())


@pytest.mark.filterwarnings("ignore::FutureWarning")  # between peft and transformers
def test_peft_loads_the_adapter_and_agrees(fine_tuning: Make, base: Path) -> None:
    from peft import PeftModel
    from transformers import GPT2LMHeadModel

    folder = train(fine_tuning(method="lora", learning_rate=1e-2)).model_dir
    theirs = PeftModel.from_pretrained(GPT2LMHeadModel.from_pretrained(base), folder).eval()
    ours = load_model(folder, device=torch.device("cpu"), dtype=torch.float32)
    ids_BT = torch.arange(24).view(2, 12)
    torch.testing.assert_close(ours.logits(ours(ids_BT)), theirs(ids_BT).logits, atol=2e-5, rtol=1e-4)
    plain = load_model(base, device=torch.device("cpu"), dtype=torch.float32)
    assert not torch.allclose(ours.logits(ours(ids_BT)), plain.logits(plain(ids_BT)), atol=1e-3)


def test_frozen_parts_stay(fine_tuning: Make, base: Path) -> None:
    folder = train(fine_tuning(freeze_layers=1, freeze_embeddings=True, learning_rate=1e-2)).model_dir
    before, after = (read_safetensors(path / "model.safetensors") for path in (base, folder))
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all(name.startswith(("transformer.h.1.", "transformer.ln_f.")) for name in moved), moved


def test_the_best_weights_are_kept_and_training_stops_early(settings: Make) -> None:
    result = train(
        settings(max_steps=400, eval_every=10, learning_rate=2e-2, patience=3, n_embd=64, schedule="constant")
    )
    assert result.ending == "patience"
    assert result.best_step is not None
    assert result.steps == result.best_step + 30
    history = {record["step"]: record["validation_loss"] for record in records(result.model_dir, "validation")}
    assert result.validation_loss == min(history.values()) == history[result.best_step]


def test_a_run_that_improves_nothing_says_that_the_base_is_unchanged(
    settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three validations at a rate that is far too high: the folder holds the base, and nobody was told."""
    base = train(settings(model_output_dir=tmp_path / "base", max_steps=60, learning_rate=1e-2)).model_dir
    shape = {"n_layer": None, "n_head": None, "n_embd": None, "base": str(base)}
    wanted = settings(**shape, max_steps=6, eval_every=2, learning_rate=0.05)
    capsys.readouterr()
    result = train(wanted)
    assert result.best_step == 0
    assert result.is_untrained
    said = capsys.readouterr().err
    assert "warning: training did not improve on the model it started from" in said
    assert "Try a lower --learning_rate (it was 0.05), more --epochs" in said
    assert "best at step 0, the model it started from, unchanged" in result.to_text()
    recorded = json.loads((result.model_dir / "training" / "result.json").read_text(encoding="utf-8"))
    assert recorded["warning"] == result.warning
    before, after = (read_safetensors(path / "model.safetensors") for path in (base, result.model_dir))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert train(wanted).to_text() == result.to_text()


def test_a_run_that_improves_warns_of_nothing(settings: Make, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(settings())
    assert result.warning is None
    assert "unchanged" not in result.to_text() + capsys.readouterr().err


def test_overfitting_is_said(settings: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=5)) for _ in range(100)]
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(20):  # nothing to understand, only to learn by heart
        (raw / f"{number}.txt").write_text(" ".join(draw.choices(words, k=40)), encoding="utf-8")
    data = prepare(PrepareSettings(input=raw, data_dir=tmp_path / "data", from_scratch=True, vocab_size=300))
    train(settings(data_dir=data.folder, max_steps=300, eval_every=30, learning_rate=3e-3, patience=0, n_embd=128))
    said = capsys.readouterr().err
    for alarm in ("overfitting: since step", "memorisation: the training loss is"):
        assert said.count(alarm) == 1  # once, not at every validation


def test_the_same_command_again_does_nothing(settings: Make, capsys: pytest.CaptureFixture[str]) -> None:
    first = train(settings())
    weights = first.model_dir / "model.safetensors"
    written = weights.stat().st_mtime_ns
    second = train(settings())
    assert second.status == "unchanged"
    assert second.validation_loss == first.validation_loss
    assert weights.stat().st_mtime_ns == written
    assert "nothing to do" in capsys.readouterr().err


def test_other_settings_move_a_finished_run_aside(settings: Make, capsys: pytest.CaptureFixture[str]) -> None:
    first = train(settings())
    old = (first.model_dir / "model.safetensors").read_bytes()
    second = train(settings(seed=1))
    assert second.status == "finished"
    moved = first.model_dir.with_name("model-1")
    assert (moved / "model.safetensors").read_bytes() == old
    assert "it is now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"freeze_layers": 40}, "--freeze_layers 40"),
        ({"context": 4096}, "--context 4096"),
        ({"method": "lora", "lora_targets": ("c_atn",)}, "--lora_targets c_atn"),
    ],
)
def test_settings_that_cannot_be_trained_leave_the_folder_as_it_was(
    fine_tuning: Make, tmp_path: Path, wrong: dict[str, Any], named: str
) -> None:
    with pytest.raises(UsageError, match=named):
        train(fine_tuning(**wrong))
    assert not (tmp_path / "model").exists()  # no unfinished run that the right settings would be refused for
    finished = train(fine_tuning(max_steps=1))
    with pytest.raises(UsageError, match=named):
        train(fine_tuning(**wrong))
    assert (finished.model_dir / "model.safetensors").is_file()
    assert not (tmp_path / "model-1").exists()


def test_a_folder_with_other_things_is_refused(settings: Make, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.docx").write_bytes(b"years of work")
    with pytest.raises(UsageError, match=r"holds other things \(thesis\.docx\)"):
        train(settings())
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["thesis.docx"]


def test_a_dry_run_makes_the_plan_and_writes_nothing(settings: Make, tmp_path: Path) -> None:
    result = train(settings(dry_run=True))
    assert result.status == "planned"
    shown = result.to_text()
    for words in ("parameters", "training text", "memory", "time", "learning rate"):
        assert words in shown
    assert not (tmp_path / "model").exists()


def test_divergence_rolls_back_and_says_so(settings: Make, capsys: pytest.CaptureFixture[str]) -> None:
    result = train(settings(max_steps=60, eval_every=5, learning_rate=1.0, warmup_ratio=0, gradient_clip=0, patience=0))
    said = capsys.readouterr().err
    assert "step 2: the loss jumped to" in said
    assert "going back to step 0, skipping that batch, with half the learning rate" in said
    assert result.validation_loss is not None
    assert result.validation_loss < (result.validation_loss_before or 0)
    assert [record["step"] for record in records(result.model_dir, "validation")] == list(range(0, 61, 5))


@pytest.fixture
def poisoned(tmp_path: Path, tale: Callable[..., str]) -> tuple[Path, Path]:
    """Data, and a base model with broken embeddings of six tokens that occur in the training texts only."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(40):
        (raw / f"{number}.txt").write_text(tale(number, sentences=20) + chr(0x4E00 + number), encoding="utf-8")
    data = prepare(PrepareSettings(input=raw, data_dir=tmp_path / "data", from_scratch=True, vocab_size=400))
    model = GPT2(
        GPT2Config(
            vocab_size=data.tokenizer.vocab_size,
            n_positions=32,
            n_embd=32,
            n_layer=1,
            n_head=2,
            tie_word_embeddings=False,
        )
    )
    model.initialise(torch.Generator().manual_seed(0))
    only_trained = set(data.store("train").ids_N[:].tolist()) - set(data.store("validation").ids_N[:].tolist())
    with torch.no_grad():
        model.transformer.wte.weight[sorted(only_trained)[-6:]] = torch.nan
    base = tmp_path / "poisoned"
    save_model(model, base)
    data.tokenizer.save(base)
    return data.folder, base


def test_a_hopeless_run_ends_with_its_last_good_state(
    fine_tuning: Make, poisoned: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir, base = poisoned
    hopeless = fine_tuning(data_dir=data_dir, base=str(base), max_steps=60, eval_every=5)
    for _ in range(2):  # again: it goes on from what it knows, and ends the same way
        with pytest.raises(TrainingError, match=r"the loss is nan, after 3 rollbacks already.*lower --learning_rate"):
            train(hopeless)
    assert capsys.readouterr().err.count("going back to step") == 3
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"context": 1000}, r"--context 1000: the model has 64 positions"),
        ({"n_layer": 3}, r"--n_layer is the shape of a model from scratch"),
        ({"freeze_layers": 3}, r"--freeze_layers 3: the model has 2 layers"),
        ({"base": "/nowhere/at/all"}, r"/nowhere/at/all: no such folder"),
        ({"device": "cuda:99"}, r"--device cuda:99: this machine has no such device"),
        ({"data_dir": Path("/nowhere")}, r"gpt2kit prepare"),
    ],
)
def test_wrong_settings_are_named(fine_tuning: Make, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        train(fine_tuning(**values))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": 1.0}, "--epochs and --max_steps exclude each other"),
        ({"learning_rate": -1}, "--learning_rate -1: should be greater than 0"),
        ({"micro_batch_size": 9}, "--micro_batch_size 9 is more than --batch_size 8"),
        ({"base": "gpt2", "from_scratch": True}, "--base and --from_scratch exclude each other"),
        ({"learning_rte": 1.0}, "unknown setting 'learning_rte'; did you mean 'learning_rate'"),
    ],
)
def test_settings_that_cannot_be(settings: Make, values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        settings(**values)


def test_a_base_with_another_tokenizer_is_refused(fine_tuning: Make, base: Path, tmp_path: Path) -> None:
    from gpt2kit.tokens import train_tokenizer

    train_tokenizer(["another text altogether, with zebras"] * 5, vocab_size=300).save(base)
    with pytest.raises(UsageError, match="another tokenizer"):
        train(fine_tuning())


def test_validations_are_told_and_an_exception_leaves_the_run_to_go_on(settings: Callable[..., TrainSettings]) -> None:
    class EnoughError(Exception):
        pass

    told = []

    def stop_at_six(validation: Validation) -> None:
        told.append((validation.step, validation.loss))
        if validation.step == 6:
            raise EnoughError

    with pytest.raises(EnoughError):
        train(settings(), on_validation=stop_at_six)
    result = train(settings(), on_validation=lambda validation: told.append((validation.step, validation.loss)))
    assert [step for step, _ in told][:2] == [0, 6]
    assert told[-1][0] == 12
    assert result.status == "finished"
    assert result.validation_loss == min(loss for _, loss in told)


def test_steps_without_an_answer_teach_nothing_and_judge_nothing(settings: Make, tmp_path: Path) -> None:
    """Long prompts and short completions: most rows hold no target. From their loss of 0 others once "jumped"."""
    (tmp_path / "raw").mkdir()
    rows = [
        {"prompt": f"The old king of {number} saw the river. " * 30, "completion": f"He loved the fox {number}."}
        for number in range(60)
    ]
    (tmp_path / "raw" / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = prepare(
        PrepareSettings(
            input=tmp_path / "raw",
            data_dir=tmp_path / "pairs",
            from_scratch=True,
            vocab_size=400,
        )
    )
    result = train(settings(data_dir=data.folder, batch_size=1, max_steps=40, eval_every=20, packing="run_on"))
    assert result.status == "finished"
    assert records(result.model_dir, "event") == []
    assert 0 < len(losses(result)) < 40
    assert min(losses(result)) > 0


def test_a_stop_that_comes_too_late_is_told(settings: Make) -> None:
    def stop_at_the_end(validation: Validation) -> None:
        if validation.step == 12:
            signal.raise_signal(signal.SIGINT)

    result = train(settings(), on_validation=stop_at_the_end)
    assert (result.status, result.steps, result.stop_requested) == ("finished", 12, True)
    again = train(settings())
    assert (again.status, again.stop_requested) == ("unchanged", False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch warns of its own compiler's doings
@pytest.mark.skipif(shutil.which("c++") is None, reason="PyTorch compiles for CPUs by a C++ compiler")
def test_compiled_blocks_give_the_same_losses_and_samples(settings: Make, tmp_path: Path) -> None:
    found = {}
    for compiled in ("off", "on"):
        result = train(settings(compile=compiled, sample_tokens=5, model_output_dir=tmp_path / compiled, max_steps=4))
        found[compiled] = (losses(result), [one["text"] for one in records(result.model_dir, "sample")])
    assert found["on"][0] == pytest.approx(found["off"][0], rel=1e-5)
    assert found["on"][1] == found["off"][1]
