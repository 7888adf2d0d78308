"""`gpt2kit tasks` from end to end, its figures from plain sums, and one clear line for what is wrong."""

import json
import math

import numpy as np
import pytest
import torch

from gpt2kit import TaskSettings, load, run_tasks
from gpt2kit.cli import main
from gpt2kit.errors import MissingExtraError, UsageError

QUESTIONS = [
    {"context": "The old king", "choices": ["saw the fox.", "sold", "é loved the wolf."], "answer": 1},
    {"context": "The miller", "choices": ["feared", "found the golden crown."], "answer": 0},
    {"context": "The wicked wolf", "choices": ["carried the bird.", "forgot the merry horse"], "answer": 1},
]


@pytest.fixture
def files(tmp_path):
    def lines(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / name

    texts = ["The old king saw the fox.", "The miller feared the golden crown.", "The wolf sold"]
    (tmp_path / "wiki.raw").write_text(" = One = \n The old king saw the fox . \n = Two = \n The wolf \n")
    return {
        "lambada": lines("lambada.jsonl", [{"text": text} for text in texts]),
        "multiple_choice": lines("questions.jsonl", QUESTIONS),
        "cloze": lines("cloze.jsonl", [{"context": "The old king", "answer": "saw the fox."}]),
        "wikitext": tmp_path / "wiki.raw",
    }


@pytest.fixture
def settings(model_folder, files, tmp_path):
    def make(*names, **values):
        chosen = {name: (files[name],) for name in names}
        common = {"model_dir": str(model_folder()), "output_dir": tmp_path / "out", "device": "cpu"}
        return TaskSettings(**(common | chosen | values))

    return make


def nats_of(model, context, continuation):
    """By one forward pass: the text as one, the first token of an empty context from end-of-text."""
    tokenizer = model.tokenizer
    before = tokenizer.encode(context) or [tokenizer.end_of_text]
    ids = tokenizer.encode(context + continuation) if context else before + tokenizer.encode(continuation)
    logs = torch.log_softmax(model.model.logits(model.model(torch.tensor([ids[:-1]])))[0].double(), -1)
    return -sum(logs[place - 1, ids[place]].item() for place in range(len(before), len(ids)))


def test_figures_are_those_of_plain_sums(settings):
    asked = settings("lambada", "multiple_choice", "cloze", "wikitext")
    found = {each.kind: each for each in run_tasks(asked).results}
    model = load(asked.model_dir, device="cpu", engine="torch")
    last = [("The old king saw the", " fox."), ("The miller feared the golden", " crown."), ("The wolf", " sold")]
    expected = math.exp(sum(nats_of(model, *pair) for pair in last) / 3)
    assert found["lambada"].figures["perplexity"].value == pytest.approx(expected, rel=1e-4)
    right = {"acc": 0, "acc_norm": 0, "acc_bytes": 0}
    for each in QUESTIONS:
        nats = np.array([nats_of(model, each["context"], " " + choice) for choice in each["choices"]])
        right["acc"] += int(nats.argmin() == each["answer"])
        right["acc_norm"] += int((nats / [len(choice) for choice in each["choices"]]).argmin() == each["answer"])
        right["acc_bytes"] += int(
            (nats / [len(choice.encode()) for choice in each["choices"]]).argmin() == each["answer"]
        )
    assert {name: figure.value * 3 for name, figure in found["multiple_choice"].figures.items()} == pytest.approx(right)
    pages = [(" = One =\nThe old king saw the fox. ", 12), (" = Two =\nThe wolf\n", 7)]
    total = sum(nats_of(model, "", text) for text, _ in pages)
    assert found["wikitext"].figures["word_perplexity"].value == pytest.approx(
        math.exp(total / sum(words for _, words in pages)), rel=1e-4
    )
    size = len(b" = One = \n The old king saw the fox . ") + len(b" = Two = \n The wolf \n")
    assert found["wikitext"].figures["bits_per_byte"].value == pytest.approx(total / math.log(2) / size, rel=1e-4)
    expected = math.exp(nats_of(model, "The old king", " saw the fox."))
    assert found["cloze"].figures["perplexity"].value == pytest.approx(expected, rel=1e-4)


def in_windows(model, context, answer):
    """Nats of an answer of one-token words, each from at most as many tokens before it as the model takes at once."""
    ids, limit = model.tokenizer.encode(f"{context} {answer}"), model.config.n_positions
    place, nats = len(model.tokenizer.encode(context)), 0.0
    while place < len(ids):
        end = min(place + limit, len(ids))
        logits = model.model.logits(model.model(torch.tensor([ids[max(end - 1 - limit, 0) : end - 1]])))[0]
        logs = torch.log_softmax(logits[place - end :].double(), -1)
        nats -= logs[range(end - place), ids[place:end]].sum().item()
        place = end
    return nats


@pytest.mark.parametrize("num_words", [511, 512, 513, 520, 900])
def test_answers_longer_than_the_context_of_nano(num_words, tmp_path, capsys):
    context, words = "The fox and the old man went", ["the", "man", "and", "he", "said", "of"]
    answer = " ".join(words[place * place % 7 % 6] for place in range(num_words))
    (tmp_path / "c.jsonl").write_text(json.dumps({"context": context, "answer": answer}) + "\n")
    (tmp_path / "q.jsonl").write_text(json.dumps({"context": context, "choices": ["home", answer], "answer": 0}) + "\n")
    asked = ["--cloze", str(tmp_path / "c.jsonl"), "--multiple_choice", str(tmp_path / "q.jsonl"), "--device=cpu"]
    assert main(["tasks", "--model_dir=nano", *asked, f"--output_dir={tmp_path}", "--json"]) == 0
    shown = capsys.readouterr()
    choice, cloze = json.loads(shown.out)["results"]
    model = load("nano", device="cpu", engine="torch")
    assert len(model.tokenizer.encode(f" {answer}")) == num_words
    assert cloze["figures"]["perplexity"]["nats"] == pytest.approx(in_windows(model, context, answer), rel=1e-5)
    assert choice["figures"]["acc"]["value"] == 1.0
    assert "1 of 1 texts are longer than the 512 tokens that the model can look back on" in shown.err


def test_a_report_in_numbered_files(settings):
    first, second = run_tasks(settings("lambada", limit=2)), run_tasks(settings("multiple_choice"))
    assert [first.report.name, second.report.name] == ["tasks-001.md", "tasks-002.md"]
    values = json.loads(first.report.with_suffix(".json").read_text())
    [result] = values["results"]
    assert result["num_examples"] == 2
    assert result["figures"]["acc"]["interval"][0] == 0.0
    assert values["settings"]["limit"] == 2
    assert len(values["model"]["sha256"]) == 64
    assert "perplexity of a whole last word" in first.report.read_text()
    assert "acc_norm" in second.to_text()
    acc = second.results[0].figures["acc"].value
    assert second.results[0].standard_errors["acc"] == pytest.approx(math.sqrt(acc * (1 - acc) / 2))


def test_the_batch_changes_nothing(settings):
    one, many = (run_tasks(settings("multiple_choice", "cloze", "lambada", batch_size=size)) for size in (1, 16))
    for first, second in zip(one.results, many.results, strict=True):
        for name, figure in first.figures.items():
            assert figure.value == pytest.approx(second.figures[name].value, rel=1e-4)


def test_line_ends_of_another_system_change_nothing(settings, files, tmp_path):
    (tmp_path / "crlf.raw").write_bytes(files["wikitext"].read_bytes().replace(b"\n", b"\r\n"))
    (tmp_path / "cr.raw").write_bytes(files["wikitext"].read_bytes().replace(b"\n", b"\r"))
    unix, windows, old = run_tasks(
        settings(wikitext=(files["wikitext"], tmp_path / "crlf.raw", tmp_path / "cr.raw"))
    ).results
    assert unix.figures == windows.figures == old.figures


def test_few_pages_are_warned_of(settings, files, tmp_path):
    found = run_tasks(settings("wikitext", "multiple_choice"))
    wikitext = next(each for each in found.results if each.kind == "wikitext")
    warning = f"{wikitext.task}: only 2 pages. The intervals of its perplexities say little about others"
    assert f"Warning: {warning}" in found.to_text()
    assert f"Warning: {warning}" in found.report.read_text()
    remarks = {each["kind"]: each["remark"] for each in found.values["results"]}
    assert remarks["wikitext"].startswith(warning)
    assert remarks["multiple_choice"] is None  # Wilson's intervals hold of few, too
    (tmp_path / "ten.raw").write_text(files["wikitext"].read_text() * 5)
    assert run_tasks(settings(wikitext=(tmp_path / "ten.raw",))).results[0].remark is None


def test_a_perplexity_that_overflows_is_told_by_its_nats(settings, tmp_path, capsys):
    (tmp_path / "long.jsonl").write_text(json.dumps({"context": "The", "answer": "old king " * 300}) + "\n")
    asked = settings(cloze=(tmp_path / "long.jsonl",))
    found = run_tasks(asked)
    nats = found.results[0].nats["perplexity"].value
    assert nats > 710
    assert f"exp({nats:,.1f})" in found.to_text()
    values = json.loads(found.report.with_suffix(".json").read_text(), parse_constant=pytest.fail)
    figure = values["results"][0]["figures"]["perplexity"]
    assert figure == {
        "value": None,
        "interval": None,
        "nats": nats,
        "nats_interval": None,
        "note": "null is e to the power of the nats beside it, which is too large for a number",
    }
    words = ["--cloze", str(tmp_path / "long.jsonl"), "--model_dir", asked.model_dir, "--device=cpu", "--json"]
    assert main(["tasks", *words, f"--output_dir={tmp_path}"]) == 0
    shown = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert shown["results"][0]["figures"]["perplexity"] == figure


def test_the_command_line(settings, files, capsys):
    chosen = settings("cloze")
    arguments = ["--model-dir", chosen.model_dir, "--output-dir", str(chosen.output_dir), "--device", "cpu", "--json"]
    assert main(["tasks", "--cloze", str(files["cloze"]), *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["kind"] == "cloze"


def test_what_is_wrong_leaves_no_report(settings, files, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="name a task: --lambada"):
        settings()
    with pytest.raises(UsageError, match="are for tasks of lm-eval"):
        settings("cloze", num_fewshot=2)
    with pytest.raises(UsageError, match="cannot be read"):
        run_tasks(settings(cloze=(tmp_path / "none",)))
    monkeypatch.setitem(__import__("sys").modules, "lm_eval", None)
    with pytest.raises(MissingExtraError, match=r"--harness needs lm_eval: pip install 'gpt2kit\[lm-eval\]'"):
        run_tasks(settings(harness=("hellaswag",)))
    assert not list((tmp_path / "out").glob("*"))
