"""Prepared data: the folder that `gpt2kit prepare` makes and every later stage reads.

The readers of raw text are imported where they are used: training and generation never need them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gpt2kit.console import text_table
from gpt2kit.errors import DataError, UsageError
from gpt2kit.files import read_json, sha256_file, sha256_json
from gpt2kit.tokens.staging import locked, recover, was_interrupted
from gpt2kit.tokens.store import HEADER, TokenStore
from gpt2kit.tokens.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt2kit.corpus import Piece

MANIFEST = "manifest.json"
FORMAT = "gpt2kit data"
FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")
_REMEDY = "prepare the data again (`gpt2kit prepare`)"
_SWAP_SECONDS = 10  # how long another process may take to put a new folder in the place of the old


@dataclass(frozen=True, slots=True)
class PreparedData:
    """The documents, tokens and tokenizer that `gpt2kit prepare` made.

    Attributes:
        folder: where they lie.
        manifest: what they are and what made them; `fingerprint` changes whenever a token does.
        tokenizer: the tokenizer of all splits.
        unchanged: `prepare` found them already made from the same files with the same settings.

    Example:
        data = PreparedData.open("data/processed")
        data.store("train").num_tokens
    """

    folder: Path
    manifest: dict[str, Any]
    tokenizer: Tokenizer
    unchanged: bool = False

    @classmethod
    def open(cls, data_dir: str | Path) -> Self:
        """Open prepared data, and check that its parts are there and belong together.

        Raises:
            UsageError: there is none in that folder.
            DataError: a part is missing, cut short or not of this preparation.
        """
        folder = Path(data_dir)
        if was_interrupted(folder):
            with locked(folder, wait_seconds=_SWAP_SECONDS):
                recover(folder, whole=MANIFEST)
        manifest = read_manifest(folder)
        if manifest is None:
            raise UsageError(
                f"{data_dir}: no prepared data here ({MANIFEST} is missing); make some with "
                f"`gpt2kit prepare --input data/raw --data_dir {data_dir}`"
            )
        tokenizer = Tokenizer.from_folder(folder / "tokenizer")
        if tokenizer.fingerprint != manifest["tokenizer"]["fingerprint"]:
            raise DataError(f"{folder / 'tokenizer'}: not the tokenizer the tokens were made with; {_REMEDY}")
        data = cls(folder, manifest, tokenizer)
        for split in SPLITS:
            data.store(split)
            if not data._documents_file(split).is_file():
                raise DataError(f"{data._documents_file(split)}: is missing; {_REMEDY}")
        return data

    @property
    def base(self) -> str | None:
        """The base model whose tokenizer was used, as the user named it; None for a tokenizer trained from scratch."""
        base: str | None = self.manifest["base"]
        return base

    def store(self, split: str) -> TokenStore:
        """The tokens of "train", "validation" or "test"; a split may be empty.

        Raises:
            UsageError: there is no such split.
            DataError: the store is damaged or not of this preparation.
        """
        self._check_split(split)
        store = TokenStore.open(self.folder / "tokens" / split)
        expected = (self.manifest["splits"][split]["num_tokens"], self.manifest["tokenizer"]["fingerprint"])
        if (store.num_tokens, store.tokenizer_fingerprint) != expected:
            raise DataError(f"{store.folder}: its tokens are of another preparation than {MANIFEST}; {_REMEDY}")
        return store

    def documents(self, split: str) -> "Iterator[Piece]":
        """The texts of a split as the tokens were made from them, in the same order.

        Raises:
            UsageError: there is no such split.
        """
        from gpt2kit.corpus import read_pieces

        self._check_split(split)
        return read_pieces(self._documents_file(split))

    def verify(self) -> None:
        """Read everything and compare it with the hashes of the manifest.

        Raises:
            DataError: something is not as it was written.
        """
        for split in SPLITS:
            self.store(split).verify()
            path = self._documents_file(split)
            if sha256_file(path) != self.manifest["splits"][split]["documents_sha256"]:
                raise DataError(f"{path}: its content has changed; {_REMEDY}")
        if fingerprint_of(self.folder, self.tokenizer) != self.manifest["fingerprint"]:
            raise DataError(f"{self.folder / MANIFEST}: its fingerprint is not that of the tokens; {_REMEDY}")

    def to_dict(self) -> dict[str, Any]:
        """What was made, as JSON values: the folder, the manifest, and whether it was there already."""
        return {"data_dir": str(self.folder), "unchanged": self.unchanged, "manifest": self.manifest}

    def to_text(self) -> str:
        """What was made, as a table for people."""
        rows = [
            (
                split,
                f"{counts['num_documents']:,}",
                f"{counts['num_tokens']:,}",
                f"{counts['num_targets']:,}",
                f"{counts['num_bytes']:,}",
            )
            for split, counts in self.manifest["splits"].items()
        ]
        title = f"{self.folder}: {'unchanged' if self.unchanged else 'prepared'}"
        table = text_table(
            rows, ("split", "documents", "tokens", "with loss", "bytes of text"), right_align=(1, 2, 3, 4)
        )
        return f"{title}\n\n{table}"

    def _documents_file(self, split: str) -> Path:
        return self.folder / "documents" / f"{split}.jsonl"

    def _check_split(self, split: str) -> None:
        if split not in SPLITS:
            raise UsageError(f"{split!r}: no such split; the splits are {', '.join(SPLITS)}")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder of prepared data, or None where there is none of ours.

    Raises:
        DataError: it is damaged, or of another version of the format.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    manifest = read_json(path, what="the manifest of prepared data")
    if manifest.get("format") != FORMAT:
        return None
    if manifest.get("version") != FORMAT_VERSION:
        raise DataError(
            f"{path}: format version {manifest.get('version')}, and this gpt2kit reads {FORMAT_VERSION}; {_REMEDY}"
        )
    splits, tokenizer = manifest.get("splits"), manifest.get("tokenizer")
    if (
        not isinstance(manifest.get("fingerprint"), str)
        or "base" not in manifest
        or not isinstance(manifest.get("inputs"), list)
        or not isinstance(tokenizer, dict)
        or not isinstance(tokenizer.get("fingerprint"), str)
        or not isinstance(splits, dict)
        or not all(isinstance(splits.get(split), dict) and "num_tokens" in splits[split] for split in SPLITS)
    ):
        raise DataError(f"{path}: an entry is missing or of the wrong kind; {_REMEDY}")
    return manifest


def fingerprint_of(folder: Path, tokenizer: Tokenizer) -> str:
    """A hash of the tokenizer and of all tokens, document borders and loss masks."""
    stores = {
        split: {
            name: entry["sha256"]
            for name, entry in read_json(folder / "tokens" / split / HEADER, what="a header")["arrays"].items()
        }
        for split in SPLITS
    }
    return sha256_json({"tokenizer": tokenizer.fingerprint, "tokens": stores})
