"""`gpt2kit tokenizer train`: a byte-level BPE of a text's own, for a model that starts from scratch."""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from gpt2kit import console
from gpt2kit.config import Settings
from gpt2kit.errors import DataError, ModelError, UsageError
from gpt2kit.files import explained_disk_errors
from gpt2kit.tokens.encoding import sample_texts
from gpt2kit.tokens.tokenizer import SMALLEST_VOCABULARY, Tokenizer, train_tokenizer

_CHARACTERS_TO_LEARN_FROM = 100_000_000  # more text changes a vocabulary hardly, and its word counts fill the memory
_CHARACTERS_TO_MEASURE = 10_000_000
_LARGEST_DEFAULT_VOCABULARY = 8192
_SMALLEST_DEFAULT_VOCABULARY = 512


class TokenizerSettings(Settings):
    """Settings of `gpt2kit tokenizer train`."""

    stage: ClassVar[str] = "tokenizer"

    input: Path = Field(Path("data/raw"), description="File, or folder of files, with the raw text.")
    output_dir: Path = Field(
        Path("models/tokenizer"),
        description="Folder to write the tokenizer to; `gpt2kit prepare --base` takes it.",
    )
    vocab_size: int | None = Field(
        None,
        ge=SMALLEST_VOCABULARY,
        le=1 << 20,
        description="Entries. Default: one for every 100 characters of text, rounded to a power of two between 512 "
        "and 8,192; a model of a few million parameters should not spend more of them on it.",
    )
    seed: int = Field(0, description="Seed of the share that is learned from when there is more than 100 MB of text.")
    text_field: str | None = Field(
        None, description="Column or field that holds the text in tables and JSON. Default: found by its name."
    )
    encoding: str | None = Field(
        None, description="Encoding of the raw text files, such as latin-1. Default: detected for each file."
    )
    skip_bad_files: bool = Field(
        False, description="Leave out files that cannot be read, and name them, instead of stopping at the first."
    )


@dataclass(frozen=True)
class LearnedTokenizer:
    """What `gpt2kit tokenizer train` made.

    Attributes:
        folder: where it lies.
        vocab_size: its entries.
        bytes_per_token: of a sample of the text it learned from.
        unchanged: this very tokenizer lay there already.
    """

    folder: Path
    vocab_size: int
    bytes_per_token: float
    unchanged: bool

    @property
    def status(self) -> str:
        """Either "unchanged" or "finished"."""
        return "unchanged" if self.unchanged else "finished"

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "folder": str(self.folder),
            "vocab_size": self.vocab_size,
            "bytes_per_token": self.bytes_per_token,
            "status": self.status,
        }

    def to_text(self) -> str:
        """The result in a sentence."""
        return (
            f"{self.folder}: a tokenizer of {self.vocab_size:,} entries, {self.bytes_per_token:.2f} bytes per token"
            f"{', as it was' if self.unchanged else ''}"
        )


def learn_tokenizer(settings: TokenizerSettings) -> LearnedTokenizer:
    """Learn a byte-level BPE from raw text, cleaned as `prepare` cleans it; the same text gives the same tokenizer.

    Args:
        settings: the settings.

    Returns:
        What was made; the folder opens with `transformers.AutoTokenizer` too.

    Raises:
        UsageError: the input is not there, or `output_dir` holds other things or another tokenizer.
        DataError: there is no text in the input.
        DiskError: the disk is full.

    Example:
        learn_tokenizer(TokenizerSettings(input="data/raw", output_dir="models/tokenizer", vocab_size=8192))
    """
    from gpt2kit.corpus import collect_documents, read_pieces

    folder = settings.output_dir
    if not settings.input.exists():
        raise UsageError(
            f"--input {settings.input}: no such file or folder; put your texts there, or name where they are"
        )
    standing = _standing(folder)
    with explained_disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            report = collect_documents(
                settings.input,
                Path(temporary),
                validation_fraction=0.0,
                test_fraction=0.0,
                seed=settings.seed,
                text_field=settings.text_field,
                encoding=settings.encoding,
                skip_bad_files=settings.skip_bad_files,
            )
            for line in report.summary_lines():
                console.say(line)
            documents, characters = Path(temporary) / "train.jsonl", report.characters["train"]
            if not characters:
                raise DataError(f"--input {settings.input}: holds no text to learn from")
            tokenizer = learn_from_pieces(
                documents, vocab_size=settings.vocab_size, characters=characters, seed=settings.seed
            )
            share = _CHARACTERS_TO_MEASURE / characters
            sample = sample_texts(read_pieces(documents), share=share, seed=settings.seed, completion_separator="\n")
            bytes_per_token = _bytes_per_token(tokenizer, list(sample))
    if standing is not None and standing.fingerprint != tokenizer.fingerprint:
        raise UsageError(f"--output_dir {folder}: holds another tokenizer; name a new or empty folder")
    if standing is None:
        tokenizer.save(folder)
    return LearnedTokenizer(folder, tokenizer.vocab_size, bytes_per_token, unchanged=standing is not None)


def learn_from_pieces(
    documents: Path, *, vocab_size: int | None, characters: int, seed: int, completion_separator: str = "\n"
) -> Tokenizer:
    """Train a tokenizer on prepared documents (on an even share of them, if they are long).

    Args:
        documents: a file of pieces, as `corpus.collect_documents` writes it.
        vocab_size: entries; None for as many as suit the text's length.
        characters: characters in the file.
        seed: of the share.
        completion_separator: what stands between the prompt and the completion of a pair.
    """
    from gpt2kit.corpus import read_pieces

    wanted = vocab_size or default_vocab_size(characters)
    console.say(f"training a tokenizer with {wanted:,} entries")
    texts = sample_texts(
        read_pieces(documents),
        share=_CHARACTERS_TO_LEARN_FROM / max(characters, 1),
        seed=seed,
        completion_separator=completion_separator,
    )
    tokenizer = train_tokenizer(texts, vocab_size=wanted)
    if vocab_size is not None and tokenizer.vocab_size < vocab_size:
        console.warn(
            f"--vocab_size {vocab_size}: the text has pairs for {tokenizer.vocab_size} entries only; "
            "the tokenizer has that many"
        )
    return tokenizer


def default_vocab_size(num_characters: int) -> int:
    """Entries of a new tokenizer for a text: the power of two nearest to one entry for every 100 characters.

    A model that reads little text should not spend it on spelling (measured, see docs/lab-log.md); tiny Shakespeare,
    with its million characters, gives 8,192.
    """
    power = round(math.log2(max(num_characters / 100, 1)))
    return min(max(1 << power, _SMALLEST_DEFAULT_VOCABULARY), _LARGEST_DEFAULT_VOCABULARY)


def _standing(folder: Path) -> Tokenizer | None:
    """The tokenizer that lies in the output folder; None when the folder is free to be written to."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise UsageError(f"--output_dir {folder}: is a file; name a folder")
    if not any(folder.iterdir()):
        return None
    try:
        return Tokenizer.from_folder(folder)
    except ModelError:
        first = min(path.name for path in folder.iterdir())
        raise UsageError(
            f"--output_dir {folder}: holds other things ({first}) and is not written to; name a new or empty folder"
        ) from None


def _bytes_per_token(tokenizer: Tokenizer, texts: list[str]) -> float:
    num_bytes = sum(len(text.encode()) for text in texts)
    return num_bytes / max(sum(map(len, tokenizer.encode_batch(texts))), 1)
