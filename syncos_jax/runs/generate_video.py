"""Makes one video with all that is written beside it: stills, latents, its record."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncos_jax.files import replacing
from syncos_jax.pipeline.checkpoint import Checkpoint, parse_save_interval, run_folder
from syncos_jax.runs.job import Job, scale_of
from syncos_jax.runs.progress import Phases, interruptible
from syncos_jax.runs.signals import defer_sigterm, open_checkpoint

if TYPE_CHECKING:
    import jax
    import numpy as np

    from syncos_jax.pipeline import Pipeline, Video
    from syncos_jax.pipeline.request import Request
    from syncos_jax.sampling.call_schedule import CallSchedule
    from syncos_jax.sampling.run import Progress

_compiled: set[str] = set()  # kinds of runs that this process has compiled already


def generate_video(
    pipeline: Pipeline, job: Job, phases: Phases, model_id: str, report: Callable[[str], Any]
) -> Video | None:
    """Samples, decodes and writes one video, and returns it where this process writes.

    Args:
        pipeline: that makes it.
        job: what to make.
        phases: reports progress.
        model_id: name or folder of the model, as the user gave it.
        report: called with one line that says what has been written.

    Raises InputError where the scenario does not fit the model, OSError where writing fails.
    """
    from syncos_jax.pipeline.timings import Stopwatch

    request = job.prepare(pipeline)
    layout, sampler = request.layout, request.sampler
    phases.say(
        f"{request.frames} frames in {layout.count} windows of {layout.window}, "
        f"{len(request.scenario.events)} events, {sampler.name}, {sampler.steps} steps"
    )
    note = partial(_position, request.call_schedule)
    with open_checkpoint(
        run_folder(job.out),
        request.fingerprint,
        phases.say,
        resume=job.resume,
        every=parse_save_interval(job.every),
    ) as checkpoint:
        with phases.phase("sample", "calls", first="compile", note=note) as progress:
            watch = Stopwatch(progress)
            with defer_sigterm(watch) as watched:
                sampling = partial(_sample, pipeline, job, request, watched, checkpoint, phases.say)
                latents = interruptible(sampling)
        video = decode_and_write(pipeline, job, phases, model_id, latents, watch.row, report)
        checkpoint.remove()
    return video


def _sample(
    pipeline: Pipeline,
    job: Job,
    request: Request,
    watch: Progress,
    checkpoint: Checkpoint,
    say: Callable[[str], None],
) -> jax.Array:
    """The latents of a job; its preview, if any, is written between the parts of the run."""
    if checkpoint.latents() is not None:
        return pipeline.latents(request, checkpoint=checkpoint)
    run = pipeline.start(request)
    progress = watch
    if job.preview is not None:
        from syncos_jax.pipeline.preview import Preview

        preview = Preview(pipeline, job.preview, job.preview_every)

        def progress(done: int, total: int) -> None:
            watch(done, total)
            preview(run)

    latents = checkpoint.play(run, progress)
    if request.sampler.reuse is not None:
        say(f"{run.num_skipped:,} of {request.summary.samples:,} clips spared by reuse")
    return latents


def decode_and_write(
    pipeline: Pipeline,
    job: Job,
    phases: Phases,
    model_id: str,
    latents: jax.Array,
    row_seconds: float | None = None,
    report: Callable[[str], Any] = lambda line: None,
    *,
    frames: np.ndarray | None = None,
) -> Video | None:
    """Decodes latents and writes the video; arguments as in `generate_video`,
    `row_seconds`: what a call of the network took, where that is to be remembered; `frames`: the
    latents decoded, where that has been done."""
    from syncos_jax.runs.metadata import describe, write_metadata
    from syncos_jax.sampling.hosts import is_main_process

    request = job.prepare(pipeline)
    if frames is None:
        with phases.phase("decode", "frames") as progress:
            frames = interruptible(partial(pipeline.decode, latents, progress=progress))
    if not is_main_process():  # of several, the first one writes
        return None
    video = pipeline.video(request, frames)
    record = describe(request, latents, model_id)
    with phases.phase("write"):
        scale, marks = _write(job, video, latents, record)
    record.update(
        files={
            "video": job.out.name,
            "contact_sheet": job.sheet.name if job.sheet else None,
            "latents": job.latents.name if job.latents else None,
        },
        video=_video_facts(job, video, scale),
        marks=marks,
        template=_template(job),
        take=_take(job),
        timings={name: round(value, 3) for name, value in phases.seconds.items()},
        made_from=_compare_with_original(job, record, phases),
    )
    if job.metadata is not None:
        write_metadata(job.metadata, record)
    if row_seconds is not None:
        _record_speed(request, phases.seconds, row_seconds, len(frames))
    report(_summary(job, record["video"]))
    return video


def _record_speed(request: Request, seconds: dict[str, float], row: float, frames: int) -> None:
    """Writes down how long a run took; plans read it."""
    from syncos_jax.pipeline.plan import timing_key
    from syncos_jax.pipeline.timings import Speed, recall, remember

    kind = timing_key(request)
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


def _position(call_schedule: CallSchedule, done: int) -> str:
    """The next row's step, timestep and stage, in words."""
    updates, at = (
        call_schedule.updates,
        call_schedule.calls.update[min(done, len(call_schedule) - 1)],
    )
    step, steps = int(updates.step[at]) + 1, int(updates.step[-1]) + 1
    stage = "refining" if updates.refine[at] else "denoising"
    return f"step {step} of {steps}, t = {updates.t[at]:.0f}, {stage}"


