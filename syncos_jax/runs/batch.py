"""Makes the missing videos of a batch, in groups that share a compiled program."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from syncos_jax.errors import Argument, InputError, Terminated
from syncos_jax.files.atomic import remove_leftovers
from syncos_jax.pipeline.checkpoint import (
    LATENTS,
    Checkpoint,
    RunLocked,
    parse_save_interval,
)
from syncos_jax.pipeline.fingerprint import differences, listed
from syncos_jax.runs.generate_video import decode_and_write
from syncos_jax.runs.groups import IN_HAND, BatchVideo, Group, in_groups, pending, run_of
from syncos_jax.runs.items import Item
from syncos_jax.runs.job import Job, check_outputs
from syncos_jax.runs.markers import DONE, FAILED, PENDING, Markers
from syncos_jax.runs.outputs import Outputs
from syncos_jax.runs.postprocess import PostprocessThread
from syncos_jax.runs.progress import Phases, interruptible
from syncos_jax.runs.sampler_thread import SamplerThread
from syncos_jax.runs.signals import defer_sigterm, open_checkpoint
from syncos_jax.runs.throughput import Session
from syncos_jax.runs.worker_config import WorkerConfig
from syncos_jax.sampling.failures import DeviceMemoryError, NonFiniteError
from syncos_jax.scenario.template import Take

if TYPE_CHECKING:
    from syncos_jax.pipeline import Pipeline


class Batch:
    """The videos of one task of a batch.

    While one is sampled, the previous one is decoded and written, and the prompts of the next one
    are encoded. With several devices per video, or too little memory for both, decoding alternates
    with sampling: programs with collectives, started by two threads, may deadlock.

    Args:
      pipeline: with a mesh, the videos are spread over its axis ``data``.
      config: what to make, and how.
      outputs: where the videos go.
      phases: reports progress.
      shard: which part of the batch this is, for the markers.

    Attributes:
      overlap: whether decoding and encoding happen during sampling.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        config: WorkerConfig,
        outputs: Outputs,
        phases: Phases,
        shard: str = "0/1",
    ) -> None:
        self.pipeline = pipeline
        self.config = config
        self.outputs = outputs
        self.phases = phases
        self.overlap = True
        self._every = parse_save_interval(config.checkpoint_every)
        self.side_by_side = pipeline.placement.videos
        self.videos: list[BatchVideo] = []
        self.markers = Markers(outputs)
        self.session = Session(shard, pipeline.placement.mesh.size)
        self._sampler = SamplerThread(pipeline, self.session.sampler)
        self._postprocess = PostprocessThread()
        self._decode_beside = pipeline.placement.mesh.size == 1
        self._rows = self._total_rows = 0

    def add(self, items: Sequence[Item]) -> None:
        """Adds scenarios, with the sampler and settings of the configuration."""
        for item in items:
            video = BatchVideo(item, error="" if item.error is None else str(item.error))
            self.videos.append(video)
            if item.take is None:
                continue
            try:
                self._prepare(video, item.take)
            except InputError as error:
                video.error = str(error.within(item.source))

    def _prepare(self, video: BatchVideo, take: Take) -> None:
        config = self.config
        path = self.outputs.work / f"{video.name}{config.suffix}"
        scenario = take.scenario.with_sampler(config.sampler, **config.changes)
        scenario = scenario.model_copy(update={"lora": config.lora or scenario.lora})
        video.job = Job(
            take=replace(take, scenario=scenario),
            out=path,
            sheet=path.with_suffix(".png") if config.contact_sheet else None,
            metadata=path.with_suffix(".json"),
            template=video.item.file,
            group=video.name.removesuffix(f"-{take.name}") if take.name else video.name,
        )
        check_outputs([video.job])
        video.run = json.loads(json.dumps(video.job.prepare(self.pipeline).fingerprint))

    def open(self) -> None:
        """Compares the videos with their markers, and marks invalid scenarios as failed.

        Raises:
          InputError: a video or a saved run state was made with other settings; says what differs.
        """
        resume = self.config.resume
        before = self.markers.read_all([video.name for video in self.videos])
        if not resume:  # only how often they were made counts
            before = {name: {"made": old.get("made", 0)} for name, old in before.items()}
        there = self.outputs.names() if resume else set()
        for video in self.videos:
            self._compare(video, before.get(video.name, {}), there)
        for group in in_groups(self.videos, self.side_by_side) if resume else []:
            folder, run = self._run_of(group)
            if folder.exists():
                try:
                    Checkpoint(folder, run).close()
                except RunLocked:
                    continue

    def _compare(self, video: BatchVideo, old: dict[str, Any], there: set[str]) -> None:
        video.made = int(old.get("made", 0))
        if video.error:
            if old.get("status") != FAILED or old.get("error") != " ".join(video.error.split()):
                self._failed(video, video.error)
            video.status = FAILED
            return
        assert video.run is not None
        found = differences(old["run"], video.run) if "run" in old else []
        if old.get("status") == DONE and video.file in there:
            if found:
                raise InputError(
                    f"was made with other settings: {listed(found)}",
                    place=self.outputs.address(video.file),
                    remedy=(
                        "pass ",
                        Argument("resume", False),
                        " to make everything again, choose another ",
                        Argument("out"),
                        ", or remove this video",
                    ),
                )
            video.status = DONE
        elif (
            old.get("status") == FAILED
            and "run" in old
            and not found
            and not self.config.retry_failed
        ):
            video.status, video.error = FAILED, str(old.get("error", ""))

    def _failed(self, video: BatchVideo, error: str) -> None:
        video.status, video.error = FAILED, " ".join(error.split())
        fields = {"status": FAILED, "source": video.item.source, "error": video.error}
        fields["shard"] = self.session.shard
        self.markers.write(video.name, fields | ({"run": video.run} if video.run else {}))

    # -- making ----------------------------------------------------------------------------------

    def make_all(self) -> None:
        """Makes everything that is missing."""
        groups = in_groups(self.videos, self.side_by_side)
        self._remove_leftovers([group for group in groups if not pending(group)])
        missing = [group for group in groups if pending(group)]
        self._rows, self._total_rows = (
            0,
            sum(len(group[0].request.call_schedule) for group in missing),
        )
        shapes = len({group[0].request.program for group in missing})
        count = sum(len(pending(group)) for group in missing)
        at_a_time = f", {self.side_by_side} at a time" if self.side_by_side > 1 else ""
        self.phases.say(
            f"{count} of {len(self.videos)} videos to make{at_a_time}, "
            f"{shapes} shape{'s' if shapes != 1 else ''} to compile"
        )
        if not missing:
            return
        try:
            with self.phases.phase("make", "calls", first="compile") as progress:
                # Runs locked by another process are tried once more: that process may have died.
                for group in self._make_each(self._make_each(missing, progress), progress):
                    names = ", ".join(video.name for video in pending(group))
                    self.phases.say(f"{names}: another process is making it")
                self._postprocess.drain()
        except BaseException as stop:  # after a failure, too, sampled videos are finished
            interrupted = isinstance(stop, KeyboardInterrupt) and not isinstance(stop, Terminated)
            self._postprocess.give_up(at_once=interrupted)
            raise

    def _remove_leftovers(self, made: list[Group]) -> None:
        """Removes what killed processes left of finished videos: run states and temporary files."""
        jobs = [video.job for group in made for video in group if video.job is not None]
        written = [path for job in jobs for path in (job.out, job.sheet, job.latents, job.metadata)]
        remove_leftovers(self.outputs.work, [path for path in written if path is not None])
        for group in made:
            folder, run = self._run_of(group)
            if folder.is_dir():
                with suppress(InputError):  # locked by another process, or not a run's folder
                    Checkpoint(folder, run, resume=False).remove()

    def _make_each(self, groups: list[Group], progress: Any) -> list[Group]:
        """Makes groups one after another; returns those locked by another process."""
        busy = []
        for number, group in enumerate(groups, 1):
            try:
                self._make(group, groups[number] if number < len(groups) else [], progress)
            except RunLocked:
                busy.append(group)
                continue
            self._rows += len(group[0].request.call_schedule)
        return busy

    def _make(self, group: Group, after: Group, progress: Any) -> None:
        """Makes a group, or marks videos as failed."""
        while pending(group):
            try:
                self._sample(group, after, progress)
                return
            except RunLocked:
                raise
            except NonFiniteError as error:  # one diverged; the others continue without it
                wrong = group[min(error.video, len(group) - 1)]
                self._failed(wrong, str(error))
                if self.side_by_side > 1:  # the rest is another group, with its own run state
                    shutil.rmtree(self._run_of(group)[0], ignore_errors=True)
                group = [video for video in group if video is not wrong]
            except (InputError, DeviceMemoryError) as error:
                if isinstance(error, DeviceMemoryError) and self._decode_beside and self.overlap:
                    self._decode_beside = False  # perhaps there was not memory for both
                    self._postprocess.drain()
                    continue
                for video in pending(group):
                    self._failed(video, str(error))

    def _sample(self, group: Group, after: Group, progress: Any) -> None:
        begin = time.perf_counter()
        folder, run = self._run_of(group)
        with ExitStack() as stack:
            keeping = open_checkpoint(
                folder, run, self.phases.say, resume=self.config.resume, every=self._every
            )
            checkpoint = stack.enter_context(keeping)
            self._look_again(group)
            missing = pending(group)
            if not missing:
                checkpoint.remove()
                return
            then = [video.request for video in after] if self._starts_beside(after) else []
            with defer_sigterm(partial(self._report, progress)) as watched:
                requests = [video.request for video in group]
                play = partial(self._sampler.latents, requests, checkpoint, watched, then)
                latents = interruptible(play)
            each = latents if self.side_by_side > 1 else [latents]
            made = [(v, one) for v, one in zip(group, each, strict=False) if v in missing]
            seconds = (time.perf_counter() - begin) / len(missing)
            work = partial(self._finish_all, made, seconds, checkpoint, stack.pop_all())
        for video in missing:
            video.status = IN_HAND
        if self.overlap:
            self._postprocess.submit(work)
        else:
            work()

    def _starts_beside(self, after: Group) -> bool:
        """Whether the prompts of the next group are encoded while this one is sampled."""
        if not (after and self.overlap and self._decode_beside and pending(after)):
            return False
        return not (self._run_of(after)[0] / LATENTS).exists()

    def _look_again(self, group: Group) -> None:
        """Looks again at the markers: another process may have made a video in the meantime."""
        for video in pending(group) if self.config.resume else []:
            marker = self.markers.read(video.name)
            made = marker.get("status") == DONE and marker.get("run") == video.run
            if made and self.outputs.has(video.file):
                video.status = DONE

    def _run_of(self, group: Group) -> Any:
        return run_of(group, self.side_by_side, self.outputs.work)

    def _report(self, progress: Any, done: int, _: int) -> None:
        progress(min(self._rows + done, self._total_rows), self._total_rows)

    # -- in the postprocessing thread ------------------------------------------------------------

    def _finish_all(
        self, made: list[tuple[BatchVideo, Any]], seconds: float, checkpoint: Any, stack: ExitStack
    ) -> None:
        """Decodes and writes the videos of a group, then removes its run state."""
        with stack:
            for video, latents in made:
                try:
                    self._finish(video, latents, seconds)
                except InputError as error:
                    self._failed(video, str(error))
            checkpoint.remove()

    def _finish(self, video: BatchVideo, latents: Any, seconds: float) -> None:
        assert video.job is not None
        quiet = Phases(Console(quiet=True))
        with quiet.phase("decode"):
            frames = self._decoded(latents)
        decode_and_write(self.pipeline, video.job, quiet, self.config.model, latents, frames=frames)
        for path in (video.job.sheet, video.job.metadata, video.job.out):
            if path is not None:
                self.outputs.publish(path)
        video.made += 1
        fields = {
            "status": DONE,
            "source": video.item.source,
            "video": video.file,
            "made": video.made,
            "run": video.run,
            "frames": len(latents),
            "seconds": round(seconds, 3),
            "shard": self.session.shard,
        }
        self.markers.write(video.name, fields)
        video.status = DONE
        self.session.videos += 1
        self.session.frames += len(latents)
        self.markers.write_session(self.session.report())

    def _decoded(self, latents: Any) -> np.ndarray:
        decode = partial(self.pipeline.decode, latents)
        if self._decode_beside:
            try:
                return decode()
            except RuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
            self._decode_beside = False  # not enough memory for both
        with self._sampler.lock:
            return decode()

    def summary(self) -> dict[str, str]:
        """Reports how many videos are done, failed and pending; returns the errors by name."""
        count = {
            status: sum(video.status == status for video in self.videos)
            for status in (DONE, FAILED, PENDING)
        }
        said = self.session.report()
        if self.session.videos:
            self.markers.write_session(said)
            busy = said["sampler_busy"]
            self.phases.say(
                f"{said['videos']} videos in {said['seconds']:.1f} s: "
                f"{said['videos_per_hour']:g} videos/hour, "
                f"{said['frames_per_second']:g} frames/s"
                + ("" if busy is None else f", sampler busy {100 * busy:.0f} % of the time")
            )
        counts = ", ".join(f"{number} {status}" for status, number in count.items())
        self.phases.say(f"{counts}  ({self.outputs.place})")
        return {video.name: video.error for video in self.videos if video.status == FAILED}

    @property
    def left(self) -> int:
        """How many videos are still pending."""
        return sum(video.status == PENDING for video in self.videos)
