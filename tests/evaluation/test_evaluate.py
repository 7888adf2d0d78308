"""`gpt2kit evaluate` from end to end: reports, comparisons, and one clear line for what is wrong."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt2kit import EvaluateSettings, GenerateSettings, PreparedData, PrepareSettings, evaluate, prepare
from gpt2kit.cli import main
from gpt2kit.errors import DataError, Gpt2kitError, UsageError
from gpt2kit.evaluation.ground import HeldOutChoice, Remarks, find_held_out
from gpt2kit.evaluation.heldout import choose_split, openings, placed_training_texts, read_held_out, training_texts
from gpt2kit.evaluation.samples import human_texts, read_given
from gpt2kit.files import to_json
from gpt2kit.generation.command import run as generate_into
from gpt2kit.model import load_model, save_model
from gpt2kit.tokens import Tokenizer

SMALL = {"num_samples": 6, "sample_tokens": 30, "prompt_words": 6, "device": "cpu", "picture": False}


@pytest.fixture
def settings(prepared: PreparedData, model_folder, tmp_path):
    """Makes settings of a small evaluation of a random model."""

    def make(**values):
        if "model_dir" not in values:
            values["model_dir"] = str(model_folder())
        return EvaluateSettings(**({"data_dir": prepared.folder, "output_dir": tmp_path / "metrics"} | SMALL | values))

    return make


def record_run(folder: Path, *, base: str | None, fingerprint: str) -> None:
    (folder / "training").mkdir()
    (folder / "training" / "run.json").write_text(to_json({"base": base, "data": {"fingerprint": fingerprint}}))


def test_a_model_beside_its_base_on_the_same_tokens(settings, prepared, model_folder):
    base = model_folder("base", seed=1)
    folder = model_folder("model")
    guessing = load_model(folder)
    guessing.transformer.wte.weight.data.zero_()  # all tokens alike: better than the wild guesses of random weights
    save_model(guessing, folder)
    record_run(folder, base=str(base), fingerprint=prepared.manifest["fingerprint"])
    found = evaluate(settings(model_dir=str(folder)))
    own, other = found.likelihood["model"], found.likelihood["base"]
    assert own.num_tokens == other.num_tokens == prepared.store("test").num_tokens
    assert own.num_bytes == prepared.manifest["splits"]["test"]["num_target_bytes"]
    assert found.comparison.perplexity_drop.value == pytest.approx(1 - own.perplexity / other.perplexity)
    assert list(found.texts.sets) == ["model", "base", "human"]
    assert found.texts.sets["human"].num_texts == found.texts.sets["model"].num_texts == 6
    assert own.perplexity == pytest.approx(prepared.tokenizer.vocab_size)
    assert any(line.startswith(f"Better than its base model {base}: perplexity") for line in found.verdict)
    turned = evaluate(settings(model_dir=str(base), compare_with=str(folder), num_samples=0))
    assert any(line.startswith(f"WORSE than {folder}: perplexity") for line in turned.verdict)
    assert turned.comparison.bits_per_byte_saved.value == -found.comparison.bits_per_byte_saved.value


def test_a_model_and_its_base_write_from_the_same_prompts(settings, prepared, model_folder):
    base, folder = model_folder("base"), model_folder("model")
    record_run(folder, base=str(base), fingerprint=prepared.manifest["fingerprint"])
    found = evaluate(settings(model_dir=str(folder)))
    samples = found.values["samples"]
    assert samples["model"]["texts"] == samples["base"]["texts"]
    assert found.values["prompts"]["end_of_text_first"]
    assert "prompts with an end-of-text in front" in found.report.read_text()


def test_perplexity_is_the_plain_mean_over_the_stored_tokens(settings, prepared):
    asked = settings(num_samples=0, context=16)
    found = evaluate(asked)
    model = load_model(Path(asked.model_dir))
    store, nats = prepared.store("test"), 0.0
    for start, end in zip(store.document_starts_D1[:-1], store.document_starts_D1[1:], strict=True):
        stream = torch.tensor([store.end_of_text, *store.ids_N[start:end].tolist()])
        for block in range(0, len(stream) - 1, 16):
            ids = stream[block : block + 17]
            nats += model.loss(ids[None, :-1], ids[None, 1:]).item()
    assert found.perplexity == pytest.approx(math.exp(nats / store.num_tokens), rel=1e-4)
    assert found.likelihood["model"].num_tokens == store.num_tokens
    assert found.texts is None


def test_reports_are_numbered_and_never_replaced(settings):
    first, second = evaluate(settings()), evaluate(settings(num_samples=0))
    assert [first.report.name, second.report.name] == ["evaluation-001.md", "evaluation-002.md"]
    values = json.loads(first.report.with_suffix(".json").read_text())
    assert values == json.loads(to_json(first.to_dict()))
    assert values["settings"]["sample_tokens"] == 30
    assert values["provenance"]["versions"]["gpt2kit"]
    assert len(values["models"]["model"]["sha256"]) == 64
    assert len(values["samples"]["model"]["texts"]) == 6
    page = first.report.read_text()
    for part in (*first.verdict, "## Held-out text", "## Texts", "## Samples", "no overlap"):
        assert part in page
    assert str(first.report) in first.to_text()
    leftovers = [path.name for path in first.report.parent.iterdir()]
    assert sorted(leftovers) == [f"evaluation-00{n}.{suffix}" for n in (1, 2) for suffix in ("html", "json", "md")]


def test_the_same_seed_gives_the_same_figures(settings):
    first, second = evaluate(settings()), evaluate(settings())
    assert first.texts.to_dict() == second.texts.to_dict()
    assert first.likelihood["model"].perplexity_interval == second.likelihood["model"].perplexity_interval
    assert evaluate(settings(seed=1)).texts.to_dict() != first.texts.to_dict()


def test_a_picture_where_matplotlib_is(settings):
    pytest.importorskip("matplotlib")
    found = evaluate(settings(picture=True))
    picture = found.report.with_suffix(".png")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.name in found.report.read_text()


def test_the_picture_says_what_its_lines_are(settings, monkeypatch):
    figures = pytest.importorskip("matplotlib.figure")
    pages = []
    save = figures.Figure.savefig
    monkeypatch.setattr(figures.Figure, "savefig", lambda page, *a, **b: (pages.append(page), save(page, *a, **b)))
    evaluate(settings(picture=True))
    evaluate(settings(picture=True, num_samples=0))
    with_texts, without = (page.get_supxlabel() for page in pages)
    assert with_texts.startswith("black lines: 95% intervals")
    assert without == "black line: 95% interval"


def test_missing_extras_are_said_and_the_rest_goes_on(settings, monkeypatch):
    for module in ("sklearn.feature_extraction.text", "matplotlib.figure"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    found = evaluate(settings(picture=True))
    assert any("coherence is left out" in note and "gpt2kit[metrics]" in note for note in found.notes)
    assert any("no picture" in note and "gpt2kit[plots]" in note for note in found.notes)
    assert "coherence" not in found.texts.sets["model"].figures
    assert "distinct_2" in found.texts.sets["model"].figures


def test_different_tokenizers_compare_in_bits_per_byte_only(settings, raw_folder, tmp_path, model_folder):
    data = prepare(PrepareSettings(input=raw_folder, data_dir=tmp_path / "other", from_scratch=True, vocab_size=300))
    other = model_folder("other", vocab_size=data.tokenizer.vocab_size)
    data.tokenizer.save(other)
    found = evaluate(settings(compare_with=str(other), num_samples=0))
    assert found.comparison.perplexity_drop is None
    assert found.likelihood["model"].num_bytes == found.likelihood["other"].num_bytes
    assert found.likelihood["model"].num_tokens != found.likelihood["other"].num_tokens
    assert any("only bits per byte compare" in note for note in found.notes)
    assert "perplexity  " not in found.to_text()


def test_what_cannot_be_compared_is_said(settings, model_folder, prepared):
    found = evaluate(settings(num_samples=0))
    assert any("its base model is not known; name one with --compare_with" in note for note in found.notes)
    assert evaluate(settings(num_samples=0, compare_with="none")).notes == []
    scratch = model_folder("scratch")
    record_run(scratch, base=None, fingerprint=prepared.manifest["fingerprint"])
    found = evaluate(settings(model_dir=str(scratch), num_samples=0))
    assert any("trained from scratch" in note for note in found.notes)
    gone = model_folder("gone")
    record_run(gone, base="/no/such/base", fingerprint="of other data")
    found = evaluate(settings(model_dir=str(gone), num_samples=0))
    assert any("/no/such/base is left out" in note for note in found.notes)
    assert any("was trained on other data" in warning for warning in found.warnings)


def test_samples_of_a_file(settings, tmp_path, prepared):
    run = tmp_path / "generated.jsonl"
    loop = "and the fox saw the wolf again " * 8
    lines = [{"settings": {}}] + [{"prompt": "The", "text": loop, "finish_reason": "length"}] * 4
    run.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = evaluate(settings(samples=run))
    assert found.texts.sets["model"].num_texts == 4
    assert found.texts.sets["model"].figures["looping_texts"].value == 1.0
    assert found.texts.sets["model"].figures["ended"].value == 0.0
    assert found.texts.sets["human"].figures["looping_texts"].value == 0.0
    assert found.texts.sets["model"].title == "generated.jsonl"


@pytest.mark.parametrize(
    ("values", "without_effect"),
    [
        ({"temperature": 0.5, "num_samples": 3, "samples": Path("x.jsonl")}, ["num_samples", "temperature"]),
        ({"top_k": 5, "prompt_words": 3, "num_samples": 0}, ["top_k", "prompt_words"]),
        ({"top_k": 5, "prompt_words": 3}, []),
    ],
)
def test_settings_without_effect_are_named(values, without_effect):
    assert EvaluateSettings(**values).without_effect() == without_effect


def test_a_setting_without_effect_is_warned_of(settings, tmp_path, capsys):
    run = tmp_path / "generated.jsonl"
    run.write_text(json.dumps({"prompt": "The", "text": "and the fox saw the wolf again"}) + "\n")
    evaluate(settings(samples=run, temperature=0.5))
    assert "--temperature has no effect: the texts are there (--samples)" in capsys.readouterr().err


def test_a_perplexity_beyond_numbers_is_warned_of_and_drawn(settings, tmp_path, model_folder):
    folder = model_folder()
    broken = load_model(folder)
    broken.transformer.wte.weight.data *= 1e4
    save_model(broken, folder)
    run = tmp_path / "written_elsewhere.jsonl"
    run.write_text(json.dumps({"prompt": "The", "text": "and the fox saw the wolf again"}) + "\n")
    found = evaluate(settings(model_dir=str(folder), samples=run, picture=True))
    assert found.perplexity == math.inf
    assert found.values["likelihood"]["model"]["nats"] < math.inf
    assert any("is too large for a number" in warning for warning in found.warnings)
    assert json.loads(found.report.with_suffix(".json").read_text(), parse_constant=pytest.fail)
    assert found.report.with_suffix(".png").stat().st_size > 10_000


def test_a_text_file_needs_no_prepared_data(settings, tmp_path):
    text = tmp_path / "book.txt"
    text.write_text("The fox saw the wolf. " * 40, encoding="utf-8")
    found = evaluate(settings(text=text, data_dir=tmp_path / "nowhere"))
    assert found.likelihood["model"].num_bytes == text.stat().st_size
    assert "copied" not in found.texts.sets["model"].figures
    assert any("is not there" in note for note in found.notes)
    assert any("held-out documents: only 1" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_dir": "models/gpt2_fine_tuned"}, "--model_dir models/gpt2_fine_tuned: there is no model yet"),
        ({"model_dir": "models/nowhere/at/all"}, "models/nowhere/at/all: no such folder"),
        ({"data_dir": Path("/nowhere")}, "no prepared data here"),
        ({"context": 65}, "--context 65: .* can look back on 64 tokens at most"),
        ({"stride": 65}, "--stride 65 is greater than the context of 64"),
        ({"stride": 9, "context": 8}, "--stride 9 is greater than the context of 8"),
        ({"text": Path("/nowhere.txt")}, "--text /nowhere.txt: cannot be read"),
        ({"samples": Path("/nowhere.jsonl")}, "--samples /nowhere.jsonl: cannot be read"),
        ({"compare_with": "/nowhere"}, "/nowhere: no such folder"),
    ],
)
def test_wrong_settings_are_one_clear_line_and_leave_nothing(settings, values, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = settings(**values)
    with pytest.raises(UsageError, match=message) as caught:
        evaluate(asked)
    assert "\n" not in str(caught.value)
    assert not asked.output_dir.exists()


def test_settings_that_do_not_agree():
    with pytest.raises(UsageError, match="copy_words 4"):
        EvaluateSettings(copy_words=4)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"plain text\n", r"x\.jsonl:1: is not JSON"),
        (b'{"settings": 1}\n', "holds no sample"),
        (b'{"text": "a"}\n[1]\n', r"x\.jsonl:2: should be a JSON object, and is a list"),
        (b'{"text": "a"}\n{"prompt": "b"}\n', r"x\.jsonl:2: is not a sample"),
        (b'{"text": "a"}\n{"text": "b\\ud800"}\n', r"--samples .*x\.jsonl:2: its text holds half of a .*, \\ud800"),
        (b'{"text": "a", "prompt": "\\udc00"}\n', r"x\.jsonl:1: its prompt holds half of a character, \\udc00"),
    ],
)
def test_files_that_are_no_samples(tmp_path, content, message):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_given(path)


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b'{"text": "a"}\n')
    assert read_given(path).texts.texts == ["a"]


def test_human_texts_beside_texts_from_elsewhere_have_their_typical_length(settings, tmp_path, prepared):
    path = tmp_path / "elsewhere.jsonl"
    texts = ["the old king saw the fox " * times for times in (1, 2, 2, 2, 40)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    found = evaluate(settings(samples=path, sample_tokens=200))
    sizes = [len(prepared.tokenizer.encode(text)) for text in found.values["samples"]["human"]["texts"]]
    typical = sorted(len(prepared.tokenizer.encode(text)) for text in texts)[2]
    assert max(sizes) <= typical
    assert any(f"cut to {typical} tokens, the median" in note for note in found.notes)
    assert not any("than the human ones" in line or "as the human ones" in line for line in found.verdict)


def test_only_human_texts_that_follow_other_prompts_are_said_to(settings, tmp_path, model_folder):
    folder = model_folder()
    first = evaluate(settings(model_dir=str(folder)))
    assert not any("follow other prompts" in note for note in first.notes)
    given = first.values["samples"]["model"]
    path = tmp_path / "same.jsonl"
    lines = [{"settings": {"max_new_tokens": 30}, "model": {"sha256": {}}}]
    lines += [{"prompt": prompt, "text": text} for prompt, text in zip(given["prompts"], given["texts"], strict=True)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    same = evaluate(settings(model_dir=str(folder), samples=path))
    assert not any("follow other prompts" in note for note in same.notes)
    path.write_text("".join(json.dumps(line) + "\n" for line in [lines[0], {"text": "One"}, *lines[2:]]))
    other = evaluate(settings(model_dir=str(folder), samples=path))
    assert any("follow other prompts" in note for note in other.notes)


def test_what_a_limit_cut_off_is_counted(settings, prepared):
    held_out = read_held_out(prepared, choose_split(prepared, "auto"), max_tokens=10**6, seed=0)
    cut = openings(held_out, number=5, prompt_words=5, continuation_words=20)
    assert human_texts(cut, prepared.tokenizer, max_tokens=10**6).num_cut == 5  # their documents go on
    whole = openings(held_out, number=5, prompt_words=5, continuation_words=10**6)
    assert human_texts(whole, prepared.tokenizer, max_tokens=10**6).num_cut == 0
    assert human_texts(whole, prepared.tokenizer, max_tokens=3).num_cut == len(whole) > 0
    found = evaluate(settings())
    num_cut = found.texts.sets["model"].num_cut
    assert num_cut > 3
    assert any(f"a limit cut off {num_cut} of 6, so this is no length of its own" in line for line in found.verdict)


def test_a_failure_on_the_way_leaves_no_empty_report(settings, monkeypatch):
    def fail(*_, **__):
        raise Gpt2kitError("no")

    monkeypatch.setattr("gpt2kit.evaluation.run.load", fail)
    asked = settings()
    with pytest.raises(Gpt2kitError, match="no"):
        evaluate(asked)
    assert list(asked.output_dir.iterdir()) == []


def test_prompts_are_the_beginnings_of_documents_and_humans_go_on(prepared):
    held_out = read_held_out(prepared, choose_split(prepared, "auto"), max_tokens=10**6, seed=0)
    found = openings(held_out, number=100, prompt_words=5, continuation_words=20)
    texts = [segments[0].text for segments in held_out.documents]
    beginnings = found[: len(texts)]
    for text, opening in zip(texts, beginnings, strict=True):
        assert text.startswith(opening.prompt + opening.continuation)
        assert len(opening.prompt.split()) == 5
        assert len(opening.continuation.split()) == 20
    assert len({opening.prompt + opening.continuation for opening in found}) == len(found)
    human = human_texts(found, prepared.tokenizer, max_tokens=7)
    assert all(len(prepared.tokenizer.encode(text)) <= 7 for text in human.texts)
    assert all(opening.continuation.startswith(text) for opening, text in zip(found, human.texts, strict=True))


def test_a_person_finds_the_place_of_a_copy(tale, tmp_path):
    """By the line in a book, though sections of it were held out, and by the line of a row's text."""
    raw = tmp_path / "raw"
    raw.mkdir()
    lines = [line for number in range(20) for line in [tale(number, sentences=20).replace(". ", ".\n"), ""]]
    book = "\n".join(lines)
    (raw / "book.txt").write_text(book, encoding="utf-8")
    (raw / "books.jsonl").write_text(json.dumps({"text": "x" + book[::-1]}) + "\n", encoding="utf-8")
    data = prepare(
        PrepareSettings(
            input=raw,
            data_dir=tmp_path / "data",
            from_scratch=True,
            vocab_size=300,
            validation_fraction=0.3,
            section_chars=2000,
        )
    )
    parts = list(placed_training_texts(data))
    assert "".join(part.text for part in parts) == "".join(part.text for part in training_texts(data))
    of_book = [part for part in parts if part.source == "book.txt"]
    assert any(part.continues for part in of_book)
    all_lines = book.split("\n")
    for part in of_book:
        number = int(part.place.removeprefix("about line "))
        first = next(line for line in part.text.split("\n") if line)
        near = all_lines[number - 1 : number + 2]
        assert first in near
    assert any(part.place.startswith("line 1, about line ") for part in parts if part.source == "books.jsonl")


