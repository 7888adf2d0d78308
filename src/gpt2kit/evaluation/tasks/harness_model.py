"""Our model in the clothes of lm-eval's, for every task that lm-eval has.

Importing this module imports lm-eval, which takes seconds; `harness` does so when it is asked for.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs

from gpt2kit.errors import UsageError
from gpt2kit.evaluation.tasks.measure import rolling_nats
from gpt2kit.evaluation.tasks.scoring import encode_pair, score
from gpt2kit.generation import GenerateSettings, LanguageModel, generate, load

_DEFAULT_NEW_TOKENS = 256  # lm-eval's, where a task says nothing
_KNOWN_SETTINGS = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p"}


@register_model("gpt2kit")
class HarnessModel(TemplateLM):  # type: ignore[misc]  # lm-eval is untyped
    """A model as lm-eval asks for it; `lm_eval.simple_evaluate(model=HarnessModel(load("nano")), tasks=[...])`.

    Args:
        model: the model, or its folder or name.
        batch_size: texts computed at a time.
        device: of a model that is named: "auto", "cpu", "cuda".
    """

    def __init__(self, model: LanguageModel | str | Path, batch_size: int = 16, device: str | None = None) -> None:
        super().__init__()
        if not isinstance(model, LanguageModel):
            model = load(model, device=device or "auto", precision="fp32", engine="torch")
        self.language_model = model
        self.batch_size = int(batch_size)

    @property
    def eot_token_id(self) -> int:
        """Id of end-of-text, which also stands before a text without context."""
        return self.language_model.tokenizer.end_of_text

    @property
    def tokenizer_name(self) -> str:
        """What tells its tokenizer from another one."""
        return self.language_model.tokenizer.fingerprint

    def tok_encode(self, string: str, add_special_tokens: bool | None = None) -> list[int]:  # noqa: ARG002
        """A text as token ids; nothing is put in front, and a literal `<|endoftext|>` is the special token."""
        return self.language_model.tokenizer.encode(string, allow_special=True)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        return encode_pair(self.language_model.tokenizer, context, continuation)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,  # noqa: ARG002
    ) -> list[tuple[float, bool]]:
        pairs = [(context, continuation) for _, context, continuation in requests]
        scored = score(self.language_model.model, pairs, batch_size=self.batch_size)
        answers = [(-each.nats, each.is_greedy) for each in scored]
        for (texts, _, _), answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """Log-probability of whole texts."""
        texts = [request.args[0] for request in requests]
        answers = [-nats for nats in rolling_nats(self.language_model, texts, batch_size=max(self.batch_size // 4, 1))]
        for text, answer in zip(texts, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), answer)
        return answers

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """Texts that go on from contexts, up to a stop string, end-of-text or the task's number of tokens."""
        together: dict[str, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            together[repr(sorted(request.args[1].items()))].append(number)
        answers = [""] * len(requests)
        for numbers in together.values():
            settings = self._generate_settings(dict(requests[numbers[0]].args[1]))
            prompts = [self._fitting(requests[number].args[0], settings.max_new_tokens) for number in numbers]
            for number, sample in zip(numbers, generate(self.language_model, prompts, settings), strict=True):
                answers[number] = sample.text
                self.cache_hook.add_partial("generate_until", requests[number].args, sample.text)
        return answers

    def _generate_settings(self, asked: dict[str, Any]) -> GenerateSettings:
        told = dict(normalize_gen_kwargs(asked, _DEFAULT_NEW_TOKENS))
        if unknown := sorted(set(told) - _KNOWN_SETTINGS):
            raise UsageError(f"lm-eval asks for texts with {unknown[0]}={told[unknown[0]]!r}, which gpt2kit has not")
        limit = self.language_model.config.n_positions
        if told["max_gen_toks"] >= limit:
            raise UsageError(
                f"lm-eval asks for {told['max_gen_toks']} new tokens, and the model's context is {limit}: make the "
                "task's max_gen_toks smaller"
            )
        return GenerateSettings(
            max_new_tokens=told["max_gen_toks"],
            stop=tuple(string for string in told["until"] if string),
            temperature=float(told.get("temperature", 1.0)) if told["do_sample"] else 0.0,
            top_k=int(told.get("top_k", 0)),
            top_p=float(told.get("top_p", 1.0)),
            end_of_text_first="off",
            batch_size=self.batch_size,
            engine="torch",
            seed=0,
        )

    def _fitting(self, context: str, num_new: int) -> str:
        """The context's end, so long that the new tokens fit behind it."""
        ids = self.tok_encode(context)
        kept = self.language_model.config.n_positions - num_new
        return context if len(ids) <= kept else self.language_model.tokenizer.decode(ids[-kept:])
