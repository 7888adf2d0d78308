"""Scores of continuations against one plain forward pass each."""

import numpy as np
import pytest
import torch

from gpt2kit.evaluation.tasks.scoring import _pieces, encode_pair, score

VOCABULARY = 50


def plainly(model, context, continuation):
    ids = [*context, *continuation][-(model.config.n_positions + 1) :]
    logits = model.logits(model(torch.tensor([ids[:-1]])))[0, -len(continuation) :]
    logs = torch.log_softmax(logits.double(), -1)
    targets = torch.tensor(continuation)
    nats = -logs.gather(1, targets[:, None]).sum().item()
    return nats, bool((logits.argmax(-1) == targets).all())


@pytest.fixture
def pairs():
    """Shared contexts, one-token continuations, contexts of one length, and one beyond the context of 64."""
    draw = np.random.default_rng(0)

    def ids(length):
        return draw.integers(0, VOCABULARY, size=length).tolist()

    shared = [ids(12), ids(12), ids(7)]
    found = [(context, ids(length)) for context in shared for length in (1, 4, 2, 9)]
    return [*found, (ids(3), ids(1)), (ids(70), ids(5)), (ids(63), ids(2)), (ids(1), ids(64))]


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_scores_are_those_of_one_pass_each(batch_size, pairs, random_model):
    model = random_model(VOCABULARY)
    found = score(model, pairs, batch_size=batch_size)
    for (context, continuation), scored in zip(pairs, found, strict=True):
        nats, is_greedy = plainly(model, context, continuation)
        assert scored.nats == pytest.approx(nats, rel=1e-4)
        assert scored.is_greedy == is_greedy


def in_windows(model, context, continuation):
    """lm-eval's loglikelihood_rolling of a continuation, from the context's last token: (nats, greedy)."""
    limit = model.config.n_positions
    before, ids, predicted, nats, is_greedy = [*context], [*continuation], 0, 0.0, True
    while predicted < len(ids):
        size = min(len(ids) - predicted, limit)
        seen = [*before, *ids][: len(before) + predicted + size]
        inputs = seen[:-1][-limit:]
        logits = model.logits(model(torch.tensor([inputs])))[0, -size:]
        targets = torch.tensor(seen[-size:])
        nats -= torch.log_softmax(logits.double(), -1)[range(size), targets].sum().item()
        is_greedy &= bool((logits.argmax(-1) == targets).all())
        predicted += size
    return nats, is_greedy


@pytest.mark.parametrize("size", [63, 64, 65, 72, 128, 129, 200])
def test_a_continuation_beyond_the_context_is_read_in_windows(size, random_model, capsys):
    model, draw = random_model(VOCABULARY), np.random.default_rng(1)
    pairs = [([7, *draw.integers(VOCABULARY, size=before)], draw.integers(VOCABULARY, size=size)) for before in (0, 20)]
    pairs = [([int(each) for each in context], continuation.tolist()) for context, continuation in pairs]
    for pair, scored in zip(pairs, score(model, [*pairs, ([1], [2])]), strict=False):
        nats, is_greedy = in_windows(model, *pair)
        assert scored.nats == pytest.approx(nats, rel=1e-5)
        assert scored.is_greedy == is_greedy
    said = capsys.readouterr().err
    assert f"{1 + (size > 64)} of 3 texts are longer than the 64 tokens" in said


def test_windows_are_those_of_lm_evals_rolling(random_model):
    utils = pytest.importorskip("lm_eval.utils")
    ids = list(range(150))
    found = list(utils.get_rolling_token_windows(ids, prefix_token=999, max_seq_len=64, context_len=1))
    assert [([*context, *piece[:-1]], piece) for context, piece in _pieces([5, 999], ids, limit=64)] == found


def test_greedy_is_what_greedy_search_writes(random_model):
    model = random_model(VOCABULARY)
    ids = [1, 2, 3]
    for _ in range(5):
        ids.append(int(model.logits(model(torch.tensor([ids]))[:, -1]).argmax()))
    [right, wrong, none] = score(model, [(ids[:3], ids[3:]), (ids[:3], [*ids[3:-1], (ids[-1] + 1) % 50]), (ids, [])])
    assert right.is_greedy
    assert not wrong.is_greedy
    assert (none.nats, none.is_greedy) == (0.0, True)


def test_pairs_are_cut_where_the_context_ends(prepared):
    tokenizer = prepared.tokenizer
    for context, continuation in (("The old king", " saw"), ("The old king ", "saw"), ("The old king", "dom fell")):
        before, behind = encode_pair(tokenizer, context, continuation)
        assert before == tokenizer.encode(context.rstrip())
        assert before + behind == tokenizer.encode(context + continuation)[: len(before)] + behind
        assert behind
    assert encode_pair(tokenizer, "", " saw") == ([tokenizer.end_of_text], tokenizer.encode(" saw"))
    assert encode_pair(tokenizer, "  ", "saw") == ([tokenizer.end_of_text], tokenizer.encode("  saw"))
