"""Tiny Shakespeare from scratch, against a plain `transformers` loop of the same configuration, data and steps."""

import math
from pathlib import Path

import pytest
import torch

from gpt2kit import PreparedData, PrepareSettings, TrainSettings, prepare, train

CONTEXT, BATCH, STEPS, PEAK = 128, 16, 300, 2e-3


def chunks(data: PreparedData, split: str) -> torch.Tensor:
    """The split's tokens end to end in rows of CONTEXT + 1, as `run_clm.py` groups them."""
    ids = torch.from_numpy(data.store(split).ids_N[:].astype("int64"))
    return ids[: len(ids) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)


@torch.no_grad()
def validation_loss(model: torch.nn.Module, rows_RT: torch.Tensor) -> float:
    model.eval()
    losses = [model(part_RT[:, :-1], labels=part_RT[:, :-1]).loss.item() for part_RT in rows_RT.split(16)]
    return sum(losses) / len(losses)


def plain_loop(data: PreparedData) -> torch.nn.Module:
    """What a user of `transformers` would write: shuffled chunks, AdamW, cosine with warm-up, clipping at 1."""
    from transformers import GPT2Config, GPT2LMHeadModel, get_cosine_schedule_with_warmup

    torch.manual_seed(0)
    end = data.tokenizer.end_of_text
    shape = {"n_positions": CONTEXT, "n_embd": 128, "n_layer": 4, "n_head": 4}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=data.tokenizer.vocab_size, bos_token_id=end, eos_token_id=end, **shape, **dropout)
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=15, num_training_steps=STEPS)
    rows_RT = chunks(data, "train")
    order = torch.cat([torch.randperm(len(rows_RT)) for _ in range(math.ceil(STEPS * BATCH / len(rows_RT)))])
    for step in range(STEPS):
        batch_BT = rows_RT[order[step * BATCH : (step + 1) * BATCH], :-1]
        optimizer.zero_grad()
        model(batch_BT, labels=batch_BT).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model


@pytest.mark.slow
@pytest.mark.corpora
def test_tiny_shakespeare_is_learned_as_well_as_by_a_plain_transformers_loop(corpora: Path, tmp_path: Path) -> None:
    from transformers import GPT2LMHeadModel

    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "shakespeare.txt").write_bytes((corpora / "finetune" / "tinyshakespeare.txt").read_bytes())
    data = prepare(PrepareSettings(input=raw, data_dir=tmp_path / "data", from_scratch=True, vocab_size=1024))
    result = train(
        TrainSettings(
            data_dir=data.folder,
            model_output_dir=tmp_path / "model",
            n_layer=4,
            n_head=4,
            n_embd=128,
            context=CONTEXT,
            batch_size=BATCH,
            max_steps=STEPS,
            learning_rate=PEAK,
            final_learning_rate_ratio=0.0,
            sample_tokens=0,
            device="cpu",
        )
    )
    rows_RT = chunks(data, "validation")
    ours = validation_loss(GPT2LMHeadModel.from_pretrained(result.model_dir), rows_RT)
    theirs = validation_loss(plain_loop(data), rows_RT)
    # Measured: 4.517 against 4.570 nats per token.
    assert ours <= theirs, (ours, theirs)
