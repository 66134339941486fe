"""Making one video with all that is written beside it: stills, latents, its record."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncos_jax.errors import InputError
from syncos_jax.files import check_writable, replacing
from syncos_jax.files.documents import read_mapping
from syncos_jax.files.text import short
from syncos_jax.pipeline.checkpoint import RUN, Checkpoint, parse_every, run_folder
from syncos_jax.pipeline.encode import check_rate
from syncos_jax.pipeline.label import render
from syncos_jax.runs.progress import Phases, interruptible
from syncos_jax.runs.signals import kept_run, stop_between_parts
from syncos_jax.scenario import Scenario
from syncos_jax.scenario.template import Take

if TYPE_CHECKING:
    import jax

    from syncos_jax.pipeline import Pipeline, Video
    from syncos_jax.pipeline.request import Request
    from syncos_jax.sampling.run import Progress
    from syncos_jax.sampling.settings import Settings
    from syncos_jax.sampling.tape import Tape

_PIXELS = 256  # small videos grow to about this height
_compiled: set[str] = set()  # kinds of runs that this process has compiled already


@dataclass
class Job:
    """One video to make, and the names of what is written.

    Attributes:
        take: the scenario, and what tells it from its siblings.
        out: the video: a file, or a folder for PNG frames.
        sheet: the contact sheet, .png.
        latents: the latents, .npy or .npz.
        record: the sidecar, .json.
        template: the scenario's file.
        scale, label: as `Video.save` has them; scale None for what makes small videos visible.
        sampler, seed: in place of the scenario's.
        request: all that follows from these for a pipeline; `prepare` makes it.
        again: the record to make again, with its file.
        resume: whether to go on with what a killed run has left.
        every: how often the run's state is saved (`parse_every`).
        preview: a PNG to look at while it is being made; preview_every: rows between looks.
    """

    take: Take
    out: Path
    sheet: Path | None = None
    latents: Path | None = None
    record: Path | None = None
    template: Path | None = None
    scale: int | None = None
    label: str | None = None
    sampler: Settings | None = None
    seed: int | None = None
    request: Request | None = None
    again: tuple[Path, dict[str, Any]] | None = None
    group: str = ""
    resume: bool = True
    every: str = "30"
    preview: Path | None = None
    preview_every: int = 20

    @property
    def used_seed(self) -> int:
        """The seed of the run."""
        return self.take.scenario.seed if self.seed is None else self.seed

    def prepare(self, pipeline: Pipeline) -> Request:
        """What follows from the job for `pipeline`, derived when it is first asked for.

        Raises InputError where the scenario does not fit the model.
        """
        if self.request is None:
            self.request = pipeline.prepare(self.take.scenario, self.sampler, self.used_seed)
        return self.request


def check_places(jobs: list[Job]) -> None:
    """Makes sure that everything can be written before hours of work; raises InputError."""
    from syncos_jax.pipeline.video import check_video_path
    from syncos_jax.runs.record import FORMAT

    for job in jobs:
        check_video_path(job.out)
        if job.latents is not None and job.latents.suffix.lower() not in (".npy", ".npz"):
            raise InputError(f"{job.latents}: the name of the latents must end in .npy or .npz")
        for path in (job.sheet, job.latents, job.record, job.preview):
            if path is not None:
                check_writable(path)
        if job.record is not None and job.record.exists():
            if job.again is not None and job.record.resolve() == job.again[0].resolve():
                raise InputError(
                    f"`out={job.out}` would replace {job.record}, the record that `again` reads; "
                    "choose another name"
                )
            if not _is_record(job.record, FORMAT):
                raise InputError(
                    f"{job.record} is where the record of {job.out} goes, but is another file; "
                    "choose another name for `out`, or give `record=None`"
                )


def check_fit(pipeline: Pipeline, job: Job) -> None:
    """Makes sure that scenario, label and format fit the model's video; raises InputError."""
    request = job.prepare(pipeline)
    check_rate(job.out, request.fps)
    if job.label is not None:
        scale = _scale(job, request.height, request.width)
        render(job.label, request.height * scale, request.width * scale)


def _is_record(path: Path, wanted: str) -> bool:
    try:
        return read_mapping(path).get("format") == wanted
    except InputError:
        return False


def fit_memory(pipeline: Pipeline, jobs: Sequence[Job], phases: Phases) -> None:
    """Lets every job's calls have as many windows as fit the devices."""
    from syncos_jax.sampling.memory import largest_batch

    found: dict[Any, int] = {}
    for job in jobs:
        request = job.prepare(pipeline)
        windows = _kept_batch(job)  # a killed run goes on with the calls it had
        if windows is None:
            kind = (request.layout, request.frame_shape, request.sampler)
            if kind not in found:
                with phases.phase("measure"):
                    fit = interruptible(partial(largest_batch, pipeline.start(request)))
                phases.say(str(fit))
                found[kind] = fit.windows
            windows = found[kind]
        job.sampler, job.request = request.sampler.replace(batch=windows), None