def test_documents_are_drawn_by_the_seed_when_there_are_too_many(prepared):
    whole = read_held_out(prepared, "train", max_tokens=10**6, seed=0)
    some = [read_held_out(prepared, "train", max_tokens=2000, seed=seed) for seed in (0, 0, 1)]
    assert len(some[0].documents) < len(whole.documents) == some[0].num_documents_in_all
    assert some[0].documents == some[1].documents != some[2].documents


def test_pairs_and_chats_count_answers_only(tmp_path, model_folder):
    rows = [{"prompt": f"Question {n}?", "completion": f"Answer number {n}."} for n in range(30)]
    rows += [
        {"messages": [{"role": "user", "content": f"Hello {n}"}, {"role": "assistant", "content": f"Good day {n}"}]}
        for n in range(30)
    ]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = prepare(
        PrepareSettings(input=tmp_path / "raw", data_dir=tmp_path / "data", from_scratch=True, validation_fraction=0.5)
    )
    with pytest.raises(UsageError, match=r"its test split is empty.* prepare with --test_fraction 0\.1"):
        choose_split(data, "test")
    held_out = read_held_out(data, "validation", max_tokens=10**6, seed=0)
    documents = held_out.encode(data.tokenizer)
    store = data.store("validation")
    assert np.concatenate([each.ids_N for each in documents]).tolist() == store.ids_N.tolist()
    assert np.concatenate([each.counts_N for each in documents]).tolist() == store.loss_mask_N.tolist()
    assert sum(each.num_bytes for each in documents) == data.manifest["splits"]["validation"]["num_target_bytes"]
    asked = openings(held_out, number=100, prompt_words=5, continuation_words=5)
    assert {"Question", "User:"} == {opening.prompt.split()[0] for opening in asked}
    assert all(opening.continuation.split()[0] in ("Answer", "Good") for opening in asked)


