"""Judgements in SQLite: a row each, on the disk before the next pair is shown.

Written in WAL mode with `synchronous = FULL`: after `kill -9` or a power cut everything that was answered is there. A
judgement that was taken back keeps its row, marked `undone`.
"""

import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from gpt2kit.errors import DataError, DiskError, UsageError
from gpt2kit.files import explained_disk_errors
from gpt2kit.review.pairs import TextPair, Turn

Choice = Literal["left", "right", "tie", "skip"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
_VERSION = 1
_PATIENCE_SECONDS = 10
_TABLES = """
create table about (name text primary key, value text not null);
create table pair (
    number integer primary key, prompt_number integer not null, prompt text not null,
    first text not null, second text not null, first_text text not null, second_text text not null
);
create table rater (name text primary key, began text not null, finished text);
create table judgement (
    id integer primary key,
    rater text not null references rater (name),
    pair integer not null references pair (number),
    position integer not null,
    left_is_first integer not null check (left_is_first in (0, 1)),
    choice text not null check (choice in ('left', 'right', 'tie', 'skip')),
    seconds real,
    created text not null,
    undone text
);
create unique index one_judgement on judgement (rater, pair) where undone is null;
"""


@dataclass(frozen=True, slots=True)
class Judgement:
    """An answer that stands.

    Attributes:
        rater: who gave it.
        pair: number of the pair.
        position: place of the pair in the rater's order.
        left_is_first: whether the pair's first text stood on the left.
        choice: "left", "right", "tie" or "skip".
        seconds: time taken while the page was in view; None when the browser did not say.
        created: when, in UTC.
    """

    rater: str
    pair: int
    position: int
    left_is_first: bool
    choice: Choice
    seconds: float | None
    created: str

    @property
    def score(self) -> float | None:
        """Of the pair's first text: 1 when it was better, 0.5 for a tie, 0 when it was worse; None when skipped."""
        if self.choice == "skip":
            return None
        if self.choice == "tie":
            return 0.5
        return 1.0 if (self.choice == "left") == self.left_is_first else 0.0


class JudgementStore:
    """The database of a review.

    Args:
        path: the file; it is made if it is not there.
        read_only: do not make it.

    Raises:
        UsageError: it is not there and `read_only`.
        DataError: it is not a database of a review.
        DiskError: it cannot be written.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        if read_only and not path.is_file():
            raise UsageError(f"--database {path}: there are no judgements yet; `gpt2kit review` asks for them")
        if not read_only:
            with explained_disk_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
        address = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        try:
            self._connection = sqlite3.connect(address, timeout=_PATIENCE_SECONDS, isolation_level=None, uri=True)
            if read_only:
                self._check_version()
            else:
                self._make_tables()
        except sqlite3.OperationalError as error:
            raise DiskError(
                f"--database {path}: cannot be {'read' if read_only else 'written'} ({error}); its folder has to be "
                "writable, with room on the disk, and no other program may hold the file"
            ) from error
        except sqlite3.DatabaseError as error:
            raise DataError(f"--database {path}: is not a database of `gpt2kit review` ({error})") from error

    def _check_version(self) -> None:
        if self._connection.execute("pragma user_version").fetchone()[0] != _VERSION:
            raise DataError(f"--database {self.path}: is not a database of this version of `gpt2kit review`")

    def _make_tables(self) -> None:
        connection = self._connection
        connection.execute("pragma journal_mode = wal")
        connection.execute("pragma synchronous = full")
        connection.execute("pragma foreign_keys = on")
        connection.execute("begin immediate")
        version = connection.execute("pragma user_version").fetchone()[0]
        if version == 0 and not connection.execute("select count(*) from sqlite_master").fetchone()[0]:
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute("insert into about values ('secret', ?)", (secrets.token_hex(32),))
            connection.execute(f"pragma user_version = {_VERSION}")
        connection.execute("commit")
        self._check_version()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def secret(self) -> bytes:
        """A key of this review, for signing forms and cookies; it outlives the server."""
        return bytes.fromhex(self._about("secret") or "")

    def _about(self, name: str) -> str | None:
        row = self._connection.execute("select value from about where name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def adopt(self, pairs: Sequence[TextPair], *, fingerprint: str, seed: int) -> None:
        """Keep the pairs, or check that they are those that are kept.

        Raises:
            UsageError: the file holds judgements of other texts, or with another seed.
        """
        connection = self._connection
        connection.execute("begin immediate")
        try:
            kept = self._about("fingerprint")
            if kept is None:
                rows = [tuple(getattr(pair, name) for name in TextPair.__slots__) for pair in pairs]
                connection.executemany("insert into pair values (?, ?, ?, ?, ?, ?, ?)", rows)
                about = [("fingerprint", fingerprint), ("seed", str(seed))]
                connection.executemany("insert into about values (?, ?)", about)
            elif kept != fingerprint:
                raise UsageError(
                    f"--database {self.path}: holds judgements of other texts; name another file for these"
                )
            elif self._about("seed") != str(seed):
                raise UsageError(
                    f"--seed {seed}: --database {self.path} was begun with {self._about('seed')}, and another would "
                    "change everyone's order"
                )
        except BaseException:
            connection.execute("rollback")
            raise
        connection.execute("commit")

    def pairs(self) -> list[TextPair]:
        """The pairs that are judged."""
        return [TextPair(*row) for row in self._connection.execute("select * from pair order by number")]

    def begin(self, rater: str) -> None:
        """Note that a person has come."""
        self._connection.execute("insert or ignore into rater values (?, ?, null)", (rater, _now()))

    def finish(self, rater: str) -> None:
        """Note that a person will judge no more, for they may see the results now."""
        self._connection.execute("update rater set finished = ? where name = ? and finished is null", (_now(), rater))

    def has_finished(self, rater: str) -> bool:
        """Whether a person may see the results."""
        row = self._connection.execute("select finished from rater where name = ?", (rater,)).fetchone()
        return row is not None and row[0] is not None

    def judge(self, rater: str, turn: Turn, choice: Choice, *, seconds: float | None) -> bool:
        """Keep a judgement; False when there is one of that pair already, which stands."""
        cursor = self._connection.execute(
            "insert or ignore into judgement (rater, pair, position, left_is_first, choice, seconds, created) "
            "values (?, ?, ?, ?, ?, ?, ?)",
            (rater, turn.pair.number, turn.position, int(turn.left_is_first), choice, seconds, _now()),
        )
        return cursor.rowcount == 1

    def undo(self, rater: str) -> bool:
        """Take a person's last judgement back; False when there is none."""
        cursor = self._connection.execute(
            "update judgement set undone = ? where id = "
            "(select max(id) from judgement where rater = ? and undone is null)",
            (_now(), rater),
        )
        return cursor.rowcount == 1

    def judged(self, rater: str) -> set[int]:
        """Numbers of the pairs that a person has answered, skipped ones among them."""
        rows = self._connection.execute("select pair from judgement where rater = ? and undone is null", (rater,))
        return {int(row[0]) for row in rows}

    def judgements(self) -> list[Judgement]:
        """All judgements that stand, in the order they were made."""
        rows = self._connection.execute(
            "select rater, pair, position, left_is_first, choice, seconds, created from judgement "
            "where undone is null order by id"
        )
        return [Judgement(row[0], row[1], row[2], bool(row[3]), *row[4:]) for row in rows]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
