"""The model that is measured, and the one it is compared with."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt2kit.errors import DataError, Gpt2kitError
from gpt2kit.files import read_json, sha256_json
from gpt2kit.generation.language_model import find_folder
from gpt2kit.model import read_config
from gpt2kit.model.folder import file_hashes

RUN_RECORD = Path("training") / "run.json"
NO_COMPARISON = "none"


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model as the report names it.

    Attributes:
        name: as the user gave it.
        folder: where it lies.
        role: "model", "base" (what it was fine-tuned from) or "other" (given with --compare_with).
        sha256: of its weights, configuration and tokenizer.
        context: tokens it can look back on.
        trained_on: fingerprint of the prepared data it was trained on, if its folder says so.
        epochs: how often it read that text, if its folder says so.
    """

    name: str
    folder: Path
    role: str
    sha256: str
    context: int
    trained_on: str | None
    epochs: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON values."""
        return asdict(self) | {"folder": str(self.folder)}

    @property
    def title(self) -> str:
        """What to call it in a sentence about the model it stands beside."""
        return f"its base model {self.name}" if self.role == "base" else self.name


def find_model(name: str, *, role: str) -> ModelRecord:
    """Find a model and read what it is, without its weights.

    Args:
        name: a folder, or a name on the Hub.
        role: what it is in this evaluation.

    Raises:
        UsageError: there is no such model.
        ModelError: its files are damaged.
        NetworkError: it would have to be fetched and cannot be.
    """
    folder = find_folder(name)
    record = run_record(folder) or {}
    return ModelRecord(
        name=name,
        folder=folder,
        role=role,
        sha256=sha256_json(file_hashes(folder)),
        context=read_config(folder).n_positions,
        trained_on=record.get("data", {}).get("fingerprint"),
        epochs=record.get("plan", {}).get("epochs"),
    )


def find_other(model: ModelRecord, compare_with: str | None) -> tuple[ModelRecord | None, str]:
    """The model to put beside another: the one asked for, or the base its training folder names.

    Returns:
        The other model, or None and the reason why there is none (empty when none was asked for).

    Raises:
        UsageError: the model asked for is not there.
        ModelError: its files are damaged.
        NetworkError: it would have to be fetched and cannot be.
    """
    if compare_with == NO_COMPARISON:
        return None, ""
    if compare_with is not None:
        return find_model(compare_with, role="other"), ""
    record = run_record(model.folder)
    if record is None:
        return None, f"{model.folder} has no {RUN_RECORD}, so its base model is not known; name one with --compare_with"
    if record.get("base") is None:
        return None, (
            f"{model.folder} was trained from scratch: it has no base model, and its untrained start would say nothing"
        )
    try:
        return find_model(str(record["base"]), role="base"), ""
    except Gpt2kitError as error:
        # Nobody asked for it by name, so its absence does not end the evaluation.
        return None, f"its base model {record['base']} is left out: {error}"


def run_record(folder: Path) -> dict[str, Any] | None:
    """What `gpt2kit train` wrote about the run that made a model, or None.

    Raises:
        DataError: it is damaged.
    """
    path = folder / RUN_RECORD
    if not path.is_file():
        return None
    record = read_json(path, what="the record of a training run")
    if not isinstance(record.get("data", {}), dict):
        raise DataError(f"{path}: data should say what the model was trained on")
    return record
