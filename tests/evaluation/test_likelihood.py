"""Perplexity by its protocol, against `transformers` and against the plain definition."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gpt2kit.evaluation.comparison import Comparison, compare
from gpt2kit.evaluation.likelihood import Protocol, TokenDocument, summarise, token_nats, windows
from gpt2kit.model import save_model

VOCABULARY, END = 50, 49


def document(length: int, *, seed: int, num_bytes: int | None = None) -> TokenDocument:
    ids = np.random.default_rng(seed).integers(0, END, size=length)
    ids[-1] = END
    return TokenDocument(ids.astype(np.int64), np.ones(length, dtype=np.bool_), num_bytes or 3 * length)


DOCUMENTS = [document(length, seed=length) for length in (1, 5, 32, 33, 100)]


def conditional_nats(model, ids: Sequence[int], *, context: int) -> list[float]:
    """-log p of each token given at most `context - 1` tokens and its own place's end-of-text: one at a time."""
    stream = [END, *ids]
    nats = []
    for place in range(1, len(stream)):
        seen = torch.tensor([stream[max(place - context, 0) : place]])
        logits = model.logits(model(seen)[:, -1])[0]
        nats.append(-torch.log_softmax(logits.double(), -1)[stream[place]].item())
    return nats


@given(st.integers(1, 200), st.integers(1, 40), st.data(), st.booleans())
def test_every_token_is_predicted_once_with_the_context_the_protocol_says(length, context, data, full):
    stride = data.draw(st.integers(1, context))
    cuts = windows(length, Protocol(context, stride, full))
    assert [place for cut in cuts for place in range(cut.first, cut.end)] == list(range(length))
    for cut in cuts:
        assert 0 <= cut.start <= cut.first < cut.end <= cut.start + context
        assert cut.start == 0 or cut.first - cut.start >= context - stride
    if full and length >= context:
        assert cuts[-1].end - cuts[-1].start == context


def test_windows_that_do_not_overlap():
    cuts = windows(10, Protocol(4, 4))
    assert [(cut.start, cut.end, cut.first) for cut in cuts] == [(0, 4, 0), (4, 8, 4), (8, 10, 8)]
    full = windows(10, Protocol(4, 4, full_last_window=True))
    assert [(cut.start, cut.end, cut.first) for cut in full] == [(0, 4, 0), (4, 8, 4), (6, 10, 8)]


def test_stride_one_is_the_full_conditional(random_model):
    model = random_model(VOCABULARY)
    found = token_nats(model, DOCUMENTS, protocol=Protocol(32, 1), end_of_text=END)
    for each, nats in zip(DOCUMENTS, found, strict=True):
        expected = conditional_nats(model, each.ids_N.tolist(), context=32)
        np.testing.assert_allclose(nats, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [8, 20, 32])
def test_nats_are_those_of_transformers_window_by_window(stride, tmp_path, random_model):
    transformers = pytest.importorskip("transformers")
    model = random_model(VOCABULARY)
    save_model(model, tmp_path)
    judge = transformers.GPT2LMHeadModel.from_pretrained(tmp_path).eval()
    found = token_nats(model, DOCUMENTS, protocol=Protocol(32, stride), end_of_text=END)
    for each, nats in zip(DOCUMENTS, found, strict=True):
        # The loop of Hugging Face's guide to perplexity, with end-of-text in front.
        stream = torch.tensor([[END, *each.ids_N.tolist()]])
        expected, done = [], 0
        for start in range(0, stream.size(1) - 1, stride):
            end = min(start + 32, stream.size(1) - 1)
            with torch.no_grad():
                logits = judge(stream[:, start:end]).logits[0].double()
            of_window = -torch.log_softmax(logits, -1).gather(1, stream[0, start + 1 : end + 1, None])[:, 0]
            expected += of_window[done - start :].tolist()
            done = end
            if end == stream.size(1) - 1:
                break
        np.testing.assert_allclose(nats, expected, rtol=1e-4, atol=1e-5)


