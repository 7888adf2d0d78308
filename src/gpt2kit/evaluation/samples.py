"""Where the texts that are measured come from: a file of `gpt2kit generate`, a model now, or a human."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2kit.errors import DataError, UsageError
from gpt2kit.evaluation.heldout import Opening
from gpt2kit.evaluation.settings import EvaluateSettings
from gpt2kit.evaluation.texts import TextSet
from gpt2kit.generation import GenerateSettings, LanguageModel, generate
from gpt2kit.tokens import Tokenizer

_HALF_A_CHARACTER = "\ufffd"
_TAKEN_OVER = ("temperature", "top_k", "top_p", "seed", "device", "precision")


@dataclass(frozen=True, slots=True)
class GivenTexts:
    """Texts of a file, and what the file says of the run that wrote them.

    Attributes:
        texts: the texts.
        model_hashes: of the files of the model that wrote them, by name; empty where the file does not say.
        limit_tokens: the most tokens that a text could have; None where the file does not say.
        end_of_text_first: whether an end-of-text stood in front of the prompts; None where the file does not say.
    """

    texts: TextSet
    model_hashes: dict[str, str]
    limit_tokens: int | None
    end_of_text_first: bool | None


def read_given(path: Path, *, option: str = "--samples") -> GivenTexts:
    """Read the samples of a run of `gpt2kit generate`, or of another program that writes JSONL.

    Args:
        path: its JSONL file: a record of the run on the first line, if any, then a sample a line.
        option: how the user named the file, for messages.

    Raises:
        UsageError: the file is not there.
        DataError: it is not such a file, or holds no sample.
    """
    try:
        # Not splitlines(), which would split at U+2028 in a text.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{option} {path}: is not a JSONL file of `gpt2kit generate` (not UTF-8)") from error
    samples: list[dict[str, Any]] = []
    record: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{option} {path}:{number}"
        sample = _parse(line, place=place)
        if number == 1 and "text" not in sample:
            record = sample
            continue
        _check(sample, place=place)
        samples.append(sample)
    if not samples:
        raise DataError(f"{option} {path}: holds no sample")
    reasons = [sample.get("finish_reason") for sample in samples]
    ended = None if None in reasons else [reason != "length" for reason in reasons]
    texts = TextSet(
        title=path.name,
        texts=[sample["text"] for sample in samples],
        prompts=[sample.get("prompt", "") for sample in samples],
        ended=ended,
        num_cut=None if ended is None else ended.count(False),
    )
    form = record.get("end_of_text_first")
    return GivenTexts(texts, *_run_of(record), form if isinstance(form, bool) else None)


def _run_of(record: dict[str, Any]) -> tuple[dict[str, str], int | None]:
    """Hashes of the model's files, and tokens at most, as the record of a run has them."""
    try:
        return dict(record["model"]["sha256"]), int(record["settings"]["max_new_tokens"])
    except (KeyError, TypeError, ValueError):
        return {}, None  # samples from elsewhere


def _check(sample: dict[str, Any], *, place: str) -> None:
    """Refuse what is no sample, and text that no tokenizer can read."""
    if not isinstance(sample.get("text"), str) or not isinstance(sample.get("prompt", ""), str):
        raise DataError(f"{place}: is not a sample: it should have a text under 'text'")
    for key in ("text", "prompt"):
        try:
            sample.get(key, "").encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{place}: its {key} holds half of a character, \\u{ord(error.object[error.start]):04x}; write the "
                "whole character, or leave it out"
            ) from error


def _parse(line: str, *, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: is not JSON ({error.msg}); give a .jsonl file of `gpt2kit generate`") from error
    if not isinstance(value, dict):
        raise DataError(f"{place}: should be a JSON object, and is a {type(value).__name__}")
    return value


def generate_texts(
    model: LanguageModel,
    openings: Sequence[Opening],
    *,
    title: str,
    settings: EvaluateSettings,
    end_of_text_first: bool,
) -> TextSet:
    """Let a model go on from the beginnings of held-out texts.

    Args:
        model: the model.
        openings: the beginnings.
        title: what to call the texts.
        settings: how they are sampled, and the seed.
        end_of_text_first: put an end-of-text in front of every prompt; the same for all models that are compared.
    """
    how: dict[str, Any] = {name: getattr(settings, name) for name in _TAKEN_OVER}
    samples = generate(
        model,
        [opening.prompt for opening in openings],
        GenerateSettings(
            max_new_tokens=settings.sample_tokens,
            stream=False,
            end_of_text_first="on" if end_of_text_first else "off",
            **how,
        ),
    )
    return TextSet(
        title=title,
        texts=[sample.text for sample in samples],
        prompts=[sample.prompt for sample in samples],
        ended=[sample.finish_reason != "length" for sample in samples],
        sources=[openings[sample.prompt_index].source for sample in samples],
        num_cut=sum(sample.finish_reason == "length" for sample in samples),
    )


def human_texts(openings: Sequence[Opening], tokenizer: Tokenizer, *, max_tokens: int) -> TextSet:
    """What humans wrote behind the same beginnings, cut to as many tokens as a model may write."""
    texts, num_cut = [], 0
    for opening, ids in zip(openings, tokenizer.encode_batch([each.continuation for each in openings]), strict=True):
        num_cut += opening.goes_on or len(ids) > max_tokens
        if len(ids) <= max_tokens:
            texts.append(opening.continuation)
        else:
            texts.append(tokenizer.decode(ids[:max_tokens]).rstrip(_HALF_A_CHARACTER))
    return TextSet(
        title="human",
        texts=texts,
        prompts=[opening.prompt for opening in openings],
        sources=[opening.source for opening in openings],
        num_cut=num_cut,
    )
