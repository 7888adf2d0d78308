"""From prompts to texts: `generate`, and `stream` for one text while it is written."""

from collections.abc import Iterator, Sequence

from gpt2kit.generation.language_model import LanguageModel
from gpt2kit.generation.sample import Sample
from gpt2kit.generation.settings import GenerateSettings


def generate(model: LanguageModel, prompts: Sequence[str], settings: GenerateSettings) -> list[Sample]:
    """Continue each prompt `settings.nsamples` times."""
    raise NotImplementedError


def stream(model: LanguageModel, prompt: str, settings: GenerateSettings) -> Iterator[str]:
    """Continue one prompt, giving out the text piece by piece."""
    raise NotImplementedError
