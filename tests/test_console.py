"""Results on stdout, everything else on stderr, and progress that is quiet about short work."""

import sys

import pytest

from gpt2kit import console


def test_results_and_remarks_go_to_different_places(capsys: pytest.CaptureFixture[str]) -> None:
    console.output("result")
    console.output("part", end="")
    console.say("remark")
    console.warn("careful")
    captured = capsys.readouterr()
    assert captured.out == "result\npart"
    assert captured.err == "remark\nwarning: careful\n"


def test_a_table_aligns_numbers_and_keeps_their_text() -> None:
    table = console.text_table([["loss", "1.50"], ["tokens", "12,000"]], ["what", "value"], right_align=(1,))
    assert table.splitlines() == [
        "what      value",
        "------  -------",
        "loss       1.50",
        "tokens   12,000",
    ]
    markdown = console.text_table([["loss", "1.50"]], ["what", "value"], markdown=True, right_align=(1,))
    assert markdown.splitlines()[1] == "|:-------|--------:|"
    assert "what" in console.text_table([], ["what", "value"])


def test_short_work_shows_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(console.tracked(range(3), "counting", total=3, unit="items")) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_long_work_shows_plain_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(clock)))
    with console.Progress("reading", total=40, unit="B", initial=10) as progress:
        for _ in range(3):
            progress.advance(10, note="loss 2.5")
    lines = capsys.readouterr().err.splitlines()
    # lines at 12 s, 30 of 40 done: 20 more than at the start, so 12/20·10 s are left
    assert lines == ["reading: 75% 30.0/40.0 1.67B/s, 00:06 left, loss 2.5"]


def test_work_of_unknown_size_shows_what_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 12))
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(clock)))
    console.Progress("reading", total=None, unit="B").advance(24)
    assert capsys.readouterr().err.startswith("reading: 24.0")


def test_a_bar_is_drawn_on_a_terminal_and_wiped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_BAR_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with console.Progress("reading", total=2, unit="B") as progress:
        progress.advance(1, note="loss 2.5")
        progress.advance(1)
        console.say("a remark above the bar")
    shown = capsys.readouterr().err
    assert "reading:" in shown
    assert "a remark above the bar\n" in shown