def _write(
    job: Job, video: Video, latents: jax.Array, record: dict[str, Any]
) -> tuple[int, dict[str, Any] | None]:
    """Writes what was asked for; returns the scale of the video and how it is marked."""
    from syncos_jax.media.marking import run_id
    from syncos_jax.runs.metadata import signed_facts, video_comment

    comment = video_comment(record)
    scale = scale_of(job, *video.frames.shape[1:3])
    name = run_id(record["latents"]["sha256"])
    video.save(
        job.out,
        scale=scale,
        label=job.label,
        comment=comment,
        watermark=int(name, 16) if job.marking.watermark else None,
    )
    facts = {"run_id": name, **signed_facts(record, prompts=job.marking.prompts)}
    marks = job.marking.apply(job.out, facts, title=record["title"])
    if job.sheet is not None:
        video.contact_sheet(job.sheet, comment=comment)
    if job.latents is not None:
        write_latents(job.latents, latents, comment)
    return scale, marks


def write_latents(path: Path, latents: jax.Array, comment: str) -> None:
    """Writes float32 latents: .npy holds the array, .npz the arrays ``latents`` and ``comment``."""
    import numpy as np

    values = np.asarray(latents, np.float32)
    with replacing(path) as temporary, temporary.open("wb") as file:
        if path.suffix.lower() == ".npz":
            np.savez(file, latents=values, comment=np.asarray(comment))
        else:
            np.save(file, values)


def _video_facts(job: Job, video: Video, scale: int) -> dict[str, Any]:
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
    if job.original is not None:
        return job.original[1].get("template")
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


def _compare_with_original(
    job: Job, record: dict[str, Any], phases: Phases
) -> dict[str, Any] | None:
    """Reports whether the latents are those of the video that was to be made again."""
    from syncos_jax.runs.metadata import differences

    if job.original is None:
        return None
    path, before = job.original
    identical = before["latents"]["sha256"] == record["latents"]["sha256"]
    if identical:
        phases.say(f"latents  bit for bit those of {path}")
    else:
        found = "; ".join(differences(before, record)) or "the same versions and kind of device"
        phases.say(f"warning: the latents are not those of {path} ({found})")
    return {"file": path.name, "identical": identical}


def _summary(job: Job, measures: dict[str, Any]) -> str:
    beside = [("stills", job.sheet), ("latents", job.latents), ("record", job.metadata)]
    written = "".join(f", {name} in {path}" for name, path in beside if path is not None)
    return (
        f"{job.out}: {measures['frames']} frames of {measures['width']}×{measures['height']}, "
        f"{measures['seconds']:.1f} s at {measures['fps']:g} frames per second{written}"
    )


def compare(job: Job, videos: Sequence[Video], report: Callable[[str], Any]) -> None:
    """Writes stills of the videos of one story side by side, as `job` says."""
    from syncos_jax.media.video import side_by_side

    assert job.compared is not None
    titles = [title.replace("_", "-") for title in job.titles]
    titled = [dataclasses.replace(v, title=t) for v, t in zip(videos, titles, strict=True)]
    side_by_side(titled, job.compared)
    report(f"{job.compared}: {' beside '.join(titles)}")


def json_line(data: Any) -> str:
    """JSON for people and programs."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)


def total(phases: Phases, begin: float) -> None:
    """The last line of a run on stderr."""
    spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.seconds.items())
    phases.say(f"total    {time.perf_counter() - begin:7.1f} s   ({spent})")
