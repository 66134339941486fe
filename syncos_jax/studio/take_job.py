"""Makes one take: from its scenario to the video, metadata file and thumbnail."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from syncos_jax.errors import InputError
from syncos_jax.media.marking import Marking
from syncos_jax.pipeline.checkpoint import Checkpoint, RunLocked, parse_save_interval, run_folder
from syncos_jax.runs.job import Job
from syncos_jax.runs.progress import Phases
from syncos_jax.scenario import Scenario
from syncos_jax.scenario.template import Take as ScenarioTake
from syncos_jax.studio.documents import preview_file, take_file, thumbnail_file
from syncos_jax.studio.event_bus import PHASES, EventBus, Progress
from syncos_jax.studio.jobs import Jobs
from syncos_jax.studio.records import Take, Video
from syncos_jax.studio.sources import resolved
from syncos_jax.studio.thumbnails import write_thumbnail

if TYPE_CHECKING:
    from syncos_jax.pipeline import Pipeline
    from syncos_jax.pipeline.request import Request
    from syncos_jax.pipeline.timings import Speed
    from syncos_jax.sampling.run import Run

_log = logging.getLogger(__name__)

PREVIEW_SECONDS = 4.0
"""Minimum interval between previews; they take at most a twentieth of the time."""
PROGRESS_SECONDS = 5.0
"""Interval at which progress is noted in the job database."""


class Stopped(BaseException):
    """The take was stopped outside sampling."""


class TakeJob:
    """One take.

    Args:
        pipeline: what makes it.
        video: the video.
        take: the take.
        folder: folder of the video's files.
        events: receives the progress.
        jobs: notes how far it got.
    """

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
        """The job of `syncos_jax.runs` that makes it."""
        root = self.folder.parent.parent
        scenario = resolved(Scenario.from_dict(self.video.scenario), root)
        own = scenario.model_copy(update={"seed": self.take.seed})
        count = len(self.video.takes)
        varies = {"seed": self.take.seed} if count > 1 else {}
        values = self.video.variables or {}
        settings = self.video.settings or {}
        marking = dataclasses.replace(Marking.from_environment(), register=root / "videos")
        if settings.get("watermark") is not None:
            marking = dataclasses.replace(marking, watermark=settings["watermark"])
        return Job(
            take=ScenarioTake(own, values, varies, "", self.take.take - 1, count),
            out=self.out,
            sheet=self.out.with_suffix(".png"),
            metadata=self.out.with_suffix(".json"),
            template=Path(f"{self.video.template}.yaml") if self.video.template else None,
            group=self.video.id,
            label=settings.get("label"),
            marking=marking,
        )

    def run(self, stop: Callable[[], bool], settings: Any) -> float:
        """Make the take, unless its metadata file says it exists; return its length in seconds."""
        from syncos_jax.runs.generate_video import decode_and_write
        from syncos_jax.runs.metadata import read_metadata

        self.folder.mkdir(parents=True, exist_ok=True)
        job = self.job()
        assert job.metadata is not None
        # The metadata file is written last: if it exists, so does the video.
        if not (job.metadata.is_file() and self.out.is_file()):
            request = job.prepare(self.pipeline)
            phases = TakeProgress(self, request, stop)
            with self._checkpoint(request, stop, settings) as checkpoint:
                with phases.phase("sample", "calls", first="compile") as progress:
                    latents = self._latents(request, progress, checkpoint, stop)
                decode_and_write(
                    self.pipeline, job, phases, settings.model, latents, phases.call_seconds
                )
                checkpoint.remove()
        shutil.rmtree(run_folder(self.out), ignore_errors=True)
        if not thumbnail_file(self.folder, self.take.take).is_file():
            write_thumbnail(self.out, thumbnail_file(self.folder, self.take.take))
        return float(read_metadata(job.metadata)["video"]["seconds"])

    @contextmanager
    def _checkpoint(
        self, request: Request, stop: Callable[[], bool], settings: Any
    ) -> Iterator[Any]:
        """The checkpoint of the run; one of another run (or package version) is replaced."""
        folder = run_folder(self.out)
        every = parse_save_interval(settings.every)
        try:
            checkpoint = Checkpoint(
                folder, request.fingerprint, every=every, stop=stop, warn=_log.warning
            )
        except RunLocked:
            raise
        except InputError:
            checkpoint = Checkpoint(
                folder, request.fingerprint, resume=False, every=every, stop=stop, warn=_log.warning
            )
        with checkpoint:
            yield checkpoint

    def _latents(self, request: Request, progress: Any, checkpoint: Checkpoint, stop: Any) -> Any:
        before = checkpoint.latents()
        if before is not None:
            return before
        run = self.pipeline.start(request)
        write_preview = PreviewWriter(self.pipeline, preview_file(self.folder))
        noted = float("-inf")

        def watched(done: int, total: int) -> None:
            nonlocal noted
            progress(done, total)
            if not stop():
                write_preview(run, progress)
            if time.monotonic() - noted >= PROGRESS_SECONDS:
                noted = time.monotonic()
                with suppress(sqlite3.Error):  # it only resets the crash count
                    self.jobs.progressed(self.video, self.take.take, done)

        return checkpoint.play(run, watched, part_seconds=0.0)  # call by call, to stop at any


class PreviewWriter:
    """Writes previews at intervals, until one fails."""

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
            _log.warning("previews of this video are disabled", exc_info=True)
            self._preview = None
        took = time.monotonic() - begin
        self._next = time.monotonic() + max(PREVIEW_SECONDS, 19 * took)


class TakeProgress(Phases):
    """Publishes the phases of a take on the event bus."""

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
        self.call_seconds: float | None = None
        """Seconds per network call, once known."""

    @contextmanager
    def phase(
        self, name: str, unit: str = "", first: str | None = None, note: Any = None
    ) -> Iterator[Any]:
        """As in `Phases`; the yielded callback raises `Stopped` if the take is to stop."""
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
                raise Stopped

        def previewed() -> None:
            self._preview += 1

        progress.previewed = previewed  # type: ignore[attr-defined]
        if name != "sample" and self._stop():
            raise Stopped
        if name != "sample":
            self._step = self._count
        self._publish(first or name, None)
        yield progress
        self.record(name, time.perf_counter() - begin)

    def _sampled(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._first = self._first or (now, done)
        if done > self._first[1]:
            self.call_seconds = (now - self._first[0]) / (done - self._first[1])
        row = self.call_seconds or (self._speed.call if self._speed else None)
        self._step = self._count if done == total else int(self._steps[done])
        rest = self._after_sampling()
        left = None if row is None else (total - done) * row + rest
        each = None if row is None else total * row + rest
        self._publish("sample", left, each)

    def _after_sampling(self) -> float:
        if self._speed is None:
            return 0.0
        return self._request.frames * (self._speed.decode_frame + self._speed.write_frame)

    def _publish(self, phase: str, left: float | None, each: float | None = None) -> None:
        if left is None and self._speed is not None:
            rows = len(self._request.call_schedule) if phase in ("compile", "load") else 0
            left = rows * self._speed.call + self._after_sampling()
            each = len(self._request.call_schedule) * self._speed.call + self._after_sampling()
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


def _known_speed(request: Request) -> Speed | None:
    from syncos_jax.pipeline.cost import timing_key
    from syncos_jax.pipeline.timings import recall

    return recall(timing_key(request))
