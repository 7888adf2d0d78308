"""What is said of judgements: agreement, win rates, sides, and what cannot be told."""

import json

import pytest

from gpt2kit.files import to_json
from gpt2kit.review.agreement import agreement
from gpt2kit.review.pairs import TextPair
from gpt2kit.review.results import counted, results
from gpt2kit.review.store import Judgement
from gpt2kit.review.tables import results_text

# Four observers, twelve units: the example of Krippendorff 2011, whose nominal alpha is 0.743.
_OBSERVED = ["123321412...", "1233224125.3", ".3332342251.", "12332441251."]


def test_alpha_of_krippendorffs_example():
    answers = {unit: [row[unit] for row in _OBSERVED if row[unit] != "."] for unit in range(12)}
    found = agreement(answers)
    assert found.alpha == pytest.approx(0.743, abs=5e-4)
    assert found.num_pairs == 11  # one answer alone says nothing


def test_full_agreement_and_none():
    assert agreement({1: ["a", "a"], 2: ["b", "b"]}).alpha == 1.0
    assert agreement({1: ["a", "a"]}).alpha is None
    assert agreement({1: ["a"], 2: []}) is None
    assert agreement({1: ["a", "b"], 2: ["b", "a"]}).share == 0.0


def judged(first, second, outcomes, *, rater="Ann", start=0):
    """Pairs of two contestants, a prompt each, and one judgement of each: + the first wins, - the second, = a tie."""
    pairs, judgements = [], []
    for turn, sign in enumerate(outcomes):
        number = start + turn
        pairs.append(TextPair(number, number, f"prompt {number}", first, second, "one", "two"))
        left_is_first = number % 2 == 0
        choice = {"+": "left" if left_is_first else "right", "-": "right" if left_is_first else "left", "=": "tie"}
        judgements.append(
            Judgement(rater, number, turn, left_is_first, choice.get(sign, "skip"), 2.0 + turn, "2026-01-01")
        )
    return pairs, judgements


def test_wins_ties_and_skips_are_counted_by_contestant_and_not_by_side():
    found = results(*judged("a", "b", "+++++++++++++++---===s"))
    match = found.matches[0]
    assert (match.wins, match.losses, match.ties, found.num_skipped) == (15, 3, 3, 1)
    assert found.num_judgements == 21
    assert match.win_rate.value == pytest.approx(15 / 18)
    assert match.win_rate.interval == pytest.approx((0.6078, 0.9416), abs=5e-4)  # Wilson, by hand
    assert match.is_clear
    assert match.difference.score == pytest.approx(16.5 / 21)
    assert found.raters[0].median_seconds == 12.0
    lines = found.statements()
    assert lines[0].startswith("a is judged better than b (expected score 79%")
    assert json.loads(to_json(found.to_dict()))["matches"][0]["wins"] == 15


def test_too_few_judgements_are_not_enough_and_how_many_would_be():
    found = results(*judged("a", "b", "+++-+--+++--"))
    match = found.matches[0]
    assert not match.is_clear
    assert match.more_judgements > 50
    assert any(
        "No clear difference between a and b" in line and "more judgements" in line for line in found.statements()
    )


def test_a_winner_of_all_is_better_but_nobody_knows_by_how_much():
    pairs, judgements = judged("a", "b", "++++++++++++")
    more_pairs, more_judgements = judged("b", "c", "+-+-+-+-+-+-", start=12)
    found = results(pairs + more_pairs, judgements + more_judgements)
    match = found.matches[0]
    assert match.difference is None
    assert match.is_clear  # by the sign test over twelve prompts, p = 2 / 4096
    assert match.win_rate.value == 1.0
    lines = found.statements()
    assert any(line.startswith("a won all of its 12 judgements against b: better, but how much") for line in lines)
    assert any(line.endswith("cannot be told from the judgements so far: a and c.") for line in lines)
    shown = results_text(found)
    assert next(line for line in shown.splitlines() if line.startswith("a ")).split()[1:4] == ["cannot", "be", "told"]


def test_a_habit_of_choosing_one_side_is_said():
    pairs, judgements = judged("a", "b", "+-" * 20)  # the first stands left in even places: always left
    found = results(pairs, judgements)
    assert found.left_share.value == 1.0
    assert any(line.startswith("Position bias: the left text was preferred in 100%") for line in found.statements())
    pairs, judgements = judged("a", "b", "++--" * 10)
    assert any(line.startswith("No sign of position bias") for line in results(pairs, judgements).statements())


def test_two_people_agree_or_not():
    pairs, of_ann = judged("a", "b", "+-+-+-+-+-+-")
    _, of_bob = judged("a", "b", "+-+-+-+-+--+", rater="Bob")
    found = results(pairs, of_ann + of_bob)
    assert found.agreement.num_pairs == 12
    assert found.agreement.share == pytest.approx(10 / 12)
    assert any("two answers agree 83% of the time" in line for line in found.statements())


def test_nothing_yet():
    pairs, _ = judged("a", "b", "++")
    found = results(pairs, [])
    assert found.statements() == ["There are no judgements yet."]
    assert results_text(found)


def test_a_few_wins_in_a_row_are_chance():
    pairs, judgements = judged("a", "b", "+++")
    found = results(pairs, judgements)
    assert found.matches[0].corrected_p == 0.25
    assert not found.matches[0].is_clear
    assert found.statements()[0] == "a won all of its 3 judgements against b so far, too few to rule out chance."


def test_one_is_not_said_as_several():
    found = results(*judged("a", "b", "+"))
    assert found.statements() == [
        "a won its only judgement against b so far, not enough to rule out chance.",
        "Only 1 prompt was judged: the intervals say little about other prompts and may be too narrow.",
    ]
    assert (counted(0, "tie"), counted(1, "tie"), counted(1200, "tie")) == ("0 ties", "1 tie", "1,200 ties")


def test_what_is_not_clear_needs_more_judgements():
    """By Student's quantile, as the test is made: once it was "about 0 more"."""
    pairs, judgements = [], []
    for prompt, wins in enumerate((4, 4, 3)):
        for turn in range(5):
            number = 5 * prompt + turn
            pairs.append(TextPair(number, prompt, f"prompt {prompt}", "a", "b", "one", "two"))
            choice = "left" if turn < wins else "right"
            judgements.append(Judgement(f"person {turn}", number, number, True, choice, 1.0, "2026-01-01"))
    match = results(pairs, judgements).matches[0]
    assert not match.is_clear
    assert match.more_judgements > 5
