"""`gpt2kit evaluate` against a script that shares no code with it: GPT-2 in numpy, and a plain loop over windows."""

from pathlib import Path

import pytest
from independent_perplexity import measure

import gpt2kit
from gpt2kit import EvaluateSettings, evaluate

NANO = Path(gpt2kit.__file__).parent / "nano"


@pytest.mark.parametrize(("context", "stride"), [(64, 64), (64, 32), (48, 7)])
def test_perplexity_of_nano_is_that_of_the_script(context, stride, tale, tmp_path):
    text = tale(0, sentences=20) + "\n\nÉtude — “quoted” text, unlike the rest.\n"
    file = tmp_path / "text.txt"
    file.write_text(text, encoding="utf-8")
    found = evaluate(
        EvaluateSettings(
            model_dir=str(NANO),
            text=file,
            data_dir=tmp_path / "none",
            output_dir=tmp_path / "out",
            context=context,
            stride=stride,
            num_samples=0,
            compare_with="none",
            picture=False,
            device="cpu",
        )
    )
    perplexity, bits_per_byte = measure(NANO, text, context, stride)
    assert found.perplexity == pytest.approx(perplexity, rel=1e-5)
    assert found.bits_per_byte == pytest.approx(bits_per_byte, rel=1e-5)
