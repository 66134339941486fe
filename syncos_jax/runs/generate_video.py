"""Makes one video with its contact sheet, latents and metadata file."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncos_jax.files import replacing
from syncos_jax.files.atomic import save_array
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

_compiled: set[str] = set()  # timing keys of programs that this process has compiled


def generate_video(
    pipeline: Pipeline, job: Job, phases: Phases, model_id: str, report: Callable[[str], Any]
) -> Video | None:
    """Samples, decodes and writes one video; returns it in the process that writes.

    Args:
        pipeline: makes it.
        job: what to make.
        phases: reports progress.
        model_id: name or folder of the model, as the user gave it.
        report: called with one line about the files written.

    Raises:
        InputError: the scenario does not fit the model.
        OSError: writing failed.
    """
    from syncos_jax.pipeline.timings import Stopwatch

    request = job.prepare(pipeline)
    layout, sampler = request.layout, request.sampler
    phases.say(
        f"{request.frames} frames in {layout.count} windows of {layout.window}, "
        f"{len(request.scenario.events)} events, {sampler.name}, {sampler.steps} steps"
    )
    for warning in request.few_steps_warnings:
        phases.say(f"warning: {warning}")
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
        video = decode_and_write(pipeline, job, phases, model_id, latents, watch.call, report)
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
    """Samples a job's latents and updates its preview between the parts of the run."""
    import jax.numpy as jnp

    saved = checkpoint.latents()
    if saved is not None:
        return jnp.asarray(saved)
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
        say(f"{run.num_skipped:,} of {request.summary.samples:,} samples skipped")
    return latents


def decode_and_write(
    pipeline: Pipeline,
    job: Job,
    phases: Phases,
    model_id: str,
    latents: jax.Array,
    call_seconds: float | None = None,
    report: Callable[[str], Any] = lambda line: None,
    *,
    frames: np.ndarray | None = None,
) -> Video | None:
    """Decodes latents and writes the video with its files; returns it in the process that writes.

    Args:
        pipeline, job, phases, model_id, report: as for `generate_video`.
        latents: ``[f, h, w, C]``.
        call_seconds: seconds of a network call, to be stored for plans; None for not measured.
        frames: the decoded latents, if they are decoded already.
    """
    from syncos_jax.runs.metadata import describe, write_metadata
    from syncos_jax.sampling.hosts import is_main_process

    request = job.prepare(pipeline)
    if frames is None:
        with phases.phase("decode", "frames") as progress:
            frames = interruptible(partial(pipeline.decode, latents, progress=progress))
    if not is_main_process():  # only the first of several processes writes
        return None
    video = pipeline.video(request, frames)
    metadata = describe(request, latents, model_id)
    with phases.phase("write"):
        scale, marks = _write(job, video, latents, metadata)
    metadata.update(
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
        made_from=_compare_with_original(job, metadata, phases),
    )
    if job.metadata is not None:
        write_metadata(job.metadata, metadata)
    if call_seconds is not None:
        _record_speed(request, phases.seconds, call_seconds, len(frames))
    report(_summary(job, metadata["video"]))
    return video


def _record_speed(request: Request, seconds: dict[str, float], call: float, frames: int) -> None:
    """Stores how long a run took; plans read it."""
    from syncos_jax.pipeline.cost import timing_key
    from syncos_jax.pipeline.timings import Speed, recall, remember

    kind = timing_key(request)
    before = recall(kind) if str(kind) in _compiled else None
    _compiled.add(str(kind))
    speed = Speed(
        call,
        compile=seconds.get("compile", 0.0) if before is None else before.compile,
        load=seconds.get("load", 0.0),
        decode_frame=seconds["decode"] / frames,
        write_frame=seconds["write"] / frames,
    )
    remember(kind, speed)


def _position(call_schedule: CallSchedule, done: int) -> str:
    """Step, timestep and stage of the next network call, in words."""
    updates, at = (
        call_schedule.updates,
        call_schedule.calls.update[min(done, len(call_schedule) - 1)],
    )
    step, steps = int(updates.step[at]) + 1, int(updates.step[-1]) + 1
    stage = "refining" if updates.refine[at] else "denoising"
    return f"step {step} of {steps}, t = {updates.t[at]:.0f}, {stage}"


def _write(
    job: Job, video: Video, latents: jax.Array, metadata: dict[str, Any]
) -> tuple[int, dict[str, Any] | None]:
    """Writes video, contact sheet and latents; returns the scale and how the video is marked."""
    from syncos_jax.media.marking import run_id
    from syncos_jax.runs.metadata import signed_facts, video_comment

    comment = video_comment(metadata)
    scale = scale_of(job, *video.frames.shape[1:3])
    name = run_id(metadata["latents"]["sha256"])
    video.save(
        job.out,
        scale=scale,
        label=job.label,
        comment=comment,
        watermark=int(name, 16) if job.marking.watermark else None,
    )
    facts = {"run_id": name, **signed_facts(metadata, prompts=job.marking.prompts)}
    given = [Path(entry["path"]) for entry in metadata["inputs"]]
    marks = job.marking.apply(job.out, facts, title=metadata["title"], ingredients=given)
    if job.sheet is not None:
        video.contact_sheet(job.sheet, comment=comment)
    if job.latents is not None:
        write_latents(job.latents, latents, comment)
    return scale, marks


def write_latents(path: Path, latents: jax.Array, comment: str) -> None:
    """Writes latents as float32: .npy with the array, .npz with ``latents`` and ``comment``."""
    import numpy as np

    values = np.asarray(latents, np.float32)
    with replacing(path) as temporary, temporary.open("wb") as file:
        if path.suffix.lower() == ".npz":
            np.savez(file, latents=values, comment=np.asarray(comment))
        else:
            save_array(file, values)


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
    job: Job, metadata: dict[str, Any], phases: Phases
) -> dict[str, Any] | None:
    """Reports whether the latents equal those of the original video."""
    from syncos_jax.runs.metadata import environment_differences

    if job.original is None:
        return None
    path, before = job.original
    identical = before["latents"]["sha256"] == metadata["latents"]["sha256"]
    if identical:
        phases.say(f"latents  bit-identical to those of {path}")
    else:
        found = (
            "; ".join(environment_differences(before, metadata))
            or "the same versions and kind of device"
        )
        phases.say(f"warning: the latents differ from those of {path} ({found})")
    return {"file": path.name, "identical": identical}


def _summary(job: Job, facts: dict[str, Any]) -> str:
    others = [
        ("contact sheet", job.sheet),
        ("latents", job.latents),
        ("metadata", job.metadata),
    ]
    written = "".join(f", {name} in {path}" for name, path in others if path is not None)
    return (
        f"{job.out}: {facts['frames']} frames of {facts['width']}×{facts['height']}, "
        f"{facts['seconds']:.1f} s at {facts['fps']:g} fps{written}"
    )


def compare(job: Job, videos: Sequence[Video], report: Callable[[str], Any]) -> None:
    """Writes the contact sheets of several videos of one scenario side by side."""
    from syncos_jax.media.video import side_by_side

    assert job.compared is not None
    titles = [title.replace("_", "-") for title in job.titles]
    titled = [dataclasses.replace(v, title=t) for v, t in zip(videos, titles, strict=True)]
    side_by_side(titled, job.compared)
    report(f"{job.compared}: {' next to '.join(titles)}")


def json_line(data: Any) -> str:
    """Indented JSON text."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)


def total(phases: Phases, begin: float) -> None:
    """Prints the last line of a run on stderr: all seconds."""
    spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.seconds.items())
    phases.say(f"total    {time.perf_counter() - begin:7.1f} s   ({spent})")