def _kept_batch(job: Job) -> int | None:
    """Windows of a call of the run that the job goes on with, if there is one."""
    try:
        text = (run_folder(job.out) / RUN).read_text(encoding="utf-8") if job.resume else ""
        batch = json.loads(text)["run"]["sampler"]["batch"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return batch if isinstance(batch, int) else None


def make(
    pipeline: Pipeline, job: Job, phases: Phases, model_id: str, tell: Callable[[str], Any]
) -> None:
    """Samples, decodes and writes one video.

    Args:
        pipeline: that makes it.
        job: what to make.
        phases: where progress is said.
        model_id: name or folder of the model, as the user gave it.
        tell: is told, in one line, what has been written.

    Raises InputError where the scenario does not fit the model, OSError where writing fails.
    """
    from syncos_jax.pipeline.timings import Stopwatch

    request = job.prepare(pipeline)
    layout, sampler = request.layout, request.sampler
    phases.say(
        f"{request.frames} frames in {layout.count} windows of {layout.window}, "
        f"{len(request.scenario.events)} events, {sampler.name}, {sampler.steps} steps"
    )
    note = partial(_place, request.tape)
    with kept_run(
        run_folder(job.out),
        request.fingerprint,
        phases.say,
        resume=job.resume,
        every=parse_every(job.every),
    ) as kept:
        with phases.phase("sample", "calls", first="compile", note=note) as progress:
            watch = Stopwatch(progress)
            with stop_between_parts(watch) as watched:
                sampling = partial(_sample, pipeline, job, request, watched, kept)
                latents = interruptible(sampling)
        finish(pipeline, job, phases, model_id, latents, watch.row, tell)
        kept.remove()


def _sample(
    pipeline: Pipeline, job: Job, request: Request, watch: Progress, kept: Checkpoint
) -> jax.Array:
    """The latents of a job; of a run with a preview, a look at them between its parts."""
    if job.preview is None or kept.latents() is not None:
        return pipeline.latents(request, progress=watch, checkpoint=kept)
    from syncos_jax.pipeline.preview import Preview

    run = pipeline.start(request)
    look = Preview(pipeline, job.preview, job.preview_every)

    def progress(done: int, total: int) -> None:
        watch(done, total)
        look(run)

    return kept.play(run, progress)


def finish(
    pipeline: Pipeline,
    job: Job,
    phases: Phases,
    model_id: str,
    latents: jax.Array,
    row_seconds: float | None = None,
    tell: Callable[[str], Any] = lambda line: None,
) -> None:
    """Decodes a job's latents and writes all that belongs to its video; arguments as in `make`,
    `row_seconds`: what a call of the network took, where that is to be remembered."""
    from syncos_jax.runs import record as records
    from syncos_jax.sampling.hosts import is_main_process

    request = job.prepare(pipeline)
    with phases.phase("decode", "frames") as progress:
        frames = interruptible(partial(pipeline.decode, latents, progress=progress))
    if not is_main_process():  # of several, the first one writes
        return
    video = pipeline.video(request, frames)
    record = records.describe(request, latents, model_id)
    with phases.phase("write"):
        scale = _write(job, video, latents, records.comment(record))
    record.update(
        files={
            "video": job.out.name,
            "contact_sheet": job.sheet.name if job.sheet else None,
            "latents": job.latents.name if job.latents else None,
        },
        video=_measures(job, video, scale),
        template=_template(job),
        take=_take(job),
        timings={name: round(value, 3) for name, value in phases.seconds.items()},
        made_from=_compared(job, record, phases),
    )
    if job.record is not None:
        records.write_sidecar(job.record, record)
    if row_seconds is not None:
        _remember(request, phases.seconds, row_seconds, len(frames))
    tell(_summary(job, record["video"]))


def _remember(request: Request, seconds: dict[str, float], row: float, frames: int) -> None:
    """Keeps how long a run took, for plans."""
    from syncos_jax.pipeline.plan import run_kind
    from syncos_jax.pipeline.timings import Speed, recall, remember

    kind = run_kind(request)
    before = recall(kind) if str(kind) in _compiled else None
    _compiled.add(str(kind))
    speed = Speed(
        row,
        compile=seconds.get("compile", 0.0) if before is None else before.compile,
        load=seconds.get("load", 0.0),
        decode_frame=seconds["decode"] / frames,
        write_frame=seconds["write"] / frames,
    )
    remember(kind, speed)


def _place(tape: Tape, done: int) -> str:
    """Where on the tape the next row is: step, timestep, and what is done there."""
    rounds, at = tape.rounds, tape.rows.round[min(done, len(tape) - 1)]
    step, steps = int(rounds.step[at]) + 1, int(rounds.step[-1]) + 1
    stage = "refining" if rounds.refine[at] else "denoising"
    return f"step {step} of {steps}, t = {rounds.t[at]:.0f}, {stage}"


def _scale(job: Job, height: int, width: int) -> int:
    return job.scale or max(1, _PIXELS // min(height, width))


def _write(job: Job, video: Video, latents: jax.Array, comment: str) -> int:
    """Writes what was asked for; returns the scale of the video."""
    scale = _scale(job, *video.frames.shape[1:3])
    video.save(job.out, scale=scale, label=job.label, comment=comment)
    if job.sheet is not None:
        video.contact_sheet(job.sheet, comment=comment)
    if job.latents is not None:
        write_latents(job.latents, latents, comment)
    return scale


def write_latents(path: Path, latents: jax.Array, comment: str) -> None:
    """Writes float32 latents: .npy holds the array, .npz the arrays ``latents`` and ``comment``."""
    import numpy as np

    values = np.asarray(latents, np.float32)
    with replacing(path) as temporary, temporary.open("wb") as file:
        if path.suffix.lower() == ".npz":
            np.savez(file, latents=values, comment=np.asarray(comment))
        else:
            np.save(file, values)


def _measures(job: Job, video: Video, scale: int) -> dict[str, Any]:
    height, width = (side * scale for side in video.frames.shape[1:3])
    if job.out.suffix.lower() in (".mp4", ".mov", ".mkv", ".webm"):
        height, width = height + height % 2, width + width % 2
    return {
        "frames": len(video),
        "width": width,
        "height": height,
        "fps": video.fps,
        "seconds": video.seconds,
        "scale": scale,
        "label": job.label,
    }


def _template(job: Job) -> dict[str, Any] | None:
    if job.again is not None:
        return job.again[1].get("template")
    if job.template is None:
        return None
    return {"file": job.template.name, "values": dict(job.take.values)}


def _take(job: Job) -> dict[str, Any] | None:
    if job.take.count == 1:
        return None
    return {
        "group": job.group,
        "index": job.take.index,
        "count": job.take.count,
        "varies": dict(job.take.varies),
    }


def _compared(job: Job, record: dict[str, Any], phases: Phases) -> dict[str, Any] | None:
    """Says whether the latents are those of the record that was to be made again."""
    from syncos_jax.runs.record import differences

    if job.again is None:
        return None
    path, before = job.again
    identical = before["latents"]["sha256"] == record["latents"]["sha256"]
    if identical:
        phases.say(f"latents  bit for bit those of {path}")
    else:
        found = "; ".join(differences(before, record)) or "the same versions and kind of device"
        phases.say(f"warning: the latents are not those of {path} ({found})")
    return {"file": path.name, "identical": identical}


def _summary(job: Job, measures: dict[str, Any]) -> str:
    beside = [("stills", job.sheet), ("latents", job.latents), ("record", job.record)]
    written = "".join(f", {name} in {path}" for name, path in beside if path is not None)
    return (
        f"{job.out}: {measures['frames']} frames of {measures['width']}×{measures['height']}, "
        f"{measures['seconds']:.1f} s at {measures['fps']:g} frames per second{written}"
    )


def read_again(path: Path) -> tuple[Take, Any, int, dict[str, Any]]:
    """What a record says: take, sampler settings, seed, and the record; raises InputError."""
    from syncos_jax.runs.record import read_sidecar
    from syncos_jax.sampling.settings import settings_from_dict

    record = read_sidecar(path)
    scale, label = record["video"].get("scale"), record["video"].get("label")
    if scale is not None and (type(scale) is not int or not 1 <= scale <= 64):
        raise InputError(f"{path}: video.scale: is {short(scale)}, but expected 1 to 64")
    if label is not None and not isinstance(label, str):
        raise InputError(f"{path}: video.label: is {short(label)}, but expected text or null")
    try:
        story = Scenario.from_dict(record["scenario"])
        settings = settings_from_dict(record["sampler"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Take(story), settings, record["seed"], record


def check_model(pipeline: Pipeline, path: Path, record: dict[str, Any], model: str) -> None:
    """Refuses to make a video again with other weights; raises InputError."""
    there, here = record["model"], pipeline.model.weights_sha256
    if there["weights_sha256"] != here and there.get("dtype") == pipeline.model.dtype:
        raise InputError(
            f"{path}: was made with weights {there['weights_sha256'][:12]}..., but the model "
            f"{model!r} has {here[:12]}...; give the right one with `model`"
        )


def json_line(data: Any) -> str:
    """JSON for people and programs."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)


def total(phases: Phases, begin: float) -> None:
    """The last line of a run on stderr."""
    spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.seconds.items())
    phases.say(f"total    {time.perf_counter() - begin:7.1f} s   ({spent})")
