"""The work of ``syncos batch``: what is missing, in groups that share a program, one by one."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from syncos_jax.errors import InputError
from syncos_jax.pipeline.checkpoint import Busy, Checkpoint, Every, run_folder
from syncos_jax.pipeline.fingerprint import differences
from syncos_jax.runs import batch as batches
from syncos_jax.runs.batch import DONE, FAILED, PENDING, Item, Manifest
from syncos_jax.runs.make import Job, check_places, finish
from syncos_jax.runs.progress import Phases, interruptible
from syncos_jax.runs.signals import kept_run, stop_between_parts
from syncos_jax.sampling.faults import DeviceMemoryError, NonFiniteError

if TYPE_CHECKING:
    from syncos_jax.pipeline import Pipeline
    from syncos_jax.pipeline.request import Request


@dataclass
class Piece:
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
        """What is to be made."""
        assert self.job is not None and self.job.request is not None
        return self.job.request


class Batch:
    """A batch on its way.

    Args:
      pipeline: with a mesh, the videos are spread over its axis ``data``.
      model: as the user called it.
      out: the folder.
      suffix: of the videos, with its dot.
      every: how often the state of a run is saved.
      phases: where progress is said.
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
        self.places = pipeline.placement.videos
        self.pieces: list[Piece] = []
        self.manifest = Manifest(out)
        self._rows = self._total_rows = 0
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._session: dict[str, Any] = {"started": now, "process": os.getpid()}
        self._session |= {"videos": 0, "frames": 0}

    def add(self, items: Sequence[Item], sampler: str | None, changes: Mapping[str, Any]) -> None:
        """Takes scenarios in; `sampler` and the `changes` that are not None replace theirs."""
        for item in items:
            piece = Piece(item, item.error)
            self.pieces.append(piece)
            if item.take is None:
                continue
            try:
                self._prepare(piece, sampler, changes)
            except InputError as error:
                piece.error = f"{item.source}: {error}"

    def _prepare(self, piece: Piece, sampler: str | None, changes: Mapping[str, Any]) -> None:
        take = piece.item.take
        assert take is not None
        story = take.scenario
        story = story.with_sampler(sampler, **changes)
        video = self.out / f"{piece.name}{self.suffix}"
        piece.job = Job(
            # Its own name says what tells it from its siblings; the record says the values.
            take=type(take)(story, take.values, take.varies, take.name, take.index, take.count),
            out=video,
            sheet=video.with_suffix(".png") if self.contact_sheet else None,
            record=video.with_suffix(".json"),
            template=piece.item.file,
            group=piece.name.removesuffix(f"-{take.name}") if take.name else piece.name,
        )
        if video.with_suffix(".json") == self.manifest.path:
            raise InputError("the name 'manifest' is taken by the batch's own file; rename it")
        check_places([piece.job])
        piece.run = json.loads(json.dumps(piece.job.prepare(self.pipeline).fingerprint))

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
            folder, run = self._place(group)
            if folder.exists():
                try:
                    Checkpoint(folder, run).close()
                except Busy:
                    continue

    def _compare(self, resume: bool, retry_failed: bool) -> None:
        before = self.manifest.items() if resume else {}
        updates: dict[str, dict[str, Any]] = {}
        for piece in self.pieces:
            old = before.get(piece.name, {})
            status = old.get("status")
            if piece.error:
                updates[piece.name] = self._failed(piece, piece.error)
                continue
            assert piece.job is not None and piece.run is not None
            found = differences(old["run"], piece.run) if "run" in old else []
            if status == DONE and piece.job.out.exists():
                if found:
                    more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
                    raise InputError(
                        f"{piece.job.out} was made with other settings: {'; '.join(found[:3])}"
                        f"{more}. Give `resume=False` to make everything anew, choose another `out`, "
                        "or remove this video to make it again"
                    )
                continue
            if status == FAILED and "run" in old and not found and not retry_failed:
                piece.error = old["error"]
                continue
            fields: dict[str, Any] = {"status": PENDING, "source": piece.item.source}
            updates[piece.name] = fields | {"error": None, "run": None, "video": None}
        names = {piece.name for piece in self.pieces}
        done = {name for name, item in before.items() if item.get("status") == DONE}
        # What the source no longer has is forgotten unless there is a video of it.
        self.manifest.update(updates, forget=lambda name: name not in names | done)

    def _failed(self, piece: Piece, error: str) -> dict[str, Any]:
        piece.error = " ".join(error.split())
        return {
            "status": FAILED,
            "source": piece.item.source,
            "error": piece.error,
            "run": piece.run,
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
        at_a_time = f", {self.places} at a time" if self.places > 1 else ""
        self.phases.say(
            f"{count} of {len(self.pieces)} videos to make{at_a_time}, "
            f"{shapes} shape{'s' if shapes != 1 else ''} to compile"
        )
        if not missing:
            return
        self._begin = time.perf_counter()
        with self.phases.phase("make", "calls", first="compile") as progress:
            waiting, said = missing, False
            while waiting:
                busy = []
                for group in waiting:
                    try:
                        self._make(group, progress)
                    except Busy:  # another process is at it
                        busy.append(group)
                        continue
                    self._rows += len(group[0].request.tape)
                # Where that one dies, its work is taken over.
                waiting = [group for group in busy if self._missing(group)]
                if waiting:
                    if not said:
                        others = sum(len(self._missing(group)) for group in waiting)
                        self.phases.say(f"the last {others} are being made by other processes")
                    said = True
                    time.sleep(1.0)

    def _groups(self) -> list[list[Piece]]:
        """Videos that are made together: by program, and as many as there are places.

        They do not depend on what is done already, so that a group whose run was killed is found
        again, and that several processes form the same ones. What has failed leaves its place
        empty.
        """
        by_program: dict[Any, list[Piece]] = {}
        for piece in self.pieces:
            if piece.run is not None:
                by_program.setdefault(piece.request.program, []).append(piece)
        groups = [
            [piece for piece in same[start : start + self.places] if not piece.error]
            for same in by_program.values()
            for start in range(0, len(same), self.places)
        ]
        return [group for group in groups if group]

    def _missing(self, group: Sequence[Piece]) -> list[Piece]:
        """Those of a group that are neither done nor failed."""
        items = self.manifest.items()
        return [p for p in group if items.get(p.name, {}).get("status") == PENDING]

    def _make(self, group: list[Piece], progress: Any) -> None:
        """Makes a group, or says why it cannot be made."""
        while missing := self._missing(group):
            try:
                self._attempt(group, progress)
                return
            except Busy:
                raise
            except NonFiniteError as error:  # one of them diverges; the others go on without it
                wrong = group[min(error.video, len(group) - 1)]
                self.manifest.update({wrong.name: self._failed(wrong, str(error))})
                if self.places > 1:  # what is left is another group, with a run of its own
                    shutil.rmtree(self._place(group)[0], ignore_errors=True)
                group = [piece for piece in group if piece is not wrong]
            except (InputError, DeviceMemoryError) as error:
                # What is not missing any more has another process made in the meantime.
                still = [piece for piece in self._missing(group) if piece in missing]
                self.manifest.update({p.name: self._failed(p, str(error)) for p in still})
                return

    def _attempt(self, group: list[Piece], progress: Any) -> None:
        begin = time.perf_counter()
        folder, run = self._place(group)
        kept = ExitStack()
        opened = kept.enter_context(
            kept_run(folder, run, self.phases.say, resume=self._resume, every=self.every)
        )
        with kept:
            missing = self._missing(group)
            if missing:  # no other process has made them between the look and the lock
                report = partial(self._report, progress)
                with stop_between_parts(report) as watched:
                    latents = interruptible(partial(self._latents, group, opened, watched))
                for piece in missing:
                    index = group.index(piece)
                    own = latents if self.places == 1 else latents[index]
                    self._write(piece, own, (time.perf_counter() - begin) / len(missing))
            opened.remove()

    def _place(self, group: list[Piece]) -> tuple[Path, dict[str, Any]]:
        """The folder of a group's run, and what the run is."""
        one = group[0]
        assert one.job is not None and one.run is not None
        if self.places == 1:
            return run_folder(one.job.out), one.run
        folder = run_folder(self.out / batches.group_name([piece.name for piece in group]))
        return folder, {"videos": {piece.name: piece.run for piece in group}}

    def _latents(self, group: list[Piece], kept: Any, report: Any) -> Any:
        """``[f, h, w, C]``, or with several places ``[V, f, h, w, C]``."""
        if self.places == 1:
            return self.pipeline.latents(group[0].request, progress=report, checkpoint=kept)
        there = kept.latents()
        if there is not None:
            return there
        filled = [group[min(place, len(group) - 1)] for place in range(self.places)]
        run = self.pipeline.start_batch([piece.request for piece in filled])
        return np.asarray(kept.play(run, report))

    def _report(self, progress: Any, done: int, _: int) -> None:
        progress(min(self._rows + done, self._total_rows), self._total_rows)

    def _write(self, piece: Piece, latents: Any, seconds: float) -> None:
        assert piece.job is not None
        quiet = Phases(Console(quiet=True))
        finish(self.pipeline, piece.job, quiet, self.model, latents)
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
            "source": piece.item.source,
            "video": piece.job.out.name,
            "made": self.manifest.item(piece.name).get("made", 0) + 1,
            "run": piece.run,
            "frames": frames,
            "seconds": round(seconds, 3),
            "error": None,
        }
        self.manifest.update({piece.name: fields}, session)

    def summary(self, seconds: float) -> dict[str, str]:
        """Says what has come of it; returns the failures, by name."""
        items = self.manifest.items()
        own = {piece.name: items[piece.name] for piece in self.pieces}
        count = {
            status: sum(item["status"] == status for item in own.values())
            for status in (DONE, FAILED, PENDING)
        }
        said = ", ".join(f"{number} {status}" for status, number in count.items())
        if self._session["videos"]:
            self.phases.say(
                f"{self._session['videos']} videos in {seconds:.1f} s: "
                f"{self._session['videos_per_hour']:g} videos an hour, "
                f"{self._session['frames_per_second']:g} frames a second"
            )
        self.phases.say(f"{said}  ({self.manifest.path})")
        return {
            name: item.get("error", "") for name, item in own.items() if item["status"] == FAILED
        }
