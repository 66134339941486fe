"""Videos to be made and made, in SQLite: nothing that was accepted is lost, nothing is made twice.

A video has takes; a take is what a worker makes at a time. Every change is one transaction (WAL,
synchronous), so that a process that is killed leaves the file as it was before or as it is after.
What is on its way (steps, phases) is not here but in `syncos_jax.studio.event_bus`.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.studio.records import (
    CANCELLED,
    CANCELLING,
    COLUMNS,
    DONE,
    ENDED,
    FAILED,
    JSON,
    MAX_DEATHS,
    PATIENCE,
    QUEUED,
    RUNNING,
    TABLES,
    VERSION,
    KeyTaken,
    QueueFull,
    Take,
    Video,
    now,
)


def _packed(value: Any) -> str | None:
    return None if value is None else json.dumps(value, allow_nan=False)


class Jobs:
    """The file of jobs; may be used by any thread.

    Args:
        path: of the file; made where there is none.
        changed: called after a change with the video's id.

    Raises InputError where the file is something else.
    """

    def __init__(self, path: Path, changed: Callable[[str], Any] = lambda id: None) -> None:
        self.path = path
        self.changed = changed
        self._lock = threading.RLock()
        self.work = threading.Condition()
        """Notified when there is something to make."""
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self._db.execute(f"PRAGMA {pragma}").fetchall()
            self._open()
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{path}: is not a file of jobs, or is damaged ({error}); move it away to begin "
                "anew"
            ) from error

    def _open(self) -> None:
        with self._transaction():
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0 and not self._db.execute("SELECT name FROM sqlite_master").fetchall():
                for statement in filter(str.strip, TABLES.split(";")):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={VERSION}")
            elif version != VERSION:
                raise InputError(
                    f"{self.path}: version: is {version}, this package reads {VERSION}; use the "
                    "version of syncos_jax that wrote it"
                )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def close(self) -> None:
        """Nothing may be called afterwards."""
        with self._lock:
            self._db.close()

    # -- reading ---------------------------------------------------------------------------------

    def get(self, id: str) -> Video | None:
        """A video with its takes; None where there is none."""
        found = self._select("WHERE id = ?", (id,))
        return found[0] if found else None

    def history(
        self, status: str | None = None, search: str = "", limit: int = 20, after: int | None = None
    ) -> tuple[list[Video], int | None]:
        """Videos, the newest first, and the number behind which there are more (None for none).

        Args:
            status: only of this one.
            search: words that all stand in title or prompts.
            limit: at most so many.
            after: only those older than this number.
        """
        where, values = ["1"], list[Any]()
        if status is not None:
            where.append("status = ?")
            values.append(status)
        if after is not None:
            where.append("number < ?")
            values.append(after)
        for word in search.casefold().split()[:20]:
            where.append("instr(words, ?) > 0")
            values.append(word)
        clause = f"WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?"
        found = self._select(clause, (*values, limit + 1))
        return found[:limit], found[limit - 1].number if len(found) > limit else None

    def _select(self, clause: str, values: Sequence[Any]) -> list[Video]:
        with self._lock:
            rows = self._db.execute(
                f"SELECT {', '.join(COLUMNS)} FROM videos {clause}", values
            ).fetchall()
            return [self._video(row) for row in rows]

    def _video(self, row: sqlite3.Row) -> Video:
        values = {name: row[name] for name in COLUMNS}
        for name in JSON:
            values[name] = None if values[name] is None else json.loads(values[name])
        takes = self._db.execute(
            "SELECT take, seed, status, seconds, deaths, row FROM takes WHERE video = ? "
            "ORDER BY take",
            (row["number"],),
        )
        return Video(**values, takes=tuple(Take(*take) for take in takes))

    def by_key(self, key: str) -> tuple[str, str] | None:
        """Id and body of the video that was added with an idempotency key; None for none."""
        with self._lock:
            row = self._db.execute("SELECT id, body FROM videos WHERE key = ?", (key,)).fetchone()
        return None if row is None else (row["id"], row["body"])

    def places(self) -> dict[str, int]:
        """Place in the queue of each video that has not ended; 0 for those that are being made."""
        with self._lock:
            rows = self._db.execute(
                "SELECT id, status FROM videos WHERE status IN (?, ?, ?) ORDER BY number",
                (QUEUED, RUNNING, CANCELLING),
            ).fetchall()
        places, waiting = {}, 0
        for row in rows:
            waiting += row["status"] == QUEUED
            places[row["id"]] = waiting if row["status"] == QUEUED else 0
        return places

    def waiting(self) -> int:
        """Takes that nobody makes yet."""
        with self._lock:
            count = self._db.execute("SELECT count(*) FROM takes WHERE status = ?", (QUEUED,))
            return count.fetchone()[0]

    def unfinished_models(self) -> dict[str, int]:
        """Model -> how many videos wait for it."""
        with self._lock:
            rows = self._db.execute(
                "SELECT model, count(*) FROM videos WHERE status IN (?, ?) GROUP BY model",
                (QUEUED, RUNNING),
            )
            return dict(tuple(row) for row in rows)

    # -- the queue -------------------------------------------------------------------------------

    def add(
        self,
        id: str,
        values: Mapping[str, Any],
        seeds: Sequence[int],
        most: int,
        key: str | None = None,
        body: str | None = None,
    ) -> str:
        """Puts a video behind the others; returns its id, or with a known `key` that of the video
        that was added with it.

        Args:
            id: of the new video.
            values: title, model, template, variables, settings, scenario, seed.
            seeds: one for each take.
            most: takes that may wait.
            key, body: what makes a repeated request the same one.

        Raises QueueFull, KeyTaken.
        """
        scenario = values["scenario"]
        words = [values["title"], scenario.get("global", "")]
        words += [event["prompt"] for event in scenario["events"]]
        with self._transaction() as db:
            if key is not None:
                old = db.execute("SELECT id, body FROM videos WHERE key = ?", (key,)).fetchone()
                if old is not None and old["body"] != body:
                    raise KeyTaken
                if old is not None:
                    return old["id"]
            if self.waiting() + len(seeds) > most:
                raise QueueFull
            row = {**values, "id": id, "status": QUEUED, "created": now(), "key": key, "body": body}
            row["words"] = " ".join(words).casefold()
            row |= {name: _packed(values.get(name)) for name in JSON}
            number = db.execute(
                f"INSERT INTO videos ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                tuple(row.values()),
            ).lastrowid
            db.executemany(
                "INSERT INTO takes (video, take, seed, status) VALUES (?, ?, ?, ?)",
                [(number, index, seed, QUEUED) for index, seed in enumerate(seeds, 1)],
            )
        self.changed(id)
        with self.work:
            self.work.notify_all()
        return id

    def recover(self) -> None:
        """At the start: what a killed process was making is first in the queue again; behind the
        others where it has been so too often."""
        with self._transaction() as db:
            takes = db.execute("SELECT * FROM takes WHERE status = ?", (RUNNING,)).fetchall()
            for take in takes:
                deaths = take["deaths"] + 1
                where = (take["video"], take["take"])
                status = QUEUED if deaths < MAX_DEATHS else FAILED
                db.execute(
                    "UPDATE takes SET status = ?, deaths = ? WHERE video = ? AND take = ?",
                    (status, deaths, *where),
                )
                if status == FAILED:
                    self._set_error(
                        take["video"],
                        f"the server died {deaths} times while it made this take",
                        "Make the video shorter or smaller, or look at the server's memory",
                    )
            for row in db.execute(
                "SELECT number FROM videos WHERE status IN (?, ?, ?)", (QUEUED, RUNNING, CANCELLING)
            ).fetchall():
                self._settle(row["number"])

    def claim(self) -> tuple[Video, Take] | None:
        """The next take, which is the caller's to make; None where none waits."""
        with self._transaction() as db:
            row = db.execute(
                "SELECT video, take FROM takes WHERE status = ? "
                "ORDER BY deaths / ?, video, take LIMIT 1",
                (QUEUED, PATIENCE),
            ).fetchone()
            if row is None:
                return None
            db.execute("UPDATE takes SET status = ? WHERE video = ? AND take = ?", (RUNNING, *row))
            db.execute(
                "UPDATE videos SET status = ?, started = coalesce(started, ?) WHERE number = ?",
                (RUNNING, now(), row["video"]),
            )
            video = self._select("WHERE number = ?", (row["video"],))[0]
        self.changed(video.id)
        return video, video.takes[row["take"] - 1]

    def progressed(self, video: Video, take: int, row: int) -> None:
        """A take got as far as `row`: deaths before that no longer count."""
        with self._transaction() as db:
            db.execute(
                "UPDATE takes SET row = ?, deaths = 0 WHERE video = ? AND take = ? AND row < ?",
                (row, video.number, take, row),
            )

    def ended(
        self,
        video: Video,
        take: int,
        status: str,
        seconds: float | None = None,
        error: tuple[str, str] | None = None,
    ) -> None:
        """A take was made, failed or was cancelled; or, QUEUED, is put back."""
        with self._transaction() as db:
            db.execute(
                "UPDATE takes SET status = ?, seconds = ? WHERE video = ? AND take = ?",
                (status, seconds, video.number, take),
            )
            if error is not None:
                self._set_error(video.number, *error)
            self._settle(video.number)
        self.changed(video.id)

    def cancel(self, id: str) -> Video | None:
        """Cancels a video: at once, or where a take of it is being made, "cancelling". Returns it
        as it was before; None where there is none."""
        with self._transaction() as db:
            before = self.get(id)
            if before is None or before.status not in (QUEUED, RUNNING):
                return before
            db.execute(
                "UPDATE takes SET status = ? WHERE video = ? AND status = ?",
                (CANCELLED, before.number, QUEUED),
            )
            db.execute("UPDATE videos SET status = ? WHERE number = ?", (CANCELLING, before.number))
            self._settle(before.number)
        self.changed(id)
        return before

    def forget(self, id: str) -> bool:
        """Removes a video that has ended; whether there was one."""
        with self._transaction() as db:
            gone = db.execute(
                "DELETE FROM videos WHERE id = ? AND status IN (?, ?, ?)", (id, *ENDED)
            )
            return gone.rowcount > 0

    def _set_error(self, number: int, message: str, remedy: str) -> None:
        self._db.execute(
            "UPDATE videos SET error = ? WHERE number = ?",
            (_packed({"message": message, "remedy": remedy}), number),
        )

    def _settle(self, number: int) -> None:
        """The video's status, as its takes have it."""
        video = self._select("WHERE number = ?", (number,))[0]
        each = {take.status for take in video.takes}
        cancelled = video.status == CANCELLING or CANCELLED in each
        if RUNNING in each:
            status = CANCELLING if cancelled else RUNNING
        elif QUEUED in each and not cancelled:
            status = RUNNING if DONE in each else QUEUED
        elif cancelled:
            self._db.execute(
                "UPDATE takes SET status = ? WHERE video = ? AND status = ?",
                (CANCELLED, number, QUEUED),
            )
            status = CANCELLED
        else:
            status = FAILED if FAILED in each else DONE
        self._db.execute(
            "UPDATE videos SET status = ?, ended = ? WHERE number = ?",
            (status, now() if status in ENDED else None, number),
        )
