"""MAUVE by the reference library, on features that gpt2kit's own loader makes; grammar errors by Harper."""

import random

import numpy as np
import pytest
import torch

from gpt2kit import EvaluateSettings, evaluate, load
from gpt2kit.errors import MissingExtraError, UsageError
from gpt2kit.evaluation.grammar import GrammarChecker, grammar_figure
from gpt2kit.evaluation.mauve import hidden_states, mauve_figures, mauve_score
from gpt2kit.evaluation.texts import TextSet, measure_texts
from gpt2kit.evaluation.verdict import text_verdict


@pytest.fixture(scope="module")
def nano():
    return load("nano", engine="torch")


@pytest.fixture(scope="module")
def mauve():
    with pytest.MonkeyPatch.context() as patch:
        # The library would import transformers, for features that it is not asked for.
        patch.setitem(__import__("sys").modules, "transformers", None)
        return pytest.importorskip("mauve")


@pytest.fixture(scope="module")
def checker():
    pytest.importorskip("harper")
    return GrammarChecker()


def test_hidden_states_are_those_of_each_text_alone(nano):
    texts = ["The king", "Once upon a time there was a little girl who lived in a wood.", "A", "far " * 3000]
    together = hidden_states(nano, texts)
    for text, state in zip(texts, together, strict=True):
        ids = torch.tensor([nano.tokenizer.encode(text)[: nano.config.n_positions]])
        with torch.inference_mode():
            alone = nano.model(ids)[0, -1]
        np.testing.assert_allclose(state, alone.double().numpy(), atol=2e-5)


def test_the_score_is_the_librarys_and_silent(mauve, capfd):
    draw = np.random.default_rng(0)
    p, q = draw.normal(size=(60, 8)), draw.normal(size=(60, 8)) + 0.5
    score = mauve_score(p, q, seed=0)
    printed = capfd.readouterr()
    assert printed.err == ""
    assert score == mauve_score(p, q, seed=0)
    assert 0 < score < mauve_score(p, draw.normal(size=(60, 8)), seed=0)


def test_mauve_of_two_known_clusters_is_the_published_formula(mauve):
    """Two far points a set each text sits on: k-means has no choice, so the histograms are known."""
    p_share, q_share, size = 0.8, 0.3, 20
    points = np.array([[1.0, 0.0], [0.0, 1.0]])
    p = points[(np.arange(size) >= p_share * size).astype(int)]
    q = points[(np.arange(size) >= q_share * size).astype(int)]
    expected = _mauve_of_histograms(np.array([p_share, 1 - p_share]), np.array([q_share, 1 - q_share]))
    assert mauve_score(p, q, seed=0) == pytest.approx(expected, abs=1e-9)
    assert mauve_score(p, p, seed=0) == pytest.approx(1.0, abs=1e-9)


def _mauve_of_histograms(p, q) -> float:
    """The area under the divergence curve, scaling factor 5, as the paper defines it, by the trapezoid rule."""

    def divergence(one, other):
        return float((one * np.log(one / other)).sum())

    curve = [(0.0, 1.0)]
    for weight in np.linspace(1e-6, 1 - 1e-6, 25):
        mixed = weight * p + (1 - weight) * q
        curve.append((np.exp(-5 * divergence(q, mixed)), np.exp(-5 * divergence(p, mixed))))
    x, y = np.array([*curve, (1.0, 0.0)]).T
    by_x, by_y = np.argsort(x), np.argsort(y)
    return 0.5 * float(np.trapezoid(y[by_x], x[by_x]) + np.trapezoid(x[by_y], y[by_y]))


def test_texts_of_another_kind_score_lower_than_human_halves(mauve):
    draw = np.random.default_rng(1)
    human, alike = draw.normal(size=(2, 100, 8))
    other = draw.normal(size=(100, 8)) + 1.5
    found = mauve_figures({"model": alike, "base": other, "human": human}, seed=0)
    assert found["model"]["mauve"].value > 0.85
    assert found["base"]["mauve"].value < 0.4
    assert found["model"]["mauve_halves"].value == pytest.approx(found["human"]["mauve_halves"].value, abs=0.06)
    assert "mauve" not in found["human"]
    low, high = found["base"]["mauve"].interval
    assert low < found["base"]["mauve"].value < high
    assert mauve_figures({"model": human[:19], "human": alike[:19]}, seed=0) == {}


