"""Makes queued takes, one after the other, on the devices of one pipeline."""

from __future__ import annotations

import ctypes
import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from syncos_jax.errors import InputError, Terminated
from syncos_jax.pipeline.checkpoint import run_folder
from syncos_jax.studio.api_errors import finding
from syncos_jax.studio.documents import preview_file, take_file
from syncos_jax.studio.engine import Engine
from syncos_jax.studio.event_bus import EventBus, Progress
from syncos_jax.studio.jobs import Jobs
from syncos_jax.studio.records import CANCELLED, DONE, FAILED, QUEUED, RUNNING, Take, Video
from syncos_jax.studio.take_job import Stopped, TakeJob

if TYPE_CHECKING:
    from syncos_jax.pipeline import Pipeline

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0


class Outcome(NamedTuple):
    """How a take ended.

    Attributes:
        status: `DONE`, `FAILED`, `CANCELLED`, or `QUEUED` if it was interrupted.
        seconds: length of the finished video.
        error: message and remedy of a failed take.
    """

    status: str
    seconds: float | None = None
    error: tuple[str, str] | None = None


class Worker(threading.Thread):
    """Makes queued takes until it is stopped. No error ends the thread.

    Args:
        number: index of its pipeline in the engine.
        engine: the model.
        jobs: the queue.
        events: receives the progress.
        root: folder that holds a folder per video.
    """

    def __init__(
        self, number: int, engine: Engine, jobs: Jobs, events: EventBus, root: Path
    ) -> None:
        super().__init__(name=f"syncos worker {number}", daemon=True)
        self._number = number
        self._engine = engine
        self._jobs = jobs
        self._events = events
        self._root = root
        self._stopping = threading.Event()
        self._cancelled = threading.Event()
        self._current: tuple[Video, Take] | None = None

    @property
    def busy(self) -> bool:
        """Whether it is making a take."""
        return self._current is not None

    def stop(self) -> None:
        """Save the state of the run after the current network call, then end the thread."""
        self._stopping.set()
        with self._jobs.work:
            self._jobs.work.notify_all()

    def cancel(self, id: str) -> None:
        """Stop after the current network call if it is making a take of this video."""
        current = self._current
        if current is not None and current[0].id == id:
            self._cancelled.set()

    def put_back(self) -> None:
        """Return the take in progress to the queue without waiting for it."""
        current = self._current
        if current is not None:
            self._jobs.ended(current[0], current[1].take, QUEUED)

    def run(self) -> None:
        pipeline = self._engine.wait(self._number)
        while pipeline is not None and not self._stopping.is_set():
            claimed = self._retried(self._claim)
            if claimed is None:
                with self._jobs.work:
                    self._jobs.work.wait(timeout=1.0)
                continue
            video, take = claimed
            begin = time.monotonic()
            outcome = self._make(pipeline, video, take)
            spent = (time.monotonic() - begin) * self._engine.devices_per_worker
            self._clean_up(video, take, outcome.status)
            self._retried(partial(self._jobs.ended, video, take.take, *outcome, spent))
            self._current = None
            _return_freed_memory()

    def _retried(self, action: Callable[[], Any]) -> Any:
        """The result of `action`, repeated until it succeeds or the worker stops (then None).

        A full disk or a locked database must neither lose a finished take nor end the thread.
        """
        while True:
            try:
                return action()
            except (sqlite3.Error, OSError) as error:
                _log.error("the job database cannot be used: %s", error)
            except Exception:
                _log.exception("the job database cannot be used")
            if self._stopping.wait(_RETRY_SECONDS):
                return None

    def _claim(self) -> tuple[Video, Take] | None:
        self._cancelled.clear()
        claimed = self._jobs.claim()
        if claimed is None:
            return None
        self._current = claimed
        now = claimed[0]
        with suppress(sqlite3.Error):
            now = self._jobs.get(now.id) or now
        if now.status != RUNNING:  # cancelled before `_current` was set
            self._cancelled.set()
        return claimed

    def _make(self, pipeline: Pipeline, video: Video, take: Take) -> Outcome:
        from syncos_jax.sampling.failures import DeviceMemoryError

        try:
            self._events.set(video.id, Progress(take.take), soon=True)
            job = TakeJob(pipeline, video, take, self._root / video.id, self._events, self._jobs)
            return Outcome(DONE, job.run(self._stop_requested, self._engine.settings))
        except (Terminated, Stopped):
            return Outcome(CANCELLED if self._cancelled.is_set() else QUEUED)
        except InputError as error:
            found = finding(error)
            return Outcome(FAILED, error=(found.message, found.remedy))
        except DeviceMemoryError as error:
            return Outcome(FAILED, error=(str(error), ""))
        except OSError as error:
            message = f"the video cannot be written: {error.strerror or error}"
            return Outcome(FAILED, error=(message, "Check the server's disk, then generate again"))
        except Exception as error:
            _log.exception("take %d of %s", take.take, video.id)
            message = f"internal error ({type(error).__name__})"
            return Outcome(FAILED, error=(message, "Check the server's log, then generate again"))

    def _clean_up(self, video: Video, take: Take, status: str) -> None:
        """Remove temporary files; what cannot be removed is logged and stays."""
        self._events.clear(video.id, take.take)
        folder = self._root / video.id
        try:
            if status in (CANCELLED, FAILED):
                shutil.rmtree(run_folder(take_file(folder, take.take)), ignore_errors=True)
            preview_file(folder).unlink(missing_ok=True)
            if status != QUEUED:  # left by a killed process
                for left in [*folder.glob(f".take{take.take}.*.*"), *folder.glob(".preview.*.png")]:
                    if left.is_file():
                        left.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("temporary files of %s cannot be removed: %s", video.id, error)

    def _stop_requested(self) -> bool:
        return self._stopping.is_set() or self._cancelled.is_set()


def _return_freed_memory() -> None:
    """Return freed memory to the system.

    glibc keeps memory for each thread that freed it, so a server that runs for days would grow.
    """
    with suppress(OSError, AttributeError, TypeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
