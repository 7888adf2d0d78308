"""Where the texts that are measured come from: a file of `gpt2kit generate`, a model now, or a human."""

import json
from collections.abc import Sequence
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


def read_samples(path: Path, *, option: str = "--samples") -> TextSet:
    """Read the samples of a run of `gpt2kit generate`.

    Args:
        path: its JSONL file: a record of the run on the first line, then a sample a line.
        option: how the user named the file, for messages.

    Raises:
        UsageError: the file is not there.
        DataError: it is not such a file, or holds no sample.
    """
    try:
        # Not splitlines(), which would split at U+2028 in a text.
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{option} {path}: is not a JSONL file of `gpt2kit generate` (not UTF-8)") from error
    samples = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        sample = _parse(line, place=f"{option} {path}:{number}")
        if number == 1 and "text" not in sample:
            continue  # the record of the run
        if not isinstance(sample.get("text"), str) or not isinstance(sample.get("prompt", ""), str):
            raise DataError(f"{option} {path}:{number}: is not a sample: it should have a text under 'text'")
        samples.append(sample)
    if not samples:
        raise DataError(f"{option} {path}: holds no sample")
    reasons = [sample.get("finish_reason") for sample in samples]
    return TextSet(
        title=path.name,
        texts=[sample["text"] for sample in samples],
        prompts=[sample.get("prompt", "") for sample in samples],
        ended=None if None in reasons else [reason != "length" for reason in reasons],
    )


def read_run(path: Path) -> tuple[dict[str, str], int | None]:
    """What `gpt2kit generate` says of the run that wrote a file: hashes of the model's files, and tokens at most."""
    with path.open(encoding="utf-8") as file:
        record = _parse(file.readline(), place=f"{path}:1")
    try:
        return dict(record["model"]["sha256"]), int(record["settings"]["max_new_tokens"])
    except (KeyError, TypeError, ValueError):
        return {}, None  # samples from elsewhere


def _parse(line: str, *, place: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: is not JSON ({error.msg}); give a .jsonl file of `gpt2kit generate`") from error
    if not isinstance(value, dict):
        raise DataError(f"{place}: should be a JSON object, and is a {type(value).__name__}")
    return value


def generate_texts(
    model: LanguageModel, openings: Sequence[Opening], *, title: str, settings: EvaluateSettings
) -> TextSet:
    """Let a model go on from the beginnings of held-out texts.

    Args:
        model: the model.
        openings: the beginnings.
        title: what to call the texts.
        settings: how they are sampled, and the seed.
    """
    how: dict[str, Any] = {name: getattr(settings, name) for name in _TAKEN_OVER}
    samples = generate(
        model,
        [opening.prompt for opening in openings],
        GenerateSettings(max_new_tokens=settings.sample_tokens, stream=False, **how),
    )
    return TextSet(
        title=title,
        texts=[sample.text for sample in samples],
        prompts=[sample.prompt for sample in samples],
        ended=[sample.finish_reason != "length" for sample in samples],
        sources=[openings[sample.prompt_index].source for sample in samples],
    )


def human_texts(openings: Sequence[Opening], tokenizer: Tokenizer, *, max_tokens: int) -> TextSet:
    """What humans wrote behind the same beginnings, cut to as many tokens as a model may write."""
    texts = []
    for opening, ids in zip(openings, tokenizer.encode_batch([each.continuation for each in openings]), strict=True):
        if len(ids) <= max_tokens:
            texts.append(opening.continuation)
        else:
            texts.append(tokenizer.decode(ids[:max_tokens]).rstrip(_HALF_A_CHARACTER))
    return TextSet(
        title="human",
        texts=texts,
        prompts=[opening.prompt for opening in openings],
        sources=[opening.source for opening in openings],
    )
