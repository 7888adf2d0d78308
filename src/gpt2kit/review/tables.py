"""The results of a review as tables of text."""

from gpt2kit.console import text_table
from gpt2kit.evaluation.statistics import Figure
from gpt2kit.review.results import Match, Results


def results_text(found: Results) -> str:
    """Tables and sentences for a terminal."""
    blocks = []
    if found.num_judgements:
        blocks += [
            text_table(place_rows(found), ["contestant", "strength", "judgements"], right_align=(1, 2)),
            text_table(
                [match_cells(match) for match in found.matches], MATCH_HEADERS, right_align=range(2, len(MATCH_HEADERS))
            ),
        ]
    if found.raters:
        rows = [
            [each.name, each.num_judgements, each.num_skipped, seconds_text(each.median_seconds)]
            for each in found.raters
        ]
        blocks.append(text_table(rows, ["person", "judgements", "skipped", "median time"], right_align=(1, 2, 3)))
    return "\n\n".join([*blocks, "\n".join(found.statements()), EXPLANATION])


MATCH_HEADERS = ["first", "second", "wins", "losses", "ties", "win rate of the first", "expected score", "clear"]
EXPLANATION = (
    "Strength: log-odds of the Bradley-Terry model against the mean of those it compares with, ties as half a win. "
    "Expected score: wins plus half the ties, from all judgements. In brackets: 95% intervals, each by itself, over "
    "prompts; for the win rate, which leaves ties out, Wilson's. Clear: p at most 5% after Holm's "
    "correction for the number of pairs."
)


def place_rows(found: Results) -> list[list[str]]:
    """A row a contestant."""
    return [
        [
            place.name,
            "cannot be told" if place.strength is None else _signed(place.strength),
            f"{place.num_judgements:,}",
        ]
        for place in found.places
    ]


def match_cells(match: Match) -> list[str]:
    """A row of the table of matches."""
    found = match.difference
    score = "cannot be told" if found is None else _percent(Figure(found.score, found.score_interval))
    return [
        match.first,
        match.second,
        str(match.wins),
        str(match.losses),
        str(match.ties),
        "-" if match.win_rate is None else _percent(match.win_rate),
        score,
        "yes" if match.is_clear else "no",
    ]


def seconds_text(seconds: float | None) -> str:
    """A time for a person."""
    return "-" if seconds is None else f"{seconds:.1f} s"


def _signed(figure: Figure) -> str:
    text = f"{figure.value:+.2f}"
    if figure.interval is not None:
        text += f" ({figure.interval[0]:+.2f} to {figure.interval[1]:+.2f})"
    return text


def _percent(figure: Figure) -> str:
    text = f"{100 * figure.value:.0f}%"
    if figure.interval is not None:
        text += f" ({100 * figure.interval[0]:.0f} to {100 * figure.interval[1]:.0f}%)"
    return text