def test_stride_of_the_context_is_the_text_in_blocks(random_model):
    model = random_model(VOCABULARY)
    ids = DOCUMENTS[-1].ids_N.tolist()
    [nats] = token_nats(model, DOCUMENTS[-1:], protocol=Protocol(32, 32), end_of_text=END)
    stream = [END, *ids]
    expected = []
    for start in range(0, len(ids), 32):
        block = torch.tensor([stream[start : start + 33]])
        expected += torch.nn.functional.cross_entropy(
            model.logits(model(block[:, :-1]))[0], block[0, 1:], reduction="none"
        ).tolist()
    np.testing.assert_allclose(nats, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_the_batch_changes_nothing(batch_size, random_model):
    model = random_model(VOCABULARY)
    alone = [token_nats(model, [each], protocol=Protocol(16, 12), end_of_text=END)[0] for each in DOCUMENTS]
    together = token_nats(model, DOCUMENTS, protocol=Protocol(16, 12), end_of_text=END, batch_size=batch_size)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_tokens_that_are_only_read_do_not_count_but_are_read(random_model):
    model = random_model(VOCABULARY)
    whole = document(20, seed=3)
    counts = np.arange(20) >= 12
    masked = TokenDocument(whole.ids_N, counts, 24)
    protocol = Protocol(32, 32)
    [all_nats] = token_nats(model, [whole], protocol=protocol, end_of_text=END)
    [nats] = token_nats(model, [masked], protocol=protocol, end_of_text=END)
    np.testing.assert_allclose(nats, np.where(counts, all_nats, 0.0), rtol=1e-4, atol=1e-5)
    found = summarise([masked], [nats], protocol=protocol, seed=0)
    assert found.num_tokens == 8
    assert found.perplexity == pytest.approx(math.exp(all_nats[12:].sum() / 8), rel=1e-5)
    assert found.bits_per_byte == pytest.approx(all_nats[12:].sum() / math.log(2) / 24, rel=1e-5)


def test_perplexity_is_of_the_sum_not_the_mean_of_the_documents():
    documents = [TokenDocument(np.array([0, END]), np.array([True, True]), 1) for _ in range(2)]
    documents.append(TokenDocument(np.array([0] * 5 + [END]), np.array([True] * 6), 5))
    nats = [np.array([1.0, 3.0]), np.array([2.0, 2.0]), np.full(6, 0.5)]
    found = summarise(documents, nats, protocol=Protocol(8, 8), seed=0)
    assert found.perplexity == pytest.approx(math.exp(11 / 10))
    assert found.text_perplexity == pytest.approx(math.exp((11 - 3 - 2 - 0.5) / 7))
    assert found.bits_per_byte == pytest.approx(11 / math.log(2) / 7)
    assert (found.num_tokens, found.num_bytes, found.num_documents) == (10, 7, 3)
    assert (found.unit, found.num_units) == ("window", 3)


def test_an_untrained_model_is_as_good_as_guessing(random_model):
    model = random_model(VOCABULARY)
    model.transformer.wte.weight.data.zero_()
    found = token_nats(model, DOCUMENTS, protocol=Protocol(32, 32), end_of_text=END)
    assert summarise(DOCUMENTS, found, protocol=Protocol(32, 32), seed=0).perplexity == pytest.approx(VOCABULARY)


def test_pairs_show_a_difference_that_the_figures_alone_do_not():
    """A model that saves 0.05 nats on every token of documents between 1 and 6 nats: clear in pairs only."""
    draw = np.random.default_rng(0)
    documents = [document(100, seed=number) for number in range(20)]
    hard = [np.full(100, level) for level in draw.uniform(1, 6, size=20)]
    easier = [values - 0.05 + draw.normal(0, 0.02) for values in hard]
    protocol = Protocol(128, 128)
    own = summarise(documents, easier, protocol=protocol, seed=0)
    other = summarise(documents, hard, protocol=protocol, seed=0)
    assert own.perplexity_interval[1] > other.perplexity_interval[0]  # they overlap
    found = compare((own, documents), (other, documents), same_tokenizer=True, seed=0)
    assert found.is_clear
    assert found.perplexity_drop.value == pytest.approx(1 - own.perplexity / other.perplexity)
    assert found.perplexity_drop.value == pytest.approx(1 - math.exp(-0.05), abs=0.01)
    assert found.bits_per_byte_saved.value == pytest.approx(0.05 / math.log(2) / 3, abs=0.005)
    assert found.p_value == pytest.approx(1 / 20_001)  # none of 20,000 choices of signs comes near
    none = compare((own, documents), (own, documents), same_tokenizer=True, seed=0)
    assert none.perplexity_drop.value == 0
    assert none.p_value == 1
    assert not none.is_clear


@pytest.mark.parametrize(("num_documents", "is_possible"), [(5, False), (8, True)])
def test_windows_of_few_documents_are_never_taken_for_independent_pairs(num_documents, is_possible):
    """Each document has ten windows that differ alike, so windows would make chance look like a finding."""
    protocol = Protocol(10, 10)
    documents = [document(100, seed=number) for number in range(num_documents)]
    hard = [np.full(100, 3.0) for _ in documents]
    other = summarise(documents, hard, protocol=protocol, seed=0)

    def against(saved: list[float]) -> Comparison:
        easier = [values - by for values, by in zip(hard, saved, strict=True)]
        own = summarise(documents, easier, protocol=protocol, seed=0)
        return compare((own, documents), (other, documents), same_tokenizer=True, seed=0)

    mixed = against([0.5, 0.4, 0.3, 0.2, -0.25, 0.1, -0.2, 0.35][:num_documents])
    assert (mixed.num_units, mixed.to_dict()["unit"]) == (num_documents, "document")
    assert mixed.p_value > 0.1
    assert not mixed.is_clear
    all_alike = against([0.5 + 0.01 * number for number in range(num_documents)])
    assert all_alike.p_value == 2.0 ** (1 - num_documents)
    assert all_alike.bits_per_byte_saved.interval[0] > 0
    assert all_alike.is_clear == is_possible


@pytest.mark.parametrize(
    ("num_documents", "words"),
    [
        (6, "95% intervals over 6 documents"),
        (2, "95% intervals over 20 windows of 2 documents: likely too narrow, and nothing is judged by them"),
    ],
)
def test_intervals_say_what_they_are_over(num_documents, words):
    documents = [document(100, seed=number) for number in range(num_documents)]
    nats = [np.full(100, 1.0 + number) for number in range(num_documents)]
    assert summarise(documents, nats, protocol=Protocol(10, 10), seed=0).intervals_text == words