def test_nonsense_is_told_from_sentences_in_a_report(mauve, nano):
    draw = random.Random(0)
    words = "the king and his daughter went into the wood to look for a golden bird that sang at night".split()
    human = [f"The {draw.choice(words)} saw {' '.join(words[draw.randrange(9) :])}." for _ in range(40)]
    model = [" ".join(draw.sample(words, 12)) for _ in range(40)]
    sets = {"model": TextSet("m", model, [""] * 40), "human": TextSet("human", human, [""] * 40)}
    report = measure_texts(
        sets, training=None, space=None, copy_words=8, seed=0, featurise=lambda texts: hidden_states(nano, texts)
    )
    own, most = (report.sets[name].figures["mauve_halves"].value for name in ("model", "human"))
    assert own < most - 0.3
    assert any("tells its texts from human ones" in line for line in text_verdict(report, copy_words=8))


def test_missing_libraries_are_named_with_their_extras(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mauve", None)
    monkeypatch.setitem(__import__("sys").modules, "harper", None)
    with pytest.raises(MissingExtraError, match=r"MAUVE needs mauve: pip install 'gpt2kit\[mauve\]'"):
        mauve_score(np.zeros((2, 2)), np.zeros((2, 2)), seed=0)
    with pytest.raises(MissingExtraError, match=r"counting grammar errors needs harper: .*gpt2kit\[grammar\]"):
        GrammarChecker()


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("The king went into the wood, and there he saw a golden bird.", 0),
        ("He go to school every day.", 1),
        ("This is an dog.", 1),
        ("I saw the the cat.", 1),
        ("They was happy.", 1),
        ("He runned away.", 1),
        ("Its a nice day.", 1),
        ("Jorinda said to Joringel that Falada was a horse.", 0),  # names are no errors
    ],
)
def test_planted_grammar_errors_are_counted(checker, text, errors):
    assert checker.count(text) == errors


def test_grammar_errors_are_per_thousand_words(checker):
    texts = ["They was happy. He go into the wood."] * 2 + ["They were happy. He goes into the wood."] * 3
    assert grammar_figure(texts, [8] * 5, checker, seed=0).value == pytest.approx(1000 * 4 / 40)
    assert grammar_figure([], [], checker, seed=0) is None


def small(prepared, folder, tmp_path, **values) -> EvaluateSettings:
    values = {"num_samples": 24, "sample_tokens": 12, "prompt_words": 4, "device": "cpu", "picture": False} | values
    return EvaluateSettings(
        model_dir=str(folder), data_dir=prepared.folder, output_dir=tmp_path / "metrics", compare_with="none", **values
    )


def test_asked_for_both_stand_in_the_report_with_a_warning_on_few_texts(
    mauve, checker, prepared, model_folder, tmp_path
):
    folder = model_folder()
    found = evaluate(small(prepared, folder, tmp_path, mauve=True, mauve_model=str(folder), grammar=True))
    of_model, of_human = (found.texts.sets[name].figures for name in ("model", "human"))
    assert 0 < of_model["mauve"].value <= 1
    assert "mauve_halves" in of_human
    assert "grammar_errors" in of_human
    assert any("MAUVE of 24 texts is rough (better: 500" in line for line in found.warnings)
    assert "MAUVE against human text" in found.to_text()
    assert found.to_dict()["texts"]["sets"]["model"]["figures"]["mauve"]["interval"] is not None


def test_what_is_missing_is_said_before_anything_is_measured(mauve, prepared, model_folder, tmp_path, monkeypatch):
    folder = model_folder()
    with pytest.raises(UsageError, match="no_such_reader"):
        evaluate(small(prepared, folder, tmp_path, mauve=True, mauve_model=str(tmp_path / "no_such_reader")))
    monkeypatch.setitem(__import__("sys").modules, "mauve", None)
    with pytest.raises(MissingExtraError, match=r"gpt2kit\[mauve\]"):
        evaluate(small(prepared, folder, tmp_path, mauve=True))
    assert not (tmp_path / "metrics").exists()
