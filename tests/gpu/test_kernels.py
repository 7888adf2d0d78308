"""The GPU kernels against plain PyTorch."""

import pytest
import torch
from torch.nn import functional as F

from gpt2kit.generation.sampling import Cutoffs, choose
from gpt2kit.model import GPT2, GPT2Config, kernels
from gpt2kit.model.cache import KVCache
from gpt2kit.model.one_token import TokenReader


@pytest.mark.parametrize(
    ("vocabulary", "columns", "dtype"),
    [(400, 448, torch.float32), (5003, 5056, torch.bfloat16), (5000, 5000, torch.float32)],
)
def test_cross_entropy_and_its_gradient(
    kernel_device: torch.device, vocabulary: int, columns: int, dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits_NV = (torch.randn(9, columns, generator=generator) * 3).to(kernel_device, dtype)
    targets_N = torch.randint(vocabulary, (9,), generator=generator).to(kernel_device)
    targets_N[3] = kernels.IGNORED_TARGET
    exact_NV = logits_NV[:, :vocabulary].double().requires_grad_()
    expected_N = F.cross_entropy(exact_NV, targets_N, reduction="none")
    expected_N.sum().backward()

    untouched_NV = logits_NV.clone()
    only_nats_N = kernels.cross_entropy_(logits_NV, targets_N, vocabulary=vocabulary, with_gradient=False)
    assert torch.equal(logits_NV, untouched_NV)
    nats_N = kernels.cross_entropy_(logits_NV, targets_N, vocabulary=vocabulary)

    assert torch.equal(nats_N, only_nats_N)
    torch.testing.assert_close(nats_N.double(), expected_N, rtol=1e-5, atol=1e-5)
    within = 4e-3 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(logits_NV[:, :vocabulary].double(), exact_NV.grad, rtol=within, atol=within)
    assert not logits_NV[:, vocabulary:].any()


@pytest.mark.parametrize("width", [64, 80])
def test_attention_to_the_cache(kernel_device: torch.device, width: int) -> None:
    B, H, S, column = 3, 4, 200, 140
    generator = torch.Generator().manual_seed(0)
    qkv_BD = torch.randn(B, 3 * H * width, generator=generator).to(kernel_device)
    q_BHK, k_BHK, v_BHK = (part.view(B, H, width) for part in qkv_BD.split(H * width, 1))
    keys, values = (torch.randn(B, H, S, width, generator=generator).to(kernel_device) for _ in range(2))
    first_B = torch.tensor([0, 5, 130], device=kernel_device)
    keys_after, values_after = keys.clone(), values.clone()
    keys_after[:, :, column], values_after[:, :, column] = k_BHK, v_BHK

    out_BHK = kernels.attend_to_cache(
        q_BHK, k_BHK, v_BHK, keys, values, first_B, torch.tensor([column], device=kernel_device), scale=0.125
    )

    assert torch.equal(keys, keys_after)
    assert torch.equal(values, values_after)
    columns_S = torch.arange(S, device=kernel_device)
    seen_BS = (columns_S <= column) & (columns_S >= first_B[:, None])
    expected = F.scaled_dot_product_attention(
        q_BHK[:, :, None], keys, values, attn_mask=seen_BS[:, None, None], scale=0.125
    )
    torch.testing.assert_close(out_BHK, expected[:, :, 0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (0.0, 0, 1.0, 0.0),
        (1.0, 0, 1.0, 0.0),
        (0.7, 0, 0.9, 0.0),
        (0.8, 40, 1.0, 0.0),
        (1.0, 5, 0.95, 0.1),
        (1.3, 0, 1.0, 0.05),
        (1.0, 9000, 0.5, 0.0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_choices_are_those_of_the_sampler(
    kernel_device: torch.device, temperature: float, top_k: int, top_p: float, min_p: float, dtype: torch.dtype
) -> None:
    B, V = 6, 5003
    generator = torch.Generator().manual_seed(0)
    logits_BV = (torch.randn(B, V, generator=generator) * 3).to(kernel_device, dtype)
    bias_V = torch.zeros(V, device=kernel_device)
    bias_V[[7, int(logits_BV[0].argmax())]] = -torch.inf
    keys_B = torch.randint(-(2**62), 2**62, (B,), generator=generator).to(kernel_device)
    ids_B = torch.zeros(B, dtype=torch.int64, device=kernel_device)
    told_2B = torch.zeros(2, B, dtype=torch.float64, device=kernel_device)

    kernels.choose_tokens(
        logits_BV, bias_V, keys_B, ids_B, told_2B, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p
    )

    cutoffs = Cutoffs(temperature, top_k, top_p, min_p) if temperature else None
    expected_B = choose(logits_BV.float() + bias_V, cutoffs, keys=keys_B.tolist()).ids_B
    assert torch.equal(ids_B, expected_B)
    assert torch.equal(told_2B[0], expected_B.double())
    expected = logits_BV.double().log_softmax(1).gather(1, expected_B[:, None]).squeeze(1)
    torch.testing.assert_close(told_2B[1], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("heads", "width", "layers", "inner"), [(3, 16, 2, None), (4, 32, 1, 100)])
def test_a_token_read_by_one_kernel(
    kernel_device: torch.device, heads: int, width: int, layers: int, inner: int | None
) -> None:
    V, T, steps = 503, 70, 4
    config = GPT2Config(
        n_layer=layers, n_head=heads, n_embd=heads * width, n_inner=inner, vocab_size=V, n_positions=T + steps
    )
    generator = torch.Generator().manual_seed(0)
    model = GPT2(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1 + (parameter == 1))
    model.to(kernel_device)
    ids_1T = torch.randint(V, (1, T), generator=generator).to(kernel_device)
    told_2B = torch.zeros(2, 1, dtype=torch.float64, device=kernel_device)
    with torch.inference_mode():
        cache, expected_cache = (
            KVCache(config, batch_size=1, max_length=T + steps, device=kernel_device, dtype=torch.float32)
            for _ in range(2)
        )
        for each in (cache, expected_cache):
            model(ids_1T, cache=each)
        bias_V = torch.zeros(V, device=kernel_device)
        ids_1, column_1 = ids_1T[0, :1].clone(), torch.tensor([T], device=kernel_device)
        programs = 1 if kernel_device.type == "cpu" else None  # the interpreter runs one after the other
        reader = TokenReader(model, cache, ids_1=ids_1, column_1=column_1, bias_V=bias_V, programs=programs)
        reader.chosen()
        for step in range(steps):
            expected_1V = model.logits(model(ids_1[None].clone(), cache=expected_cache)[:, -1])
            bias_V.zero_()[expected_1V.argmax()] = -torch.inf if step == 2 else 0.0
            reader.read()
            reader.choose_best(told_2B)

            torch.testing.assert_close(reader.logits_1V, expected_1V, rtol=1e-4, atol=1e-4)
            best = int((expected_1V + bias_V).argmax())
            assert int(ids_1) == told_2B[0].item() == best
            assert told_2B[1].item() == pytest.approx(float(expected_1V.log_softmax(1)[0, best]), abs=1e-4)
            assert int(column_1) == T + step + 1
        torch.testing.assert_close(cache.keys_LBHSK, expected_cache.keys_LBHSK, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(cache.values_LBHSK, expected_cache.values_LBHSK, rtol=1e-4, atol=1e-4)
