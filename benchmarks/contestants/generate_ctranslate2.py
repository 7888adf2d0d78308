"""CTranslate2, converted by its own converter; float32 and int8."""

import json
from pathlib import Path

import ctranslate2

from benchmarks.contestants.generation import Prompt, main
from benchmarks.core.child import Arguments
from benchmarks.core.places import WORK


class CTranslate2:
    """ctranslate2.Generator.

    Args:
        arguments: `weights`: "float32" or "int8".
    """

    def __init__(self, arguments: Arguments) -> None:
        weights, source = arguments["weights"], Path(arguments["model"])
        folder = WORK / "converted" / f"ctranslate2-{weights}"
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            converter = ctranslate2.converters.TransformersConverter(str(source))
            converter.convert(str(folder), quantization=weights)
        self.generator = ctranslate2.Generator(
            str(folder), device="cpu", compute_type=weights, inter_threads=1, intra_threads=arguments["threads"]
        )
        vocabulary = json.loads((source / "vocab.json").read_text(encoding="utf-8"))
        self.token_of = {number: token for token, number in vocabulary.items()}

    def write(self, prompts: list[Prompt], num_tokens: int) -> list[list[int]]:
        """Greedy."""
        results = self.generator.generate_batch(
            [self._tokens(prompt) for prompt in prompts],
            min_length=num_tokens,
            max_length=num_tokens,
            beam_size=1,
            sampling_topk=1,
            include_prompt_in_result=False,
        )
        return [result.sequences_ids[0] for result in results]

    def draw(self, prompt: Prompt, num_samples: int, num_tokens: int) -> list[list[int]]:
        """Samples of one prompt."""
        (result,) = self.generator.generate_batch(
            [self._tokens(prompt)],
            min_length=num_tokens,
            max_length=num_tokens,
            beam_size=1,
            sampling_topk=0,
            sampling_temperature=1.0,
            num_hypotheses=num_samples,
            include_prompt_in_result=False,
        )
        return list(result.sequences_ids)

    def _tokens(self, prompt: Prompt) -> list[str]:
        return [self.token_of[number] for number in prompt.ids]


if __name__ == "__main__":
    main(CTranslate2)
