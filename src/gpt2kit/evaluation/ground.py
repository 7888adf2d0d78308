"""What models are measured on: prepared data, held-out text, and a protocol that suits all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpt2kit.console import say, warn
from gpt2kit.errors import DataError, MissingExtraError, UsageError
from gpt2kit.evaluation.canaries import Canaries
from gpt2kit.evaluation.coherence import SentenceSpace, space_of_training_text
from gpt2kit.evaluation.heldout import HeldOut, choose_split, read_held_out, read_text_file
from gpt2kit.evaluation.likelihood import FEWEST_UNITS, Protocol
from gpt2kit.evaluation.models import ModelRecord
from gpt2kit.generation.language_model import is_trained_here
from gpt2kit.tokens import PreparedData


class Remarks:
    """What a report has to say beside its figures; each remark is also said at once.

    Attributes:
        notes: what was left out, and why.
        warnings: what not to trust.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        """Something was left out."""
        self.notes.append(text)
        say(text)

    def warn(self, text: str) -> None:
        """Something is not to be trusted."""
        self.warnings.append(text)
        warn(text)


def open_data(data_dir: Path, *, text: Path | None, remarks: Remarks) -> PreparedData | None:
    """The prepared data; None where they are not there and a text is measured on instead.

    Raises:
        UsageError: they are not there, and are needed.
    """
    if text is not None and not data_dir.exists():
        remarks.note(f"--data_dir {data_dir} is not there: copies of the training text are not looked for")
        return None
    return PreparedData.open(data_dir)


@dataclass(frozen=True)
class HeldOutChoice:
    """Which held-out text is measured on.

    Attributes:
        text: a text file, instead of the prepared data's.
        split: of the prepared data.
        max_tokens: of more text, documents are drawn.
        seed: of the draw.
        canaries: documents that hold their sentences are left out.
    """

    text: Path | None
    split: Literal["auto", "test", "validation"]
    max_tokens: int
    seed: int
    canaries: Canaries | None = None


def find_held_out(
    data: PreparedData | None, choice: HeldOutChoice, *, trained: Sequence[ModelRecord], remarks: Remarks
) -> HeldOut:
    """Read the held-out text, and say where it is not quite held out.

    Args:
        data: the prepared data; None only with a text of its own.
        choice: which text.
        trained: models that may have been trained on these data.
        remarks: takes what there is to say.

    Raises:
        UsageError: there is no such text.
        DataError: it is damaged.
    """
    if choice.text is not None:
        return read_text_file(choice.text)
    assert data is not None  # only a given text does without
    split = choose_split(data, choice.split)
    held_out = read_held_out(data, split, max_tokens=choice.max_tokens, seed=choice.seed, canaries=choice.canaries)
    if held_out.num_planted:
        remarks.warn(
            f"{held_out.num_planted:,} documents of the {split} split hold planted numbers and are left out, for the "
            "training text holds them too; in training they flattered the validation loss: prepare and train again, "
            "which keeps canaries.jsonl out of the held-out splits"
        )
    drawn = len(held_out.documents)
    if drawn < held_out.num_documents_in_all:
        remarks.note(
            f"measured on {drawn:,} of {held_out.num_documents_in_all:,} held-out documents, drawn by the seed "
            f"(--max_tokens {choice.max_tokens:,})"
        )
    num_origins = len({piece.document for piece in held_out.opening_pieces})
    if num_origins < FEWEST_UNITS <= drawn:
        remarks.warn(
            f"the {drawn} held-out texts are sections of {num_origins} document{'s' * (num_origins > 1)}, the rest of "
            "which is training text: intervals say nothing about other documents"
        )
    for record in trained:
        if record.trained_on is None:
            continue
        if record.trained_on != data.manifest["fingerprint"]:
            copies = ", and copies are looked for in a text it did not learn from" if record.role == "model" else ""
            remarks.warn(
                f"{record.name} was trained on other data than {data.folder} holds now: it may have seen this held-out "
                f"text{copies}"
            )
        elif split == "validation":
            remarks.note(
                f"the validation split also chose the best weights of {record.name}, so its figures flatter it a "
                "little; a test split (prepare with --test_fraction) does not"
            )
    return held_out


def find_sentence_space(data: PreparedData | None, *, seed: int, remarks: Remarks) -> SentenceSpace | None:
    """Where sentences are compared; None, which the report then says, where it cannot be made."""
    if data is None:
        return None
    try:
        return space_of_training_text(data, seed=seed)
    except (MissingExtraError, DataError) as error:
        remarks.note(f"coherence is left out: {error}")
        return None


def find_prompt_form(
    records: Sequence[ModelRecord], *, asked: Literal["auto", "on", "off"], num_samples: int, remarks: Remarks
) -> bool:
    """Whether an end-of-text stands in front of the prompts; one answer, or the same weights would write other texts.

    Args:
        records: the models whose texts are compared.
        asked: "auto" is on if gpt2kit trained any of them.
        num_samples: texts that each of them writes; where there are none, nothing is said.
        remarks: takes what there is to say.
    """
    if asked != "auto":
        return asked == "on"
    trained = [record.name for record in records if is_trained_here(record.folder)]
    if num_samples and 0 < len(trained) < len(records):
        remarks.note(
            f"an end-of-text stands in front of all models' prompts, because the training texts of "
            f"{' and '.join(trained)} began so (--end_of_text_first off leaves it out)"
        )
    return bool(trained)


def prompt_text(end_of_text_first: bool | None) -> str:
    """The form of the prompts in a sentence's part; None where the file of given texts does not say."""
    if end_of_text_first is None:
        return "prompts of a form that the file of texts does not tell"
    return f"prompts with{'' if end_of_text_first else 'out'} an end-of-text in front, for all models alike"


def find_protocol(
    records: Sequence[ModelRecord], *, context: int | None, stride: int | None, full_last_window: bool = False
) -> Protocol:
    """The protocol that was asked for; by default windows as long as the model with the smallest context allows.

    Raises:
        UsageError: a model cannot look back so far, or the stride leaves tokens out.
    """
    smallest = min(records, key=lambda record: record.context)
    found = context or smallest.context
    if found > smallest.context:
        raise UsageError(f"--context {context}: {smallest.name} can look back on {smallest.context} tokens at most")
    if (stride or found) > found:
        raise UsageError(
            f"--stride {stride} is greater than the context of {found} tokens: those between two windows would not be "
            "predicted"
        )
    return Protocol(found, stride or found, full_last_window)
