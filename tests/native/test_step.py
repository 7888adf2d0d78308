"""The kernel's operations of a training step against PyTorch's in float64, on each instruction set."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional as F

from gpt2kit.model import products
from gpt2kit.model.arena import Arena
from gpt2kit.model.operations import Attending, TorchOperations
from gpt2kit.native import step
from gpt2kit.native.library import ISAS, best_isa, load_library
from gpt2kit.native.step import KernelOperations, _run_on_threads, has_step_kernel, step_operations

library = load_library()
pytestmark = pytest.mark.skipif(not has_step_kernel(), reason="the kernel does not run here")
PRESENT = range(best_isa(library) + 1) if library else ()
ROWS = [(1, 1), (7, 5), (33, 16), (100, 77), (64, 96)]  # tokens, width


@pytest.fixture(params=PRESENT, ids=ISAS[: len(PRESENT)])
def operations(request: pytest.FixtureRequest) -> KernelOperations:
    run = _run_on_threads()
    assert library is not None
    assert run is not None
    return KernelOperations(library, run, isa=request.param)


@pytest.fixture
def numbers() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def close(ours: torch.Tensor, exact: torch.Tensor, tolerance: float = 2e-6) -> None:
    torch.testing.assert_close(ours.double(), exact.double(), rtol=tolerance, atol=tolerance * 4)


def attending(heads: int, width: int, dropout: float = 0.0, first: torch.Tensor | None = None) -> Attending:
    def never(*_: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    return Attending(
        heads=heads, scale=1 / math.sqrt(width), dropout=dropout, first_seen_BT=first, is_masked=False, attend=never
    )


@pytest.mark.parametrize("with_segments", [False, True])
@pytest.mark.parametrize(
    ("B", "H", "T", "K"), [(2, 3, 100, 64), (1, 2, 50, 20), (3, 1, 7, 5), (2, 2, 24, 16), (1, 1, 1, 8), (1, 2, 129, 3)]
)
def test_attention_is_pytorchs(
    operations: KernelOperations, threads: int, numbers: torch.Generator, B: int, H: int, T: int, K: int,
    with_segments: bool,
) -> None:  # fmt: skip
    qkv_BTC = (1.5 * torch.randn(B, T, 3 * H * K, generator=numbers)).requires_grad_()
    grad_BTD = torch.randn(B, T, H * K, generator=numbers)
    starts_BT = torch.rand(B, T, generator=numbers) < 0.1
    first_BT = (torch.arange(T) * starts_BT).cummax(1).values.int()
    positions_T = torch.arange(T)
    seen_BTT = positions_T[None, None, :] <= positions_T[None, :, None]
    if with_segments:
        seen_BTT = seen_BTT & (positions_T[None, None, :] >= first_BT[:, :, None])
    q, k, v = (part.double().view(B, T, H, K).transpose(1, 2) for part in qkv_BTC.chunk(3, dim=2))
    mask = seen_BTT[:, None]
    expected_BTD = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
    (expected_grad_BTC,) = torch.autograd.grad(expected_BTD, qkv_BTC, grad_BTD.double())

    how = attending(H, K, first=first_BT if with_segments else None)
    between = operations.attention((B, T, H * K), how, Arena())
    ours_ND = between.begin(qkv_BTC.detach().flatten(0, 1).clone())
    close(ours_ND, expected_BTD.flatten(0, 1), 5e-6)
    ours_NC, bias_C = between.backward(grad_BTD.flatten(0, 1), needs_bias=True)
    close(ours_NC, expected_grad_BTC.flatten(0, 1), 2e-5)
    assert bias_C is not None
    close(bias_C, expected_grad_BTC.sum((0, 1)), 1e-4)


def test_attention_drops_the_same_in_both_passes(operations: KernelOperations, numbers: torch.Generator) -> None:
    """With values of which each is a unit vector, what is attended to are the probabilities themselves."""
    B, H, T, dropout = 3, 2, 70, 0.3
    D = H * T
    qkv_BTC = torch.randn(B, T, 3 * D, generator=numbers)
    qkv_BTC[:, :, 2 * D :] = torch.eye(T).repeat(1, H)
    how, grad_BTD = attending(H, T, dropout), torch.randn(B, T, D, generator=numbers)
    torch.manual_seed(1)
    between = operations.attention((B, T, D), how, Arena())
    dropped_BTHT = between.begin(qkv_BTC.flatten(0, 1).clone()).view(B, T, H, T)
    kept_BHTT = (dropped_BTHT > 0).transpose(1, 2)
    seen_TT = torch.ones(T, T, dtype=torch.bool).tril()
    assert not (kept_BHTT & ~seen_TT).any()
    assert kept_BHTT[:, :, seen_TT].double().mean() == pytest.approx(1 - dropout, abs=0.02)

    qkv_BTC = qkv_BTC.double().requires_grad_()
    q, k, v = (part.view(B, T, H, T).transpose(1, 2) for part in qkv_BTC.chunk(3, dim=2))
    scores_BHTT = (q @ k.transpose(2, 3) * how.scale).masked_fill(~seen_TT, -math.inf)
    expected_BTD = (scores_BHTT.softmax(-1) * kept_BHTT / (1 - dropout) @ v).transpose(1, 2).flatten(2)
    close(dropped_BTHT.reshape(B, T, D), expected_BTD, 1e-5)
    (expected_grad_BTC,) = torch.autograd.grad(expected_BTD, qkv_BTC, grad_BTD.double())
    ours_NC, _ = between.backward(grad_BTD.flatten(0, 1), needs_bias=False)
    close(ours_NC, expected_grad_BTC.flatten(0, 1), 2e-5)


@pytest.mark.parametrize(("N", "width"), ROWS)
def test_gelu_and_its_gradient(
    operations: KernelOperations, threads: int, numbers: torch.Generator, N: int, width: int
) -> None:
    bias_F = torch.randn(width, generator=numbers)
    hidden_NF, grad_NF = (4 * torch.randn(N, width, generator=numbers) for _ in range(2))
    hidden_NF[0, 0] = 60.0  # where e^-2u is nothing, or too much
    hidden_NF[-1, -1] = -60.0
    inner_NF = (hidden_NF + bias_F).double().requires_grad_()
    exact_NF = F.gelu(inner_NF, approximate="tanh")
    (exact_grad_NF,) = torch.autograd.grad(exact_NF, inner_NF, grad_NF.double())
    between = operations.activation(bias_F, Arena())
    close(between.begin(hidden_NF.clone()), exact_NF.detach())
    grad_hidden_NF, grad_bias_F = between.backward(grad_NF, needs_bias=True)
    close(grad_hidden_NF, exact_grad_NF)
    close(between.output_again(), exact_NF.detach())
    assert grad_bias_F is not None
    close(grad_bias_F, exact_grad_NF.sum(0), 1e-5)


@pytest.mark.parametrize(("N", "width"), ROWS)
def test_norm_and_its_gradients(
    operations: KernelOperations, threads: int, numbers: torch.Generator, N: int, width: int
) -> None:
    layer = torch.nn.LayerNorm(width, eps=1e-5)
    with torch.no_grad():
        layer.weight.normal_(generator=numbers)
        layer.bias.normal_(generator=numbers)
    x_ND, grad_ND, above_ND = (torch.randn(N, width, generator=numbers) + 2 for _ in range(3))
    exact_x_ND, gain_D, shift_D = (each.detach().double().requires_grad_() for each in (x_ND, layer.weight, layer.bias))
    exact_ND = F.layer_norm(exact_x_ND, (width,), gain_D, shift_D, 1e-5)
    exact = torch.autograd.grad(exact_ND, (exact_x_ND, gain_D, shift_D), grad_ND.double())
    norm = operations.norm(x_ND, layer, Arena())
    close(norm.output(), exact_ND.detach(), 5e-6)
    ours = norm.gradients(grad_ND, above_ND, needed=(True, True, True))
    assert ours[0] is not None
    close(ours[0], exact[0] + above_ND, 1e-5)
    for gradient, expected in zip(ours[1:], exact[1:], strict=True):
        assert gradient is not None
        close(gradient, expected, 1e-5)
    assert norm.gradients(grad_ND, above_ND, needed=(False, False, True))[:2] == (None, None)


@pytest.mark.parametrize(("N", "width"), ROWS)
@pytest.mark.parametrize("dropout", [0.0, 1e-12, 0.25, 1.0])
def test_a_branch_comes_onto_its_input(
    operations: KernelOperations, numbers: torch.Generator, N: int, width: int, dropout: float
) -> None:
    out_ND, x_ND, grad_ND = (torch.randn(N, width, generator=numbers) for _ in range(3))
    bias_D = torch.randn(width, generator=numbers)
    torch.manual_seed(4)
    residual = operations.dropout(dropout, Arena())
    ours_ND = out_ND.clone()
    residual.onto(ours_ND, bias_D, x_ND)
    kept_ND = ours_ND != x_ND
    factor = 1 / (1 - dropout) if dropout < 1 else 0.0
    close(ours_ND, torch.where(kept_ND, (out_ND + bias_D) * factor, 0.0) + x_ND)
    assert kept_ND.double().mean() == pytest.approx(1 - dropout, abs=4 / math.sqrt(N * width))
    grad_out_ND, grad_bias_D = residual.gradient(grad_ND, needs_bias=True)
    close(grad_out_ND, torch.where(kept_ND, grad_ND * factor, 0.0))
    assert grad_bias_D is not None
    close(grad_bias_D, grad_out_ND.sum(0), 1e-5)


def test_what_is_dropped_is_independent(operations: KernelOperations) -> None:
    """Rows, columns and seeds look as if drawn: pairs are both kept as often as chance has it."""
    torch.manual_seed(0)
    N, width, dropout = 400, 512, 0.5
    masks = []
    for _ in range(2):
        ours_ND = torch.ones(N, width)
        operations.dropout(dropout, Arena()).onto(ours_ND, torch.zeros(width), torch.zeros(N, width))
        masks.append(2 * (ours_ND > 0).double() - 1)
    first, second = masks
    for product in (
        first,
        first * second,
        first[1:] * first[:-1],
        first[:, 1:] * first[:, :-1],
        first[1:, 1:] * first[:-1, :-1],
    ):
        assert abs(float(product.mean())) < 4.5 / math.sqrt(product.numel())
    # Means of rows and columns vary as they should: as 1 / √n.
    assert float(first.mean(1).std() * math.sqrt(width)) == pytest.approx(1, abs=0.15)
    assert float(first.mean(0).std() * math.sqrt(N)) == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize(("N", "vocabulary"), [(1, 1), (5, 16), (40, 300), (33, 9001)])
def test_cross_entropy_and_its_error(
    operations: KernelOperations, threads: int, numbers: torch.Generator, N: int, vocabulary: int
) -> None:
    rows_NP = 5 * torch.randn(N, vocabulary + 7, generator=numbers)
    scores_NV = rows_NP[:, :vocabulary]
    targets_N = torch.randint(vocabulary, (N,), generator=numbers)
    exact_NV = scores_NV.double().requires_grad_()
    exact = F.cross_entropy(exact_NV, targets_N, reduction="sum")
    (error_NV,) = torch.autograd.grad(exact, exact_NV)
    behind = rows_NP[:, vocabulary:].clone()
    close(operations.cross_entropy_(scores_NV, targets_N), exact.detach(), 1e-6)
    close(scores_NV, error_NV)
    assert torch.equal(rows_NP[:, vocabulary:], behind)
    pytorchs_NV = 5 * torch.randn(N, vocabulary, generator=numbers)
    ours_NV = pytorchs_NV.clone()
    close(operations.cross_entropy_(ours_NV, targets_N), TorchOperations().cross_entropy_(pytorchs_NV, targets_N), 1e-5)
    close(ours_NV, pytorchs_NV)


def test_targets_outside_the_vocabulary_are_refused(operations: KernelOperations) -> None:
    for target in (-1, 16):
        with pytest.raises(IndexError, match="outside the vocabulary of 16 tokens"):
            operations.cross_entropy_(torch.zeros(2, 16), torch.tensor([3, target]))


def test_threads_change_no_bit(numbers: torch.Generator) -> None:
    B, H, T, K = 2, 3, 90, 16
    qkv_NC = torch.randn(B * T, 3 * H * K, generator=numbers)
    grad_ND = torch.randn(B * T, H * K, generator=numbers)
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        torch.manual_seed(2)
        operations, arena = step_operations(), Arena()
        between = operations.attention((B, T, H * K), attending(H, K, 0.1), arena)
        attended_ND = between.begin(qkv_NC.clone()).clone()
        grad_NC, bias_C = between.backward(grad_ND.clone(), needs_bias=True)
        activation = operations.activation(torch.ones(3 * H * K), arena)
        active_NF = activation.begin(qkv_NC.clone()).clone()
        grad_NF, bias_F = activation.backward(qkv_NC.clone(), needs_bias=True)
        residual = operations.dropout(0.2, arena)
        out_ND = grad_ND.clone()
        residual.onto(out_ND, torch.ones(H * K), grad_ND)
        dropped_ND, bias_D = residual.gradient(grad_ND, needs_bias=True)
        norm = operations.norm(grad_ND, torch.nn.LayerNorm(H * K), arena)
        normed_ND = norm.output()
        gradients = norm.gradients(normed_ND.clone(), grad_ND, needed=(True, True, True))
        scores_NV, targets_N = qkv_NC.clone(), torch.arange(B * T) % 7
        nats = operations.cross_entropy_(scores_NV, targets_N)
        results.append((attended_ND, grad_NC, bias_C, active_NF, grad_NF, bias_F, out_ND, dropped_ND, bias_D, normed_ND,
                        *gradients, scores_NV, nats))  # fmt: skip
    torch.set_num_threads(before)
    for result in results[1:]:
        assert all(torch.equal(one, other) for one, other in zip(results[0], result, strict=True))


@pytest.fixture
def multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products come from the kernel, however small they are."""
    monkeypatch.setattr(step, "prefers_kernel", lambda: True)
    monkeypatch.setattr(step, "_SMALLEST", 1)


