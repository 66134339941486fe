"""Makes one take after the other, on the devices of one pipeline."""

from __future__ import annotations

import ctypes
import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from syncos_jax.errors import InputError, Terminated
from syncos_jax.pipeline.checkpoint import Checkpoint, RunLocked, parse_save_interval, run_folder
from syncos_jax.runs.job import Job
from syncos_jax.runs.progress import Phases
from syncos_jax.scenario import Scenario
from syncos_jax.scenario.template import Take as ScenarioTake
from syncos_jax.studio.api_errors import finding
from syncos_jax.studio.documents import preview_file, take_file, thumbnail_file
from syncos_jax.studio.engine import Engine
from syncos_jax.studio.event_bus import PHASES, EventBus, Progress
from syncos_jax.studio.jobs import Jobs
from syncos_jax.studio.records import CANCELLED, DONE, FAILED, QUEUED, RUNNING, Take, Video
from syncos_jax.studio.thumbnails import write_thumbnail

if TYPE_CHECKING:
    from syncos_jax.pipeline import Pipeline
    from syncos_jax.pipeline.request import Request
    from syncos_jax.sampling.run import Run

_log = logging.getLogger(__name__)

PREVIEW_SECONDS = 4.0
"""Between two previews, at least; and never more than a twentieth of the time."""
_AGAIN_SECONDS = 5.0
PROGRESSED_SECONDS = 5.0
"""Between two notes in the file of jobs of how far a take got."""


