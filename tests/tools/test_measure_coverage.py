"""The coverage of intervals is counted right, on the texts that it says."""

from types import ModuleType

import pytest

from gpt2kit.evaluation.statistics import Figure


def test_a_line_counts_the_intervals_that_hold_the_mean(coverage: ModuleType) -> None:
    figures = [Figure(1.0, (0.5, 1.5)), Figure(2.0, (1.6, 2.4)), Figure(3.0, (2.5, 3.5)), Figure(2.0)]
    assert coverage.coverage_line("some", figures).split() == ["some", "2.0000", "0.7071", "3", "33.3%"]
    assert coverage.coverage_line("none", [Figure(1.0)]).split()[-1] == "nan%"


def test_texts_are_stretches_behind_their_prompts(coverage: ModuleType) -> None:
    words = [f"w{number}" for number in range(1000)]
    starts = []
    texts = coverage.draw_texts(words, 5, 100, seed=1)
    for prompt, text in zip(texts.prompts, texts.texts, strict=True):
        together = prompt.split() + text.split()
        start = int(together[0][1:])
        starts.append(start)
        assert together == words[start : start + len(together)]
        assert 50 <= len(text.split()) <= 150
    assert len({start // 174 for start in starts}) == 5  # none overlap
    assert coverage.draw_texts(words, 5, 100, seed=1).texts == texts.texts


def test_the_program_prints_a_table(coverage: ModuleType, tmp_path, monkeypatch, capsys) -> None:
    file = tmp_path / "text.txt"
    file.write_text("And the king went into the wood. He saw a golden bird, and that it sang. " * 60)
    monkeypatch.setattr(
        "sys.argv", ["x", str(file), "--repeats", "2", "--num_texts", "6", "--words", "60", "--no_space"]
    )
    coverage.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["figure", "mean", "deviation", "intervals", "cover"]
    assert {"distinct_2", "self_bleu", "zipf", "mtld", "reading_ease"} <= {line.split()[0] for line in lines[1:]}
    assert all(line.split()[4] in ("100.0%", "50.0%", "0.0%", "nan%") for line in lines[1:])


def test_too_little_text_is_said(coverage: ModuleType, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "text.txt").write_text("A word " * 100)
    monkeypatch.setattr("sys.argv", ["x", str(tmp_path / "text.txt"), "--no_space"])
    with pytest.raises(SystemExit):
        coverage.main()
    assert "201 words are too few for 32 texts that do not overlap" in capsys.readouterr().err