def matrix(numbers: torch.Generator, rows: int, columns: int, *, turned: bool = False) -> torch.Tensor:
    return torch.randn(columns, rows, generator=numbers).T if turned else torch.randn(rows, columns, generator=numbers)


@pytest.mark.usefixtures("multiplies")
@pytest.mark.parametrize(
    ("rows", "depth", "columns"), [(32, 32, 32), (37, 1000, 75), (6, 8, 16), (1, 1, 1), (100, 769, 33), (3100, 20, 40)]
)
@pytest.mark.parametrize("a_is_turned", [False, True])
@pytest.mark.parametrize("b_is_turned", [False, True])
def test_products_are_exact_to_rounding(
    operations: KernelOperations,
    numbers: torch.Generator,
    threads: int,
    rows: int,
    depth: int,
    columns: int,
    a_is_turned: bool,
    b_is_turned: bool,
) -> None:
    a_NI = matrix(numbers, rows, depth, turned=a_is_turned) / depth**0.5
    b_IO = matrix(numbers, depth, columns, turned=b_is_turned)
    bias_O, before_NO = torch.randn(columns, generator=numbers), matrix(numbers, rows, columns)
    wide_NP = torch.full((rows, columns + 9), 7.0)
    out_NO = wide_NP[:, :columns]
    exact_NO = a_NI.double() @ b_IO.double()
    assert operations.multiply(a_NI, b_IO, out_NO) is out_NO
    close(out_NO, exact_NO)
    operations.multiply(a_NI, b_IO, out_NO, bias_O=bias_O)
    close(out_NO, exact_NO + bias_O)
    out_NO.copy_(before_NO)
    operations.multiply(a_NI, b_IO, out_NO, scale=0.25)
    close(out_NO, before_NO + exact_NO / 4)
    assert (wide_NP[:, columns:] == 7).all()  # nothing is written beside it


