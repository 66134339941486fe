"""The SQLite database behind `syncos_jax.studio.jobs`: connection, migration and queries."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.studio.records import (
    CANCELLING,
    COLUMNS,
    FROM_VERSION_1,
    JSON,
    QUEUED,
    RUNNING,
    STATUSES,
    TABLES,
    VERSION,
    Take,
    Video,
)

_log = logging.getLogger(__name__)


def packed(value: Any) -> str | None:
    """JSON text of a value; None for None."""
    return None if value is None else json.dumps(value, allow_nan=False)


class JobDatabase:
    """The job database; thread-safe.

    Args:
        path: the database file; created if missing.
        changed: called with a video's id after each change. What it raises is logged: the change
            has been committed by then.

    Raises:
        InputError: the file is not a job database, is damaged, or is of another version.
    """

    def __init__(self, path: Path, changed: Callable[[str], Any] = lambda id: None) -> None:
        self.path = path
        self._on_change = changed
        self._lock = threading.RLock()
        self.work = threading.Condition()
        """Notified when a take is queued."""
        try:
            self.db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self.db.row_factory = sqlite3.Row
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self.db.execute(f"PRAGMA {pragma}").fetchall()
            self._open()
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"not a job database, or damaged ({error})",
                place=path,
                remedy="move it away to start a new one",
            ) from error

    def _open(self) -> None:
        with self.transaction():
            version = self.db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and not self.db.execute("SELECT name FROM sqlite_master").fetchall():
                self._migrate(TABLES)
            elif version == 1:
                self._migrate(FROM_VERSION_1)
            elif version != VERSION:
                raise InputError(
                    f"has version {version}, but this package reads {VERSION}",
                    place=self.path,
                    remedy="use the version of syncos_jax that wrote it",
                )

    def _migrate(self, statements: str) -> None:
        for statement in filter(str.strip, statements.split(";")):
            self.db.execute(statement)
        self.db.execute(f"PRAGMA user_version={VERSION}")

    def changed(self, id: str) -> None:
        """Announce a committed change of a video; what the listener raises is logged."""
        try:
            self._on_change(id)
        except Exception:
            _log.exception("the change of %s could not be announced", id)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction, rolled back if the block raises."""
        with self._lock:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
            except BaseException:
                self.db.execute("ROLLBACK")
                raise
            self.db.execute("COMMIT")

    def close(self) -> None:
        """Close the database; no method may be called afterwards."""
        with self._lock:
            self.db.close()

    # -- reading ---------------------------------------------------------------------------------

    def get(self, id: str) -> Video | None:
        """The video with this id and its takes, or None."""
        found = self.select("WHERE id = ?", (id,))
        return found[0] if found else None

    def history(
        self,
        status: str | None = None,
        search: str = "",
        limit: int = 20,
        after: int | None = None,
        oldest_first: bool = False,
    ) -> tuple[list[Video], bool]:
        """Videos, newest first, and whether there are more.

        Args:
            status: return only videos with this status.
            search: words that must all occur in the title or prompts.
            limit: maximum number of videos.
            after: return only videos that come after this `Video.number` in the order.
            oldest_first: reverse the order.
        """
        where, values = ["1"], list[Any]()
        if status is not None:
            where.append("status = ?")
            values.append(status)
        if after is not None:
            where.append("number > ?" if oldest_first else "number < ?")
            values.append(after)
        for word in search.casefold().split()[:20]:
            where.append("instr(words, ?) > 0")
            values.append(word)
        order = "ASC" if oldest_first else "DESC"
        clause = f"WHERE {' AND '.join(where)} ORDER BY number {order} LIMIT ?"
        found = self.select(clause, (*values, limit + 1))
        return found[:limit], len(found) > limit

    def select(self, clause: str, values: Sequence[Any]) -> list[Video]:
        """Videos that an SQL clause selects."""
        with self._lock:
            rows = self.db.execute(
                f"SELECT {', '.join(COLUMNS)} FROM videos {clause}", values
            ).fetchall()
            return [self._video(row) for row in rows]

    def _video(self, row: sqlite3.Row) -> Video:
        values = {name: row[name] for name in COLUMNS}
        for name in JSON:
            values[name] = None if values[name] is None else json.loads(values[name])
        takes = self.db.execute(
            "SELECT take, seed, status, seconds, deaths, row, device_seconds FROM takes "
            "WHERE video = ? ORDER BY take",
            (row["number"],),
        )
        return Video(**values, takes=tuple(Take(*take) for take in takes))

    def by_key(self, key: str) -> tuple[str, str] | None:
        """Id and body digest of the video added with an idempotency key, or None."""
        with self._lock:
            row = self.db.execute("SELECT id, body FROM videos WHERE key = ?", (key,)).fetchone()
        return None if row is None else (row["id"], row["body"])

    def places(self) -> dict[str, int]:
        """Position in the queue of each open video: 1 is next, 0 is in progress."""
        with self._lock:
            rows = self.db.execute(
                "SELECT id, status FROM videos WHERE status IN (?, ?, ?) ORDER BY position, number",
                (QUEUED, RUNNING, CANCELLING),
            ).fetchall()
        places, waiting = {}, 0
        for row in rows:
            waiting += row["status"] == QUEUED
            places[row["id"]] = waiting if row["status"] == QUEUED else 0
        return places

    def waiting(self) -> int:
        """Number of queued takes."""
        with self._lock:
            count = self.db.execute("SELECT count(*) FROM takes WHERE status = ?", (QUEUED,))
            return count.fetchone()[0]

    def mentions(self, text: str) -> bool:
        """Whether the scenario of a stored video contains a text."""
        with self._lock:
            clause = "SELECT 1 FROM videos WHERE instr(scenario, ?) LIMIT 1"
            return self.db.execute(clause, (text,)).fetchone() is not None

    def counts(self) -> dict[str, int]:
        """Number of takes by status, for all statuses."""
        with self._lock:
            rows = self.db.execute("SELECT status, count(*) FROM takes GROUP BY status").fetchall()
        return dict.fromkeys(STATUSES, 0) | dict(map(tuple, rows))

    def device_seconds(self) -> float:
        """Device time of all stored takes, in seconds."""
        with self._lock:
            return self.db.execute("SELECT total(device_seconds) FROM takes").fetchone()[0]

    def unfinished_models(self) -> dict[str, int]:
        """Number of unfinished videos by model."""
        with self._lock:
            rows = self.db.execute(
                "SELECT model, count(*) FROM videos WHERE status IN (?, ?) GROUP BY model",
                (QUEUED, RUNNING),
            )
            return dict(tuple(row) for row in rows)
