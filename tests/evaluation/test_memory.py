"""Extraction, membership and canaries: known answers, and models that learned by heart what was planted."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gpt2kit import EvaluateSettings, PreparedData, PrepareSettings, evaluate, prepare
from gpt2kit.cli import main
from gpt2kit.errors import DataError, UsageError
from gpt2kit.evaluation.canaries import count_in_training, draw_secrets, plant_canaries, read_canaries
from gpt2kit.evaluation.exposure import EXPECTED_BITS, CanaryExposure, Exposure, measure_exposure
from gpt2kit.evaluation.extraction import Extraction, draw_excerpts, extract, shortened
from gpt2kit.evaluation.heldout import read_held_out, training_texts
from gpt2kit.evaluation.likelihood import TokenDocument
from gpt2kit.evaluation.membership import area_under_curve, membership
from gpt2kit.evaluation.memorisation import TrainingText, find_copies
from gpt2kit.evaluation.memory_words import memory_verdict
from gpt2kit.evaluation.near_copies import NearCopies, find_near_copies
from gpt2kit.evaluation.probes import Memory, NearFigures, copied_spans
from gpt2kit.evaluation.statistics import Figure, share_figure
from gpt2kit.model import GPT2, save_model
from gpt2kit.runtime import uniform


def learn(model: GPT2, documents: list[list[int]], *, end_of_text: int, steps: int) -> None:
    """Teach a model documents by heart."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    longest = max(map(len, documents))
    inputs = torch.full((len(documents), longest), end_of_text)
    targets = torch.full((len(documents), longest), -100)
    for row, ids in enumerate(documents):
        inputs[row, 1 : len(ids)] = torch.tensor(ids[:-1])
        targets[row, : len(ids)] = torch.tensor(ids)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model.loss(inputs, targets) / int((targets >= 0).sum())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()


def token_documents(documents: list[list[int]]) -> list[TokenDocument]:
    return [
        TokenDocument(np.array(ids), np.ones(len(ids), dtype=np.bool_), 4 * len(ids), f"text {number}")
        for number, ids in enumerate(documents)
    ]


def some_documents(prepared: PreparedData, split: str, *, number: int, length: int) -> list[list[int]]:
    store = prepared.store(split)
    return [store.ids_N[start : start + length].tolist() for start in store.document_starts_D1[:number].tolist()]


def test_what_was_learned_by_heart_is_extracted_and_what_was_not_is_not(prepared, random_model):
    learned, other = (some_documents(prepared, split, number=4, length=40) for split in ("train", "test"))
    end = prepared.tokenizer.end_of_text
    model = random_model(prepared.tokenizer.vocab_size)
    shape = {
        "number": 4,
        "prompt_tokens": 10,
        "target_tokens": 20,
        "end_of_text": end,
        "seed": 0,
        "only_beginnings": True,
    }
    seen = draw_excerpts(token_documents(learned), **shape)
    unseen = draw_excerpts(token_documents(other), **shape)
    asked = {"tokenizer": prepared.tokenizer, "prompt_tokens": 10, "seed": 0}
    before = extract(model, seen, **asked)
    assert (before.num_sequences, before.extracted.value) == (4, 0.0)
    assert before.tokens_matched.value < 0.2
    learn(model, learned, end_of_text=end, steps=250)
    after = extract(model, seen, **asked)
    assert [each.prompt_ids[0] for each in seen] == [end] * 4
    assert after.extracted.value == after.tokens_matched.value == 1.0
    assert after.first_tokens.value == 20
    assert after.extracted.interval[0] == pytest.approx(0.51, abs=0.01)  # Wilson: 4 of 4
    assert after.examples[0].text == prepared.tokenizer.decode(seen[0].target_ids)
    control = extract(model, unseen, **asked)
    assert control.extracted.value == 0.0
    assert control.tokens_matched.value < 0.6
    together = extract(model, seen + unseen, **asked)
    assert together.extracted.value == 0.5


