"""The state behind the API: jobs, workers, model, templates and files."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import logging
import secrets
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from syncos_jax.errors import Argument, InputError
from syncos_jax.media.marking import Marking
from syncos_jax.studio.api_errors import ApiError, Finding, finding
from syncos_jax.studio.bodies import DecisionBody, VideoBody
from syncos_jax.studio.bounded_pool import BoundedPool
from syncos_jax.studio.documents import Documents, take_file
from syncos_jax.studio.engine import Engine
from syncos_jax.studio.event_bus import EventBus
from syncos_jax.studio.jobs import Jobs
from syncos_jax.studio.published import publish, withdraw
from syncos_jax.studio.records import (
    CANCELLING,
    DONE,
    QUEUED,
    RUNNING,
    STATUSES,
    KeyTaken,
    QueueFull,
    Video,
)
from syncos_jax.studio.report import Reports
from syncos_jax.studio.review.approvals import StaleError, add_entry, read_reviews
from syncos_jax.studio.settings import StudioSettings
from syncos_jax.studio.sources import Pictures
from syncos_jax.studio.templates_folder import Templates
from syncos_jax.studio.video_request import VideoRequest
from syncos_jax.studio.worker import Worker

_log = logging.getLogger(__name__)

LEAST_FREE = 200 * 2**20
"""Free bytes to leave on the disk."""
_DISK_SECONDS = 10.0
STOP_SECONDS = 20.0
"""Time for the workers to save the state of their runs at shutdown."""


class Studio:
    """One folder of videos and the workers that make them.

    Raises:
        InputError: another server uses the folder, or its queue is for another model.
    """

    def __init__(self, settings: StudioSettings) -> None:
        self.settings = settings
        self.folder = settings.folder
        try:
            (self.folder / "videos").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot be used as a folder: {error.strerror or error}; "
                "give another"
            ) from error
        self.marking = dataclasses.replace(
            Marking.from_environment(), register=self.folder / "videos"
        )
        self.marking.check("take.mp4", 64, 64)
        self._lock = FileLock(self.folder / ".lock", timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"{self.folder}: another studio is at this folder; stop it, or give another folder"
            ) from None
        self.events = EventBus()
        self._places: dict[str, int] = {}
        self.jobs = Jobs(self.folder / "jobs.sqlite", self._changed)
        self._check_model()
        self.engine = Engine(settings)
        self.templates = Templates(self.folder / "templates", settings.seconds)
        self.pictures = Pictures(
            self.folder / "pictures",
            settings.pictures,
            lambda id: self.jobs.mentions(id) or self.templates.mention(id),
        )
        self.documents = Documents(self.jobs, self.events, self.folder / "videos")
        self.workers = [
            Worker(number, self.engine, self.jobs, self.events, self.folder / "videos")
            for number in range(settings.workers)
        ]
        self.reports = Reports(self.folder / "videos")
        self.plans, self.stories = BoundedPool(), BoundedPool()
        self.measuring, self.uploads = BoundedPool(), BoundedPool()
        self._disk: tuple[float, int] = (-_DISK_SECONDS, 0)
        self._disk_lock = threading.Lock()
        self.stopping = False

    def _check_model(self) -> None:
        for model, count in self.jobs.unfinished_models().items():
            if model != self.settings.model:
                self.close()
                raise InputError(
                    f"{count} queued videos need the model {model!r}",
                    place=self.folder,
                    remedy=(
                        "pass ",
                        Argument("model", model),
                        " until they are done, or use another folder",
                    ),
                )

    def _changed(self, id: str) -> None:
        """Publish a changed video, and those whose place in the queue changes with it."""
        self.events.publish(id)
        before, self._places = self._places, self.jobs.places()
        for other, place in self._places.items():
            if other != id and before.get(other) != place:
                self.events.publish(other)

    # -- life ------------------------------------------------------------------------------------

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Load the model and resume the queue."""
        self.jobs.recover()
        self.events.attach(loop)
        self.engine.start()
        for worker in self.workers:
            worker.start()

    def stop(self) -> None:
        """Begin to stop: end the event streams and save running takes. Called in the event loop."""
        if not self.stopping:
            self.stopping = True
            self.events.close()
            for worker in self.workers:
                worker.stop()

    def join(self) -> bool:
        """Wait for the workers; whether they ended. A compiling one cannot be stopped."""
        end = time.monotonic() + STOP_SECONDS
        for worker in self.workers:
            worker.join(max(0.0, end - time.monotonic()))
        ended = not any(worker.is_alive() for worker in self.workers)
        if not ended:
            for worker in self.workers:
                worker.put_back()
        self.close()
        return ended

    def close(self) -> None:
        """Release the folder."""
        self.jobs.close()
        self._lock.release()

    def add_picture(self, data: bytes, field: str = "picture") -> dict[str, Any]:
        """Store an uploaded picture. Raises ApiError."""
        self._check_disk()
        if len(data) > self.settings.picture_bytes:
            most = self.settings.picture_bytes / 2**20
            raise ApiError(
                413,
                Finding(
                    f"the picture has {len(data) / 2**20:.1f} MiB",
                    f"Send at most {most:g} MiB",
                    field,
                ),
            )
        return self.pictures.add(data, field)

    # -- videos ----------------------------------------------------------------------------------

    def add(self, body: VideoBody, asked: VideoRequest, key: str | None) -> str:
        """Queue a video; return its id. Raises ApiError."""
        self._check_disk()
        digest = digest_of(body)
        id = f"v{secrets.token_hex(8)}"
        try:
            return self.jobs.add(
                id, asked.values, asked.seeds, self.settings.queue, key, digest if key else None
            )
        except KeyTaken:
            found = Finding(
                "this Idempotency-Key was used with a different body", "Use a new key per video"
            )
            raise ApiError(409, found) from None
        except QueueFull:
            raise self._queue_full() from None

    def _queue_full(self) -> ApiError:
        found = Finding(
            f"the queue is full ({self.settings.queue} takes)", "Try again when some are done"
        )
        return ApiError(429, found, {"Retry-After": "30"})

    def find(self, id: str) -> Video:
        """A stored video. Raises ApiError if there is none."""
        video = self.jobs.get(id)
        if video is None:
            raise no_video()
        return video

    def add_takes(self, id: str, count: int) -> None:
        """Queue more takes of a video. Raises ApiError."""
        self._check_disk()
        before = self.find(id)
        if len(before.takes) + count > self.settings.takes:
            raise ApiError(
                409, Finding("the video has the maximum number of takes", "Duplicate it", "count")
            )
        try:
            video = self.jobs.add_takes(id, count, self.settings.queue)
        except QueueFull:
            raise self._queue_full() from None
        if video is None or len(video.takes) == len(before.takes):
            raise ApiError(409, Finding(f"the video is {before.status}", "Duplicate it"))

    def move(self, id: str, place: int) -> None:
        """Move a queued video within the queue. Raises ApiError."""
        video = self.find(id)
        if not self.jobs.move(id, place):
            raise ApiError(409, Finding(f"the video is {video.status}", "Move a queued one"))

    def cancel(self, id: str) -> None:
        """Cancel a video. Raises ApiError if there is none, or it has ended."""
        before = self.jobs.cancel(id)
        if before is None:
            raise no_video()
        if before.status not in (QUEUED, RUNNING, CANCELLING):
            raise ApiError(
                409, Finding(f"the video is already {before.status}", "Use DELETE to delete it")
            )
        for worker in self.workers:
            worker.cancel(id)

    def delete(self, id: str) -> None:
        """Delete a video that has ended, with its files. Raises ApiError."""
        video = self.find(id)
        if not self.jobs.forget(id):
            raise ApiError(
                409,
                Finding(
                    f"the video is {video.status.replace('_', ' ')}",
                    f"Cancel it first: POST /v1/videos/{id}/cancel",
                ),
            )
        shutil.rmtree(self.documents.folder(id), ignore_errors=True)
        self.documents.drop(id)
        self.reports.drop(id)
        self._disk = (-_DISK_SECONDS, 0)
        self.events.publish(id)

    def decide(self, id: str, body: DecisionBody) -> None:
        """Store a decision or comment about a take. Raises ApiError."""
        path = self.take_path(id, body.take)
        actions = {"approved": "approve", "rejected": "reject", "undecided": "reopen"}
        action = "comment" if body.verdict is None else actions[body.verdict]
        if action == "reopen" and read_reviews(path.parent).decision(path.name) is None:
            if not body.comment.strip():
                return
            action = "comment"
        try:
            add_entry(path, action, body.by, body.comment, time=body.time)
        except StaleError as error:
            raise ApiError(409, finding(error)) from error
        except InputError as error:
            raise ApiError(422, finding(error)) from error
        try:
            self._publish(path, action)
        except (InputError, OSError) as error:
            said = Finding(
                f"the take is approved, but cannot be signed: {' '.join(str(error).split())}",
                "Check the certificate and its key, then approve again",
            )
            raise ApiError(503, said) from error
        finally:
            self.events.publish(id)

    def _publish(self, take: Path, action: str) -> None:
        """Keep the signed copy of a take in step with the decision on it."""
        if action == "comment":
            return
        withdraw(take)
        decision = read_reviews(take.parent).decision(take.name)
        if action == "approve" and decision is not None and self.marking.identity is not None:
            publish(take, decision, self.marking)

    def take_path(self, id: str, number: int) -> Path:
        """The video file of a completed take. Raises ApiError."""
        video = self.find(id)
        take = next((take for take in video.takes if take.take == number), None)
        path = take_file(self.documents.folder(id), number)
        if take is None:
            raise ApiError(404, Finding("there is no such take", "Use one of the video's", "take"))
        if take.status != DONE or not path.is_file():
            status = take.status.replace("_", " ")
            raise ApiError(
                409, Finding(f"take {number} is {status}", "Wait until it is completed", "take")
            )
        return path

    # -- monitoring ------------------------------------------------------------------------------

    def health(self) -> tuple[bool, str]:
        """Whether the server can make videos, and its state in one word."""
        if self.engine.error is not None:
            return False, "failed"
        if self.stopping:
            return False, "stopping"
        if not all(worker.is_alive() for worker in self.workers):
            return False, "failed"
        return True, "ok" if self.engine.loaded else "loading"

    def metrics(self) -> str:
        """State of the server in the text format of Prometheus."""
        counts = self.jobs.counts()
        lines = [
            "# HELP syncos_takes Stored takes by status.",
            "# TYPE syncos_takes gauge",
            *(f'syncos_takes{{status="{status}"}} {counts[status]}' for status in STATUSES),
        ]
        gauges = {
            "workers": ("Workers.", len(self.workers)),
            "workers_alive": (
                "Workers whose thread runs.",
                sum(w.is_alive() for w in self.workers),
            ),
            "workers_busy": ("Workers that are making a take.", sum(w.busy for w in self.workers)),
            "queue_limit": ("Maximum number of queued takes.", self.settings.queue),
            "model_loaded": ("Whether the model is loaded.", int(self.engine.loaded)),
            "device_seconds": ("Device time of all stored takes.", self.jobs.device_seconds()),
            "disk_bytes": ("Size of the studio's folder.", self.disk_bytes()),
            "disk_limit_bytes": ("Maximum size of the folder.", self.settings.disk_bytes),
            "event_streams": ("Open event streams.", self.events.count),
        }
        for name, (text, value) in gauges.items():
            lines += [f"# HELP syncos_{name} {text}", f"# TYPE syncos_{name} gauge"]
            lines.append(f"syncos_{name} {value}")
        return "\n".join(lines) + "\n"

    # -- disk ------------------------------------------------------------------------------------

    def _check_disk(self) -> None:
        used, free = self.disk_bytes(), shutil.disk_usage(self.folder).free
        if used < self.settings.disk_bytes and free > LEAST_FREE:
            return
        what = f"the studio's folder holds {used / 2**30:.1f} GiB, its limit"
        if free <= LEAST_FREE:
            what = "the server's disk is full"
        raise ApiError(
            503,
            Finding(what, "Delete videos that are no longer needed"),
            {"Retry-After": "300"},
        )

    def disk_bytes(self) -> int:
        """Size of the folder in bytes, at most some seconds old."""
        with self._disk_lock:
            at, used = self._disk
            if time.monotonic() - at >= _DISK_SECONDS:
                used = _bytes_below(self.folder)
                self._disk = (time.monotonic(), used)
            return used


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            stat = path.lstat()
        except OSError:  # deleted meanwhile
            continue
        total += stat.st_size
    return total


def digest_of(body: VideoBody) -> str:
    """SHA-256 of a body; equal bodies have equal digests."""
    text = json.dumps(body.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def no_video() -> ApiError:
    """The error for an unknown id."""
    return ApiError(404, Finding("there is no such video", "List them with GET /v1/videos"))
