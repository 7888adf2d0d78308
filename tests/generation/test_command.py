"""`gpt2kit generate`: what it writes, that it can be made again, and that nothing else is touched."""

import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gpt2kit.cli import main
from gpt2kit.errors import DiskError, UsageError
from gpt2kit.generation import GenerateSettings, command, generate, load, run
from gpt2kit.generation.output import OutputFiles


@pytest.fixture
def settings(model_folder, tmp_path):
    common = {"model_dir": str(model_folder), "output_dir": tmp_path / "texts", "device": "cpu", "prompt": "The king"}

    def make(**values):
        length = {} if "length" in values else {"max_new_tokens": 12}
        return GenerateSettings(**(common | length | values))

    return make


def records(path):
    header, *samples = (json.loads(line) for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n"))
    return header, samples


def test_a_run_writes_a_file_to_read_and_one_with_everything(settings, tmp_path):
    result = run(settings(nsamples=2, seed=0, prompt=("The king", "fox")))
    folder = tmp_path / "texts"
    assert sorted(path.name for path in folder.iterdir()) == ["generated_0001.jsonl", "generated_0001.txt"]
    header, samples = records(folder / "generated_0001.jsonl")
    assert (header["kind"], header["seed"], header["method"]) == ("gpt2kit generation", 0, "sampling")
    assert set(header["model"]["sha256"]) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert header["versions"]["torch"]
    assert header["end_of_text_first"] is False
    assert [(s["prompt"], s["sample_index"]) for s in samples] == [
        ("The king", 0),
        ("The king", 1),
        ("fox", 0),
        ("fox", 1),
    ]
    assert samples == [sample.to_dict() | {"ids": list(sample.ids)} for sample in result.samples]
    text = (folder / "generated_0001.txt").read_text(encoding="utf-8")
    assert all(sample.prompt + sample.text in text for sample in result.samples)
    assert result.to_text() == "\n====================\n".join(s.prompt + s.text for s in result.samples)
    assert json.loads(json.dumps(result.to_dict()))["samples"] == samples


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"seed": 0, "temperature": 1.3, "top_k": 20, "nsamples": 3},
        {"temperature": 0},
        {"num_beams": 3, "nsamples": 2},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"nfiles": 2, "nsamples": 2, "prompt": ("The king", "", "a\nb 'c' \"d\"")},
        {"chat": True, "system": "Be brief.", "stop": ("a", "\\n")},
        {"length": 9, "prefix": "fox", "truncate": "e", "end_of_text_first": "on"},
        {"max_new_tokens": 90, "window_keep": 0.3},
        {"prompt": (r"\-", r"\\-", "fox")},
    ],
)
def test_every_file_can_be_made_again(settings, tmp_path, values):
    made = run(settings(**values))
    header, _ = records(made.files[1])
    # By its settings in Python ...
    again = GenerateSettings(**header["settings"])
    found = generate(
        load(again.model_dir, device="cpu"),
        again.prompt,
        again.model_copy(update={"nsamples": again.nsamples * again.nfiles}),
    )
    assert sorted(found, key=str) == sorted(made.samples, key=str)
    # ... and by its command.
    words = shlex.split(header["again"])
    assert words[:2] == ["gpt2kit", "generate"]
    assert main([*words[1:], f"--output_dir={tmp_path / 'again'}"]) == 0
    for path in made.files:
        own, other = path, tmp_path / "again" / path.name
        if path.suffix == ".jsonl":
            assert records(other)[1] == records(own)[1]
        else:
            assert other.read_text().partition("====")[2] == own.read_text().partition("====")[2]


def test_a_dash_read_from_a_file_can_be_made_again(settings, tmp_path):
    (tmp_path / "dash.txt").write_text("-\nfox\n")
    made = run(settings(prompt=(), prompts_file=tmp_path / "dash.txt"))
    assert [sample.prompt for sample in made.samples] == ["-", "fox"]
    again = shlex.split(made.header["again"])
    assert main([*again[1:], f"--output_dir={tmp_path / 'again'}"]) == 0
    assert records(tmp_path / "again" / made.files[1].name)[1] == records(made.files[1])[1]


def test_nfiles_share_the_samples(settings, tmp_path):
    result = run(settings(nfiles=3, nsamples=2, seed=4))
    assert [path.name for path in result.files] == [
        f"generated_000{n}.{kind}" for n in (1, 2, 3) for kind in ("txt", "jsonl")
    ]
    indices = [[s["sample_index"] for s in records(path)[1]] for path in result.files if path.suffix == ".jsonl"]
    assert indices == [[0, 1], [2, 3], [4, 5]]
    whole = run(settings(nsamples=6, seed=4))
    assert [s.ids for s in whole.samples] == [s.ids for s in result.samples]


