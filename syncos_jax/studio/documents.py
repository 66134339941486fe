"""Videos as the API returns them: what is stored, the progress, the decisions."""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.studio.event_bus import EventBus, Progress
from syncos_jax.studio.jobs import Jobs
from syncos_jax.studio.published import published_file
from syncos_jax.studio.records import DONE, ENDED, QUEUED, Take, Video
from syncos_jax.studio.review.approvals import FILE, Entry, Reviews, file_sha256, read_reviews

_KEPT = 500
Stamp = tuple[int, int, int] | None


def take_file(folder: Path, take: int) -> Path:
    """Path of a take's video file in its video's folder."""
    return folder / f"take{take}.mp4"


def thumbnail_file(folder: Path, take: int) -> Path:
    """Path of a take's thumbnail."""
    return folder / f"take{take}.thumbnail.png"


def download_name(title: str, take: int) -> str:
    """File name under which a take is saved: its title without characters that systems refuse."""
    words = re.sub(r"[^\w]+", " ", title).split()
    return f"{'-'.join(words)[:80] or 'video'}-take-{take}.mp4"


def preview_file(folder: Path) -> Path:
    """Path of the preview of the take in progress."""
    return folder / "preview.png"


def stamp(path: Path) -> Stamp:
    """Inode, modification time and size of a file; None if it does not exist."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


class Documents:
    """Builds the documents of videos and caches them until something changes.

    Args:
        jobs: the job database.
        events: progress of running takes.
        root: folder that holds a folder per video, named by its id.
    """

    def __init__(self, jobs: Jobs, events: EventBus, root: Path) -> None:
        self._jobs = jobs
        self._events = events
        self._root = root
        self._known: dict[str, tuple[tuple[Any, ...], bytes]] = {}
        self._hashes: dict[Path, tuple[Stamp, str]] = {}
        self._reviews: dict[Path, tuple[Stamp, Reviews]] = {}

    def folder(self, id: str) -> Path:
        """Folder of a stored video's files."""
        return self._root / id

    def _state(self, id: str, takes: int) -> tuple[Any, ...]:
        """What a document depends on besides the database."""
        folder = self._root / id
        made = [take_file(folder, take) for take in range(1, takes + 1)]
        files = [folder / FILE, *made, *map(published_file, made)]
        return self._events.revision, takes, *map(stamp, files)

    def kept(self, id: str) -> bytes | None:
        """The result of `json` if it is cached; never waits."""
        known = self._known.get(id)
        if known is None or known[0] != self._state(id, known[0][1]):
            return None
        return known[1]

    def json(self, id: str) -> bytes | None:
        """A video's document as JSON on one line; None if there is no such video."""
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
        """A video as plain values; `places` as returned by `Jobs.places`."""
        running = self._events.of(video.id)
        progress = running[0] if running else None
        has_ended = video.status in ENDED
        place = None if has_ended else (places or self._jobs.places()).get(video.id)
        preview = None
        if progress is not None and progress.preview:
            preview = f"/v1/videos/{video.id}/preview?v={progress.preview}"
        spent = sum(take.device_seconds for take in video.takes)
        events = [event["prompt"] for event in video.scenario["events"]]
        error = None if video.error is None else {"code": "generation_failed", **video.error}
        return {
            "id": video.id,
            "object": "video",
            "model": video.model,
            "title": video.title,
            "prompt": " | ".join(filter(None, [video.scenario.get("global", ""), *events])),
            "seconds": None if video.seconds is None else f"{video.seconds:g}",
            "size": video.size,
            "status": video.status,
            "progress": percent(video, progress),
            "place": place,
            "phase": progress.phase if progress else None,
            "phase_seconds": round(time.monotonic() - progress.began, 1) if progress else None,
            "step": progress.step if progress else 0,
            "steps": progress.steps or None if progress else None,
            "seconds_left": None if has_ended else seconds_left(video, running),
            "device_minutes": round(spent / 60, 3),
            "error": error,
            "created_at": unix_time(video.created),
            "started_at": unix_time(video.started),
            "completed_at": unix_time(video.ended),
            "expires_at": None,
            "template": video.template,
            "variables": video.variables,
            "scenario": video.scenario,
            "seed": video.seed,
            "label": (video.settings or {}).get("label"),
            "watermark": (video.settings or {}).get("watermark"),
            "preview": preview,
            "takes": [self._take(video, take) for take in video.takes],
        }

    def _take(self, video: Video, take: Take) -> dict[str, Any]:
        folder = self.folder(video.id)
        path = take_file(folder, take.take)
        address = f"/v1/videos/{video.id}"
        made = take.status == DONE and path.is_file()
        verdict, decision, entries = self.review(path) if made else ("undecided", None, [])
        thumbnail = made and thumbnail_file(folder, take.take).is_file()
        return {
            "take": take.take,
            "seed": take.seed,
            "status": take.status,
            "seconds": take.seconds,
            "device_minutes": round(take.device_seconds / 60, 3),
            "content": f"{address}/content?take={take.take}" if made else None,
            "thumbnail": f"{address}/thumbnail?take={take.take}" if thumbnail else None,
            "published": f"{address}/content?take={take.take}&variant=published"
            if verdict == "approved" and published_file(path).is_file()
            else None,
            "verdict": verdict,
            "by": decision.by if decision else None,
            "comment": decision.comment if decision else None,
            "decided_at": decision.at if decision else None,
            "history": [
                {"action": e.action, "by": e.by, "at": e.at, "comment": e.comment, "time": e.time}
                for e in entries
            ],
        }

    def review(self, path: Path) -> tuple[str, Entry | None, list[Entry]]:
        """Verdict on a video file, the entry that decided it, and all entries, oldest first."""
        try:
            reviews = self._read_reviews(path.parent)
        except InputError:  # damaged from outside; the videos can still be watched
            return "undecided", None, []
        entries = reviews.of(path.name)
        if not entries:
            return "undecided", None, []
        status = reviews.status(path.name, self._sha256(path))
        if status not in ("approved", "rejected"):
            return "undecided", None, entries
        return status, reviews.decision(path.name), entries

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
        """Drop what is cached about a deleted video."""
        folder = self.folder(id)
        self._known.pop(id, None)
        self._reviews.pop(folder, None)
        for path in [path for path in self._hashes if path.parent == folder]:
            del self._hashes[path]


def percent(video: Video, progress: Progress | None) -> int:
    """Progress over all takes of a video, 0 to 100."""
    done = float(sum(take.status == DONE for take in video.takes))
    if progress is not None and progress.steps:
        done += min(1.0, progress.step / progress.steps)
    return 100 if video.status == DONE else min(99, int(100 * done / max(1, len(video.takes))))


def unix_time(iso: str | None) -> int | None:
    """A time in ISO 8601 as a Unix time in seconds."""
    return None if iso is None else int(datetime.fromisoformat(iso).timestamp())


def seconds_left(video: Video, under_way: list[Progress]) -> float | None:
    """Estimated seconds until all takes of a video are done; None if unknown."""
    if not under_way or any(progress.left is None for progress in under_way):
        return None
    now = time.monotonic()
    lasts = [max(0.0, (progress.left or 0.0) - (now - progress.at)) for progress in under_way]
    waiting = sum(take.status == QUEUED for take in video.takes)
    each = under_way[0].each
    if waiting and each is None:
        return None
    return round(max(lasts) + waiting * (each or 0.0) / len(under_way), 1)
