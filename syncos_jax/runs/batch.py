"""Makes the missing videos of a batch, in groups that share a compiled program."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from syncos_jax.errors import InputError
from syncos_jax.pipeline.checkpoint import Busy, Checkpoint, Every, run_folder
from syncos_jax.pipeline.fingerprint import differences
from syncos_jax.runs.job import Job, check_outputs
from syncos_jax.runs.make import finish
from syncos_jax.runs.manifest import DONE, FAILED, PENDING, Item, Manifest, group_name
from syncos_jax.runs.progress import Phases, interruptible
from syncos_jax.runs.signals import kept_run, stop_between_parts
from syncos_jax.sampling.faults import DeviceMemoryError, NonFiniteError

if TYPE_CHECKING:
    from syncos_jax.pipeline import Pipeline
    from syncos_jax.pipeline.request import Request


@dataclass
class BatchVideo:
    """One video of the batch."""

    item: Item
    error: str = ""
    job: Job | None = None
    run: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """Its name in the manifest."""
        return self.item.name

    @property
    def request(self) -> Request:
        """The request of its job."""
        assert self.job is not None and self.job.request is not None
        return self.job.request


class Batch:
    """The videos of one batch, made and written down in its manifest.

    Args:
      pipeline: with a mesh, the videos are spread over its axis ``data``.
      model: as the user called it.
      out: the folder.
      suffix: of the videos, with its dot.
      every: how often the state of a run is saved.
      phases: reports progress.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        model: str,
        out: Path,
        suffix: str,
        every: Every,
        phases: Phases,
    ) -> None:
        self.pipeline = pipeline
        self.model = model
        self.out = out
        self.suffix = suffix
        self.every = every
        self.phases = phases
        self.contact_sheet = True
        self.side_by_side = pipeline.placement.videos
        self.videos: list[BatchVideo] = []
        self.manifest = Manifest(out)
        self._rows = self._total_rows = 0
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._session: dict[str, Any] = {"started": now, "process": os.getpid()}
        self._session |= {"videos": 0, "frames": 0}

    def add(self, items: Sequence[Item], sampler: str | None, changes: Mapping[str, Any]) -> None:
        """Takes scenarios in; `sampler` and the `changes` that are not None replace theirs."""
        for item in items:
            video = BatchVideo(item, item.error)
            self.videos.append(video)
            if item.take is None:
                continue
            try:
                self._prepare(video, sampler, changes)
            except InputError as error:
                video.error = f"{item.source}: {error}"

    def _prepare(self, video: BatchVideo, sampler: str | None, changes: Mapping[str, Any]) -> None:
        take = video.item.take
        assert take is not None
        path = self.out / f"{video.name}{self.suffix}"
        video.job = Job(
            # The record has the values; the video's own name has what distinguishes it.
            take=replace(take, scenario=take.scenario.with_sampler(sampler, **changes)),
            out=path,
            sheet=path.with_suffix(".png") if self.contact_sheet else None,
            record=path.with_suffix(".json"),
            template=video.item.file,
            group=video.name.removesuffix(f"-{take.name}") if take.name else video.name,
        )
        if path.with_suffix(".json") == self.manifest.path:
            raise InputError("the name 'manifest' is taken by the batch's own file; rename it")
        check_outputs([video.job])
        video.run = json.loads(json.dumps(video.job.prepare(self.pipeline).fingerprint))

    def open(self, resume: bool, retry_failed: bool) -> None:
        """Compares with the manifest, and writes down what is pending.

        Raises:
          InputError: if a video, or what a killed run has left, was made with other settings; says
            what differs.
        """
        self._resume = resume
        with self.manifest.lock:
            self._compare(resume, retry_failed)
        if not resume:
            return
        for group in self._groups():
            folder, run = self._run_of(group)
            if folder.exists():
                try:
                    Checkpoint(folder, run).close()
                except Busy:
                    continue

    def _compare(self, resume: bool, retry_failed: bool) -> None:
        before = self.manifest.items() if resume else {}
        updates: dict[str, dict[str, Any]] = {}
        for video in self.videos:
            old = before.get(video.name, {})
            status = old.get("status")
            if video.error:
                updates[video.name] = self._failed(video, video.error)
                continue
            assert video.job is not None and video.run is not None
            found = differences(old["run"], video.run) if "run" in old else []
            if status == DONE and video.job.out.exists():
                if found:
                    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
                    raise InputError(
                        f"{video.job.out} was made with other settings: {'; '.join(found[:3])}"
                        f"{more}. Give `resume=False` to make everything anew, choose another "
                        "`out`, or remove this video to make it again"
                    )
                continue
            if status == FAILED and "run" in old and not found and not retry_failed:
                video.error = old["error"]
                continue
            fields: dict[str, Any] = {"status": PENDING, "source": video.item.source}
            updates[video.name] = fields | {"error": None, "run": None, "video": None}
        names = {video.name for video in self.videos}
        done = {name for name, item in before.items() if item.get("status") == DONE}
        # What the source no longer has is forgotten unless there is a video of it.
        self.manifest.update(updates, forget=lambda name: name not in names | done)

    def _failed(self, video: BatchVideo, error: str) -> dict[str, Any]:
        video.error = " ".join(error.split())
        return {
            "status": FAILED,
            "source": video.item.source,
            "error": video.error,
            "run": video.run,
            "video": None,
        }

    # -- making ----------------------------------------------------------------------------------

    def make_all(self) -> None:
        """Makes everything that is missing and that no other process is making."""
        groups = self._groups()
        missing = [group for group in groups if self._missing(group)]
        self._total_rows = sum(len(group[0].request.tape) for group in missing)
        shapes = len({group[0].request.program for group in missing})
        count = sum(len(self._missing(group)) for group in missing)
        at_a_time = f", {self.side_by_side} at a time" if self.side_by_side > 1 else ""
        self.phases.say(
            f"{count} of {len(self.videos)} videos to make{at_a_time}, "
            f"{shapes} shape{'s' if shapes != 1 else ''} to compile"
        )
        if not missing:
            return
        self._begin = time.perf_counter()
        with self.phases.phase("make", "calls", first="compile") as progress:
            waiting, announced = missing, False
            while waiting:
                busy = []
                for group in waiting:
                    try:
                        self._make(group, progress)
                    except Busy:  # another process is making it
                        busy.append(group)
                        continue
                    self._rows += len(group[0].request.tape)
                # Where that one dies, its work is taken over.
                waiting = [group for group in busy if self._missing(group)]
                if waiting:
                    if not announced:
                        others = sum(len(self._missing(group)) for group in waiting)
                        self.phases.say(f"the last {others} are being made by other processes")
                    announced = True
                    time.sleep(1.0)

    def _groups(self) -> list[list[BatchVideo]]:
        """Videos that are made together: by program, and as many as are made side by side.

        They do not depend on what is done already, so that a group whose run was killed is found
        again, and that several processes form the same ones. What has failed is left
        out.
        """
        by_program: dict[Any, list[BatchVideo]] = {}
        for video in self.videos:
            if video.run is not None:
                by_program.setdefault(video.request.program, []).append(video)
        groups = [
            [video for video in same[start : start + self.side_by_side] if not video.error]
            for same in by_program.values()
            for start in range(0, len(same), self.side_by_side)
        ]
        return [group for group in groups if group]

    def _missing(self, group: Sequence[BatchVideo]) -> list[BatchVideo]:
        """Those of a group that are neither done nor failed."""
        items = self.manifest.items()
        return [p for p in group if items.get(p.name, {}).get("status") == PENDING]

    def _make(self, group: list[BatchVideo], progress: Any) -> None:
        """Makes a group, or writes down why it cannot be made."""
        while missing := self._missing(group):
            try:
                self._attempt(group, progress)
                return
            except Busy:
                raise
            except NonFiniteError as error:  # one of them diverges; the others go on without it
                wrong = group[min(error.video, len(group) - 1)]
                self.manifest.update({wrong.name: self._failed(wrong, str(error))})
                if self.side_by_side > 1:  # what is left is another group, with a run of its own
                    shutil.rmtree(self._run_of(group)[0], ignore_errors=True)
                group = [video for video in group if video is not wrong]
            except (InputError, DeviceMemoryError) as error:
                # What is not missing any more has another process made in the meantime.
                still = [video for video in self._missing(group) if video in missing]
                self.manifest.update({p.name: self._failed(p, str(error)) for p in still})
                return

    def _attempt(self, group: list[BatchVideo], progress: Any) -> None:
        begin = time.perf_counter()
        folder, run = self._run_of(group)
        stack = ExitStack()
        checkpoint = stack.enter_context(
            kept_run(folder, run, self.phases.say, resume=self._resume, every=self.every)
        )
        with stack:
            missing = self._missing(group)
            if missing:  # no other process has made them between the look and the lock
                report = partial(self._report, progress)
                with stop_between_parts(report) as watched:
                    latents = interruptible(partial(self._latents, group, checkpoint, watched))
                for video in missing:
                    index = group.index(video)
                    own = latents if self.side_by_side == 1 else latents[index]
                    self._write(video, own, (time.perf_counter() - begin) / len(missing))
            checkpoint.remove()

    def _run_of(self, group: list[BatchVideo]) -> tuple[Path, dict[str, Any]]:
        """The folder of a group's run, and what the run is."""
        one = group[0]
        assert one.job is not None and one.run is not None
        if self.side_by_side == 1:
            return run_folder(one.job.out), one.run
        folder = run_folder(self.out / group_name([video.name for video in group]))
        return folder, {"videos": {video.name: video.run for video in group}}

    def _latents(self, group: list[BatchVideo], checkpoint: Any, report: Any) -> Any:
        """``[f, h, w, C]``, or of videos side by side ``[V, f, h, w, C]``."""
        if self.side_by_side == 1:
            return self.pipeline.latents(group[0].request, progress=report, checkpoint=checkpoint)
        saved = checkpoint.latents()
        if saved is not None:
            return saved
        # The last one again where the group is short of videos.
        filled = [group[min(index, len(group) - 1)] for index in range(self.side_by_side)]
        run = self.pipeline.start_batch([video.request for video in filled])
        return np.asarray(checkpoint.play(run, report))

    def _report(self, progress: Any, done: int, _: int) -> None:
        progress(min(self._rows + done, self._total_rows), self._total_rows)

    def _write(self, video: BatchVideo, latents: Any, seconds: float) -> None:
        assert video.job is not None
        quiet = Phases(Console(quiet=True))
        finish(self.pipeline, video.job, quiet, self.model, latents)
        frames = len(latents)
        session = self._session
        spent = time.perf_counter() - self._begin
        session |= {"videos": session["videos"] + 1, "frames": session["frames"] + frames}
        session |= {
            "devices": self.pipeline.placement.mesh.size,
            "seconds": round(spent, 3),
            "videos_per_hour": round(3600 * session["videos"] / spent, 2),
            "frames_per_second": round(session["frames"] / spent, 3),
        }
        fields = {
            "status": DONE,
            "source": video.item.source,
            "video": video.job.out.name,
            "made": self.manifest.item(video.name).get("made", 0) + 1,
            "run": video.run,
            "frames": frames,
            "seconds": round(seconds, 3),
            "error": None,
        }
        self.manifest.update({video.name: fields}, session)

    def summary(self, seconds: float) -> dict[str, str]:
        """Reports how many videos are done, failed and pending; returns the errors, by name."""
        items = self.manifest.items()
        own = {video.name: items[video.name] for video in self.videos}
        count = {
            status: sum(item["status"] == status for item in own.values())
            for status in (DONE, FAILED, PENDING)
        }
        counts = ", ".join(f"{number} {status}" for status, number in count.items())
        if self._session["videos"]:
            self.phases.say(
                f"{self._session['videos']} videos in {seconds:.1f} s: "
                f"{self._session['videos_per_hour']:g} videos an hour, "
                f"{self._session['frames_per_second']:g} frames a second"
            )
        self.phases.say(f"{counts}  ({self.manifest.path})")
        return {
            name: item.get("error", "") for name, item in own.items() if item["status"] == FAILED
        }
