"""What the studies train and measure on: a part of a book for training, and test text that chose nothing."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock

from gpt2kit.errors import UsageError
from gpt2kit.files import sha256_json, write_atomically
from gpt2kit.runtime import derive_seed, uniform
from gpt2kit.tokens import PreparedData, PrepareSettings, prepare
from gpt2kit.tokens.data import MANIFEST

ROOT = Path(__file__).parent.parent
BLOCK_CHARACTERS = 4_000  # about a page and a half; the test text is spread over the whole book
SECTION_CHARACTERS = 1_500  # validation text comes from several places even of a short text
TALES = "tales"  # the tales that come with the project, for trials without the corpora
CORPORA = {
    "andersen": "andersen_fairy_tales.txt",
    "doyle": "conan_doyle_sherlock_holmes.txt",
    "shakespeare": "tinyshakespeare.txt",
}


@dataclass(frozen=True)
class Text:
    """A text to learn from, held-out parts beside it.

    Attributes:
        corpus: "andersen", "doyle", "shakespeare", or "tales".
        share: of all that is not test text.
        characters: instead of a share; 0 is the share.
        validation_fraction: share of it that watches the training.
        test_characters: of the test text, about; the same text for every share, `characters` and seed.
        seed: of which part is taken. A smaller part is held in every larger one of the same seed.
    """

    corpus: str
    share: float = 1.0
    characters: int = 0
    validation_fraction: float = 0.1
    test_characters: int = 40_000
    seed: int = 0

    @property
    def key(self) -> str:
        """A name for the folder of this text."""
        return f"{self.corpus}-{sha256_json(asdict(self))[:12]}"


def make(text: Text, folder: Path) -> tuple[PreparedData, Path]:
    """Write the raw text and prepare it for nano, unless that is done.

    Args:
        text: what to make.
        folder: where all texts of the studies lie.

    Returns:
        The prepared data, and the file of the test text.
    """
    place = folder / text.key
    place.mkdir(parents=True, exist_ok=True)
    data, test_file = place / "data", place / "test.txt"
    # Runs of a study are processes beside each other: the first one prepares, the others wait.
    with FileLock(place / "lock"):
        if (data / MANIFEST).exists():
            return PreparedData.open(data), test_file
        training, test = cut(read(text.corpus), text)
        raw = place / "raw" / "train.txt"
        raw.parent.mkdir(exist_ok=True)
        write_atomically(raw, training)
        write_atomically(test_file, test)
        settings = PrepareSettings(
            input=raw,
            data_dir=data,
            base="nano",
            validation_fraction=text.validation_fraction,
            section_chars=SECTION_CHARACTERS,
            seed=text.seed,
        )
        return prepare(settings), test_file


def read(corpus: str) -> str:
    """A corpus as one string.

    Raises:
        UsageError: the folder of the corpora is not named, or the file is not in it.
    """
    if corpus == TALES:
        return "\n\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "data" / "raw").rglob("*.txt")))
    home = os.environ.get("GPT2KIT_CORPORA")
    if not home:
        raise UsageError("GPT2KIT_CORPORA is not set: name the folder that holds finetune/, or make a trial by --quick")
    path = Path(home) / "finetune" / CORPORA[corpus]
    if not path.exists():
        raise UsageError(f"GPT2KIT_CORPORA={home}: there is no {path}")
    return path.read_text(encoding="utf-8")


def cut(content: str, text: Text) -> tuple[str, str]:
    """Part a corpus into training and test text.

    Blocks of whole paragraphs are dealt out: every so many-th is test text, whatever else is asked for; of the others
    so many as are wanted are drawn, and stand in their own order.
    """
    dealt = blocks(content)
    num_test = max(round(text.test_characters / BLOCK_CHARACTERS), 1)
    step = max(len(dealt) // num_test, 2)
    test = dealt[step // 2 :: step][:num_test]
    rest = [block for number, block in enumerate(dealt) if number % step != step // 2 or number // step >= num_test]
    wanted = text.characters or text.share * sum(map(len, rest))
    seed = derive_seed("experiments", text.corpus, text.seed)
    drawn: list[int] = []
    total = 0.0
    for number in sorted(range(len(rest)), key=lambda each: uniform(seed, "block", each)):
        if total >= wanted:
            break
        drawn.append(number)
        total += len(rest[number])
    excess = int(total - wanted)
    chosen = {number: rest[number] for number in drawn}
    if excess > 0:
        chosen[drawn[-1]] = chosen[drawn[-1]][:-excess]
    return "\n\n".join(chosen[number] for number in sorted(chosen)), "\n\n".join(test)


def blocks(content: str) -> list[str]:
    """Whole paragraphs of about `BLOCK_CHARACTERS` together; of test text, the blocks that it was made of."""
    found: list[str] = []
    here: list[str] = []
    size = 0
    for paragraph in content.split("\n\n"):
        here.append(paragraph)
        size += len(paragraph) + 2
        if size >= BLOCK_CHARACTERS:
            found.append("\n\n".join(here))
            here, size = [], 0
    return [*found, "\n\n".join(here)] if here else found
