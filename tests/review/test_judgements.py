"""Judgements in the database, and a review in the terminal."""

import sqlite3

import pytest

from gpt2kit.cli import main
from gpt2kit.errors import DataError, DiskError, UsageError
from gpt2kit.review import ReviewSettings, review
from gpt2kit.review.pairs import make_pairs, read_contestants
from gpt2kit.review.run import ask_in_terminal
from gpt2kit.review.session import Session, rater_name
from gpt2kit.review.store import JudgementStore


@pytest.fixture
def session(report, tmp_path):
    store = JudgementStore(tmp_path / "reviews" / "review.db")
    found = make_pairs(read_contestants([report], with_human=False), same_length=True)
    store.adopt(found.pairs, fingerprint=found.fingerprint, seed=0)
    yield Session(store, seed=0, num_pairs=0)
    store.close()


def test_answers_are_kept_once_taken_back_and_given_again(session):
    store = session.store
    store.begin("Ann")
    turn = session.next_turn("Ann")
    assert turn.position == 0
    assert session.judge("Ann", 0, "left", seconds=3.5)
    assert not session.judge("Ann", 0, "right", seconds=1.0)  # sent twice: the first one stands
    assert [(each.choice, each.seconds) for each in store.judgements()] == [("left", 3.5)]
    assert session.next_turn("Ann").position == 1
    assert session.undo("Ann")
    assert not session.undo("Ann")
    assert store.judgements() == []
    assert session.next_turn("Ann") == turn
    assert session.judge("Ann", 0, "right", seconds=float("nan"))
    kept = store.judgements()[0]
    assert (kept.rater, kept.pair, kept.choice, kept.seconds) == ("Ann", turn.pair.number, "right", None)
    assert kept.left_is_first == turn.left_is_first
    assert kept.score == (0.0 if turn.left_is_first else 1.0)
    rows = sqlite3.connect(store.path).execute("select choice, undone is null from judgement order by id").fetchall()
    assert rows == [("left", 0), ("right", 1)]


def test_everyone_is_asked_all_and_who_has_seen_the_results_no_more(session):
    for rater in ("Ann", "Bob"):
        session.store.begin(rater)
        while (turn := session.next_turn(rater)) is not None:
            session.judge(rater, turn.position, "tie", seconds=None)
        assert session.progress(rater) == (18, 18)
    assert len(session.store.judgements()) == 36
    session.store.finish("Ann")
    assert session.store.has_finished("Ann")
    assert not session.store.has_finished("Bob")
    assert not session.undo("Ann")
    assert session.undo("Bob")
    assert session.next_turn("Bob") is not None
    with pytest.raises(UsageError, match="there is no pair 19; there are 18"):
        session.judge("Bob", 18, "left", seconds=None)


def test_a_database_of_other_texts_or_another_seed_is_not_mixed(session, report):
    store = session.store
    with pytest.raises(UsageError, match="holds judgements of other texts; name another file"):
        store.adopt([], fingerprint="other", seed=0)
    found = make_pairs(read_contestants([report], with_human=False), same_length=True)
    with pytest.raises(UsageError, match=r"--seed 1: .* was begun with 0"):
        store.adopt(found.pairs, fingerprint=found.fingerprint, seed=1)
    store.adopt(found.pairs, fingerprint=found.fingerprint, seed=0)
    assert store.pairs() == found.pairs


def test_files_that_are_no_database_of_a_review(tmp_path):
    text = tmp_path / "text.db"
    text.write_text("no database at all, but quite some text" * 50)
    with pytest.raises(DataError, match=r"text\.db: is not a database of `gpt2kit review`"):
        JudgementStore(text)
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("create table t (x)")
    connection.close()
    with pytest.raises(DataError, match="is not a database of this version"):
        JudgementStore(other)
    with pytest.raises(UsageError, match="there are no judgements yet"):
        JudgementStore(tmp_path / "none.db", read_only=True)


def test_a_database_that_another_program_holds_is_no_damaged_one(session, monkeypatch):
    monkeypatch.setattr("gpt2kit.review.store._PATIENCE_SECONDS", 0.1)
    other = sqlite3.connect(session.store.path, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(DiskError, match=r"cannot be written \(database is locked\); its folder has to be writable"):
        JudgementStore(session.store.path)
    assert JudgementStore(session.store.path, read_only=True).judgements() == []
    other.close()


def test_names_are_kept_as_people_mean_them():
    assert rater_name("  Ann \t Lee ") == "Ann Lee"
    assert rater_name("Zoe\u0308") == "Zoë"
    for wrong, message in (("  ", "give a name"), ("x" * 61, "has 61 characters"), ("a\u200bb", "cannot be seen")):
        with pytest.raises(UsageError, match=message):
            rater_name(wrong)


def test_the_terminal_asks_takes_back_and_goes_on(session):
    answers = iter(["1", "2", "u", "x", "3", "q"])
    assert not ask_in_terminal(session, "Ann", read=lambda _: next(answers))
    assert [each.choice for each in session.store.judgements()] == ["left", "tie"]
    assert ask_in_terminal(session, "Ann", read=lambda _: "s")
    assert len(session.store.judgements()) == 18


def test_the_results_of_a_database(session, capsys):
    session.store.begin("Ann")
    while (turn := session.next_turn("Ann")) is not None:
        session.judge("Ann", turn.position, ("left", "right", "tie")[turn.position % 3], seconds=1.0)
    found = review(ReviewSettings(results=True, database=session.store.path))
    assert found.num_judgements == found.results.num_judgements == 18
    assert main(["review", "--results", "--database", str(session.store.path)]) == 0
    assert "Only 6 prompts were judged" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"host": "0.0.0.0"}, "--host 0.0.0.0 is open to other machines: set a password of 16 characters or more"),
        ({"host": "::"}, "is open to other machines"),
        ({"host": "mybox.example"}, "is open to other machines"),
        ({"key": "short"}, "should have 16 characters or more"),
        ({"terminal": True}, "--terminal needs --rater"),
        ({"terminal": True, "rater": "Ann", "results": True}, "exclude each other"),
        ({"port": 70000}, "--port 70000"),
    ],
)
def test_settings_that_do_not_go(values, message):
    with pytest.raises(UsageError, match=message):
        ReviewSettings(**values)


def test_addresses_of_this_machine_need_no_key():
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        assert ReviewSettings(host=host).is_local
    assert not ReviewSettings(host="0.0.0.0", key="k" * 16).is_local


def test_without_a_report_it_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="make one with `gpt2kit compare`"):
        review(ReviewSettings(terminal=True, rater="Ann"))
    assert list(tmp_path.iterdir()) == []


def test_who_has_seen_the_results_in_the_terminal_is_asked_no_more(report, tmp_path, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda _: "1")
    values = {"inputs": (report,), "database": tmp_path / "review.db", "terminal": True, "rater": "Ann"}
    assert review(ReviewSettings(**values, num_pairs=2)).results.num_judgements == 2
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("asked again"))
    assert review(ReviewSettings(**values, num_pairs=9)).results.num_judgements == 2


@pytest.mark.parametrize("url", ["review.example.org", "ftp://review.example.org", "https://review.example.org/path"])
def test_a_public_url_is_an_address(url):
    with pytest.raises(UsageError, match="should be like https://review"):
        ReviewSettings(public_url=url)
