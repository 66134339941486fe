"""Tables of the job database and their rows as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

VERSION = 2
QUEUED, RUNNING, CANCELLING = "queued", "in_progress", "cancelling"
DONE, FAILED, CANCELLED = "completed", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)
STATUSES = (QUEUED, RUNNING, CANCELLING, *ENDED)
MAX_DEATHS = 10
"""Server crashes without progress after which a take fails."""
PATIENCE = 3
"""Server crashes without progress after which a take waits behind the others."""

TABLES = """
CREATE TABLE videos (
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  title TEXT NOT NULL,
  status TEXT NOT NULL,
  model TEXT NOT NULL,
  template TEXT,
  variables TEXT,
  settings TEXT,
  scenario TEXT NOT NULL,
  seed INTEGER NOT NULL,
  error TEXT,
  created TEXT NOT NULL,
  started TEXT,
  ended TEXT,
  words TEXT NOT NULL,
  key TEXT UNIQUE,
  body TEXT,
  position REAL NOT NULL DEFAULT 0,
  seconds REAL,
  size TEXT
);
CREATE TABLE takes (
  video INTEGER NOT NULL REFERENCES videos(number) ON DELETE CASCADE,
  take INTEGER NOT NULL,
  seed INTEGER NOT NULL,
  status TEXT NOT NULL,
  seconds REAL,
  deaths INTEGER NOT NULL DEFAULT 0,
  row INTEGER NOT NULL DEFAULT 0,
  device_seconds REAL NOT NULL DEFAULT 0,
  PRIMARY KEY (video, take)
);
CREATE INDEX videos_by_status ON videos (status, number);
CREATE INDEX takes_by_status ON takes (status, video, take);
"""
FROM_VERSION_1 = """
ALTER TABLE videos ADD COLUMN position REAL NOT NULL DEFAULT 0;
ALTER TABLE videos ADD COLUMN seconds REAL;
ALTER TABLE videos ADD COLUMN size TEXT;
UPDATE videos SET position = number;
ALTER TABLE takes ADD COLUMN device_seconds REAL NOT NULL DEFAULT 0;
UPDATE videos SET status = 'in_progress' WHERE status = 'running';
UPDATE videos SET status = 'completed' WHERE status = 'done';
UPDATE takes SET status = 'in_progress' WHERE status = 'running';
UPDATE takes SET status = 'completed' WHERE status = 'done';
"""


class QueueFull(Exception):
    """The queue has no room for this many takes."""


class KeyTaken(Exception):
    """The idempotency key was used with a different body."""


@dataclass(frozen=True)
class Take:
    """One take of a video, as stored.

    Attributes:
        take: its number, from 1.
        seed: of its noise.
        status: one of `STATUSES`.
        seconds: length of the finished video; None until then.
        deaths: server crashes since it last made progress.
        row: network calls made, as last noted.
        device_seconds: time spent on it, multiplied by the devices used.
    """

    take: int
    seed: int
    status: str
    seconds: float | None
    deaths: int
    row: int
    device_seconds: float = 0.0


@dataclass(frozen=True)
class Video:
    """A video, as stored.

    ``number`` counts up and orders the history; ``seconds`` is its length and ``size`` is
    "WIDTHxHEIGHT", in pixels; both are None for videos of older versions.
    """

    number: int
    id: str
    title: str
    status: str
    model: str
    template: str | None
    variables: dict[str, Any] | None
    settings: dict[str, Any] | None
    scenario: dict[str, Any]
    seed: int
    error: dict[str, Any] | None
    created: str
    started: str | None
    ended: str | None
    seconds: float | None = None
    size: str | None = None
    takes: tuple[Take, ...] = field(default=())


COLUMNS = [
    "number", "id", "title", "status", "model", "template", "variables", "settings", "scenario",
    "seed", "error", "created", "started", "ended", "seconds", "size",
]  # fmt: skip
JSON = ("variables", "settings", "scenario", "error")


def now() -> str:
    """UTC, ISO 8601, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
