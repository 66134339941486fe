"""What the file of jobs holds: its tables, and their rows as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

VERSION = 1
QUEUED, RUNNING, CANCELLING = "queued", "running", "cancelling"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)
STATUSES = (QUEUED, RUNNING, CANCELLING, *ENDED)
MAX_DEATHS = 10
"""Times that the process may die while it makes a take without getting any further."""
PATIENCE = 3
"""As many such deaths put a take behind the others, so that it does not hold them up."""

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
  body TEXT
);
CREATE TABLE takes (
  video INTEGER NOT NULL REFERENCES videos(number) ON DELETE CASCADE,
  take INTEGER NOT NULL,
  seed INTEGER NOT NULL,
  status TEXT NOT NULL,
  seconds REAL,
  deaths INTEGER NOT NULL DEFAULT 0,
  row INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (video, take)
);
CREATE INDEX videos_by_status ON videos (status, number);
CREATE INDEX takes_by_status ON takes (status, video, take);
"""


class QueueFull(Exception):
    """There are as many takes waiting as there may be."""


class KeyTaken(Exception):
    """The idempotency key was used with another body."""


@dataclass(frozen=True)
class Take:
    """One take of a video, as stored."""

    take: int
    seed: int
    status: str
    seconds: float | None
    deaths: int
    row: int


@dataclass(frozen=True)
class Video:
    """A video, as stored; ``number`` orders them."""

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
    takes: tuple[Take, ...] = field(default=())


COLUMNS = [
    "number", "id", "title", "status", "model", "template", "variables", "settings", "scenario",
    "seed", "error", "created", "started", "ended",
]  # fmt: skip
JSON = ("variables", "settings", "scenario", "error")


def now() -> str:
    """UTC, ISO 8601, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
