"""`gpt2kit prepare`: raw files to documents, tokens and a manifest, made beside and swapped in as a whole."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from gpt2kit import console
from gpt2kit.config import Settings
from gpt2kit.errors import DataError, UsageError
from gpt2kit.files import sha256_file, to_json, write_atomically
from gpt2kit.hub import resolve_base
from gpt2kit.runtime import VERSION, provenance
from gpt2kit.tokens.data import FORMAT, FORMAT_VERSION, MANIFEST, SPLITS, PreparedData, fingerprint_of, read_manifest
from gpt2kit.tokens.encoding import SplitCounts, encode_split
from gpt2kit.tokens.inputs import InputFile, hash_inputs, list_inputs, same_inputs
from gpt2kit.tokens.learn import learn_from_pieces
from gpt2kit.tokens.staging import is_free, locked, recover, replacing
from gpt2kit.tokens.tokenizer import SMALLEST_VOCABULARY, Tokenizer

if TYPE_CHECKING:
    from gpt2kit.corpus import CorpusReport

# Settings that say where things are, not what is made of them.
_PLACES = frozenset({"input", "data_dir"})


class PrepareSettings(Settings):
    """Settings of `gpt2kit prepare`."""

    stage: ClassVar[str] = "prepare"

    input: Path = Field(Path("data/raw"), description="File, or folder of files, with the raw text.")
    data_dir: Path = Field(Path("data/processed"), description="Folder to write the prepared data to.")
    base: str = Field(
        "gpt2",
        description="Base model whose tokenizer is used: a name on the Hub, nano (the small one in this package), or a "
        "folder. Use the model you will fine-tune; all of OpenAI's GPT-2 share one tokenizer.",
    )
    from_scratch: bool = Field(
        False,
        description="Train a tokenizer on the text instead of taking the base's, for a model trained from scratch.",
    )
    vocab_size: int | None = Field(
        None,
        ge=SMALLEST_VOCABULARY,
        le=1 << 20,
        description="Entries of a tokenizer trained with --from_scratch. Default: one for every 100 characters of "
        "training text, rounded to a power of two between 512 and 8,192.",
    )
    validation_fraction: float = Field(
        0.05, ge=0, lt=1, description="Share of the documents held out to watch the training. Less for much text."
    )
    test_fraction: float = Field(
        0.0, ge=0, lt=1, description="Share of the documents held out for the final measurement."
    )
    seed: int = Field(0, description="Seed of the split. The same seed gives the same split.")
    text_field: str | None = Field(
        None, description="Column or field that holds the text in tables and JSON. Default: found by its name."
    )
    encoding: str | None = Field(
        None, description="Encoding of the raw text files, such as latin-1. Default: detected for each file."
    )
    section_chars: int = Field(
        20_000,
        ge=100,
        description="Characters of the sections that a single long text is split by. Smaller spreads the validation "
        "text over more places.",
    )
    skip_bad_files: bool = Field(
        False,
        description="Leave out files that cannot be read, and name them, instead of stopping at the first.",
    )
    completion_separator: str = Field("\n", description="What stands between the prompt and the completion of a pair.")


def prepare(settings: PrepareSettings) -> PreparedData:
    """Make prepared data from raw files, unless it is already there from the same files and settings.

    Args:
        settings: the settings.

    Returns:
        The prepared data; `unchanged` says that nothing had to be done.

    Raises:
        UsageError: the input is not there, or `data_dir` holds other things.
        DataError: there is no text in the input, or it changed while it was read.
        DiskError: the disk is full; what was in `data_dir` before is intact.

    Example:
        data = gpt2kit.prepare(gpt2kit.PrepareSettings(input="data/raw", data_dir="data/processed"))
    """
    _check_places(settings.input, settings.data_dir)
    _warn_of_idle_settings(settings)
    with locked(settings.data_dir):
        recover(settings.data_dir, whole=MANIFEST)
        manifest = _existing_manifest(settings.data_dir)
        tokenizer = None if settings.from_scratch else Tokenizer.from_folder(resolve_base(settings.base))
        listed = list_inputs(settings.input)
        if manifest is not None and _is_current(manifest, settings, listed, tokenizer):
            try:
                data = replace(PreparedData.open(settings.data_dir), unchanged=True)
            except DataError as error:
                console.warn(f"{error}; making it anew")
            else:
                console.say(f"{settings.data_dir}: already prepared from these files with these settings; unchanged")
                return data
        hashed = hash_inputs(listed)
        with replacing(settings.data_dir, whole=MANIFEST) as folder:
            _build(folder, settings, tokenizer, hashed)
            if list_inputs(settings.input) != listed:
                raise DataError(f"{settings.input}: a file changed while it was read; run the same command again")
    return PreparedData.open(settings.data_dir)


def _check_places(source: Path, data_dir: Path) -> None:
    if not source.exists():
        raise UsageError(f"--input {source}: no such file or folder; put your texts there, or name where they are")
    if data_dir.exists() and not data_dir.is_dir():
        raise UsageError(f"--data_dir {data_dir}: is a file; name a folder")
    inside, outside = source.resolve(), data_dir.resolve()
    if inside == outside or inside in outside.parents or outside in inside.parents:
        raise UsageError(f"--data_dir {data_dir}: must not lie in, hold or be --input {source}; name another folder")


def _existing_manifest(data_dir: Path) -> dict[str, Any] | None:
    """The manifest of what is in `data_dir`; None when it is free to be written to, or of a damaged preparation."""
    if not data_dir.exists() or is_free(data_dir):
        return None
    try:
        manifest = read_manifest(data_dir)
    except DataError as error:
        if not all((data_dir / name).is_dir() for name in ("documents", "tokens", "tokenizer")):
            raise UsageError(f"--data_dir {data_dir}: holds other things and is not written to ({error})") from None
        console.warn(f"{error}; making it anew")
        return None
    if manifest is None:
        raise UsageError(
            f"--data_dir {data_dir}: holds other things ({min(data_dir.iterdir()).name}) and is not written to; "
            "name a new or empty folder"
        )
    return manifest


def _warn_of_idle_settings(settings: PrepareSettings) -> None:
    if settings.vocab_size is not None and not settings.from_scratch:
        console.warn("--vocab_size has no effect without --from_scratch: the base model's tokenizer is used")
    if settings.from_scratch and "base" in settings.model_fields_set:
        console.warn(f"--base {settings.base} has no effect with --from_scratch: a new tokenizer is trained")


def _is_current(
    manifest: dict[str, Any], settings: PrepareSettings, listed: list[InputFile], tokenizer: Tokenizer | None
) -> bool:
    if tokenizer is not None and tokenizer.fingerprint != manifest["tokenizer"]["fingerprint"]:
        return False
    if manifest.get("gpt2kit_version") != VERSION or manifest.get("settings") != _lasting(settings):
        return False
    return same_inputs(listed, manifest["inputs"])


def _lasting(settings: PrepareSettings) -> dict[str, Any]:
    return {name: value for name, value in settings.to_dict().items() if name not in _PLACES}


def _build(folder: Path, settings: PrepareSettings, tokenizer: Tokenizer | None, inputs: list[InputFile]) -> None:
    from gpt2kit.corpus import collect_documents, read_pieces

    documents = folder / "documents"
    report = collect_documents(
        settings.input,
        documents,
        validation_fraction=settings.validation_fraction,
        test_fraction=settings.test_fraction,
        seed=settings.seed,
        text_field=settings.text_field,
        encoding=settings.encoding,
        section_chars=settings.section_chars,
        skip_bad_files=settings.skip_bad_files,
    )
    for line in report.summary_lines():
        console.say(line)
    if tokenizer is None:
        tokenizer = learn_from_pieces(
            documents / "train.jsonl",
            vocab_size=settings.vocab_size,
            characters=_characters(report, "train"),
            seed=settings.seed,
            completion_separator=settings.completion_separator,
        )
    tokenizer.save(folder / "tokenizer")
    counts = {
        split: encode_split(
            read_pieces(documents / f"{split}.jsonl"),
            tokenizer,
            folder / "tokens" / split,
            completion_separator=settings.completion_separator,
            what=f"encoding {split}",
            total_characters=_characters(report, split),
        )
        for split in SPLITS
    }
    _check_counts(settings, counts)
    manifest = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "gpt2kit_version": VERSION,
        "fingerprint": fingerprint_of(folder, tokenizer),
        "base": None if settings.from_scratch else settings.base,
        "tokenizer": {
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "end_of_text": tokenizer.end_of_text,
        },
        "completion_separator": settings.completion_separator,
        "splits": {
            split: counts[split].to_dict() | {"documents_sha256": sha256_file(documents / f"{split}.jsonl")}
            for split in SPLITS
        },
        "settings": _lasting(settings),
        "input": str(settings.input),
        "inputs": [entry.to_dict() for entry in inputs],
        "corpus": report.to_dict(),
        "provenance": provenance(),
    }
    write_atomically(folder / MANIFEST, to_json(manifest))


def _characters(report: "CorpusReport", split: str) -> int:
    return report.characters[split]


def _check_counts(settings: PrepareSettings, counts: dict[str, SplitCounts]) -> None:
    for split, found in counts.items():
        for reason, number in found.skipped.items():
            console.warn(f"{split}: {number:,} x {reason}, left out: there is nothing to learn from it")
    if counts["train"].num_tokens == 0:
        raise DataError(f"--input {settings.input}: no text is left for training; add text, or hold out less of it")
