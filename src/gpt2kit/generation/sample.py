"""A text that was written, and what is known about it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

FinishReason = Literal["length", "stop", "end_of_text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A text that a model wrote.

    Attributes:
        prompt: what it continues; "" for a text from the beginning.
        text: the text behind the prompt, without the stop string or end-of-text that ended it.
        ids: every token written, with the end-of-text or the stop string's tokens that ended it.
        finish_reason: "length" when it was long enough, "stop" at a stop string, "end_of_text" by the model's own word.
        logprob: where it was asked for, the log-probability of `ids` in nats, summed: each token given those before it,
            by the model's distribution as it is (temperature 1, nothing cut off, no penalties). Of a text longer than
            the context, given those that the model could still see.
        seed: what the draws came from; None when none were made.
        prompt_index: the prompt's place among the prompts, from 0.
        sample_index: its place among the texts of its prompt, from 0.
        num_prompt_tokens: tokens of the prompt (with the end-of-text in front, if there is one).
        num_prompt_tokens_dropped: of these, how many from the front did not fit into the context.
        score: of beam search: log-probability after penalties / number of tokens ^ length penalty.
    """

    prompt: str
    text: str
    ids: tuple[int, ...]
    finish_reason: FinishReason
    logprob: float | None
    seed: int | None
    prompt_index: int
    sample_index: int
    num_prompt_tokens: int
    num_prompt_tokens_dropped: int = 0
    score: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The sample as JSON values."""
        return asdict(self) | {"ids": list(self.ids)}
