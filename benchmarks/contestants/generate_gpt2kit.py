"""gpt2kit itself, by its Python API."""

import inspect
from typing import Any

import gpt2kit
from benchmarks.contestants.generation import Prompt, main
from benchmarks.core.child import Arguments

# What a gpt2kit that does not have a setting does anyway.
_ALWAYS = {"engine": "torch", "weights": "fp32"}


class Gpt2kit:
    """`gpt2kit.load` and `gpt2kit.generate`.

    Args:
        arguments: `choice`: settings by which the engine and the weights are chosen, of `gpt2kit.load` or of
            `GenerateSettings`.

    Raises:
        ValueError: this gpt2kit has no such setting.
    """

    def __init__(self, arguments: Arguments) -> None:
        of_load = inspect.signature(gpt2kit.load).parameters
        of_generate = gpt2kit.GenerateSettings.model_fields
        self.flags: dict[str, Any] = {}
        load: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        for name, value in arguments["choice"].items():
            if name in of_load or name in of_generate:
                load |= {name: value} if name in of_load else {}
                self.settings |= {name: value} if name in of_generate else {}
                self.flags |= {name: value} if name in of_generate else {}
            elif _ALWAYS.get(name) != value:
                raise ValueError(f"this gpt2kit has no {name} {value}")
        self.settings["lookup"] = False  # random weights repeat themselves, which it exploits
        self.model = gpt2kit.load(arguments["model"], **load)

    def facts(self) -> dict[str, Any]:
        """What the command line has to be told for the same."""
        return {"flags": self.flags}

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
