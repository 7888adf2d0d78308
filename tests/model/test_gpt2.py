"""GPT-2's own promises: packing, padding, cache, checkpointing, fresh weights, configuration."""

import math
from dataclasses import replace

import pytest
import torch
from tiny_gpt2 import PLAIN, random_ids, tiny
from torch import Tensor

from gpt2kit.errors import ModelError
from gpt2kit.model import GPT2, GPT2Config, KVCache
from gpt2kit.model.gpt2 import AttentionMask, attention_mask

CPU = torch.device("cpu")


def make_cache(model: GPT2, *, rows: int, length: int) -> KVCache:
    return KVCache(model.config, batch_size=rows, max_length=length, device=CPU, dtype=torch.float32)


def test_packed_documents_are_separate_documents() -> None:
    """Losses, hidden states and gradients of three documents in a row are those of each alone."""
    model = tiny()
    lengths = (4, 1, 7)
    ids_1T, targets_1T = random_ids(1, sum(lengths)), random_ids(1, sum(lengths), seed=2)
    segments_1T = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    positions_1T = torch.cat([torch.arange(length) for length in lengths])[None]
    where = {"position_ids_BT": positions_1T, "segment_ids_BT": segments_1T}

    packed = model.loss(ids_1T, targets_1T, **where)
    packed.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    losses_T = model.token_losses(ids_1T, targets_1T, **where)[0]
    model.zero_grad()
    total = torch.zeros(())
    for ids_1t, targets_1t, nats_t in zip(
        ids_1T.split(lengths, 1), targets_1T.split(lengths, 1), losses_T.split(lengths), strict=True
    ):
        alone = model.loss(ids_1t, targets_1t)
        alone.backward()
        total += alone.detach()
        torch.testing.assert_close(nats_t.sum(), alone.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(packed.detach(), total, rtol=1e-5, atol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-4)


def test_segments_alone_or_positions_alone_are_not_enough() -> None:
    model = tiny()
    ids_1T = random_ids(1, 8)
    segments_1T = torch.tensor([[0] * 4 + [1] * 4])
    positions_1T = torch.arange(4).repeat(2)[None]
    with torch.no_grad():
        alone_TD = model(ids_1T[:, 4:])[0]
        both_TD = model(ids_1T, segment_ids_BT=segments_1T, position_ids_BT=positions_1T)[0, 4:]
        only_segments_TD = model(ids_1T, segment_ids_BT=segments_1T)[0, 4:]
        only_positions_TD = model(ids_1T, position_ids_BT=positions_1T)[0, 4:]
    torch.testing.assert_close(both_TD, alone_TD, rtol=1e-5, atol=1e-5)
    assert (only_segments_TD - alone_TD).abs().max() > 0.1
    assert (only_positions_TD - alone_TD).abs().max() > 0.1


def test_padding_at_the_end_of_packed_rows_gives_no_nan() -> None:
    model = tiny().train()
    ids_BT = random_ids(2, 6)
    segments_BT = torch.tensor([[0, 0, 1, 1, -1, -1], [0, 0, 0, 0, 0, -1]])
    targets_BT = random_ids(2, 6, seed=3).masked_fill(segments_BT < 0, -100)
    model.loss(ids_BT, targets_BT, segment_ids_BT=segments_BT).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_no_query_is_left_without_a_key() -> None:
    """An empty row of the softmax is NaN in some kernels, and NaN times a weight of 0 is NaN in the next block."""
    mask_BS = torch.tensor([[False, False, True, True], [True, True, True, True]])
    mask = attention_mask(random_ids(2, 4), past=0, segment_ids_BT=None, key_mask_BS=mask_BS)
    assert mask.allowed_B1TS is not None
    assert mask.allowed_B1TS.any(dim=-1).all()
    assert mask.allowed_B1TS[0, 0].tolist() == [
        [True, False, False, False],
        [False, True, False, False],
        [False, False, True, False],
        [False, False, True, True],
    ]


def test_a_row_does_not_feel_its_neighbours() -> None:
    model = tiny()
    ids_BT = random_ids(2, 9)
    other_BT = ids_BT.clone()
    other_BT[1] = 0
    with torch.no_grad():
        assert torch.equal(model(ids_BT)[0], model(other_BT)[0])


def test_a_token_does_not_feel_later_ones() -> None:
    model = tiny()
    ids_BT = random_ids(1, 9)
    other_BT = ids_BT.clone()
    other_BT[0, 5:] = 0
    with torch.no_grad():
        torch.testing.assert_close(model(ids_BT)[0, :5], model(other_BT)[0, :5], rtol=1e-6, atol=1e-6)


def test_cache_rows_can_be_dropped_repeated_and_reordered() -> None:
    model = tiny()
    ids_BT = random_ids(3, 6)
    cache = make_cache(model, rows=3, length=8)
    rows = torch.tensor([2, 0, 0, 1, 2])
    with torch.no_grad():
        model(ids_BT[:, :5], cache=cache)
        cache.select(rows)
        assert cache.batch_size == 5
        next_B1 = random_ids(5, 1, seed=4)
        hidden_BTD = model(next_B1, cache=cache)
        expected_BTD = model(torch.cat([ids_BT[rows, :5], next_B1], dim=1))
    torch.testing.assert_close(hidden_BTD[:, -1], expected_BTD[:, -1], rtol=1e-5, atol=1e-5)


def test_truncated_cache_goes_on_from_there() -> None:
    model = tiny()
    ids_BT = random_ids(2, 6)
    cache = make_cache(model, rows=2, length=8)
    with torch.no_grad():
        model(random_ids(2, 7, seed=9), cache=cache)
        cache.truncate(0)
        model(ids_BT[:, :5], cache=cache)
        cache.truncate(3)
        assert cache.length == 3
        hidden_BTD = model(ids_BT[:, 3:], cache=cache)
        torch.testing.assert_close(hidden_BTD, model(ids_BT)[:, 3:], rtol=1e-5, atol=1e-5)


def test_a_full_cache_is_not_written_past() -> None:
    model = tiny()
    cache = make_cache(model, rows=1, length=3)
    with torch.no_grad():
        model(random_ids(1, 3), cache=cache)
        with pytest.raises(ModelError, match="4 positions were asked of a cache that has room for 3"):
            model(random_ids(1, 1), cache=cache)


def test_more_than_the_context_is_refused() -> None:
    with pytest.raises(ModelError, match="25 positions were asked of a model whose context is 24"):
        tiny()(random_ids(1, 25))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradient_checkpointing_gives_the_same_gradients(dropout: float) -> None:
    model = tiny(resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout).train()
    ids_BT, targets_BT = random_ids(2, 12), random_ids(2, 12, seed=2)
    results = []
    for checkpointing in (False, True):
        model.gradient_checkpointing = checkpointing
        model.zero_grad()
        torch.manual_seed(5)
        nats = model.loss(ids_BT, targets_BT)
        nats.backward()
        results.append([nats.detach(), *(parameter.grad.clone() for parameter in model.parameters())])
    assert all(torch.equal(plain, checkpointed) for plain, checkpointed in zip(*results, strict=True))


@pytest.mark.parametrize("field", ["resid_pdrop", "embd_pdrop", "attn_pdrop"])
def test_each_dropout_acts_in_training_only(field: str) -> None:
    model = tiny(**{field: 0.5})
    ids_BT = random_ids(1, 8)
    with torch.no_grad():
        assert torch.equal(model(ids_BT), model(ids_BT))
        model.train()
        assert not torch.equal(model(ids_BT), model(ids_BT))


def test_autocast_to_bf16_trains_close_to_fp32() -> None:
    model = tiny()
    ids_BT, targets_BT = random_ids(4, 20), random_ids(4, 20, seed=2)
    exact = model.loss(ids_BT, targets_BT)
    exact.backward()
    exact_gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model.loss(ids_BT, targets_BT)
    rounded.backward()
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.01, atol=0)
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32
        error = (parameter.grad - exact_gradients[name]).norm() / exact_gradients[name].norm()
        assert error < 0.1, name