def test_nothing_that_is_there_is_touched(settings, tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    theirs = {"notes.md": "mine", "generated_0007.txt": "by hand", "generated_abc.txt": "x"}
    for name, content in theirs.items():
        (folder / name).write_text(content)
    first, second = run(settings()), run(settings())
    assert [path.name for path in (*first.files, *second.files)] == [
        "generated_0008.txt", "generated_0008.jsonl", "generated_0009.txt", "generated_0009.jsonl"
    ]  # fmt: skip
    assert {name: (folder / name).read_text() for name in theirs} == theirs


def test_two_runs_at_a_time_never_get_the_same_number(tmp_path):
    def claim(_):
        files = OutputFiles.claim(tmp_path, {"again": ""}, include_prefix=True)
        return files.lines.name

    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(claim, range(40)))
    assert len(set(names)) == 40


def test_a_run_that_is_stopped_keeps_what_is_finished(settings, tmp_path, monkeypatch):
    original = command.pieces

    def stopped(plan):
        num_finished = 0
        for writing, piece in original(plan):
            yield writing, piece
            num_finished += writing.finish_reason is not None
            if num_finished == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(command, "pieces", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(settings(nsamples=5, batch_size=1))
    _, samples = records(tmp_path / "texts" / "generated_0001.jsonl")
    assert len(samples) == 2
    assert (tmp_path / "texts" / "generated_0001.txt").exists()
    monkeypatch.setattr(command, "pieces", lambda plan: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(settings())
    assert len(list((tmp_path / "texts").iterdir())) == 2


def test_prefix_can_be_left_out(settings):
    result = run(settings(include_prefix=False))
    assert result.to_text() == result.samples[0].text
    assert "\nThe king" not in result.files[0].read_text()


def test_the_text_is_shown_while_it_is_written(settings, capsys):
    result = run(settings(stream=True, seed=1, max_new_tokens=30))
    assert capsys.readouterr().out == "The king" + result.samples[0].text + "\n"
    assert result.to_text() == ""
    quiet = run(settings(stream=False, seed=1, max_new_tokens=30))
    assert capsys.readouterr().out == ""
    assert quiet.to_text() == "The king" + quiet.samples[0].text
    assert quiet.samples == result.samples
    many = run(settings(stream=True, nsamples=2))
    assert "--stream: shows a single text" in capsys.readouterr().err
    assert many.to_text()


def test_an_output_folder_that_is_a_file(settings, tmp_path):
    (tmp_path / "texts").write_text("mine")
    with pytest.raises(UsageError, match=r"--output_dir .*texts: is a file"):
        run(settings())
    assert (tmp_path / "texts").read_text() == "mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_in_words(settings, tmp_path, monkeypatch):
    claim = OutputFiles.claim.__func__

    def full(cls, *args, **kwargs):
        files = claim(cls, *args, **kwargs)
        files.lines = Path("/dev/full")
        files.finish = lambda: None
        return files

    monkeypatch.setattr(OutputFiles, "claim", classmethod(full))
    with pytest.raises(DiskError, match="no space to write /dev/full"):
        run(settings())


def cli(*words, cwd, **options):
    return subprocess.run(
        [sys.executable, str(Path(__file__).parents[2] / "scripts" / "generate.py"), *words],
        cwd=cwd, capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, **{"stdin": subprocess.DEVNULL, **options},
    )  # fmt: skip


def test_the_door_writes_texts(model_folder, tmp_path):
    done = cli("--model-dir", str(model_folder), "--output-dir", "out/", "--length", "5", "--seed", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    header, (sample,) = records(tmp_path / "out" / "generated_0001.jsonl")
    assert done.stdout == sample["text"] + "\n"
    assert "written: out/generated_0001.txt" in done.stderr
    assert (len(sample["ids"]), header["seed"]) == (5, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--model_dir models/gpt2_fine_tuned: there is no model yet; make one with `gpt2kit train`"),
        (["--top_p", "2"], "--top_p 2: should be less than or equal to 1"),
        (["--temperature", "-1"], "--temperature -1: should be greater than or equal to 0"),
        (["--temperature", "warm"], "--temperature 'warm': should be a valid number"),
        (["--prompts_file", "nowhere.txt"], "--prompts_file nowhere.txt: there is no such file"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_argument_that_is_no_text_can_be_written_down(settings, tmp_path):
    """As from a shell that is not UTF-8; the header once could not be written, and an empty file stayed."""
    run(settings(seed=0, stop=("\udcff",)))
    header, _ = records(tmp_path / "texts" / "generated_0001.jsonl")
    assert header["settings"]["stop"] == ["\udcff"]
    assert "\\udcff" in (tmp_path / "texts" / "generated_0001.txt").read_text(encoding="utf-8")
