"""How often the 95% intervals of an evaluation hold the true value, by simulation.

    python tools/measure_intervals.py [REPEATS]

prints a table as in docs/evaluation.md: for each kind of figure and number of documents, of how many repeats (1,000)
the interval holds the value that the data were drawn around. With 1,000 repeats a share of 95% has a standard error of
0.7 points.
"""

import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gpt2kit.console import Progress, output, text_table
from gpt2kit.evaluation.statistics import Figure, Interval, mean_figure, ratio_figure, ratio_interval, share_figure

Floats = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], tuple[Interval | None, float]]

UNITS = (6, 10, 20, 50, 200)
REPEATS = 1000


def even_documents(draw: np.random.Generator, units: int) -> tuple[Interval | None, float]:
    """Nats per token of documents of like length (log-normal, sigma 0.7) and of difficulty 3 ± 0.4 nats."""
    return _nats(draw, units, spread=0.7, difficulty_U=draw.normal(3, 0.4, size=units))


def uneven_documents(draw: np.random.Generator, units: int) -> tuple[Interval | None, float]:
    """The same of very uneven length (sigma 1.2: one in forty is ten times the median), difficulty log-normal."""
    return _nats(draw, units, spread=1.2, difficulty_U=3 * np.exp(draw.normal(-0.02, 0.2, size=units)))


def longer_is_easier(draw: np.random.Generator, units: int) -> tuple[Interval | None, float]:
    """Documents whose tokens cost 1/8 of a nat less for each factor e of length, as with a growing context."""
    return _longer_easier(draw, units, spread=0.8, per_factor_e=0.125)


def longer_is_far_easier(draw: np.random.Generator, units: int) -> tuple[Interval | None, float]:
    """The same of 0.3 nats, of lengths that differ more (sigma 1.0): the longest decide, and few of them are seen."""
    return _longer_easier(draw, units, spread=1.0, per_factor_e=0.3)


def few_are_hard(draw: np.random.Generator, units: int) -> tuple[Interval | None, float]:
    """Documents of uneven length (sigma 1.0) whose difficulty is skewed: 1 nat and exponentially more, 2 on average."""
    return _nats(draw, units, spread=1.0, difficulty_U=1 + draw.exponential(2, size=units))


def paired_difference(draw: np.random.Generator, units: int) -> tuple[Interval | None, float]:
    """Nats per token that one model saves against another: 0.05, of heavy tails (t with 6 degrees) by document."""
    tokens_U = np.ceil(draw.lognormal(6, 1.0, size=units))
    saved_U = tokens_U * (0.05 + 0.05 * draw.standard_t(6, size=units)) + _noise(draw, tokens_U, 0.3)
    return ratio_interval(saved_U, tokens_U, seed=int(draw.integers(1 << 31))), 0.05


def normal_mean(draw: np.random.Generator, units: int) -> tuple[Interval | None, float]:
    """A mean over texts of a normal figure."""
    figure = mean_figure(draw.normal(2, 1, size=units).tolist(), seed=int(draw.integers(1 << 31)))
    return _interval(figure), 2.0


def skewed_mean(draw: np.random.Generator, units: int) -> tuple[Interval | None, float]:
    """A mean over texts of a log-normal figure (sigma 0.5)."""
    figure = mean_figure(np.exp(draw.normal(0, 0.5, size=units)).tolist(), seed=int(draw.integers(1 << 31)))
    return _interval(figure), float(np.exp(0.125))


def share_of_words(draw: np.random.Generator, units: int) -> tuple[Interval | None, float]:
    """The share of words that are copied: one in twenty, by text from a beta distribution (0.5, 9.5)."""
    words_U = np.ceil(draw.lognormal(5, 0.3, size=units)).astype(np.int64)
    copied_U = draw.binomial(words_U, draw.beta(0.5, 9.5, size=units))
    figure = ratio_figure(copied_U.tolist(), words_U.tolist(), seed=int(draw.integers(1 << 31)))
    return _interval(figure), 0.05


def share_of_texts(draw: np.random.Generator, units: int) -> tuple[Interval | None, float]:
    """The share of texts that end by themselves, an accuracy: three in ten."""
    figure = share_figure((draw.random(units) < 0.3).tolist())
    return _interval(figure), 0.3


SCENARIOS: dict[str, Draw] = {
    "perplexity, documents of like length": even_documents,
    "perplexity, documents of very uneven length": uneven_documents,
    "perplexity, longer documents easier": longer_is_easier,
    "perplexity, longer documents far easier": longer_is_far_easier,
    "perplexity, few documents very hard": few_are_hard,
    "difference of two models, in pairs": paired_difference,
    "mean over texts, normal": normal_mean,
    "mean over texts, skewed": skewed_mean,
    "share of words, one in twenty": share_of_words,
    "share of texts, accuracy": share_of_texts,
}


def coverage(scenario: Draw, units: int, *, repeats: int = REPEATS) -> float:
    """The share of repeats whose interval holds the true value; one without an interval does not."""
    held = 0
    for repeat in range(repeats):
        bounds, value = scenario(np.random.default_rng([repeat, units]), units)
        held += bounds is not None and bounds[0] <= value <= bounds[1]
    return held / repeats


def _interval(figure: Figure | None) -> Interval | None:
    return None if figure is None else figure.interval


def _nats(
    draw: np.random.Generator, units: int, *, spread: float, difficulty_U: Floats
) -> tuple[Interval | None, float]:
    tokens_U = np.ceil(draw.lognormal(5, spread, size=units))
    nats_U = tokens_U * difficulty_U + _noise(draw, tokens_U, 2.0)
    return ratio_interval(nats_U, tokens_U, seed=int(draw.integers(1 << 31))), 3.0


def _longer_easier(
    draw: np.random.Generator, units: int, *, spread: float, per_factor_e: float
) -> tuple[Interval | None, float]:
    z_U = draw.normal(size=units)
    tokens_U = np.exp(6 + spread * z_U)
    nats_U = tokens_U * (3 - per_factor_e * spread * z_U + draw.normal(0, 0.3, size=units))
    # The mean over tokens: lengths weigh z by exp(spread z), whose mean is then the spread.
    value = 3 - per_factor_e * spread**2
    return ratio_interval(nats_U + _noise(draw, tokens_U, 2.5), tokens_U, seed=int(draw.integers(1 << 31))), value


def _noise(draw: np.random.Generator, tokens_U: Floats, per_token: float) -> Floats:
    """What single tokens add to a document's sum."""
    return draw.normal(size=len(tokens_U)) * per_token * np.sqrt(tokens_U)


def main() -> None:
    """Print the table."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else REPEATS
    rows = []
    with Progress("simulating", total=len(SCENARIOS) * len(UNITS), unit=" cells") as progress:
        for title, scenario in SCENARIOS.items():
            row = [title]
            for units in UNITS:
                row.append(f"{100 * coverage(scenario, units, repeats=repeats):.1f}%")
                progress.advance()
            rows.append(row)
    headers = ["figure", *(f"{units} documents" for units in UNITS)]
    output(text_table(rows, headers, markdown=True, right_align=range(1, len(headers))))


if __name__ == "__main__":
    main()
