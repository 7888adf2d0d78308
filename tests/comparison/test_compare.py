"""`gpt2kit compare` from end to end: known orders, pages, and clear lines for what is wrong."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gpt2kit import PrepareSettings, TrainSettings, compare, prepare, train
from gpt2kit.cli import main
from gpt2kit.comparison import measure
from gpt2kit.errors import Gpt2kitError, UsageError
from gpt2kit.evaluation.page.passages import printable
from gpt2kit.files import to_json
from gpt2kit.model import load_model, save_model


def test_the_order_is_the_known_one_and_a_model_is_not_told_from_itself(settings, model_folder, prepared):
    worse, better = model_folder("worse", spread=1.0), model_folder("better", spread=0.0)
    found = compare(settings(worse, better, better))
    assert [rank.title for rank in found.ranking] == ["better", "better (2)", "worse"]
    assert found.likelihood["better"].perplexity == pytest.approx(prepared.tokenizer.vocab_size)  # all tokens alike
    pairs = {(pair.first, pair.second): pair for pair in found.pairs}
    itself = pairs["better", "better (2)"]
    assert (itself.saved, itself.p_value, itself.corrected_p, itself.is_clear) == (0.0, 1.0, 1.0, False)
    for name in ("better", "better (2)"):
        other = pairs["worse", name]
        assert other.is_clear
        assert other.saved == pytest.approx(
            found.likelihood[name].bits_per_byte - found.likelihood["worse"].bits_per_byte
        )
        low, high = other.difference.bits_per_byte_saved.interval
        assert low <= other.saved <= high < 0
    assert found.verdict[0] == "better and better (2) lead; which of them is best, this text does not tell."
    assert [rank.place for rank in found.ranking] == [1, 1, 3]
    assert "1. better (2)" in found.verdict[2]
    assert "3. worse" in found.verdict[3]
    assert any("better and better (2) are the same model: their files are the same" in note for note in found.notes)
    for page in (found.report.read_text(), found.report.with_suffix(".html").read_text()):
        assert "(2) (alike)" in page.replace("\\(", "(").replace("\\)", ")")
    assert "clearly worse than better and better (2)" in found.verdict[3]
    samples = found.values["samples"]
    assert samples["better"]["texts"] == samples["better (2)"]["texts"]
    assert samples["better"]["texts"] != samples["worse"]["texts"]
    assert list(samples) == ["worse", "better", "better (2)", "human"]
    assert len({tuple(each["prompts"]) for each in samples.values()}) == 1


def test_reports_are_numbered_whole_and_escaped(settings, model_folder, capsys):
    odd = model_folder("<b>odd_name", spread=0.5)
    plain = model_folder("plain", spread=0.0)
    first, second = compare(settings(odd, plain)), compare(settings(odd, plain, num_samples=0))
    assert [first.report.name, second.report.name] == ["comparison-001.md", "comparison-002.md"]
    values = json.loads(first.report.with_suffix(".json").read_text())
    assert values == json.loads(to_json(first.to_dict()))
    assert [each["name"] for each in values["models"]] == ["<b>odd_name", "plain"]
    cost = values["models"][1]["cost"]
    network = load_model(plain)
    assert cost["num_parameters"] == sum(each.numel() for each in network.parameters())
    assert cost["weight_bytes"] == 4 * cost["num_parameters"]
    assert cost["peak_memory_bytes"] > cost["weight_bytes"]
    assert cost["read_tokens_per_second"] > 0
    page = first.report.with_suffix(".html").read_text()
    assert "&lt;b&gt;odd_name" in page
    assert "<b>odd_name" not in page
    assert not re.search(r"<script|https?://|src=", page)
    for text in values["samples"]["plain"]["texts"]:
        assert printable(text.strip())[:10].replace("&", "&amp;").replace("<", "&lt;")[:5] in page
    markdown = first.report.read_text()
    assert "\\<b\\>odd\\_name" in markdown
    for part in ("## Differences", "## Texts from the same prompts", "## Size, memory, speed", "no overlap"):
        assert part in markdown
    if first.texts.floors:  # needs the extra metrics
        assert "human, shuffled" in markdown
        assert "human, shuffled" in page
    assert second.texts is None
    assert "## Texts" not in second.report.read_text()
    assert str(first.report) in first.to_text()
    names = sorted(path.name for path in first.report.parent.iterdir())
    assert names == [f"comparison-00{n}.{suffix}" for n in (1, 2) for suffix in ("html", "json", "md")]


def test_models_of_different_tokenizers_compare_in_bits_per_byte(settings, model_folder, raw_folder, tmp_path):
    data = prepare(PrepareSettings(input=raw_folder, data_dir=tmp_path / "other", from_scratch=True, vocab_size=300))
    models = [model_folder("a", spread=0.0), model_folder("b", spread=0.3), model_folder("c", spread=0.0, data=data)]
    found = compare(settings(*models, num_samples=0))
    assert found.likelihood["a"].num_bytes == found.likelihood["c"].num_bytes
    assert found.likelihood["a"].num_tokens != found.likelihood["c"].num_tokens
    pairs = {(pair.first, pair.second): pair for pair in found.pairs}
    assert pairs["a", "b"].difference.perplexity_drop is not None
    assert pairs["a", "c"].difference.perplexity_drop is None
    expected = found.likelihood["c"].nats - found.likelihood["a"].nats
    saved_bytes = found.likelihood["a"].num_bytes * math.log(2)
    assert pairs["a", "c"].saved == pytest.approx(expected / saved_bytes)
    assert any("different tokenizers" in note for note in found.notes)
    row = next(line for line in found.to_text().splitlines() if line.startswith("c "))
    assert " - " in row  # no perplexity: nobody shares its tokenizer
    row = next(line for line in found.to_text().splitlines() if line.startswith("a "))
    assert row.count("[a]") == 1


def test_a_picture_where_matplotlib_is(settings, model_folder, monkeypatch):
    pytest.importorskip("matplotlib")
    models = [model_folder("a", spread=0.0), model_folder("b", spread=1.0)]
    found = compare(settings(*models, picture=True))
    assert found.report.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert f"{found.report.stem}.png" in found.report.read_text()
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    found = compare(settings(*models, picture=True, num_samples=0))
    assert any("no picture" in note and "gpt2kit[plots]" in note for note in found.notes)


def test_the_picture_of_many_models_with_long_names_holds_all_its_words(settings, model_folder, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure")
    cut: list[str] = []
    save = figures.Figure.savefig

    def look(page, path, **given):
        save(page, path, **given)
        box = page.bbox
        for axes in page.findobj(lambda each: hasattr(each, "get_xticklabels")):
            for words in (axes.title, *axes.get_yticklabels()):
                place = words.get_window_extent()
                if place.x0 < box.x0 - 1 or place.x1 > box.x1 + 1:
                    cut.append(words.get_text())

    monkeypatch.setattr(figures.Figure, "savefig", look)
    models = [model_folder(f"a_name_of_more_than_24_letters_{number}", spread=number / 4) for number in range(7)]
    compare(settings(*models, picture=True, num_samples=0))
    assert cut == []


def test_the_page_shows_odd_texts_and_does_not_make_little_look_like_much(settings, model_folder, monkeypatch):
    odd = ["\x00\x07 bell", "", "\u0633\u0644\u0627\u0645", "x" * 500]
    generate = measure.generate_texts

    def generate_odd(*given, **more):
        found = generate(*given, **more)
        return replace(found, texts=[*odd, *found.texts[len(odd) :]])

    monkeypatch.setattr(measure, "generate_texts", generate_odd)
    found = compare(settings(model_folder("a", spread=0.0), model_folder("b", spread=1.0)))
    page = found.report.with_suffix(".html").read_text()
    assert "\x00" not in page
    assert '<p dir="auto">\u2400\u2407 bell</p>' in page
    assert '<p dir="auto">An empty text.</p>' in page
    row = re.search(r'<th scope="row">words copied in runs of 8 or more</th>(.*?)</tr>', page, re.DOTALL)[1]
    places = [float(place) for place in re.findall(r'<b style="left:([\d.]+)%">', row)]
    assert places[:2] == [pytest.approx(5.4, abs=0.1)] * 2  # neither copies: both at the left end, which is 0


def test_too_little_text_is_said(settings, model_folder, tmp_path):
    text = tmp_path / "short.txt"
    text.write_text("The fox saw the wolf and the king found the bird. " * 3, encoding="utf-8")
    models = [model_folder("a", spread=0.0), model_folder("b", spread=1.0)]
    found = compare(settings(*models, text=text, num_samples=0, context=32))
    assert any("held-out documents: only 1" in warning for warning in found.warnings)
    assert any("no difference can come out clear" in warning for warning in found.warnings)
    assert not found.pairs[0].is_clear
    assert found.verdict[0].startswith("No model is clearly the best: with 1 held-out document")
    for page in (found.report.read_text(), found.report.with_suffix(".html").read_text()):
        assert "of 1 document: likely too narrow, and nothing is judged by them" in page


def test_the_same_weights_write_the_same_texts_whether_or_not_their_folder_has_a_record(settings, model_folder):
    plain, trained = model_folder("plain", spread=0.3), model_folder("trained", spread=0.3)
    (trained / "training").mkdir()
    found = compare(settings(plain, trained))
    samples = found.values["samples"]
    assert samples["plain"]["texts"] == samples["trained"]["texts"]
    assert found.values["prompts"]["end_of_text_first"]
    assert any("an end-of-text stands in front of all models' prompts" in note for note in found.notes)
    assert "prompts with an end-of-text in front, for all models alike" in found.report.read_text()
    no_texts = compare(settings(plain, trained, num_samples=0))
    assert not any("an end-of-text stands in front" in note for note in no_texts.notes)
    without = compare(settings(plain, trained, end_of_text_first="off"))
    assert not without.values["prompts"]["end_of_text_first"]
    assert without.values["samples"]["plain"]["texts"] == without.values["samples"]["trained"]["texts"]
    assert without.values["samples"]["plain"]["texts"] != samples["plain"]["texts"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"models": ("a",)}, "--models .*should name two models or more"),
        ({"models": ("/nowhere", "nano")}, "/nowhere: no such folder"),
        ({"models": ("nano", "nano"), "data_dir": Path("/nowhere")}, "no prepared data here"),
        ({"models": ("nano", "nano"), "context": 2048}, "--context 2048: nano can look back on 512 tokens at most"),
        ({"models": ("nano", "nano"), "stride": 600}, "--stride 600 is greater than the context of 512"),
        ({"models": ("nano", "nano"), "stride": 9, "context": 8}, "--stride 9 is greater than the context of 8"),
        ({"models": ("nano", "nano"), "text": Path("/no.txt")}, "--text /no.txt: cannot be read"),
    ],
)
def test_wrong_settings_are_one_clear_line_and_leave_nothing(settings, values, message, tmp_path):
    with pytest.raises(UsageError, match=message) as caught:
        compare(settings(*values.pop("models"), **values))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "comparisons").exists()


def test_a_failure_on_the_way_leaves_no_empty_report(settings, model_folder, monkeypatch):
    def fail(*_, **__):
        raise Gpt2kitError("no")

    monkeypatch.setattr("gpt2kit.comparison.measure.load", fail)
    asked = settings(model_folder("a", spread=0.0), model_folder("b", spread=0.0))
    with pytest.raises(Gpt2kitError, match="no"):
        compare(asked)
    assert list(asked.output_dir.iterdir()) == []


def test_the_command_takes_models_as_words_and_data_by_both_names(model_folder, prepared, tmp_path, capsys):
    words = [str(model_folder("a", spread=0.0)), str(model_folder("b", spread=1.0))]
    options = ["--output-dir", str(tmp_path / "out"), "--num_samples", "0", "--no-picture", "--device", "cpu"]
    assert main(["compare", *words, "--data", str(prepared.folder), *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ranking"][0]["title"] == "a"
    assert main(["compare", *words, "--data_dir", str(prepared.folder), *options]) == 0
    assert "a predicts the text best, clearly ahead of every other model." in capsys.readouterr().out
    assert main(["compare", words[0], "--data", str(prepared.folder), *options]) == 2
    said = capsys.readouterr().err
    assert f"--models {words[0]}: should name two models or more" in said


@pytest.mark.slow
def test_nano_its_fine_tuned_self_and_a_damaged_one(raw_folder, tmp_path):
    data = prepare(PrepareSettings(input=raw_folder, data_dir=tmp_path / "data", base="nano", test_fraction=0.25))
    shape = {"device": "cpu", "context": 128, "tensorboard": False, "batch_size": 4}
    tuned = tmp_path / "tuned"
    train(TrainSettings(data_dir=data.folder, base="nano", model_output_dir=tuned, max_steps=10, **shape))
    adapter = tmp_path / "adapter"
    train(
        TrainSettings(data_dir=data.folder, base="nano", method="lora", model_output_dir=adapter, max_steps=10, **shape)
    )
    damaged = tmp_path / "damaged"
    network = load_model(tuned)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in network.parameters():
            weights += 0.5 * weights.std() * torch.randn(weights.shape, generator=generator)
    save_model(network, damaged)
    data.tokenizer.save(damaged)
    from gpt2kit import CompareSettings

    found = compare(
        CompareSettings(
            models=("nano", str(tuned), str(damaged), str(adapter)),
            data_dir=data.folder,
            output_dir=tmp_path / "out",
            num_samples=4,
            sample_tokens=20,
            device="cpu",
        )
    )
    order = [rank.title for rank in found.ranking]
    assert order[0] == "tuned"
    assert order[-1] == "damaged"
    best = found.ranking[0]
    assert {"nano", "damaged"} <= set(best.clearly_better_than)
    assert len(found.ranking[-1].clearly_worse_than) == 3
