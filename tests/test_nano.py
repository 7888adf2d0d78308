"""The small base model in the package: an ordinary folder, what its card says, and how it is named."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2kit.errors import UsageError
from gpt2kit.generation import GenerateSettings, generate, load
from gpt2kit.hub import fetch, resolve_base
from gpt2kit.tokens import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
NANO = resolve_base("nano")
CARD = (NANO / "README.md").read_text(encoding="utf-8")
TALE = ROOT / "data" / "raw" / "grimm"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_folder(NANO)


def test_it_is_small_and_holds_only_data() -> None:
    files = [path for path in NANO.iterdir() if path.is_file()]  # quantised weights may lie in a folder there
    assert sum(path.stat().st_size for path in files) <= 20e6
    assert {path.suffix for path in files} == {".json", ".safetensors", ".txt", ".md", ".png"}


def test_transformers_opens_it_to_the_same_scores(tokenizer: Tokenizer) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = AutoModelForCausalLM.from_pretrained(NANO).eval()
    text = "Once upon a time there was a poor woodcutter, who lived with his wife at the edge of a great forest."
    ids = AutoTokenizer.from_pretrained(NANO)(text)["input_ids"]
    assert ids == tokenizer.encode(text)
    ours = load(NANO, device="cpu").model
    with torch.inference_mode():
        expected = theirs(torch.tensor([ids])).logits
        found = ours.logits(ours(torch.tensor([ids])))
    assert expected.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_comes_back_from_its_ids(text: str) -> None:
    tokenizer = Tokenizer.from_folder(NANO)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert max(ids, default=0) < 8192


def test_it_knows_english_it_has_not_read() -> None:
    """Bits per byte on a tale of the Grimms, who are not in its text, computed by transformers alone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(NANO).eval(), AutoTokenizer.from_pretrained(NANO)
    text = min(TALE.glob("*.txt")).read_text(encoding="utf-8")[:1500]
    ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])[:, :512]
    with torch.inference_mode():
        nats = float(model(ids, labels=ids).loss) * (ids.size(1) - 1)
    num_bytes = len(tokenizer.decode(ids[0, 1:]).encode())
    assert nats / num_bytes / 0.6931 < 1.75


def test_the_card_tells_what_has_to_be_told() -> None:
    for word in ("license: mit", "public domain", "curve.png", "cannot", "Muon", "prose_heldout", "bits per byte"):
        assert word in CARD, word
    assert [int(seed) for seed in re.findall(r"\*\*Seed (\d+)\*\*", CARD)] == list(range(10))
    parameters = sum(parameter.numel() for parameter in load(NANO, device="cpu").model.parameters())
    assert f"{parameters:,} parameters" in CARD


def test_a_sample_of_the_card_is_made_again_from_its_seed() -> None:
    command = re.search(r"`gpt2kit generate --model_dir nano --prompt \"([^\"]+)\" --top_p ([\d.]+) "
                        r"--max_new_tokens (\d+) --seed S`", " ".join(CARD.split()))  # fmt: skip
    assert command is not None
    prompt, top_p, tokens = command.groups()
    asked = GenerateSettings(top_p=float(top_p), max_new_tokens=int(tokens), seed=3)
    made = prompt + generate(load("nano", device="cpu"), [prompt], asked)[0].text
    quoted = CARD.partition("**Seed 3**")[2].partition("**Seed 4**")[0]
    shown = "\n".join(line.removeprefix(">").removeprefix(" ") for line in quoted.strip().splitlines())
    assert [line.rstrip() for line in made.splitlines()] == shown.splitlines()


def test_a_folder_of_the_same_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_base("nano").is_absolute()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").mkdir()
    assert resolve_base("nano") == Path("nano")


def test_fetch_finds_it_without_a_network(tmp_path: Path) -> None:
    assert fetch("nano") == NANO
    copy = fetch("nano", output_dir=tmp_path / "copy")
    assert (copy / "model.safetensors").read_bytes() == (NANO / "model.safetensors").read_bytes()
    with pytest.raises(UsageError, match="--revision main: nano comes with gpt2kit and has no other revisions"):
        fetch("nano", revision="main")


def test_it_is_fine_tuned_by_its_name(tmp_path: Path, raw_folder: Path) -> None:
    def gpt2kit(*words: str) -> str:
        command = [sys.executable, "-m", "gpt2kit", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    gpt2kit("prepare", str(raw_folder), "--base", "nano")
    shown = gpt2kit("train", "--max_steps", "4", "--context", "64", "--model_output_dir", "mine", "--json")
    result = json.loads(shown)
    assert result["validation_loss"] < result["validation_loss_before"]
    assert json.loads((tmp_path / "mine" / "training" / "run.json").read_text())["base"] == "nano"
    assert "gpt2kit" not in gpt2kit("generate", "The king", "--model_dir", "mine", "--max_new_tokens", "5")
