"""transformers' `generate`: as it is, and with a static cache and a compiled model."""

import torch
from transformers import GPT2LMHeadModel

from benchmarks.contestants.generation import END_OF_TEXT, Prompt, main
from benchmarks.core.child import Arguments


class Transformers:
    """GPT2LMHeadModel.

    Args:
        arguments: `compile`: static cache and torch.compile; `dtype`: of the weights.
    """

    def __init__(self, arguments: Arguments) -> None:
        torch.set_num_threads(arguments["threads"])
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = getattr(torch, arguments.get("dtype", "float32"))
        self.model = GPT2LMHeadModel.from_pretrained(arguments["model"], dtype=dtype).to(self.device).eval()
        self.model.generation_config.eos_token_id = None
        self.model.generation_config.pad_token_id = END_OF_TEXT
        if arguments["compile"]:
            self.model.generation_config.cache_implementation = "static"
            self.model.forward = torch.compile(self.model.forward)

    def write(self, prompts: list[Prompt], num_tokens: int) -> list[list[int]]:
        """Greedy."""
        return self._texts(prompts, num_tokens, do_sample=False)

    def draw(self, prompt: Prompt, num_samples: int, num_tokens: int) -> list[list[int]]:
        """Samples of one prompt."""
        return self._texts(
            [prompt],
            num_tokens,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            temperature=1.0,
            num_return_sequences=num_samples,
        )

    @torch.inference_mode()
    def _texts(self, prompts: list[Prompt], num_tokens: int, **how: object) -> list[list[int]]:
        ids_BT = torch.tensor([prompt.ids for prompt in prompts], device=self.device)
        found_BT = self.model.generate(ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=num_tokens, **how)
        texts: list[list[int]] = found_BT[:, ids_BT.size(1) :].tolist()
        return texts


if __name__ == "__main__":
    main(Transformers)