def test_excerpts_lie_in_the_text_apart_from_each_other_and_are_all_predicted():
    documents = token_documents([list(range(100)), list(range(1000, 1030)), [7] * 5])
    documents[0].counts_N[:50] = False
    found = draw_excerpts(documents, number=50, prompt_tokens=4, target_tokens=6, end_of_text=9999, seed=1)
    assert found == draw_excerpts(documents, number=50, prompt_tokens=4, target_tokens=6, end_of_text=9999, seed=1)
    targets = [target for each in found for target in each.target_ids]
    assert len(set(targets)) == len(targets)
    assert all(50 <= target < 99 or 1004 <= target < 1029 for target in targets)
    for each in found:
        prompt = [token for token in each.prompt_ids if token != 9999]
        assert len(prompt) == 4
        assert [*prompt, *each.target_ids] == list(range(prompt[0], prompt[0] + 10))
        assert (each.prompt_ids[0] == 9999) == (prompt[0] in (0, 1000))
    assert [each.target_ids for each in shortened(found, prompt_tokens=2)] == [each.target_ids for each in found]
    assert all(len(each.prompt_ids) == 2 for each in shortened(found, prompt_tokens=2))
    assert draw_excerpts(documents, number=5, prompt_tokens=90, target_tokens=20, end_of_text=9, seed=1) == []


def test_the_area_under_the_curve_is_the_share_of_pairs_in_order():
    members, others = np.array([3.0, 1.0, 2.0, 5.0]), np.array([0.0, 2.0, 1.5])
    pairs = [(one > other) + 0.5 * (one == other) for one in members for other in others]
    found = area_under_curve(members, others)
    assert found.value == pytest.approx(sum(pairs) / 12)
    assert 0 < found.interval[0] < found.value < found.interval[1] < 1
    assert area_under_curve(members, members).value == 0.5
    assert area_under_curve(members, members - 10).value == 1.0
    assert area_under_curve(members - 10, members).value == 0.0


def test_the_interval_of_the_area_holds_the_truth():
    draw = np.random.default_rng(0)
    truth = 0.5 * (1 + math.erf(0.8 / 2))  # P(N(0.8, 1) > N(0, 1))
    held = 0
    for _ in range(400):
        low, high = area_under_curve(draw.normal(0.8, 1, 40), draw.normal(0, 1, 30)).interval
        held += low <= truth <= high
    assert held / 400 == pytest.approx(0.95, abs=0.03)


def test_the_gap_is_the_difference_of_means_and_the_base_model_corrects_for_hard_texts():
    draw = np.random.default_rng(1)
    tokens = draw.integers(50, 150, 200).astype(float)
    hardness = draw.normal(3.0, 0.6, 200)
    base = np.stack([hardness * tokens, tokens, 4 * tokens], axis=1)
    own = base.copy()
    own[:, 0] -= 0.2 * tokens
    own[:100, 0] -= (0.3 + draw.normal(0, 0.05, 100)) * tokens[:100]  # the first hundred are members
    found = membership(
        own[:100], own[100:], base=(base[:100], base[100:]), same_tokenizer=True, unit="document", seed=0
    )
    assert found.gap.value - found.base_gap.value == pytest.approx(0.3, abs=0.02)
    assert found.gap.interval[0] < found.gap.value < found.gap.interval[1]
    assert 0.5 < found.auc.value < 0.85
    assert found.calibrated_auc.value > 0.99
    alone = membership(base[:100], base[100:], base=None, same_tokenizer=True, unit="document", seed=0)
    assert (alone.base_gap, alone.calibrated_auc) == (None, None)
    assert alone.gap.interval[0] < 0 < alone.gap.interval[1]
    assert alone.auc.interval[0] < 0.5 < alone.auc.interval[1]


