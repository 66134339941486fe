"""The queue of videos, in SQLite: accepted videos are never lost and never made twice.

A video has takes; a worker makes one take at a time. Every change is one transaction (WAL,
``synchronous=FULL``), so a killed process leaves the database as before or after it. Progress of
running takes is kept in memory (`syncos_jax.studio.event_bus`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from syncos_jax.studio.job_database import JobDatabase, packed
from syncos_jax.studio.records import (
    CANCELLED,
    CANCELLING,
    DONE,
    ENDED,
    FAILED,
    JSON,
    MAX_DEATHS,
    PATIENCE,
    QUEUED,
    RUNNING,
    KeyTaken,
    QueueFull,
    Take,
    Video,
    now,
)


class Jobs(JobDatabase):
    """The queue of videos; thread-safe."""

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
        """Queue a video; return its id, or that of the video added earlier with the same `key`.

        Args:
            id: id of the new video.
            values: title, model, template, variables, settings, scenario, seed.
            seeds: one per take.
            most: maximum number of queued takes.
            key: idempotency key.
            body: digest of the request body; a repeated key must come with the same one.

        Raises:
            QueueFull: there would be more than `most` queued takes.
            KeyTaken: the key was used with another body.
        """
        scenario = values["scenario"]
        words = [values["title"], scenario.get("global", "")]
        words += [event["prompt"] for event in scenario["events"]]
        with self.transaction() as db:
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
            row |= {name: packed(values.get(name)) for name in JSON}
            number = db.execute(
                f"INSERT INTO videos ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
                tuple(row.values()),
            ).lastrowid
            assert number is not None
            db.execute("UPDATE videos SET position = number WHERE number = ?", (number,))
            self._insert_takes(number, enumerate(seeds, 1))
        self.changed(id)
        self._notify_workers()
        return id

    def add_takes(self, id: str, count: int, most: int) -> Video | None:
        """Queue `count` more takes of a video, with the seeds after its highest; None if missing.

        A video that failed or was cancelled is returned unchanged.

        Raises:
            QueueFull: there would be more than `most` queued takes.
        """
        with self.transaction() as db:
            video = self.get(id)
            if video is None or video.status in (FAILED, CANCELLED, CANCELLING):
                return video
            if self.waiting() + count > most:
                raise QueueFull
            last = video.takes[-1].take
            seed = max(take.seed for take in video.takes)
            added = [(last + n, (seed + n) % 2**32) for n in range(1, count + 1)]
            self._insert_takes(video.number, added)
            running = any(take.status == RUNNING for take in video.takes)
            db.execute(
                "UPDATE videos SET status = ?, ended = NULL, error = NULL WHERE number = ?",
                (RUNNING if running else QUEUED, video.number),
            )
        self.changed(id)
        self._notify_workers()
        return self.get(id)

    def move(self, id: str, place: int) -> bool:
        """Move a queued video to a position of the queue, from 1; whether it was queued."""
        with self.transaction() as db:
            rows = db.execute(
                "SELECT id, number, position FROM videos WHERE status = ? "
                "ORDER BY position, number",
                (QUEUED,),
            ).fetchall()
            ids = [row["id"] for row in rows]
            if id not in ids:
                return False
            moved = rows[ids.index(id)]
            others = [row for row in rows if row["id"] != id]
            at = min(max(place, 1), len(rows)) - 1
            before = others[at - 1]["position"] if at else rows[0]["position"] - 2
            after = others[at]["position"] if at < len(others) else before + 2
            db.execute(
                "UPDATE videos SET position = ? WHERE number = ?",
                ((before + after) / 2, moved["number"]),
            )
        self.changed(id)
        return True

    def _insert_takes(self, number: int, takes: Iterable[tuple[int, int]]) -> None:
        self.db.executemany(
            "INSERT INTO takes (video, take, seed, status) VALUES (?, ?, ?, ?)",
            [(number, take, seed, QUEUED) for take, seed in takes],
        )

    def _notify_workers(self) -> None:
        with self.work:
            self.work.notify_all()

    def recover(self) -> None:
        """Requeue, at start, the takes that a killed process was making.

        They come first, or behind the others after `PATIENCE` crashes without progress; they fail
        after `MAX_DEATHS`.
        """
        with self.transaction() as db:
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
                        f"the server crashed {deaths} times while making this take",
                        "Make the video shorter or smaller, or check the server's memory",
                    )
            for row in db.execute(
                "SELECT number FROM videos WHERE status IN (?, ?, ?)", (QUEUED, RUNNING, CANCELLING)
            ).fetchall():
                self._settle(row["number"])

    def claim(self) -> tuple[Video, Take] | None:
        """Claim the next queued take for the caller; None if there is none."""
        with self.transaction() as db:
            row = db.execute(
                "SELECT video, take FROM takes JOIN videos ON number = video "
                "WHERE takes.status = ? ORDER BY deaths / ?, position, video, take LIMIT 1",
                (QUEUED, PATIENCE),
            ).fetchone()
            if row is None:
                return None
            db.execute("UPDATE takes SET status = ? WHERE video = ? AND take = ?", (RUNNING, *row))
            db.execute(
                "UPDATE videos SET status = ?, started = coalesce(started, ?) WHERE number = ?",
                (RUNNING, now(), row["video"]),
            )
            video = self.select("WHERE number = ?", (row["video"],))[0]
        self.changed(video.id)
        return video, video.takes[row["take"] - 1]

    def progressed(self, video: Video, take: int, row: int) -> None:
        """Note that a take has made `row` network calls; earlier crashes no longer count."""
        with self.transaction() as db:
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
        device_seconds: float = 0.0,
    ) -> None:
        """Record how a take ended; with status `QUEUED` it is put back into the queue.

        Args:
            video: the video.
            take: number of the take.
            status: new status.
            seconds: length of the finished video.
            error: message and remedy of a failed take.
            device_seconds: device time to add to that of the take.
        """
        with self.transaction() as db:
            db.execute(
                "UPDATE takes SET status = ?, seconds = ?, device_seconds = device_seconds + ? "
                "WHERE video = ? AND take = ?",
                (status, seconds, device_seconds, video.number, take),
            )
            if error is not None:
                self._set_error(video.number, *error)
            self._settle(video.number)
        self.changed(video.id)

    def cancel(self, id: str) -> Video | None:
        """Cancel a video and return it as it was before, or None if there is none.

        A video with a take in progress is "cancelling" until its worker has stopped.
        """
        with self.transaction() as db:
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
        """Delete a video that has ended; whether there was one."""
        with self.transaction() as db:
            gone = db.execute(
                "DELETE FROM videos WHERE id = ? AND status IN (?, ?, ?)", (id, *ENDED)
            )
            return gone.rowcount > 0

    def _set_error(self, number: int, message: str, remedy: str) -> None:
        self.db.execute(
            "UPDATE videos SET error = ? WHERE number = ?",
            (packed({"message": message, "remedy": remedy}), number),
        )

    def _settle(self, number: int) -> None:
        """Derive the status of a video from its takes."""
        video = self.select("WHERE number = ?", (number,))[0]
        each = {take.status for take in video.takes}
        cancelled = video.status == CANCELLING or CANCELLED in each
        if RUNNING in each:
            status = CANCELLING if cancelled else RUNNING
        elif QUEUED in each and not cancelled:
            status = RUNNING if DONE in each else QUEUED
        elif cancelled:
            self.db.execute(
                "UPDATE takes SET status = ? WHERE video = ? AND status = ?",
                (CANCELLED, number, QUEUED),
            )
            status = CANCELLED
        else:
            status = FAILED if FAILED in each else DONE
        self.db.execute(
            "UPDATE videos SET status = ?, ended = ? WHERE number = ?",
            (status, now() if status in ENDED else None, number),
        )
