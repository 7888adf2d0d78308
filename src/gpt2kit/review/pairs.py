"""The pairs of texts that are shown, and the order and sides in which each person sees them."""

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TypeGuard

from gpt2kit.console import warn
from gpt2kit.errors import DataError, UsageError
from gpt2kit.evaluation.texts import TextSet
from gpt2kit.files import read_json, sha256_json
from gpt2kit.runtime import derive_seed

HUMAN = "human"
_WORD = re.compile(r"\S+")
_EMPTY_LINES = re.compile(r"\n\s*\n\s*\n")


@dataclass(frozen=True, slots=True)
class TextPair:
    """Two texts that go on from the same prompt.

    Attributes:
        number: of the pair.
        prompt_number: of the prompt.
        prompt: the prompt.
        first: whose the one text is.
        second: whose the other is.
        first_text: the text of the first.
        second_text: the text of the second.
    """

    number: int
    prompt_number: int
    prompt: str
    first: str
    second: str
    first_text: str
    second_text: str


@dataclass(frozen=True, slots=True)
class Turn:
    """A pair as a person sees it.

    Attributes:
        position: its place in the person's order, from 0.
        pair: the pair.
        left_is_first: whether the pair's first text stands on the left.
    """

    position: int
    pair: TextPair
    left_is_first: bool

    @property
    def left_text(self) -> str:
        """The text on the left, or above."""
        return self.pair.first_text if self.left_is_first else self.pair.second_text

    @property
    def right_text(self) -> str:
        """The text on the right, or below."""
        return self.pair.second_text if self.left_is_first else self.pair.first_text


@dataclass(frozen=True, slots=True)
class PairSet:
    """All pairs of a review.

    Attributes:
        pairs: the pairs.
        num_alike: pairs left out because both texts are the same.
        num_unmatched: texts left out because another contestant has none for that prompt.
    """

    pairs: list[TextPair]
    num_alike: int
    num_unmatched: int

    @property
    def contestants(self) -> list[str]:
        """Whose texts they are."""
        return list(dict.fromkeys(name for pair in self.pairs for name in (pair.first, pair.second)))

    @property
    def fingerprint(self) -> str:
        """A hash of everything that is judged."""
        return sha256_json(
            [[pair.prompt, pair.first, pair.second, pair.first_text, pair.second_text] for pair in self.pairs]
        )


def read_contestants(inputs: Sequence[Path], *, with_human: bool) -> dict[str, TextSet]:
    """The texts to be judged: those of a comparison (or evaluation), or of several files of `gpt2kit generate`.

    Args:
        inputs: one JSON report, or two or more JSONL files.
        with_human: keep the human texts of a report as a contestant.

    Raises:
        UsageError: a file is not there, or there are no two contestants.
        DataError: a file holds something else.
    """
    if len(inputs) == 1 and inputs[0].suffix == ".json":
        sets = _of_report(inputs[0])
        if not with_human:
            sets.pop(HUMAN, None)
        if len(sets) < 2:
            raise UsageError(
                f"{inputs[0]}: holds texts of {len(sets)} contestant{'s' * (len(sets) != 1)}, and two are needed: give "
                "a report of `gpt2kit compare` with --num_samples, or add --human"
            )
        return sets
    if len(inputs) < 2 or any(path.suffix == ".json" for path in inputs):
        raise UsageError(
            "give one .json report of `gpt2kit compare`, or two or more .jsonl files of `gpt2kit generate`"
        )
    titles = [path.stem for path in inputs]
    if len(set(titles)) < len(titles):
        titles = [str(path.with_suffix("")) for path in inputs]
    if len(set(titles)) < len(titles):
        raise UsageError("the same file is given twice: a text cannot be better than itself")
    from gpt2kit.evaluation.samples import read_given  # imports torch

    given = {title: read_given(path, option="INPUTS") for title, path in zip(titles, inputs, strict=True)}
    if len({each.end_of_text_first for each in given.values()} - {None}) > 1:
        warn(
            "some of these files were written with an end-of-text in front of the prompts and some without: the models "
            "were not asked alike; write them with the same --end_of_text_first"
        )
    return {title: each.texts for title, each in given.items()}