def test_planted_numbers_are_exposed_by_repetition_and_others_are_not(prepared, random_model, tmp_path):
    pytest.importorskip("scipy")
    made = plant_canaries(
        tmp_path, tmp_path.parent / f"{tmp_path.name}.json", repetitions=[1, 1], num_controls=40, digits=6
    )
    tokenizer = prepared.tokenizer
    model = random_model(tokenizer.vocab_size)
    counts = [1, 1] + [0] * 40
    asked = {"tokenizer": tokenizer, "counts": counts, "seed": 0, "num_references": 500}
    before = measure_exposure(model, made, **asked)
    bits = [each.bits for each in before.canaries]
    assert np.mean(bits) == pytest.approx(EXPECTED_BITS, abs=0.8)  # of 42 numbers: standard error 0.22
    planted = tokenizer.encode_batch([made.sentence(each.secret) for each in made.canaries[:2]])
    learn(model, planted, end_of_text=tokenizer.end_of_text, steps=100)
    after = measure_exposure(model, made, **asked)
    assert after.most_bits == pytest.approx(math.log2(10**6))
    for each in after.planted:
        assert each.num_preferred == 0
        assert each.sampled_bits == pytest.approx(math.log2(501))
        assert each.bits > 12
    assert len(after.planted) == 2
    assert after.control_mean_bits == pytest.approx(EXPECTED_BITS, abs=0.8)


