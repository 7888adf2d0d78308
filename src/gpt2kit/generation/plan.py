"""What is to be written: prompts and settings made into jobs, with everything that a text depends on."""

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gpt2kit.console import warn
from gpt2kit.errors import UsageError
from gpt2kit.generation.language_model import LanguageModel
from gpt2kit.generation.rules import PenaltyRules
from gpt2kit.generation.settings import NATIVE_METHODS, GenerateSettings
from gpt2kit.generation.writing import Ending, Job
from gpt2kit.native.engine import NativeEngine
from gpt2kit.runtime import derive_seed

_USER_TURN = "\nUser:"  # where the model's turn of a chat is over, should it not say so by end-of-text
_METHOD_NAMES = {
    "greedy": "greedy search (--temperature 0 or --top_k 1)",
    "sampling": "sampling",
    "beam": "beam search (--num_beams)",
    "contrastive": "contrastive search (--penalty_alpha)",
}


@dataclass(frozen=True)
class Plan:
    """What is to be written, how, and from which seed."""

    model: LanguageModel
    settings: GenerateSettings
    jobs: tuple[Job, ...]
    ending: Ending
    penalties: PenaltyRules
    seed: int | None
    native: NativeEngine | None  # None: PyTorch writes


def make_plan(model: LanguageModel, prompts: Sequence[str], settings: GenerateSettings, *, num_samples: int) -> Plan:
    """Turn prompts and settings into jobs; draws a seed where none is given, and warns of what has no effect.

    A draw depends on the seed, the prompt's text, and the number of the text among those of this prompt; not on the
    prompt's place, nor on other prompts.

    Raises:
        UsageError: a prompt is not valid text, or a setting does not fit the model.
    """
    if isinstance(prompts, str):
        raise UsageError("prompts should be a list of texts, not one text")
    _warn_of_no_effect(settings, num_samples)
    native = _native(model, settings)
    config = model.config
    seed = settings.seed if settings.seed is not None else secrets.randbelow(1 << 31)
    jobs: list[Job] = []
    occurrences: Counter[str] = Counter()
    for prompt_index, prompt in enumerate(prompts):
        ids = _prompt_ids(model, prompt, settings, number=prompt_index + 1)
        num_dropped = max(len(ids) - config.n_positions, 0)
        if num_dropped:
            warn(
                f"prompt {prompt_index + 1} has {len(ids):,} tokens, and the model's context is "
                f"{config.n_positions:,}: only the last {config.n_positions:,} are read"
            )
        for sample_index in range(num_samples):
            number = occurrences[prompt] * num_samples + sample_index
            key = derive_seed(seed, "generate", prompt, number)
            jobs.append(Job(prompt, tuple(ids[num_dropped:]), num_dropped, prompt_index, sample_index, key))
        occurrences[prompt] += 1
    its_seed = seed if settings.method == "sampling" else None
    return Plan(model, settings, tuple(jobs), _ending(settings), _penalties(model, settings), its_seed, native)


def puts_end_of_text_first(model: LanguageModel, settings: GenerateSettings) -> bool:
    """Whether an end-of-text stands in front of every prompt."""
    asked = settings.end_of_text_first
    return model.texts_begin_with_end_of_text if asked == "auto" else asked == "on"


def plan_turn(model: LanguageModel, ids: Sequence[int], settings: GenerateSettings, *, prompt: str, key: int) -> Plan:
    """A plan to write one text, from ids that fit the context.

    Args:
        model: what writes.
        ids: what the text continues.
        settings: how; prompts and seed are not looked at.
        prompt: what the text answers, for its record.
        key: what its draws are a function of, together with the position.
    """
    job = Job(prompt, tuple(ids), num_dropped=0, prompt_index=0, sample_index=0, key=key)
    return Plan(model, settings, (job,), _ending(settings), _penalties(model, settings), None, _native(model, settings))


def _native(model: LanguageModel, settings: GenerateSettings) -> NativeEngine | None:
    can_decode = settings.method in NATIVE_METHODS
    return model.native_for(engine=settings.engine, weights=settings.weights, can_decode=can_decode)


def _ending(settings: GenerateSettings) -> Ending:
    return Ending(
        settings.token_limit,
        settings.stop_strings + ((_USER_TURN,) if settings.chat else ()),
        strip_start=settings.chat,
    )


def _penalties(model: LanguageModel, settings: GenerateSettings) -> PenaltyRules:
    tokenizer, config = model.tokenizer, model.config
    return PenaltyRules(
        end_of_text=tokenizer.end_of_text,
        forbidden=tuple(range(tokenizer.vocab_size, config.vocab_size)),
        min_new_tokens=settings.min_new_tokens,
        repetition=settings.repetition_penalty,
        frequency=settings.frequency_penalty,
        presence=settings.presence_penalty,
        no_repeat_ngram_size=settings.no_repeat_ngram_size,
    )


def _warn_of_no_effect(settings: GenerateSettings, num_samples: int) -> None:
    method = _METHOD_NAMES[settings.method]
    for name in settings.without_effect():
        warn(f"--{name} has no effect with {method}")
    if num_samples > 1 and settings.method in ("greedy", "contrastive"):
        warn(f"{method} writes one text for a prompt: the {num_samples} samples will be the same")


def _prompt_ids(model: LanguageModel, prompt: str, settings: GenerateSettings, *, number: int) -> list[int]:
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"prompt {number} is not valid text (character {error.start + 1}); give it as UTF-8"
        ) from error
    if settings.chat:
        from gpt2kit.corpus.document import Message
        from gpt2kit.tokens.chat import render_chat

        told = [Message("system", settings.system)] if settings.system is not None else []
        ids, _ = render_chat([*told, Message("user", prompt)], model.tokenizer, add_generation_prompt=True)
    else:
        ids = model.tokenizer.encode(prompt)
    if not ids or puts_end_of_text_first(model, settings):
        return [model.tokenizer.end_of_text, *ids]
    return ids
