"""A model together with its tokenizer: what turns text into text."""

from dataclasses import dataclass
from pathlib import Path

from gpt2kit.errors import ModelError, UsageError
from gpt2kit.generation.settings import DEFAULT_MODEL_DIR
from gpt2kit.hub import resolve_base
from gpt2kit.model import GPT2, load_model, tokenizer_folder
from gpt2kit.runtime import Precision, select_device, select_dtype
from gpt2kit.tokens import Tokenizer

_TRAINING_RECORD = "training"


@dataclass(frozen=True)
class LanguageModel:
    """A GPT-2 and its tokenizer.

    Attributes:
        model: the network; it is put into eval mode while it writes.
        tokenizer: its tokenizer.
        folder: where it came from.

    Raises:
        ModelError: the tokenizer has ids that the network has no embedding for.
    """

    model: GPT2
    tokenizer: Tokenizer
    folder: Path

    def __post_init__(self) -> None:
        if self.tokenizer.vocab_size > self.model.config.vocab_size:
            raise ModelError(
                f"{self.folder}: its tokenizer has {self.tokenizer.vocab_size:,} entries and its network "
                f"{self.model.config.vocab_size:,}; they do not belong together"
            )

    @property
    def texts_begin_with_end_of_text(self) -> bool:
        """Whether it was trained by gpt2kit, where an end-of-text stands in front of every text."""
        return (self.folder / _TRAINING_RECORD).is_dir()


def find_folder(name: str | Path) -> Path:
    """The folder of the model that a user named.

    Raises:
        UsageError: there is none; where `gpt2kit train` would put it, that command is named.
        NetworkError: a name on the Hub, which cannot be reached.
    """
    if not Path(name).exists() and Path(name) == Path(DEFAULT_MODEL_DIR):
        raise UsageError(
            f"--model_dir {name}: there is no model yet; make one with `gpt2kit train`, or name another one "
            "(a folder, or gpt2)"
        )
    return resolve_base(name)


def load(folder: str | Path, *, device: str = "auto", precision: Precision = "auto") -> LanguageModel:
    """Open a model folder (a whole model, or a LoRA adapter, which is merged) with its tokenizer.

    Args:
        folder: the folder, or a model's name on the Hub such as "gpt2".
        device: "auto", "cpu", "cuda", "cuda:1", "mps".
        precision: what to compute in; "auto" is bf16 or fp16 on a GPU and fp32 elsewhere.

    Raises:
        UsageError: there is no such folder or device.
        ModelError: the folder's files are damaged, do not agree with each other, or lack a tokenizer.
        NetworkError: a name on the Hub, which cannot be reached.

    Example:
        >>> model = load("models/gpt2_fine_tuned")
        >>> generate(model, ["Once upon a time"], GenerateSettings(seed=0))[0].text
    """
    path = find_folder(folder)
    chosen = select_device(device)
    model = load_model(path, device=chosen, dtype=select_dtype(precision, chosen))
    return LanguageModel(model=model, tokenizer=Tokenizer.from_folder(tokenizer_folder(path)), folder=path)