def _of_report(path: Path) -> dict[str, TextSet]:
    samples = read_json(path, what="a report of `gpt2kit compare`").get("samples")
    if not isinstance(samples, dict):
        raise DataError(f"{path}: holds no samples; give the .json of `gpt2kit compare`")
    sets = {}
    for name, each in samples.items():
        texts, prompts = (each.get(key) if isinstance(each, dict) else None for key in ("texts", "prompts"))
        if not _are_texts(texts) or not _are_texts(prompts) or len(texts) != len(prompts):
            raise DataError(f"{path}: the samples of {name!r} should be as many texts as prompts")
        sets[str(name)] = TextSet(str(name), texts, prompts)
    return sets


def _are_texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def make_pairs(sets: Mapping[str, TextSet], *, same_length: bool) -> PairSet:
    """Every two texts of different contestants that go on from the same prompt.

    The k-th text of a prompt is paired with the other's k-th text.

    Args:
        sets: the texts of each contestant.
        same_length: cut the longer text of a pair to as many words as the shorter one has.

    Raises:
        UsageError: there is no pair.
    """
    placed = {name: _by_place(each) for name, each in sets.items()}
    everywhere = [place for place in next(iter(placed.values())) if all(place in each for each in placed.values())]
    prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompt for prompt, _ in everywhere))}
    pairs: list[TextPair] = []
    num_alike = 0
    for place in everywhere:
        for first, second in combinations(placed, 2):
            texts = tidied(placed[first][place]), tidied(placed[second][place])
            if same_length and all(texts):  # a text of nothing is judged as such
                texts = cut_to_same_length(*texts)
            if texts[0] == texts[1]:
                num_alike += 1
                continue
            pairs.append(TextPair(len(pairs), prompts[place[0]], place[0], first, second, *texts))
    if not pairs:
        raise UsageError(
            "there is no pair of different texts from the same prompt: the files should be of the same prompts, "
            "written by different models or with different settings"
        )
    unmatched = sum(len(each) - len(everywhere) for each in placed.values())
    return PairSet(pairs, num_alike, unmatched)


def _by_place(texts: TextSet) -> dict[tuple[str, int], str]:
    """Texts by prompt and turn of that prompt."""
    turns: Counter[str] = Counter()
    placed = {}
    for prompt, text in zip(texts.prompts, texts.texts, strict=True):
        placed[prompt, turns[prompt]] = text
        turns[prompt] += 1
    return placed


def tidied(text: str) -> str:
    """A text as it is shown: nothing empty around it, and of several empty lines one, so that texts fit on a screen."""
    return _EMPTY_LINES.sub("\n\n", text.strip())


def cut_to_same_length(first: str, second: str) -> tuple[str, str]:
    """Both texts with as many words as the shorter one has."""
    words = [[match.end() for match in _WORD.finditer(text)] for text in (first, second)]
    number = min(len(ends) for ends in words)
    if number == 0:
        return "", ""
    return first[: words[0][number - 1]], second[: words[1][number - 1]]


def turns_of(pairs: Sequence[TextPair], rater: str, *, seed: int, limit: int) -> list[Turn]:
    """The order and the sides in which a person sees the pairs.

    Each round asks every two contestants once, each from another prompt as far as there are some, so that whoever stops
    early has judged all of them about equally often. Sides are drawn for each pair.

    Args:
        pairs: all pairs.
        rater: the person's name; others see another order and other sides.
        seed: of the review.
        limit: the most that a person is asked; 0 for all.
    """
    of_two: dict[tuple[str, str], list[TextPair]] = {}
    for pair in pairs:
        of_two.setdefault((pair.first, pair.second), []).append(pair)
    draw = random.Random(derive_seed(seed, "review", rater))
    for queue in of_two.values():
        draw.shuffle(queue)
    ordered: list[TextPair] = []
    while queues := [queue for queue in of_two.values() if queue]:
        draw.shuffle(queues)
        asked: set[int] = set()
        for queue in queues:
            place = next((k for k, pair in enumerate(queue) if pair.prompt_number not in asked), 0)
            ordered.append(queue.pop(place))
            asked.add(ordered[-1].prompt_number)
    chosen = ordered[: limit or None]
    return [Turn(position, pair, draw.random() < 0.5) for position, pair in enumerate(chosen)]
