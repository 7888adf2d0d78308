"""`gpt2kit review`: ask, and say what the answers come to."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2kit.console import say
from gpt2kit.errors import UsageError
from gpt2kit.review.pairs import make_pairs, read_contestants
from gpt2kit.review.results import Results, counted, results
from gpt2kit.review.session import Session, rater_name
from gpt2kit.review.settings import ReviewSettings
from gpt2kit.review.store import Choice, JudgementStore
from gpt2kit.review.tables import results_text
from gpt2kit.runtime import require_extra

_REPORTS = Path("results/comparisons")
_KEYS: dict[str, Choice] = {"1": "left", "2": "right", "3": "tie", "s": "skip"}


@dataclass(frozen=True)
class Review:
    """What `gpt2kit review` did.

    Attributes:
        database: where the judgements are.
        num_judgements: how many stand in it, skipped ones among them.
        results: what they say; None where that is not shown, because people may still be judging.
    """

    database: Path
    num_judgements: int
    results: Results | None = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The review as JSON values."""
        found = None if self.results is None else self.results.to_dict()
        return {"database": str(self.database), "num_judgements": self.num_judgements, "results": found}

    def to_text(self) -> str:
        """The review in words."""
        if self.results is not None:
            return results_text(self.results)
        are = "judgement is" if self.num_judgements == 1 else "judgements are"
        return f"{self.num_judgements:,} {are} in {self.database}; `gpt2kit review --results` says what they show"


def review(settings: ReviewSettings) -> Review:
    """Ask people which of two hidden texts is better, on a page or in the terminal, or show what they answered.

    Args:
        settings: see `ReviewSettings`.

    Returns:
        What was done. A page is served until Ctrl-C.

    Raises:
        UsageError: there are no texts to judge, or the database belongs to others.
        DataError: a file is damaged.
        MissingExtraError: the web server is not installed.
        DiskError: the database cannot be written.

    Example:
        >>> review(ReviewSettings(inputs=("results/comparisons/comparison-001.json",)))
        >>> print(review(ReviewSettings(results=True)).to_text())
    """
    if settings.results:
        return _ended(JudgementStore(settings.database, read_only=True), with_results=True)
    if not settings.terminal:
        for module in ("starlette", "uvicorn"):
            require_extra(module, extra="review", purpose="serving the page of a review (or use --terminal)")
    store = _open(settings)
    session = Session(store, seed=settings.seed, num_pairs=settings.num_pairs)
    if settings.terminal:
        rater = rater_name(settings.rater)
        is_done = store.has_finished(rater) or ask_in_terminal(session, rater, read=input)
        if is_done:
            say(f"{rater} has judged all; who has seen the results is not asked again")
            store.finish(rater)
        return _ended(store, with_results=is_done)
    from gpt2kit.review.server import serve

    serve(session, settings)
    return _ended(store, with_results=False)


def _open(settings: ReviewSettings) -> JudgementStore:
    """The database, with the pairs of these settings in it."""
    sets = read_contestants(settings.inputs or (_newest_report(),), with_human=settings.human)
    found = make_pairs(sets, same_length=settings.same_length)
    if found.num_alike:
        say(f"left out because both texts are the same: {counted(found.num_alike, 'pair')}")
    if found.num_unmatched:
        say(f"left out because not every contestant has a text for that prompt: {counted(found.num_unmatched, 'text')}")
    store = JudgementStore(settings.database)
    try:
        store.adopt(found.pairs, fingerprint=found.fingerprint, seed=settings.seed)
    except UsageError:
        store.close()
        raise
    pairs = counted(len(found.pairs), "pair")
    say(f"{pairs} of {len(found.contestants)} contestants; judgements are kept in {settings.database}")
    return store


def _newest_report() -> Path:
    reports = sorted(_REPORTS.glob("comparison-*.json"), key=lambda path: path.stat().st_mtime)
    if not reports:
        raise UsageError(
            f"there is no report in {_REPORTS}: make one with `gpt2kit compare`, or name files of `gpt2kit generate`"
        )
    return reports[-1]


def _ended(store: JudgementStore, *, with_results: bool) -> Review:
    try:
        judgements = store.judgements()
        found = results(store.pairs(), judgements) if with_results else None
        return Review(store.path, len(judgements), found)
    finally:
        store.close()


def ask_in_terminal(session: Session, rater: str, *, read: Callable[[str], str]) -> bool:
    """Ask in the terminal until all is answered, or the person stops.

    Args:
        session: the review.
        rater: who answers.
        read: shows a question and reads a line; ends with EOFError.

    Returns:
        Whether all was answered.
    """
    session.store.begin(rater)
    while (turn := session.next_turn(rater)) is not None:
        done, number = session.progress(rater)
        say(f"\n—— {done + 1} of {number} ——\n{turn.pair.prompt}\n\n1 ▸ {turn.left_text}\n\n2 ▸ {turn.right_text}\n")
        began = time.monotonic()
        try:
            word = read("better: 1, 2, 3 alike, s skip, u undo, q stop > ").strip().lower()
        except EOFError:
            return False
        if word == "q":
            return False
        if word == "u":
            say("taken back" if session.undo(rater) else "there is nothing to take back")
        elif word in _KEYS:
            session.judge(rater, turn.position, _KEYS[word], seconds=time.monotonic() - began)
        else:
            say(f"{word!r} is none of the answers")
    return True
