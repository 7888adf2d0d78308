"""A study from the command line to its page: results as JSON, and tables and pictures from that JSON alone."""

import argparse
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from experiments.runs import Maker, Record, words
from experiments.texts import ROOT
from gpt2kit.console import text_table
from gpt2kit.errors import DataError
from gpt2kit.evaluation.statistics import student_quantile
from gpt2kit.files import read_json, to_json, write_atomically
from gpt2kit.runtime import provenance

DOCS = ROOT / "docs" / "experiments"
PAGES = ROOT / "experiments" / "pages"
_BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end of results -->)", re.DOTALL)

Results = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        name: of its page, its results and its pictures.
        measure: makes the runs and returns the results as JSON values; the flag asks for a small trial.
        tables: from the results, what stands in the page, by the name of its place.
        draw: from the results, the pictures, into a folder.
    """

    name: str
    measure: Callable[[Maker, bool], Results]
    tables: Callable[[Results], dict[str, str]]
    draw: Callable[[Results, Path], None]

    def page(self, results: Results) -> str:
        """The page of the documentation: the words of `experiments/pages`, and the results' tables in their places."""
        words = (PAGES / f"{self.name}.md").read_text(encoding="utf-8")
        return filled_in(words, self.tables(results))

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Make the runs that are not there, write the results, draw the pictures and fill in the page."""
        options = _options(arguments)
        home = options.output_dir / ("quick" if options.quick else "")
        target = home / "docs" if options.quick else DOCS
        results_file = target / "results" / f"{self.name}.json"
        if options.page_only:
            results = read_json(results_file, what="results of a study")
        else:
            deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
            maker = Maker(home, words(options.launcher), words(options.timing_launcher), options.workers, deadline)
            results = {"study": self.name, "quick": options.quick} | self.measure(maker, options.quick)
            results["provenance"] = provenance(["python", "-m", f"experiments.{self.name}"])
            results_file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(results_file, to_json(results))
        (target / "images").mkdir(parents=True, exist_ok=True)
        self.draw(results, target / "images")
        write_atomically(target / f"{self.name}.md", self.page(results))
        print(f"written: {target / self.name}.md")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make a study: runs that are finished are not made again.")
    parser.add_argument("--quick", action="store_true", help="a small trial, from the tales that come with the project")
    parser.add_argument(
        "--page_only", action="store_true", help="tables and pictures anew from the results that are there"
    )
    parser.add_argument("--output_dir", type=Path, default=Path("results/experiments"), help="folder for the runs")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time; those whose time is reported run alone")
    parser.add_argument("--minutes", type=float, help="begin no new run after so long; the same command goes on")
    parser.add_argument("--launcher", default="", help="words in front of each run's command, e.g. 'nice -n 10'")
    parser.add_argument("--timing_launcher", default="", help="the same for runs whose time is reported")
    return parser.parse_args(arguments)


def filled_in(page: str, tables: Mapping[str, str]) -> str:
    """A page with its tables in their places.

    Raises:
        DataError: the page has no place for a table, or a place that has none.
    """
    places = {match.group(2) for match in _BLOCK.finditer(page)}
    if places != set(tables):
        odd = ", ".join(sorted(places ^ set(tables)))
        raise DataError(f"places in the page and tables of the study differ: {odd}")
    return _BLOCK.sub(lambda match: f"{match.group(1)}\n{tables[match.group(2)]}\n\n{match.group(3)}", page)


@dataclass(frozen=True)
class Mean:
    """A mean over seeds, with the half-width of its 95% interval; 0 from one seed."""

    value: float
    half_width: float
    count: int

    def show(self, digits: int = 3, *, sign: bool = False) -> str:
        """The mean and its interval as text."""
        text = f"{self.value:+.{digits}f}" if sign else f"{self.value:.{digits}f}"
        return text if self.count < 2 else f"{text} ± {self.half_width:.{digits}f}"

    @property
    def is_clear(self) -> bool:
        """Whether 0 is outside the interval; never from one seed."""
        return self.count > 1 and abs(self.value) > self.half_width


def mean(values: Sequence[float]) -> Mean:
    """Mean and Student's 95% interval, m ± t · s / √n (Student 1908), of what varies from seed to seed."""
    count = len(values)
    width = student_quantile(count - 1) * stdev(values) / math.sqrt(count) if count > 1 else 0.0
    return Mean(fmean(values), width, count)


def paired(values: Mapping[int, float], others: Mapping[int, float]) -> Mean:
    """The mean of the differences from `others` at the same seeds: the luck that a seed brings to both falls out."""
    return mean([values[seed] - others[seed] for seed in sorted(values) if seed in others])


def by_seed(records: Sequence[Record], name: str, figure: Callable[[Record], float]) -> dict[int, float]:
    """A figure of the runs of a name, by their seed."""
    return {record["seed"]: figure(record) for record in records if record["name"] == name}


def shown_bits(records: Sequence[Record]) -> str:
    """Bits per byte of a setting over its seeds; where the best step is 0, and nano is what was kept, it says so.

    Such a figure is nano's own, and says of the setting only that it never beat the start.
    """
    untrained = sum(record["training"]["best_step"] == 0 for record in records)
    found = mean([record["bits_per_byte"] for record in records])
    if untrained == len(records):
        return f"{found.value:.3f} (nano, unchanged)"
    return found.show() + (f" (nano, unchanged, in {untrained} of {len(records)})" if untrained else "")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left."""
    return text_table(rows, columns, markdown=True, right_align=range(1, len(columns)))
