"""Who approved which video: ``review.json`` beside the videos, safe under concurrent writers.

A decision holds for the bytes that were looked at (their sha256): a video that is made again under
the same name is undecided again. The file is a history that only grows::

    {"format": "syncos_jax review", "version": 1, "revision": 3,
     "videos": {"take1.mp4": [
       {"revision": 3, "action": "approve", "by": "Ada", "at": "2026-01-31T10:00:00Z",
        "comment": "", "sha256": "…"}]}}

Every change is made under a file lock: read, check, append, write aside, rename. A reader needs no
lock; a writer that is killed leaves the file as it was before or as it is after, and its lock ends
with it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from syncos_jax.errors import InputError
from syncos_jax.files.text import key_path, short
from syncos_jax.files.versioned import FileFormat

FILE = "review.json"
LOCK = ".review.lock"
MAX_COMMENT = 4000
MAX_NAME = 100
MAX_TIME = 1e6
MAX_BYTES = 16_000_000  # of review.json: tens of thousands of entries
APPROVALS = FileFormat(
    "syncos_jax review",
    "a file of approvals",
    "move it away to begin anew (a video called review.mp4 has its record under that name: rename "
    "the video and its record)",
    max_bytes=MAX_BYTES,
)
LOCK_SECONDS = 20.0

Action = Literal["approve", "reject", "reopen", "comment"]
ACTIONS: tuple[Action, ...] = ("approve", "reject", "reopen", "comment")
_STATUS = {"approve": "approved", "reject": "rejected", "reopen": "undecided"}
_FORM = ConfigDict(extra="forbid", frozen=True, strict=True)


class StaleError(InputError):
    """Somebody else wrote about this video since it was looked at."""


class Entry(BaseModel):
    """One decision or comment.

    Attributes:
        revision: of the file, once this entry is in it; counts from 1.
        action: approve, reject, reopen (undecided again) or comment.
        by: the name of the person.
        at: when, UTC, ISO 8601.
        comment: free text, may be empty with approve and reject.
        time: of the video, in seconds, that a comment is about; None for the whole.
        sha256: of the video file as it was then.
    """

    model_config = _FORM

    revision: Annotated[int, Field(ge=1)]
    action: Action
    by: Annotated[str, Field(min_length=1, max_length=MAX_NAME)]
    at: str
    comment: Annotated[str, Field(max_length=MAX_COMMENT)] = ""
    time: Annotated[float, Field(ge=0, le=MAX_TIME, allow_inf_nan=False)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Reviews(BaseModel):
    """What ``review.json`` holds: file name -> entries, oldest first."""

    model_config = _FORM

    format: Literal["syncos_jax review"] = "syncos_jax review"
    version: Annotated[int, Field(ge=1)] = APPROVALS.version
    revision: Annotated[int, Field(ge=0)] = 0
    videos: dict[str, list[Entry]] = {}

    def of(self, name: str) -> list[Entry]:
        """The entries of a video, oldest first."""
        return self.videos.get(name, [])

    def seen(self, name: str) -> int:
        """Revision of the newest entry of a video; 0 where there is none."""
        return max((entry.revision for entry in self.of(name)), default=0)

    def decision(self, name: str) -> Entry | None:
        """The entry that decided last."""
        return next((e for e in reversed(self.of(name)) if e.action in _STATUS), None)

    def status(self, name: str, sha256: str) -> str:
        """'approved', 'rejected', 'undecided', or 'changed' since a decision on other bytes."""
        entry = self.decision(name)
        if entry is None or entry.action == "reopen":
            return "undecided"
        return _STATUS[entry.action] if entry.sha256 == sha256 else "changed"


def read_reviews(folder: str | os.PathLike[str]) -> Reviews:
    """Reads ``review.json`` of a folder; empty where there is none.

    Raises InputError where the file is something else, damaged, or of a newer version.
    """
    path = Path(folder) / FILE
    if path.is_symlink():
        raise InputError("not a regular file", place=path, remedy=APPROVALS.remedy)
    try:
        data = APPROVALS.read(path)
    except FileNotFoundError:
        return Reviews()
    try:
        return Reviews.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InputError(
            f"{path}: {key_path(first['loc'])}: is {short(first['input'])}: {first['msg']}"
        ) from error


def add_entry(
    video: str | os.PathLike[str],
    action: str,
    by: str,
    comment: str = "",
    *,
    seen: int | None = None,
    sha256: str | None = None,
    time: float | None = None,
) -> Reviews:
    """Approves, rejects, reopens or comments on a video file; returns what is kept then.

    Args:
        video: the file; ``review.json`` stands in its folder.
        action: approve, reject, reopen or comment.
        by: name of the person, 1 to 100 characters.
        comment: up to 4000 characters; needed for the action comment.
        seen: revision of the newest entry on this video that the person has seen. A decision (not a
            comment) is refused where there is a newer one. None: no such check.
        sha256: of the file that the person looked at; a decision on other bytes is refused.
        time: time of the video that a comment is about, seconds; None for the whole.

    Raises InputError for bad values, StaleError (an InputError) where ``seen`` or ``sha256`` is
    out of date, OSError where writing fails. Nothing is written then.
    """
    path = check_video(video)
    by, comment = _text(by, "by", MAX_NAME, lines=False), _text(comment, "comment")
    if action not in ACTIONS:
        raise InputError(argument="action", expected=f"one of {', '.join(ACTIONS)}", value=action)
    if not by:
        raise InputError("a decision needs the name of a person", argument="by")
    if action == "comment" and not comment:
        raise InputError("the comment is empty", argument="comment")
    with _locked(path.parent):
        reviews = read_reviews(path.parent)
        now = file_sha256(path)  # under the lock: the bytes the entry is about
        if action != "comment":
            if sha256 is not None and sha256 != now:
                raise StaleError(f"{path.name} has changed since it was shown; look at it again")
            if seen is not None and seen < reviews.seen(path.name):
                newest = reviews.of(path.name)[-1]
                raise StaleError(
                    f"{newest.by} wrote about {path.name} meanwhile ({newest.action}); look at "
                    "that and decide again"
                )
        entry = Entry(
            revision=reviews.revision + 1,
            action=action,
            by=by,
            at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            comment=comment,
            time=time,
            sha256=now,
        )
        videos = {**reviews.videos, path.name: [*reviews.of(path.name), entry]}
        new = reviews.model_copy(update={"revision": entry.revision, "videos": videos})
        _write(path.parent / FILE, new)
    return new


def check_video(video: str | os.PathLike[str]) -> Path:
    """The path of an existing regular file; raises InputError."""
    path = Path(video)
    try:
        if path.is_dir():
            raise InputError("is a folder", place=path, remedy="name one video in it")
        if not path.is_file():
            raise InputError("no such file", place=path)
    except ValueError as error:  # a name that no file can have
        if isinstance(error, InputError):
            raise
        raise InputError("not the name of a file", place=short(str(path))) from error
    return path


def file_sha256(path: str | os.PathLike[str]) -> str:
    """sha256 of a file's bytes, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _text(value: str, argument: str, limit: int = MAX_COMMENT, *, lines: bool = True) -> str:
    """Without surrounding space and control characters; lone surrogates cannot be written."""
    if not isinstance(value, str):
        raise InputError(argument=argument, expected="text", value=value)
    kept = r"\t\n" if lines else ""
    value = re.sub(r"\r\n?", "\n", value)
    value = re.sub(rf"(?![{kept} ])[\x00-\x1f\x7f-\x9f\ud800-\udfff]", " ", value).strip()
    if len(value) > limit:
        raise InputError(
            f"has {len(value)} characters", argument=argument, expected=f"at most {limit}"
        )
    return value


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        with FileLock(folder / LOCK, timeout=LOCK_SECONDS, poll_interval=0.02):
            yield
    except Timeout as error:
        raise InputError(
            f"{folder / FILE}: another program has been writing for {LOCK_SECONDS:g} s; try again"
        ) from error


def _write(path: Path, reviews: Reviews) -> None:
    for left in path.parent.glob(".review.*.json"):  # of a writer that was killed; we have the lock
        left.unlink(missing_ok=True)
    APPROVALS.write(path, reviews.model_dump(exclude_none=True))