def test_fresh_weights_follow_the_paper() -> None:
    model = GPT2(GPT2Config(vocab_size=400, n_positions=200, n_embd=128, n_layer=8, n_head=4))
    model.initialise(torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif ".ln_" in name:
            assert bool((parameter == 1).all()), name
        else:
            std = 0.02 / math.sqrt(16) if name.endswith("c_proj.weight") else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.03), name
    again = GPT2(model.config)
    again.initialise(torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_tied_head_is_one_parameter() -> None:
    tied, untied = tiny(), tiny(tie_word_embeddings=False)
    assert tied.lm_head.weight is tied.transformer.wte.weight
    assert "lm_head.weight" not in dict(tied.named_parameters())
    assert "lm_head.weight" in dict(untied.named_parameters())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"n_layer": 0}, "n_layer is 0; it must be from 1"),
        ({"vocab_size": 10**12}, "vocab_size is 1000000000000; it must be from 1 to 16,777,216"),
        ({"n_inner": 0}, "n_inner is 0"),
        ({"n_head": 5}, "n_embd 48 is no multiple of n_head 5"),
        ({"attn_pdrop": 1.5}, "attn_pdrop is 1.5; it must be from 0 to 1"),
        ({"resid_pdrop": math.nan}, "resid_pdrop is nan"),
        ({"layer_norm_epsilon": math.nan}, "layer_norm_epsilon is nan"),
        ({"layer_norm_epsilon": math.inf}, "layer_norm_epsilon is inf"),
        ({"initializer_range": math.nan}, "initializer_range is nan"),
        ({"activation_function": "tanh"}, "activation_function 'tanh' is none of gelu_new"),
    ],
)
def test_impossible_configurations_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        replace(GPT2Config(**PLAIN), **values)


@pytest.mark.filterwarnings("ignore")  # PyTorch warns of its own compiler's doings
def test_a_compiled_block_keeps_no_activations_of_gelu() -> None:
    block = tiny(n_inner=80).train().transformer.h[0]
    x_BTD = torch.randn(2, 24, 48, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mask = AttentionMask(is_causal=True)
    block(x_BTD, mask).square().sum().backward()
    expected_BTD, x_BTD.grad = x_BTD.grad, None
    block.compile(backend="aot_eager_decomp_partition")
    kept: dict[int, torch.Size] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.shape
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out_BTD = block(x_BTD, mask)
    out_BTD.square().sum().backward()

    weights = {parameter.data_ptr() for parameter in block.parameters()}
    inner = [shape for place, shape in kept.items() if place not in weights and shape.numel() == 2 * 24 * 80]
    assert len(inner) == 1  # what GELU is computed from
    torch.testing.assert_close(x_BTD.grad, expected_BTD, rtol=1e-4, atol=2e-4)
