"""What is behind the API: jobs, workers, model, templates, files; started and stopped together."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
import shutil
import threading
import time
from pathlib import Path

from filelock import FileLock, Timeout

from syncos_jax.errors import Argument, InputError
from syncos_jax.studio.api_errors import ApiError, Finding, finding
from syncos_jax.studio.bounded_pool import BoundedPool
from syncos_jax.studio.documents import Documents, take_file
from syncos_jax.studio.engine import Engine
from syncos_jax.studio.event_bus import EventBus
from syncos_jax.studio.jobs import Jobs
from syncos_jax.studio.records import CANCELLING, DONE, QUEUED, RUNNING, KeyTaken, QueueFull, Video
from syncos_jax.studio.review.approvals import StaleError, add_entry, read_reviews
from syncos_jax.studio.schemas import DecisionBody, VideoBody
from syncos_jax.studio.settings import StudioSettings
from syncos_jax.studio.templates_folder import Templates
from syncos_jax.studio.video_request import VideoRequest
from syncos_jax.studio.worker import Worker

_log = logging.getLogger(__name__)

LEAST_FREE = 200 * 2**20
"""Bytes of the disk that are left to others."""
_DISK_SECONDS = 10.0
STOP_SECONDS = 20.0
"""For the workers to save the state of their runs, once the server is to stop."""


class Studio:
    """One folder of videos and the workers that fill it.

    Raises InputError where another server is at the folder, or what waits there is for another
    model.
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
        self.documents = Documents(self.jobs, self.events, self.folder / "videos")
        self.workers = [
            Worker(number, self.engine, self.jobs, self.events, self.folder / "videos")
            for number in range(settings.workers)
        ]
        self.plans, self.stories = BoundedPool(), BoundedPool()
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
        """Tells of a video that has changed, and of those whose place in the queue it changes."""
        self.events.publish(id)
        before, self._places = self._places, self.jobs.places()
        for other, place in self._places.items():
            if other != id and before.get(other) != place:
                self.events.publish(other)

    # -- life ------------------------------------------------------------------------------------

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Loads the model and goes on with what waits."""
        self.jobs.recover()
        self.events.attach(loop)
        self.engine.start()
        for worker in self.workers:
            worker.start()

    def stop(self) -> None:
        """Begins to stop: no more events, and runs save their state. Called in the loop."""
        if not self.stopping:
            self.stopping = True
            self.events.close()
            for worker in self.workers:
                worker.stop()

    def join(self) -> bool:
        """Waits for the workers; whether they ended. One that is within a compilation cannot."""
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
        """Lets other servers at the folder."""
        self.jobs.close()
        self._lock.release()

    # -- videos ----------------------------------------------------------------------------------

    def add(self, body: VideoBody, asked: VideoRequest, key: str | None) -> str:
        """Puts a video into the queue; returns its id. Raises ApiError."""
        self._check_disk()
        digest = digest_of(body)
        id = f"v{secrets.token_hex(8)}"
        try:
            return self.jobs.add(
                id, asked.values, asked.seeds, self.settings.queue, key, digest if key else None
            )
        except KeyTaken:
            raise ApiError(
                409,
                Finding(
                    "this Idempotency-Key was used with another body",
                    "Use a new one for each video",
                ),
            ) from None
        except QueueFull:
            raise ApiError(
                429,
                Finding(
                    f"the queue is full: at most {self.settings.queue} takes may wait",
                    "Try again when some are done",
                ),
                {"Retry-After": "30"},
            ) from None

    def find(self, id: str) -> Video:
        """A video that is stored; ApiError where there is none."""
        video = self.jobs.get(id)
        if video is None:
            raise no_video()
        return video

    def cancel(self, id: str) -> None:
        """Cancels a video; ApiError where there is none, or it has ended."""
        before = self.jobs.cancel(id)
        if before is None:
            raise no_video()
        if before.status not in (QUEUED, RUNNING, CANCELLING):
            raise ApiError(
                409,
                Finding(
                    f"the video is {before.status} already",
                    "Add ?forget=true to remove it with its files",
                ),
            )
        for worker in self.workers:
            worker.cancel(id)

    def forget(self, id: str) -> None:
        """Removes a video that has ended, with its files; ApiError where it has not."""
        video = self.find(id)
        if not self.jobs.forget(id):
            raise ApiError(
                409, Finding(f"the video is {video.status}", "Cancel it first, without forget=true")
            )
        shutil.rmtree(self.documents.folder(id), ignore_errors=True)
        self.documents.drop(id)
        self._disk = (-_DISK_SECONDS, 0)
        self.events.publish(id)

    def decide(self, id: str, body: DecisionBody) -> None:
        """Keeps a decision on a take; ApiError where it cannot be."""
        video = self.find(id)
        take = next((take for take in video.takes if take.take == body.take), None)
        path = take_file(self.documents.folder(id), body.take)
        if take is None:
            raise ApiError(404, Finding("there is no such take", "Give one of the video's", "take"))
        if take.status != DONE or not path.is_file():
            raise ApiError(
                409, Finding(f"take {body.take} is {take.status}", "Wait until it is done", "take")
            )
        action = {"approved": "approve", "rejected": "reject", "undecided": "reopen"}[body.verdict]
        if action == "reopen" and read_reviews(path.parent).decision(path.name) is None:
            if not body.comment.strip():
                return
            action = "comment"
        try:
            add_entry(path, action, body.by, body.comment)
        except StaleError as error:
            raise ApiError(409, finding(error)) from error
        except InputError as error:
            raise ApiError(422, finding(error)) from error
        self.events.publish(id)

    # -- disk ------------------------------------------------------------------------------------

    def _check_disk(self) -> None:
        used, free = self.disk_bytes(), shutil.disk_usage(self.folder).free
        if used < self.settings.disk_bytes and free > LEAST_FREE:
            return
        what = f"the studio's folder holds {used / 2**30:.1f} GiB, which is all it may"
        if free <= LEAST_FREE:
            what = "the server's disk is full"
        raise ApiError(
            503,
            Finding(what, "Remove videos that are not needed any more (DELETE with forget=true)"),
            {"Retry-After": "300"},
        )

    def disk_bytes(self) -> int:
        """What the folder holds, as it was some seconds ago at most."""
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
        except OSError:  # gone meanwhile
            continue
        total += stat.st_size
    return total


def digest_of(body: VideoBody) -> str:
    """What two requests have in common if they ask for the same."""
    text = json.dumps(body.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def no_video() -> ApiError:
    """Of an id that is none."""
    return ApiError(404, Finding("there is no such video", "See the list, GET /v1/videos"))
