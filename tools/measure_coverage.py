"""How often the 95% intervals of the figures on texts hold the true value.

    python tools/measure_coverage.py shared.txt --repeats 1000 --num_texts 32 --words 150

The texts are stretches of a UTF-8 file, drawn at random from all that it has: each repeat is a sample of texts of that
author or collection, measured as `gpt2kit evaluate` measures a model's. The true value of a figure is its mean over all
repeats, for most figures depend on the number of texts: what they are for so many texts.
"""

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpt2kit.evaluation.coherence import SentenceSpace, passages
from gpt2kit.evaluation.statistics import Figure
from gpt2kit.evaluation.texts import TextSet, measure_texts

_PROGRESS_REPEATS = 200
_PROMPT_WORDS = 24


def main() -> None:
    """Print a table of coverage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--num_texts", type=int, default=32)
    parser.add_argument("--words", type=int, default=150)
    parser.add_argument("--no_space", action="store_true", help="leave out coherence")
    asked = parser.parse_args()
    whole = "\n\n".join(path.read_text(encoding="utf-8") for path in asked.text)
    space = None if asked.no_space else SentenceSpace(passages([whole], max_characters=10**6), seed=0)
    words, found = whole.split(" "), list[dict[str, Figure]]()
    if len(words) < asked.num_texts * _cell(asked.words):
        parser.error(f"{len(words):,} words are too few for {asked.num_texts} texts that do not overlap")
    for repeat in range(asked.repeats):
        found.append(measure(draw_texts(words, asked.num_texts, asked.words, seed=repeat), space, seed=repeat))
        if len(found) % _PROGRESS_REPEATS == 0 and len(found) < asked.repeats:
            print(f"after {len(found)} repeats:\n{table(found)}", file=sys.stderr)
    print(table(found))


def table(found: Sequence[dict[str, Figure]]) -> str:
    """A row for each figure."""
    rows = [f"{'figure':<20} {'mean':>9} {'deviation':>9} {'intervals':>9} {'cover':>6}"]
    rows += [coverage_line(name, [figures[name] for figures in found if name in figures]) for name in found[0]]
    return "\n".join(rows)


def draw_texts(words: Sequence[str], num_texts: int, length: int, *, seed: int) -> TextSet:
    """Stretches of half to one and a half times the length, each behind a prompt of 24 words; none overlap.

    Each lies in a cell of its own: two that share a passage word for word would be no texts of two places.
    """
    draw = random.Random(seed)
    longest, cell = length + length // 2, _cell(length)
    texts, prompts = [], []
    for start in draw.sample(range(0, len(words) - cell + 1, cell), num_texts):
        middle = start + _PROMPT_WORDS
        prompts.append(" ".join(words[start:middle]))
        texts.append(" ".join(words[middle : middle + draw.randint(length // 2, longest)]))
    return TextSet("human", texts, prompts)


def _cell(length: int) -> int:
    return length + length // 2 + _PROMPT_WORDS


def measure(texts: TextSet, space: SentenceSpace | None, *, seed: int) -> dict[str, Figure]:
    """All figures of a set of texts that are made from it alone."""
    return measure_texts({"human": texts}, training=None, space=space, copy_words=8, seed=seed).sets["human"].figures


def coverage_line(name: str, figures: Sequence[Figure]) -> str:
    """A row of the table: mean and deviation of the figure, how many have an interval, and how many of these cover."""
    values = np.array([figure.value for figure in figures])
    intervals = [figure.interval for figure in figures if figure.interval is not None]
    truth = values.mean()
    covered = np.mean([low <= truth <= high for low, high in intervals]) if intervals else np.nan
    return f"{name:<20} {truth:9.4f} {values.std():9.4f} {len(intervals):9d} {100 * covered:5.1f}%"


if __name__ == "__main__":
    main()