def test_the_command_prints_tables_or_json(settings, prepared, model_folder, tmp_path, capsys):
    arguments = ["evaluate", "--model-dir", str(model_folder()), "--data_dir", str(prepared.folder)]
    arguments += ["--output_dir", str(tmp_path / "out"), "--num_samples", "0", "--no-picture"]
    assert main([*arguments, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["likelihood"]["model"]["perplexity"] > 1
    assert main(arguments) == 0
    assert "bits per byte" in capsys.readouterr().out


def test_samples_may_hold_any_line_separator_and_their_writer_is_checked(settings, model_folder, tmp_path):
    folder, other = model_folder("model"), model_folder("other", seed=1)
    asked = GenerateSettings(model_dir=str(other), output_dir=tmp_path / "texts", max_new_tokens=12, seed=0)
    written = next(file for file in generate_into(asked).files if file.suffix == ".jsonl")
    lines = written.read_text(encoding="utf-8").split("\n")
    sample = json.loads(lines[1]) | {"text": "one\u2028two\u0085three four"}
    written.write_text("\n".join([lines[0], json.dumps(sample, ensure_ascii=False), ""]), encoding="utf-8")
    assert read_given(written).texts.texts == ["one\u2028two\u0085three four"]
    found = evaluate(settings(model_dir=str(folder), samples=written))
    assert any("was written by a model with other files" in line for line in found.warnings)
    # Their texts are no longer than the run allowed, and stand under prompts of their own.
    texts = found.values["samples"]["human"]["texts"]
    tokenizer = Tokenizer.from_folder(folder)
    assert all(len(tokenizer.encode(text)) <= 12 for text in texts)
    assert "*human:*" not in found.report.read_text()
    assert not any("other files" in line for line in evaluate(settings(model_dir=str(other), samples=written)).warnings)


def test_one_stretch_of_text_tells_no_difference(settings, model_folder, tmp_path):
    text = tmp_path / "short.txt"
    text.write_text("The old king saw the fox.")
    base = model_folder("base", seed=1)
    found = evaluate(settings(text=text, compare_with=str(base), num_samples=0))
    assert any("cannot be told from a single stretch of text" in line for line in found.verdict)


def test_a_damaged_curve_is_a_note_and_no_end(settings, model_folder):
    folder = model_folder()
    (folder / "training").mkdir()
    (folder / "training" / "metrics.jsonl").write_text('{"step": 1, "kind": "train"}\n')
    found = evaluate(settings(model_dir=str(folder), num_samples=0))
    assert any("the curve of the training is left out" in note for note in found.notes)


def test_an_extraction_beyond_the_context_is_said_before_anything_is_measured(settings):
    with pytest.raises(UsageError, match="are more than the 64 tokens that"):
        evaluate(settings(extraction=2, extraction_prompt_tokens=(40,), extraction_tokens=30))


def test_sections_of_one_book_are_no_documents_of_their_own(settings, tale, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "book.txt").write_text("\n\n".join(tale(number, sentences=60) for number in range(60)))
    data = prepare(
        PrepareSettings(
            input=tmp_path / "raw", data_dir=tmp_path / "book", from_scratch=True, vocab_size=400, test_fraction=0.3
        )
    )
    held_out = read_held_out(data, "test", max_tokens=10**6, seed=0)
    assert len(held_out.documents) >= 10
    remarks = Remarks()
    find_held_out(data, HeldOutChoice(None, "test", 10**6, 0), trained=[], remarks=remarks)
    assert any("are sections of 1 document, the rest of which is training text" in line for line in remarks.warnings)
