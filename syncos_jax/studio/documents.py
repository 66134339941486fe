"""A video as the API shows it: what is stored, what is on its way, what was decided."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.studio.event_bus import EventBus, Progress
from syncos_jax.studio.jobs import Jobs
from syncos_jax.studio.records import DONE, ENDED, QUEUED, Take, Video
from syncos_jax.studio.review.approvals import FILE, Reviews, file_sha256, read_reviews

_KEPT = 500
Stamp = tuple[int, int, int] | None


def take_file(folder: Path, take: int) -> Path:
    """The video file of a take in its video's folder."""
    return folder / f"take{take}.mp4"


def thumbnail_file(folder: Path, take: int) -> Path:
    """The small picture of a take."""
    return folder / f"take{take}.thumbnail.png"


def preview_file(folder: Path) -> Path:
    """What a take looks like while it is being made."""
    return folder / "preview.png"


def stamp(path: Path) -> Stamp:
    """What changes with a file's contents; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


class Documents:
    """Makes the documents, and keeps them as long as nothing has changed.

    Args:
        jobs: what is stored.
        events: progress of what is being made.
        root: holds a folder for each video, named after its id.
    """

    def __init__(self, jobs: Jobs, events: EventBus, root: Path) -> None:
        self._jobs = jobs
        self._events = events
        self._root = root
        self._known: dict[str, tuple[tuple[Any, ...], bytes]] = {}
        self._hashes: dict[Path, tuple[Stamp, str]] = {}
        self._reviews: dict[Path, tuple[Stamp, Reviews]] = {}

    def folder(self, id: str) -> Path:
        """Of a video's files; `id` must be one that is stored."""
        return self._root / id

    def _state(self, id: str, takes: int) -> tuple[Any, ...]:
        """What a document follows from, beside what is stored: it changes when they do."""
        folder = self._root / id
        files = [folder / FILE, *(take_file(folder, take) for take in range(1, takes + 1))]
        return self._events.revision, takes, *map(stamp, files)

    def kept(self, id: str) -> bytes | None:
        """As `json`, where that is at hand; never waits."""
        known = self._known.get(id)
        if known is None or known[0] != self._state(id, known[0][1]):
            return None
        return known[1]

    def json(self, id: str) -> bytes | None:
        """A video's document as JSON on one line; None where there is no such video."""
        if (kept := self.kept(id)) is not None:
            return kept
        revision = self._events.revision
        video = self._jobs.get(id)
        if video is None:
            self._known.pop(id, None)
            return None
        state = (revision, *self._state(id, len(video.takes))[1:])
        raw = json.dumps(self.document(video), separators=(",", ":")).encode()
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[id] = (state, raw)
        return raw

    def document(self, video: Video, places: dict[str, int] | None = None) -> dict[str, Any]:
        """A video as plain values; `places` as `Jobs.places` has them."""
        under_way = self._events.of(video.id)
        progress = under_way[0] if under_way else None
        has_ended = video.status in ENDED
        place = None if has_ended else (places or self._jobs.places()).get(video.id)
        preview = None
        if progress is not None and progress.preview:
            preview = f"/v1/videos/{video.id}/preview?v={progress.preview}"
        return {
            "id": video.id,
            "title": video.title,
            "status": video.status,
            "place": place,
            "phase": progress.phase if progress else None,
            "step": progress.step if progress else 0,
            "steps": progress.steps or None if progress else None,
            "seconds_left": None if has_ended else seconds_left(video, under_way),
            "error": video.error,
            "created": video.created,
            "started": video.started,
            "ended": video.ended,
            "template": video.template,
            "variables": video.variables,
            "scenario": video.scenario,
            "seed": video.seed,
            "preview": preview,
            "takes": [self._take(video, take) for take in video.takes],
        }

    def _take(self, video: Video, take: Take) -> dict[str, Any]:
        folder = self.folder(video.id)
        path = take_file(folder, take.take)
        address = f"/v1/videos/{video.id}"
        made = take.status == DONE and path.is_file()
        verdict, by, comment = self.decision(path) if made else ("undecided", None, None)
        thumbnail = made and thumbnail_file(folder, take.take).is_file()
        return {
            "take": take.take,
            "seed": take.seed,
            "status": take.status,
            "seconds": take.seconds,
            "content": f"{address}/content?take={take.take}" if made else None,
            "thumbnail": f"{address}/thumbnail?take={take.take}" if thumbnail else None,
            "verdict": verdict,
            "by": by,
            "comment": comment,
        }

    def decision(self, path: Path) -> tuple[str, str | None, str | None]:
        """Verdict, name and comment of the entry that decided last."""
        try:
            reviews = self._read_reviews(path.parent)
        except InputError:  # damaged from outside; the videos can still be watched
            return "undecided", None, None
        entry = reviews.decision(path.name)
        if entry is None:
            return "undecided", None, None
        if reviews.status(path.name, self._sha256(path)) not in ("approved", "rejected"):
            return "undecided", None, None
        return reviews.status(path.name, entry.sha256), entry.by, entry.comment

    def _read_reviews(self, folder: Path) -> Reviews:
        now = stamp(folder / FILE)
        if folder not in self._reviews or self._reviews[folder][0] != now:
            self._reviews[folder] = (now, Reviews() if now is None else read_reviews(folder))
        return self._reviews[folder][1]

    def _sha256(self, path: Path) -> str:
        now = stamp(path)
        if path not in self._hashes or self._hashes[path][0] != now:
            self._hashes[path] = (now, file_sha256(path))
        return self._hashes[path][1]

    def drop(self, id: str) -> None:
        """Forgets what is kept about a video that is gone."""
        folder = self.folder(id)
        self._known.pop(id, None)
        self._reviews.pop(folder, None)
        for path in [path for path in self._hashes if path.parent == folder]:
            del self._hashes[path]


def seconds_left(video: Video, under_way: list[Progress]) -> float | None:
    """Seconds until all takes of a video are done, as far as is known."""
    if not under_way or any(progress.left is None for progress in under_way):
        return None
    now = time.monotonic()
    lasts = [max(0.0, (progress.left or 0.0) - (now - progress.at)) for progress in under_way]
    waiting = sum(take.status == QUEUED for take in video.takes)
    each = under_way[0].each
    if waiting and each is None:
        return None
    return round(max(lasts) + waiting * (each or 0.0) / len(under_way), 1)