class Worker(threading.Thread):
    """Makes what waits, until it is stopped.

    Args:
        number: which of the engine's pipelines it uses.
        engine: the model.
        jobs: what waits.
        events: receives the progress.
        root: holds a folder for each video.
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

    def stop(self) -> None:
        """The run saves its state after the row that is being played; the thread ends then."""
        self._stopping.set()
        with self._jobs.work:
            self._jobs.work.notify_all()

    def cancel(self, id: str) -> None:
        """Where it makes a take of this video, it stops after the row that is being played."""
        current = self._current
        if current is not None and current[0].id == id:
            self._cancelled.set()

    def run(self) -> None:
        pipeline = self._engine.wait(self._number)
        while pipeline is not None and not self._stopping.is_set():
            claimed = self._written(self._claim)
            if claimed is None:
                with self._jobs.work:
                    self._jobs.work.wait(timeout=1.0)
                continue
            outcome = self._outcome(pipeline, *claimed)
            self._written(partial(self._end, *claimed, *outcome))
            self._current = None
            _return_freed_memory()

    def _written(self, work: Callable[[], Any]) -> Any:
        """What `work` gives; again and again where the file of jobs cannot be written (a full disk,
        say), so that a take is not lost that was made."""
        while True:
            try:
                return work()
            except sqlite3.Error as error:
                _log.error("the file of jobs: %s", error)
                if self._stopping.wait(_AGAIN_SECONDS):
                    return None

    def put_back(self) -> None:
        """What it makes is first in the queue again: it is not waited for any longer."""
        current = self._current
        if current is not None:
            self._jobs.ended(current[0], current[1].take, QUEUED)

    def _claim(self) -> tuple[Video, Take] | None:
        self._cancelled.clear()
        claimed = self._jobs.claim()
        if claimed is None:
            return None
        self._current = claimed
        now = claimed[0]
        with suppress(sqlite3.Error):
            now = self._jobs.get(now.id) or now
        if now.status != RUNNING:  # cancelled before anybody knew who makes it
            self._cancelled.set()
        return claimed

    def _end(self, video: Video, take: Take, status: str, *facts: Any) -> None:
        folder = self._root / video.id
        if status in (CANCELLED, FAILED):
            shutil.rmtree(run_folder(take_file(folder, take.take)), ignore_errors=True)
        preview_file(folder).unlink(missing_ok=True)
        if status != QUEUED:  # what a killed process was writing when it was killed
            for left in [*folder.glob(f".take{take.take}.*.*"), *folder.glob(".preview.*.png")]:
                if left.is_file():
                    left.unlink(missing_ok=True)
        self._events.clear(video.id, take.take)
        self._jobs.ended(video, take.take, status, *facts)

    def _outcome(self, pipeline: Pipeline, video: Video, take: Take) -> tuple[Any, ...]:
        """(status, seconds, (message, remedy)) of a take; makes it."""
        from syncos_jax.sampling.failures import DeviceMemoryError

        self._events.set(video.id, Progress(take.take), soon=True)
        try:
            take_job = TakeJob(
                pipeline, video, take, self._root / video.id, self._events, self._jobs
            )
            seconds = take_job.run(self._stop_requested, self._engine.settings)
            return DONE, seconds
        except (Terminated, _Stopped):
            return (CANCELLED,) if self._cancelled.is_set() else (QUEUED,)
        except InputError as error:
            found = finding(error)
            return FAILED, None, (found.message, found.remedy)
        except DeviceMemoryError as error:
            return FAILED, None, (str(error), "")
        except OSError as error:
            message = f"the video cannot be written: {error.strerror or error}"
            return FAILED, None, (message, "Look at the server's disk, and make it again")
        except Exception as error:
            _log.exception("take %d of %s", take.take, video.id)
            message = f"something went wrong within the server ({type(error).__name__})"
            return FAILED, None, (message, "Look at what the server printed, and make it again")

    def _stop_requested(self) -> bool:
        return self._stopping.is_set() or self._cancelled.is_set()


def _return_freed_memory() -> None:
    """Hands what was freed back to the system. The C library keeps it for each of the threads that
    freed it, so that a server at work for days grows by what no thread uses."""
    with suppress(OSError, AttributeError, TypeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


class _Stopped(BaseException):
    """Raised where a take is stopped while it is not being sampled."""


class TakeJob:
    """One take on its way from a scenario to its files."""

    def __init__(
        self,
        pipeline: Pipeline,
        video: Video,
        take: Take,
        folder: Path,
        events: EventBus,
        jobs: Jobs,
    ) -> None:
        self.pipeline = pipeline
        self.video = video
        self.take = take
        self.folder = folder
        self.events = events
        self.jobs = jobs
        self.out = take_file(folder, take.take)

    def job(self) -> Job:
        """What `syncos_jax.runs` makes of it."""
        scenario = Scenario.from_dict(self.video.scenario)
        own = scenario.model_copy(update={"seed": self.take.seed})
        count = len(self.video.takes)
        varies = {"seed": self.take.seed} if count > 1 else {}
        values = self.video.variables or {}
        return Job(
            take=ScenarioTake(own, values, varies, "", self.take.take - 1, count),
            out=self.out,
            sheet=self.out.with_suffix(".png"),
            metadata=self.out.with_suffix(".json"),
            template=Path(f"{self.video.template}.yaml") if self.video.template else None,
            group=self.video.id,
        )

    def run(self, stop: Callable[[], bool], settings: Any) -> float:
        """Makes the take, unless its record says that it was; returns the seconds it plays."""
        from syncos_jax.runs.generate_video import decode_and_write
        from syncos_jax.runs.metadata import read_metadata

        self.folder.mkdir(parents=True, exist_ok=True)
        job = self.job()
        assert job.metadata is not None
        # The record is written last: a process that was killed after it has made the video.
        if not (job.metadata.is_file() and self.out.is_file()):
            request = job.prepare(self.pipeline)
            phases = _Phases(self, request, stop)
            with self._kept(request, stop, settings) as kept:
                with phases.phase("sample", "calls", first="compile") as progress:
                    latents = self._latents(request, progress, kept, stop)
                decode_and_write(self.pipeline, job, phases, settings.model, latents, phases.row)
                kept.remove()
        shutil.rmtree(run_folder(self.out), ignore_errors=True)
        if not thumbnail_file(self.folder, self.take.take).is_file():
            write_thumbnail(self.out, thumbnail_file(self.folder, self.take.take))
        return float(read_metadata(job.metadata)["video"]["seconds"])

    @contextmanager
    def _kept(self, request: Request, stop: Callable[[], bool], settings: Any) -> Iterator[Any]:
        """The state of the run; that of another run (of an older version, say) is begun anew."""
        folder = run_folder(self.out)
        every = parse_save_interval(settings.every)
        try:
            kept = Checkpoint(
                folder, request.fingerprint, every=every, stop=stop, warn=_log.warning
            )
        except RunLocked:
            raise
        except InputError:
            kept = Checkpoint(
                folder, request.fingerprint, resume=False, every=every, stop=stop, warn=_log.warning
            )
        with kept:
            yield kept

    def _latents(self, request: Request, progress: Any, kept: Checkpoint, stop: Any) -> Any:
        before = kept.latents()
        if before is not None:
            return before
        run = self.pipeline.start(request)
        look = PreviewWriter(self.pipeline, preview_file(self.folder))
        noted = float("-inf")

        def watched(done: int, total: int) -> None:
            nonlocal noted
            progress(done, total)
            if not stop():
                look(run, progress)
            if time.monotonic() - noted >= PROGRESSED_SECONDS:
                noted = time.monotonic()
                with suppress(sqlite3.Error):  # it counts deaths, no more
                    self.jobs.progressed(self.video, self.take.take, done)

        return kept.play(run, watched, part_seconds=0.0)  # row by row, to stop at any


class PreviewWriter:
    """Writes a preview now and then; one that cannot be made is not tried again."""

    def __init__(self, pipeline: Pipeline, path: Path) -> None:
        from syncos_jax.pipeline.preview import Preview

        self._preview: Any = Preview(pipeline, path)
        self._next = time.monotonic() + PREVIEW_SECONDS

    def __call__(self, run: Run, progress: Any) -> None:
        import numpy as np

        begin = time.monotonic()
        if self._preview is None or begin < self._next or run.next_call == run.num_calls:
            return
        try:
            self._preview.write(np.asarray(run.clean, np.float32))
            progress.previewed()
        except Exception:
            _log.warning("no previews of this video", exc_info=True)
            self._preview = None
        took = time.monotonic() - begin
        self._next = time.monotonic() + max(PREVIEW_SECONDS, 19 * took)


class _Phases(Phases):
    """Tells `EventBus` of the phases of a take, in place of printing them."""

    def __init__(self, job: TakeJob, request: Request, stop: Callable[[], bool]) -> None:
        super().__init__(Console(quiet=True))
        self._job = job
        self._stop = stop
        self._request = request
        self._steps = request.call_schedule.updates.step[request.call_schedule.calls.update]
        self._count = int(self._steps[-1]) + 1
        self._speed = _known_speed(request)
        self._preview = 0
        self._step = 0
        self._first: tuple[float, int] | None = None
        self.row: float | None = None
        """Seconds of a row, once that is known."""

    @contextmanager
    def phase(
        self, name: str, unit: str = "", first: str | None = None, note: Any = None
    ) -> Iterator[Any]:
        """As in `Phases`; what it yields ends the take where that is to stop."""
        begin = time.perf_counter()
        waiting = first

        def progress(done: int, total: int) -> None:
            nonlocal begin, waiting
            if waiting:
                self.record(waiting, time.perf_counter() - begin)
                begin, waiting = time.perf_counter(), None
            if name == "sample":
                self._sampled(done, total)
            elif self._stop():
                raise _Stopped

        def previewed() -> None:
            self._preview += 1

        progress.previewed = previewed  # type: ignore[attr-defined]
        if name != "sample" and self._stop():
            raise _Stopped
        if name != "sample":
            self._step = self._count
        self._tell(first or name, None)
        yield progress
        self.record(name, time.perf_counter() - begin)

    def _sampled(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._first = self._first or (now, done)
        if done > self._first[1]:
            self.row = (now - self._first[0]) / (done - self._first[1])
        row = self.row or (self._speed.row if self._speed else None)
        self._step = self._count if done == total else int(self._steps[done])
        rest = self._after_sampling()
        left = None if row is None else (total - done) * row + rest
        each = None if row is None else total * row + rest
        self._tell("sample", left, each)

    def _after_sampling(self) -> float:
        if self._speed is None:
            return 0.0
        return self._request.frames * (self._speed.decode_frame + self._speed.write_frame)

    def _tell(self, phase: str, left: float | None, each: float | None = None) -> None:
        if left is None and self._speed is not None:
            rows = len(self._request.call_schedule) if phase in ("compile", "load") else 0
            left = rows * self._speed.row + self._after_sampling()
            each = len(self._request.call_schedule) * self._speed.row + self._after_sampling()
        self._job.events.set(
            self._job.video.id,
            Progress(
                self._job.take.take,
                PHASES[phase],
                self._step,
                self._count,
                left,
                each,
                time.monotonic(),
                self._preview,
            ),
        )


def _known_speed(request: Request) -> Any:
    from syncos_jax.pipeline.cost import timing_key
    from syncos_jax.pipeline.timings import recall

    return recall(timing_key(request))
