"""gpt2kit itself, by its Python API."""

from typing import Any

import gpt2kit
from benchmarks.contestants.generation import Prompt, main
from benchmarks.core.child import Arguments


class Gpt2kit:
    """`gpt2kit.load` and `gpt2kit.generate`.

    Args:
        arguments: `load`: keywords of `gpt2kit.load`; `settings`: of `GenerateSettings`. Which engine and which
            weights are used is said by these.
    """

    def __init__(self, arguments: Arguments) -> None:
        self.settings: dict[str, Any] = arguments["settings"]
        self.model = gpt2kit.load(arguments["model"], **arguments["load"])

    def write(self, prompts: list[Prompt], num_tokens: int) -> list[list[int]]:
        """Greedy."""
        return self._texts(prompts, num_tokens, temperature=0.0)

    def draw(self, prompt: Prompt, num_samples: int, num_tokens: int) -> list[list[int]]:
        """Samples of one prompt."""
        return self._texts([prompt], num_tokens, temperature=1.0, top_p=1.0, nsamples=num_samples, seed=1)

    def _texts(self, prompts: list[Prompt], num_tokens: int, **how: Any) -> list[list[int]]:
        settings = gpt2kit.GenerateSettings(
            max_new_tokens=num_tokens, min_new_tokens=num_tokens, **how, **self.settings
        )
        samples = gpt2kit.generate(self.model, [prompt.text for prompt in prompts], settings)
        return [list(sample.ids) for sample in samples]


if __name__ == "__main__":
    main(Gpt2kit)