@pytest.mark.usefixtures("multiplies")
def test_a_product_is_the_same_whatever_the_threads(operations: KernelOperations, numbers: torch.Generator) -> None:
    a_NI, b_IO = matrix(numbers, 200, 900), matrix(numbers, 900, 500)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(operations.multiply(a_NI, b_IO, torch.empty(200, 500)))
    torch.set_num_threads(before)
    assert all(torch.equal(found[0], each) for each in found[1:])


@pytest.mark.parametrize(("wish", "by_kernel"), [("kernel", True), ("mkl", False)])
def test_who_multiplies_can_be_chosen(
    operations: KernelOperations,
    numbers: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
    wish: str,
    by_kernel: bool,
) -> None:
    monkeypatch.setenv(products.LIBRARY_VARIABLE, wish)
    products.prefers_kernel.cache_clear()
    calls: list[int] = []
    monkeypatch.setattr(
        operations, "_room_for", lambda *sizes: calls.extend(sizes) or KernelOperations._room_for(operations, *sizes)
    )
    operations.multiply(matrix(numbers, 40, 40), matrix(numbers, 40, 40), torch.empty(40, 40))
    operations.multiply(matrix(numbers, 40, 8), matrix(numbers, 8, 40), torch.empty(40, 40))  # too narrow
    products.prefers_kernel.cache_clear()
    assert len(calls) == (2 if by_kernel else 0)
