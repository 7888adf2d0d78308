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
