"""Ours against transformers' GPT-2, in several shapes. docs/numerics.md explains the tolerances."""

import pytest
import torch
from tiny_gpt2 import Pair, random_ids
from torch import Tensor
from torch.nn import functional as F

from gpt2kit.model import GPT2, KVCache, load_model

# Both sum the same products in another order: a few units of the last place of logits around 10 (1e-6 each).
CLOSE = {"atol": 3e-5, "rtol": 3e-5}


def their_logits(pair: Pair, ids_BT: Tensor, **arguments: Tensor) -> Tensor:
    with torch.no_grad():
        logits_BTV: Tensor = pair.theirs(ids_BT, **arguments).logits
    return logits_BTV


def our_logits(model: GPT2, ids_BT: Tensor, **arguments: Tensor) -> Tensor:
    with torch.no_grad():
        return model.logits(model(ids_BT, **arguments))


def test_logits(pair: Pair) -> None:
    ids_BT = random_ids(3, pair.ours.config.n_positions)
    torch.testing.assert_close(our_logits(pair.ours, ids_BT), their_logits(pair, ids_BT), **CLOSE)


def test_loss_and_every_gradient(pair: Pair) -> None:
    ids_BT = random_ids(4, pair.ours.config.n_positions)
    targets_BT = random_ids(4, pair.ours.config.n_positions, seed=2)
    targets_BT[:, 1] = -100
    targets_BT[3] = -100
    pair.theirs.zero_grad()
    pair.ours.zero_grad()
    expected = F.cross_entropy(pair.theirs(ids_BT).logits.flatten(0, 1), targets_BT.flatten(), reduction="sum")
    expected.backward()
    nats = pair.ours.loss(ids_BT, targets_BT)
    nats.backward()
    torch.testing.assert_close(nats, expected, rtol=1e-5, atol=0)
    theirs = dict(pair.theirs.named_parameters())
    ours = dict(pair.ours.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, parameter in ours.items():
        assert parameter.grad is not None
        expected_grad = theirs[name].grad
        error, size = (parameter.grad - expected_grad).abs().max(), expected_grad.abs().max()
        assert error <= 3e-5 * size, name


def test_loss_is_that_of_transformers_labels(pair: Pair) -> None:
    ids_BT = random_ids(2, pair.ours.config.n_positions)
    with torch.no_grad():
        mean = pair.theirs(ids_BT, labels=ids_BT).loss
        nats = pair.ours.loss(ids_BT[:, :-1], ids_BT[:, 1:])
    torch.testing.assert_close(nats / ids_BT[:, 1:].numel(), mean, rtol=1e-5, atol=0)


def test_greedy_ids_with_and_without_cache(pair: Pair) -> None:
    C = pair.ours.config.n_positions
    prompt_BT = random_ids(2, 2)
    expected_BT = pair.theirs.generate(
        prompt_BT,
        attention_mask=torch.ones_like(prompt_BT),
        max_new_tokens=C - 2,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    uncached_BT = prompt_BT
    cache = KVCache(pair.ours.config, batch_size=2, max_length=C, device=torch.device("cpu"), dtype=torch.float32)
    cached_BT, step_BT = prompt_BT, prompt_BT
    with torch.no_grad():
        for _ in range(C - 2):
            following_B1 = pair.ours.logits(pair.ours(uncached_BT)[:, -1:]).argmax(-1)
            uncached_BT = torch.cat([uncached_BT, following_B1], dim=1)
            step_BT = pair.ours.logits(pair.ours(step_BT, cache=cache)[:, -1:]).argmax(-1)
            cached_BT = torch.cat([cached_BT, step_BT], dim=1)
    assert uncached_BT.tolist() == expected_BT.tolist()
    assert cached_BT.tolist() == expected_BT.tolist()


@pytest.mark.parametrize("pieces", [(1,) * 5, (3, 1, 1), (2, 3), (1, 4)])
def test_cache_in_any_pieces_is_no_cache(pair: Pair, pieces: tuple[int, ...]) -> None:
    ids_BT = random_ids(3, 5)
    cache = KVCache(pair.ours.config, batch_size=3, max_length=5, device=torch.device("cpu"), dtype=torch.float32)
    with torch.no_grad():
        parts = [pair.ours(piece_BT, cache=cache) for piece_BT in ids_BT.split(pieces, dim=1)]
        torch.testing.assert_close(torch.cat(parts, dim=1), pair.ours(ids_BT), **CLOSE)
    assert cache.length == 5


def test_left_padding(pair: Pair) -> None:
    """A padded row gives what it gives alone, and what transformers gives; with a cache too."""
    T, paddings = 5, (0, 2, 4)
    ids_BT = random_ids(3, T)
    mask_BT = torch.stack([torch.arange(T) >= padding for padding in paddings])
    positions_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    ours_BTV = our_logits(pair.ours, ids_BT, position_ids_BT=positions_BT, key_mask_BS=mask_BT)
    theirs_BTV = their_logits(pair, ids_BT, attention_mask=mask_BT.long(), position_ids=positions_BT)
    torch.testing.assert_close(ours_BTV[mask_BT], theirs_BTV[mask_BT], **CLOSE)
    for row, padding in enumerate(paddings):
        alone_TV = our_logits(pair.ours, ids_BT[row : row + 1, padding:])[0]
        torch.testing.assert_close(ours_BTV[row, padding:], alone_TV, **CLOSE)

    cache = KVCache(pair.ours.config, batch_size=3, max_length=T, device=torch.device("cpu"), dtype=torch.float32)
    with torch.no_grad():
        for start, end in ((0, 3), (3, 4), (4, 5)):
            hidden_BTD = pair.ours(
                ids_BT[:, start:end],
                position_ids_BT=positions_BT[:, start:end],
                key_mask_BS=mask_BT[:, :end],
                cache=cache,
            )
    torch.testing.assert_close(pair.ours.logits(hidden_BTD)[:, -1], ours_BTV[:, -1], **CLOSE)


def test_dtypes_stay_close_to_fp32(pair: Pair) -> None:
    """bf16 keeps 8 bits: errors of a few times 2^-8 of the logits' size, as transformers' own."""
    ids_BT = random_ids(3, pair.ours.config.n_positions)
    exact_BTV = our_logits(pair.ours, ids_BT)
    rounded_BTV = our_logits(load_model(pair.folder, dtype=torch.bfloat16), ids_BT)
    assert rounded_BTV.dtype == torch.float32
    error = (rounded_BTV - exact_BTV).std() / exact_BTV.std()
    assert 1e-4 < error < 0.05
