"""The parts of a breakdown hold each token once, in the part where a plain loop puts it."""

import json
import math

import numpy as np
import pytest

from gpt2kit import EvaluateSettings, evaluate
from gpt2kit.evaluation.breakdown import break_down, breakdown_page, rarity_classes
from gpt2kit.evaluation.likelihood import Protocol, TokenDocument, windows


def make(lengths, *, seed=0):
    draw = np.random.default_rng(seed)
    documents = [
        TokenDocument(
            draw.integers(0, 8, size=length), draw.random(length) < 0.9, 3 * length, f"d{number}", f"file{number % 2}"
        )
        for number, length in enumerate(lengths)
    ]
    nats = [np.where(document.counts_N, draw.exponential(3, len(document.ids_N)), 0.0) for document in documents]
    return documents, nats


@pytest.mark.parametrize("protocol", [Protocol(8, 8), Protocol(8, 3), Protocol(8, 8, full_last_window=True)])
@pytest.mark.parametrize("lengths", [(1, 30, 7, 16), tuple(range(3, 40))])
def test_every_token_is_in_the_part_a_plain_loop_puts_it_in(protocol, lengths):
    documents, nats = make(lengths)
    counts_V = np.array([500, 300, 150, 40, 9, 1, 0, 0])
    found = break_down(documents, nats, protocol=protocol, seed=0, training_counts_V=counts_V)
    sums: dict[str, dict[str, list[float]]] = {name: {} for name in ("context", "place", "source", "rarity")}
    rarity = ["commonest, half of the training text", "next 40%", "next 40%", "next 9%", "next 0.9%", "rarest 0.1%"]
    for document, values in zip(documents, nats, strict=True):
        for cut in windows(len(values), protocol):
            for place in range(cut.first, cut.end):
                if not document.counts_N[place]:
                    continue
                for name, number in (("context", place - cut.start + 1), ("place", place + 1)):
                    low = 2 ** int(math.log2(number))
                    sums[name].setdefault(str(low), []).append(values[place])
                sums["source"].setdefault(document.source, []).append(values[place])
                identifier = int(document.ids_N[place])
                title = rarity[identifier] if identifier < 6 else "not in the training text"
                sums["rarity"].setdefault(title, []).append(values[place])
    for name, expected in sums.items():
        parts = {part.title.split(" to ")[0]: part for part in found.parts[name]}
        assert set(parts) == set(expected)
        for title, values in expected.items():
            assert parts[title].num_tokens == len(values)
            assert parts[title].nats == pytest.approx(sum(values))
            assert parts[title].perplexity.value == pytest.approx(math.exp(sum(values) / len(values)))
        total = sum(part.nats for part in found.parts[name])
        assert total == pytest.approx(sum(each.sum() for each in nats))
    assert [each["nats"] for each in found.documents] == pytest.approx([each.sum() for each in nats])
    assert found.documents[1]["bits_per_byte"] == pytest.approx(nats[1].sum() / math.log(2) / (3 * lengths[1]))


def test_intervals_only_where_six_units_hold_a_part():
    documents, nats = make([20] * 12 + [60] * 3)
    found = break_down(documents, nats, protocol=Protocol(64, 64), seed=0)
    of = {part.title: part for part in found.parts["place"]}
    assert of["16 to 31"].num_units == 15
    low, high = of["16 to 31"].perplexity.interval
    assert low < of["16 to 31"].perplexity.value < high
    assert of["32 to 60"].num_units == 3
    assert of["32 to 60"].perplexity.interval is None
    assert "rarity" not in found.parts


def test_rarity_by_share_of_the_training_text():
    assert rarity_classes(np.array([9, 0, 990, 1])).tolist() == [3, 5, 0, 4]
    assert rarity_classes(np.array([0, 0])).tolist() == [5, 5]


def test_the_page_has_a_table_for_each_breakdown_and_says_what_it_leaves_out():
    documents, nats = make([30] * 12)
    documents = [
        TokenDocument(each.ids_N, each.counts_N, each.num_bytes, "", f"f{number}|")
        for number, each in enumerate(documents * 2)
    ]
    found = break_down(documents, nats * 2, protocol=Protocol(16, 16), seed=0)
    page = breakdown_page(
        {"model": found, "base": found}, {"model": "mine", "base": "gpt2"}, same_tokenizer=True, over_documents=True
    )
    assert "| tokens to look back on" in page
    assert "| place in the document, in tokens" in page
    assert r"f0\|" in page
    assert "4 more are in the JSON." in page
    other_first = breakdown_page(
        {"base": found, "model": found}, {"model": "mine", "base": "gpt2"}, same_tokenizer=True, over_documents=True
    )
    assert other_first == page
    assert "mine" in page
    assert "gpt2" in page
    assert "gpt2" not in breakdown_page(
        {"model": found, "base": found}, {"model": "mine", "base": "gpt2"}, same_tokenizer=False, over_documents=False
    )


def test_an_evaluation_reports_documents_and_parts(prepared, model_folder, tmp_path):
    settings = EvaluateSettings(
        model_dir=str(model_folder()),
        data_dir=prepared.folder,
        output_dir=tmp_path / "metrics",
        num_samples=0,
        device="cpu",
        picture=False,
    )
    found = evaluate(settings)
    values = json.loads(found.report.with_suffix(".json").read_text())["breakdown"]["model"]
    own = found.likelihood["model"]
    assert len(values["documents"]) == own.num_documents
    assert values["documents"][0]["source"].endswith(".txt")
    for name in ("context", "place", "source", "rarity"):
        assert sum(part["num_tokens"] for part in values[name]) == own.num_tokens
        assert sum(part["nats"] for part in values[name]) == pytest.approx(own.nats)
    assert "## Where it predicts well" in found.report.read_text()
