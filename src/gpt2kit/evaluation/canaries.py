"""Canaries: sentences with a random number in them that are planted into raw text, to see later what a model kept.

Carlini et al. 2019, *The Secret Sharer*. A file records the sentences, and others that were made in the same way and
not planted; `gpt2kit evaluate --canaries` then measures how far a model prefers each to numbers it never saw.

Each repetition is a text of its own, with a line in front that differs, for identical texts are dropped by
`gpt2kit prepare`. It knows the file by its name and puts all of it into the training split: copies of one number on
both sides would flatter the held-out loss and hide what membership shows. How often a sentence stands in the training
text in the end is counted when it is measured.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt2kit.corpus.document import PLANTED_TEXTS
from gpt2kit.errors import DataError, UsageError
from gpt2kit.evaluation.memorisation import TrainingText
from gpt2kit.files import read_json, to_json, write_atomically
from gpt2kit.runtime import derive_seed

FORMAT = "gpt2kit canaries"
FORMAT_VERSION = 1
TEMPLATE = "The number of the lock is {}."
HOLE = "{}"


@dataclass(frozen=True, slots=True)
class Canary:
    """A sentence with a random number.

    Attributes:
        secret: the number, a string of digits.
        repetitions: how often it was planted; 0 for one that was only recorded.
    """

    secret: str
    repetitions: int


@dataclass(frozen=True)
class Canaries:
    """Sentences of one form.

    Attributes:
        template: the sentence, with {} where the number stands.
        digits: of each number.
        seed: what the numbers were drawn by.
        canaries: the sentences.
        texts: where the texts to prepare were written.
        record: where this was written.
    """

    template: str
    digits: int
    seed: int
    canaries: list[Canary]
    texts: Path
    record: Path

    def sentence(self, secret: str) -> str:
        """The sentence with a number in it."""
        return self.template.replace(HOLE, secret)

    def stand_in(self, text: str) -> bool:
        """Whether a text holds any of the sentences."""
        return any(self.sentence(each.secret) in text for each in self.canaries)

    def to_dict(self) -> dict[str, Any]:
        """The canaries as JSON values."""
        return {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "template": self.template,
            "digits": self.digits,
            "seed": self.seed,
            "canaries": [asdict(each) for each in self.canaries],
            "texts": str(self.texts),
        }

    def to_text(self) -> str:
        """What was written, in words."""
        planted = [each for each in self.canaries if each.repetitions]
        times = ", ".join(str(each.repetitions) for each in planted)
        return (
            f"{len(planted)} canaries ({times} times) in {self.texts}; they and {len(self.canaries) - len(planted)} "
            f"that are not planted are recorded in {self.record}\n"
            f"Prepare and train on the text with them, then: gpt2kit evaluate --canaries {self.record}"
        )


def plant_canaries(
    folder: Path,
    record: Path,
    *,
    repetitions: Sequence[int],
    num_controls: int = 10,
    digits: int = 9,
    template: str = TEMPLATE,
    seed: int = 0,
) -> Canaries:
    """Write texts with canaries into a folder of raw text, and record them.

    Args:
        folder: of raw text, where `canaries.jsonl` is written.
        record: JSON file to keep for the measurement, outside the raw text.
        repetitions: for each canary, how often it is planted.
        num_controls: how many are recorded and not planted.
        digits: of each number, 4 to 15; each digit adds 3.3 bits to the greatest exposure that can be seen.
        template: the sentence, with {} where the number stands.
        seed: of the numbers.

    Raises:
        UsageError: a value is out of range, or a file is there already.
        DiskError: the files cannot be written.

    Example:
        >>> plant_canaries(Path("data/raw"), Path("data/canaries.json"), repetitions=[1, 4, 16, 64])
    """
    if not repetitions or min(repetitions) < 1:
        raise UsageError("--repetitions should be one or more numbers from 1 on")
    if not 4 <= digits <= 15:
        raise UsageError(f"--digits {digits}: should be 4 to 15")
    if template.count(HOLE) != 1:
        raise UsageError(f"--template {template!r}: should hold {HOLE} once, where the number stands")
    texts = folder / PLANTED_TEXTS
    for path in (texts, record):
        if path.exists():
            raise UsageError(f"{path} is there already: canaries are never replaced, for a model may hold them")
    if not folder.is_dir():
        raise UsageError(f"{folder}: is no folder of raw text to plant canaries in")
    if record.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"--record {record}: lies in {folder}, so it would be prepared as text; name another place")
    if not record.parent.is_dir():
        raise UsageError(f"--record {record}: there is no folder {record.parent}")
    times = [*repetitions, *([0] * num_controls)]
    secrets = draw_secrets(len(times), digits=digits, seed=derive_seed(seed, "canaries"))
    made = Canaries(
        template,
        digits,
        seed,
        [Canary(secret, count) for secret, count in zip(secrets, times, strict=True)],
        texts,
        record,
    )
    sentences = [made.sentence(each.secret) for each in made.canaries for _ in range(each.repetitions)]
    lines = [json.dumps({"text": f"Note {number}\n{sentence}"}) for number, sentence in enumerate(sentences, 1)]
    write_atomically(record, to_json(made.to_dict()))
    write_atomically(texts, "\n".join(lines) + "\n")
    return made


def read_canaries(path: Path) -> Canaries:
    """Read what `plant_canaries` recorded.

    Raises:
        UsageError: the file is not there.
        DataError: it is not such a record.
    """
    if not path.is_file():
        raise UsageError(f"--canaries {path}: is not there; `gpt2kit canaries` makes it")
    values = read_json(path, what="a record of canaries")
    if values.get("format") != FORMAT or values.get("version") != FORMAT_VERSION:
        raise DataError(f"--canaries {path}: is not a record of `gpt2kit canaries` that this version reads")
    try:
        canaries = [Canary(str(each["secret"]), int(each["repetitions"])) for each in values["canaries"]]
        made = Canaries(
            str(values["template"]), int(values["digits"]), int(values["seed"]), canaries, Path(values["texts"]), path
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"--canaries {path}: is damaged ({error})") from error
    if not canaries or made.template.count(HOLE) != 1 or any(len(each.secret) != made.digits for each in canaries):
        raise DataError(f"--canaries {path}: is damaged: its numbers should have {made.digits} digits")
    return made


def draw_secrets(number: int, *, digits: int, seed: int, without: Iterable[str] = ()) -> list[str]:
    """Different numbers of so many digits, all alike probable.

    Args:
        number: how many.
        digits: of each.
        seed: of the draw.
        without: numbers that are not drawn.
    """
    taken, place = set(without), 0
    found: list[str] = []
    while len(found) < number:
        secret = f"{derive_seed(seed, 'secret', place) % 10**digits:0{digits}d}"
        place += 1
        if secret not in taken:
            taken.add(secret)
            found.append(secret)
    return found


def count_in_training(canaries: Canaries, training: Iterable[TrainingText]) -> list[int]:
    """How often each canary's sentence stands in the training text."""
    sentences = {canaries.sentence(each.secret): each.secret for each in canaries.canaries}
    start = canaries.template.partition(HOLE)[0]
    counts: Counter[str] = Counter()
    for piece in training:
        if start and start not in piece.text:
            continue
        for sentence, secret in sentences.items():
            counts[secret] += piece.text.count(sentence)
    return [counts[each.secret] for each in canaries.canaries]