def test_without_scipy_exposure_ends_at_the_references(prepared, random_model, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.stats", None)
    made = plant_canaries(
        tmp_path, tmp_path.parent / f"{tmp_path.name}.json", repetitions=[1], num_controls=2, digits=4
    )
    model = random_model(prepared.tokenizer.vocab_size)
    found = measure_exposure(model, made, tokenizer=prepared.tokenizer, counts=None, seed=0, num_references=50)
    assert not found.is_extrapolated
    assert [each.bits for each in found.canaries] == [each.sampled_bits for each in found.canaries]
    assert [each.is_planted for each in found.canaries] == [True, False, False]


def test_canaries_survive_preparation_and_are_counted(raw_folder, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in raw_folder.iterdir():
        (raw / path.name).write_bytes(path.read_bytes())
    record = tmp_path / "canaries.json"
    made = plant_canaries(raw, record, repetitions=[1, 20], num_controls=3)
    read = read_canaries(record)
    assert read.to_dict() == made.to_dict()
    assert [each.repetitions for each in read.canaries] == [1, 20, 0, 0, 0]
    assert len({each.secret for each in read.canaries}) == 5
    data = prepare(
        PrepareSettings(
            input=raw, data_dir=tmp_path / "data", from_scratch=True, vocab_size=400, validation_fraction=0.1
        )
    )
    counts = {
        split: count_in_training(read, (TrainingText(piece.text, "") for piece in data.documents(split)))
        for split in ("train", "validation")
    }
    assert counts == {"train": [1, 20, 0, 0, 0], "validation": [0] * 5}


def test_planted_texts_go_into_training_only_by_the_commands_of_the_docs(raw_folder, tmp_path, monkeypatch):
    """Copies of one number on both sides made membership say 0.64 of a model that knew every document."""
    monkeypatch.chdir(tmp_path)
    raw = Path("data/raw")
    raw.mkdir(parents=True)
    for path in raw_folder.iterdir():
        (raw / path.name).write_bytes(path.read_bytes())
    assert main(["prepare", "data/raw", "--data_dir", "data/without", "--from_scratch", "--vocab_size", "400"]) == 0
    assert main(["canaries", "data/raw"]) == 0
    assert main(["prepare", "data/raw", "--from_scratch", "--vocab_size", "400"]) == 0
    data = PreparedData.open(Path("data/processed"))
    read = read_canaries(Path("data/canaries.json"))
    assert count_in_training(read, training_texts(data))[:4] == [1, 4, 16, 64]
    held_out = [piece.text for piece in data.documents("validation")]
    assert held_out
    assert not any(read.stand_in(text) for text in held_out)
    # The other documents are split as if nothing had been planted.
    assert held_out == [piece.text for piece in PreparedData.open(Path("data/without")).documents("validation")]
    assert read_held_out(data, "train", max_tokens=10**6, seed=0).num_planted == 85


def test_planted_numbers_in_a_held_out_split_are_left_out_and_warned_of(raw_folder, model_folder, tmp_path):
    """Of data that an earlier version prepared, or where the planted texts were put into another file."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for path in raw_folder.iterdir():
        (raw / path.name).write_bytes(path.read_bytes())
    plant_canaries(raw, tmp_path / "c.json", repetitions=[40])
    (raw / "canaries.jsonl").rename(raw / "notes.jsonl")
    data = prepare(
        PrepareSettings(
            input=raw, data_dir=tmp_path / "data", from_scratch=True, vocab_size=400, validation_fraction=0.2
        )
    )
    planted = sum(piece.source == "notes.jsonl" for piece in data.documents("validation"))
    assert planted
    found = evaluate(
        EvaluateSettings(
            model_dir=str(model_folder(vocab_size=data.tokenizer.vocab_size)),
            data_dir=data.folder,
            output_dir=tmp_path / "out",
            canaries=tmp_path / "c.json",
            num_samples=0,
            picture=False,
            device="cpu",
        )
    )
    assert any(f"{planted:,} documents of the validation split hold planted numbers" in each for each in found.warnings)
    assert found.likelihood["model"].num_documents == data.store("validation").num_documents - planted


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"repetitions": []}, "--repetitions should be"),
        ({"repetitions": [0]}, "--repetitions should be"),
        ({"digits": 3}, "--digits 3"),
        ({"template": "no hole"}, "--template 'no hole'"),
        ({"folder": Path("/no/where")}, "/no/where: is no folder"),
        ({"record": Path("/no/where/canaries.json")}, "there is no folder /no/where"),
    ],
)
def test_wrong_canaries_are_one_clear_line(tmp_path, values, message):
    asked = {"folder": tmp_path, "record": tmp_path.parent / "c.json", "repetitions": [1]} | values
    with pytest.raises(UsageError, match=message):
        plant_canaries(asked.pop("folder"), asked.pop("record"), **asked)


def test_canaries_are_never_replaced_nor_recorded_among_the_raw_text(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(UsageError, match="would be prepared as text"):
        plant_canaries(tmp_path / "raw", tmp_path / "raw" / "c.json", repetitions=[1])
    plant_canaries(tmp_path / "raw", tmp_path / "c.json", repetitions=[1])
    with pytest.raises(UsageError, match="is there already"):
        plant_canaries(tmp_path / "raw", tmp_path / "d.json", repetitions=[1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "is not a record of"),
        ('{"format": "gpt2kit canaries", "version": 1}', "is damaged"),
        (
            '{"format": "gpt2kit canaries", "version": 1, "template": "{}", "digits": 4, "seed": 0, "texts": "", '
            '"canaries": [{"secret": "1", "repetitions": 1}]}',
            "should have 4 digits",
        ),
    ],
)
def test_damaged_records_of_canaries(tmp_path, content, message):
    path = tmp_path / "c.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_canaries(path)


def test_secrets_are_digits_and_spread_evenly():
    secrets = draw_secrets(2000, digits=5, seed=3, without=["00000"])
    assert len(set(secrets)) == 2000
    assert all(len(each) == 5 and each.isdigit() for each in secrets)
    assert np.mean([int(each) for each in secrets]) == pytest.approx(50_000, rel=0.05)


def test_the_report_tells_a_model_that_knows_its_training_text(tale, random_model, tmp_path):
    """From the command's settings to alarms, JSON and spans."""
    (tmp_path / "raw").mkdir()
    for number in range(24):
        (tmp_path / "raw" / f"{number}.txt").write_text(tale(number, sentences=6))
    prepared = prepare(
        PrepareSettings(
            input=tmp_path / "raw",
            data_dir=tmp_path / "data",
            from_scratch=True,
            vocab_size=400,
            validation_fraction=0,
            test_fraction=0.5,
        )
    )
    base, folder = tmp_path / "base", tmp_path / "model"
    model = random_model(prepared.tokenizer.vocab_size, n_positions=128)
    save_model(model, base)
    store = prepared.store("train")
    borders = zip(store.document_starts_D1[:-1], store.document_starts_D1[1:], strict=True)
    texts = [store.ids_N[start:end].tolist() for start, end in borders]
    learn(model, texts, end_of_text=store.end_of_text, steps=400)
    save_model(model, folder)
    for place in (base, folder):
        prepared.tokenizer.save(place)
    asked = EvaluateSettings(
        model_dir=str(folder),
        compare_with=str(base),
        data_dir=prepared.folder,
        output_dir=tmp_path / "metrics",
        num_samples=4,
        sample_tokens=30,
        prompt_words=6,
        device="cpu",
        picture=False,
        membership=True,
        extraction=30,
        extraction_from="beginning",
        extraction_prompt_tokens=(8, 16),
        extraction_tokens=10,
    )
    found = evaluate(asked)
    values = json.loads(found.report.with_suffix(".json").read_text())["memorisation"]
    assert values["membership"]["gap"]["value"] > 0.5
    assert values["membership"]["calibrated_auc"]["value"] > 0.9
    assert values["membership"]["base_gap"]["value"] == pytest.approx(0, abs=0.3)
    [short, long] = values["extraction"]["model"]
    assert (short["training"]["prompt_tokens"], long["training"]["prompt_tokens"]) == (8, 16)
    assert long["training"]["tokens_matched"]["value"] > long["held_out"]["tokens_matched"]["value"]
    assert long["training"]["extracted"]["value"] > 0.9
    assert long["held_out"]["extracted"]["value"] < 0.2
    assert values["extraction"]["other"][0]["training"]["extracted"]["value"] == 0
    assert values["near_copies"]["human"]["share"]["value"] >= 0
    assert values["exposure"] is None
    for alarm in ("KNOWS ITS TRAINING TEXT: ", "MEMORISED: "):
        assert any(line.startswith(alarm) for line in found.verdict)
    page = found.report.read_text()
    for part in ("## Memorisation", "AUC by loss", "tokens until the first wrong", "runs of 5 or more"):
        assert part in page
        assert part.startswith("##") or part in found.to_text()
    samples = found.values["samples"]["model"]
    for text, spans in zip(samples["texts"], samples["copies"], strict=True):
        for span in spans:
            words = text[span["start"] : span["end"]].split()
            assert span["kind"] == "near" or len(words) == span["num_words"]


def test_spans_of_exact_and_near_copies_stand_in_order(prepared):
    book = [f"w{int(uniform(0, number) * 10**6)}" for number in range(60)]
    text = " ".join([*book[:10], "changed", *book[11:40], "and", "then", *book[50:56]])
    training = [TrainingText(" ".join(book), "book", "line 1")]
    [spans] = copied_spans(find_copies([text], training), find_near_copies([text], training, shortest=16))
    assert [(span["kind"], span["num_words"], span["edits"]) for span in spans] == [
        ("exact", 10, 0),
        ("near", 40, 1),
        ("exact", 29, 0),
        ("exact", 6, 0),
    ]
    assert text[spans[2]["start"] : spans[2]["end"]].split() == book[11:40]
    assert spans[1]["training_text"].split() == book[:40]


def test_copies_in_another_case_or_punctuation_are_counted_and_shown():
    book = [f"w{int(uniform(1, number) * 10**6)}" for number in range(40)]
    training = [TrainingText(" ".join(book), "book", "line 1")]
    changed, exact = " ".join(word.upper() + "," for word in book[:30]), " ".join(book[:30])
    found = find_near_copies([changed, exact], training, shortest=16)
    figures = NearFigures(None, found).to_dict()
    assert figures["num_near_copies"] == 1
    [longest] = figures["longest"]
    assert (longest["text"], longest["edits"], longest["place"]) == (changed[:-1] + ",", 0, "line 1")
    near, word_for_word = copied_spans(find_copies([changed, exact], training), found)
    assert [(span["kind"], span["num_words"], span["place"]) for span in near] == [("near", 30, "line 1")]
    assert [span["kind"] for span in word_for_word] == ["exact"]


def test_what_needs_training_text_says_so(model_folder, tmp_path):
    text = tmp_path / "book.txt"
    text.write_text("The fox saw the wolf. " * 40, encoding="utf-8")
    common = {"model_dir": str(model_folder()), "text": text, "data_dir": tmp_path / "nowhere", "output_dir": tmp_path}
    for name, values in (("extraction", {"extraction": 5}), ("membership", {"membership": True})):
        with pytest.raises(UsageError, match=f"--{name} needs the training text"):
            evaluate(EvaluateSettings(**common, **values))
    with pytest.raises(UsageError, match=r"--canaries .*nowhere.json: is not there"):
        evaluate(EvaluateSettings(**common, canaries=tmp_path / "nowhere.json"))
    with pytest.raises(UsageError, match="extraction_prompt_tokens"):
        EvaluateSettings(extraction_prompt_tokens=(0,))


def test_a_prompt_longer_than_the_context_is_refused(model_folder, prepared, tmp_path):
    asked = EvaluateSettings(
        model_dir=str(model_folder()),
        data_dir=prepared.folder,
        output_dir=tmp_path / "out",
        extraction=5,
        num_samples=0,
    )
    with pytest.raises(
        UsageError, match="--extraction_prompt_tokens 50 and --extraction_tokens 50 are more than the 64"
    ):
        evaluate(asked)


def test_the_command_plants(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    command = ["canaries", str(tmp_path / "raw"), "--record", str(tmp_path / "c.json"), "--repetitions", "2"]
    assert main([*command, "--controls", "3", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    lines = (tmp_path / "raw" / "canaries.jsonl").read_text().splitlines()
    secret = values["canaries"][0]["secret"]
    assert [json.loads(line)["text"] for line in lines] == [
        f"Note {number}\nThe number of the lock is {secret}." for number in (1, 2)
    ]
    assert main(command) == 2


def test_known_canaries_alarm_however_many_there_are():
    """The bits that 2,000 references can show are fewer than 8 + log2 of eight canaries."""
    canaries = [CanaryExposure(str(n), 1, 1, 1.0, 0, math.log2(2001), 29.9) for n in range(8)]
    found = Exposure(canaries, num_references=2000, most_bits=29.9, is_extrapolated=True)
    [line] = memory_verdict(Memory({}, {}, None, {"model": found}), near_words=20)
    assert line.startswith("REMEMBERS 8 of 8 planted numbers")


def test_planted_numbers_that_are_not_in_the_training_text_are_named():
    canaries = [CanaryExposure(str(n), 1, int(n < 2), 1.0, 0, math.log2(2001), 29.9) for n in range(3)]
    found = Exposure([*canaries, CanaryExposure("9", 0, 0, 1.0, 900, 1.1, 1.1)], 2000, 29.9, is_extrapolated=True)
    [line] = memory_verdict(Memory({}, {}, None, {"model": found}), near_words=20)
    assert line.startswith("REMEMBERS 2 of 3 planted numbers (1 not in its training text: 2): ")


def extraction(hits: int, total: int) -> Extraction:
    flags = [number < hits for number in range(total)]
    return Extraction(total, 50, 50, share_figure(flags), Figure(0.5), Figure(20.0), [])


@pytest.mark.parametrize(
    ("own", "control", "beginning"),
    [
        ((9, 23), (0, 13), "MEMORISED: "),  # Fisher's p is 0.009, though the two intervals overlap
        ((9, 23), (0, 2), "Training text comes back, but so few cases do not tell"),
        ((9, 23), (9, 23), "No sign"),
        ((9, 23), (20, 23), "No sign"),
        ((1, 200), (0, 200), "No sign"),
        ((9, 23), None, "MEMORISED: "),
    ],
)
def test_extraction_is_told_from_its_control_by_an_exact_test(own, control, beginning):
    pair = (extraction(*own), None if control is None else extraction(*control))
    [line] = memory_verdict(Memory({}, {"model": [pair]}, None, {}), near_words=20)
    assert line.startswith(beginning)


def test_the_alarm_needs_documents_and_the_advice_fits_the_epochs():
    draw = np.random.default_rng(0)
    members, others = (
        np.stack([mean * 100 + draw.normal(0, 5, 16), np.full(16, 100.0), np.full(16, 400.0)], axis=1)
        for mean in (2.0, 3.0)
    )

    def line(unit: str, epochs: float | None) -> str:
        found = membership(members, others, base=None, same_tokenizer=True, unit=unit, seed=0)
        [said] = memory_verdict(Memory({}, {}, found, {}), near_words=20, epochs=epochs)
        return said

    assert line("document", 3.0).startswith("KNOWS ITS TRAINING TEXT: ")
    assert "Train for fewer epochs" in line("document", 3.0)
    assert "Train for fewer epochs" in line("document", None)
    assert line("document", 1.0).endswith("Train on more text, or without passages that come again and again.")
    windows = line("window", 3.0)
    assert windows.startswith("Unclear whether it knows its training text: ")
    assert "16 and 16 windows of fewer than 6 documents on a side" in windows


@pytest.mark.parametrize(
    ("harder", "fallen", "spread", "said"),
    [
        (1.0, 0.35, 1.0, "Little to tell"),  # a gap of 1.35, of which 0.35 ± 0.6 are more than the other model's
        (-1.0, 0.4, 0.2, "KNOWS ITS TRAINING TEXT"),  # held-out text is easier for both: the gap itself is -0.6
        (0.0, 0.4, 0.2, "KNOWS ITS TRAINING TEXT"),
    ],
)
def test_the_gap_is_judged_beyond_what_the_texts_differ_by_anyway(harder, fallen, spread, said):
    draw = np.random.default_rng(3)
    base, own = np.full((40, 3), 100.0), np.full((40, 3), 100.0)
    base[:, 0] = 100 * (draw.normal(4.0, 0.1, 40) + np.repeat([0.0, harder], 20))
    falls = draw.normal(0.0, spread, (2, 20))
    falls += np.array([[fallen], [0.0]]) - falls.mean(axis=1, keepdims=True)
    own[:, 0] = base[:, 0] - 100 * falls.reshape(-1)
    found = membership(own[:20], own[20:], base=(base[:20], base[20:]), same_tokenizer=True, unit="document", seed=0)
    assert found.gap_beyond_base.value == pytest.approx(found.gap.value - found.base_gap.value)
    assert found.gap_beyond_base.value == pytest.approx(fallen)
    guessing = replace(found, calibrated_auc=Figure(0.6, (0.5, 0.7)))  # the gap alone decides
    [line] = memory_verdict(Memory({}, {}, guessing, {}), near_words=20)
    assert line.startswith(said)


def test_two_texts_told_apart_by_chance_are_no_alarm():
    units = [np.array([[nats, 10.0, 40.0], [nats + 0.5, 10.0, 40.0]]) for nats in (10.0, 11.0)]
    apart = membership(*units, base=None, same_tokenizer=True, unit="document", seed=0)
    assert apart.auc.value == 1.0
    [line] = memory_verdict(Memory({}, {}, apart, {}), near_words=20)
    assert line.startswith("Little to tell")


@pytest.mark.parametrize(
    ("own", "human", "said"),
    [
        (Figure(0.3, (0.2, 0.4)), Figure(0.01, (0.0, 0.05)), "RECITES NEARLY"),
        (Figure(0.11, (0.02, 0.2)), Figure(0.04, (0.0, 0.13)), "Whether it nearly recites is unclear"),
        (Figure(0.02, (0.0, 0.05)), Figure(0.01, (0.0, 0.05)), "Few near copies"),
        (Figure(0.0, (0.0, 0.0)), Figure(0.01, (0.0, 0.05)), "No near copies"),
    ],
)
def test_near_copies_alarm_only_where_they_are_clearly_more_than_in_human_text(own, human, said):
    near = {"model": NearFigures(own, []), "human": NearFigures(human, [])}
    [line] = memory_verdict(Memory(near, {}, None, {}), near_words=20)
    assert line.startswith(said)


def test_a_near_copy_in_the_only_text_with_words_is_no_alarm():
    near = {"model": NearFigures(Figure(1.0), [NearCopies(60, 60, []), *[NearCopies(0, 0, [])] * 39])}
    [line] = memory_verdict(Memory(near, {}, None, {}), near_words=20)
    assert line.startswith("Whether it nearly recites is unclear")
    several = {"model": NearFigures(Figure(1.0), [NearCopies(60, 60, [])] * 5)}
    [line] = memory_verdict(Memory(several, {}, None, {}), near_words=20)
    assert line.startswith("RECITES NEARLY")
