"""Making one video with all that is written beside it: stills, latents, its record."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from syncos_jax.cli.console import Phases, interruptible
from syncos_jax.cli.keeping import kept_run, patiently
from syncos_jax.errors import InputError
from syncos_jax.files.text import short
from syncos_jax.scenario.template import Take

if TYPE_CHECKING:
    import jax

    from syncos_jax.pipeline import Pipeline
    from syncos_jax.pipeline.video import Video
    from syncos_jax.pipeline.checkpoint import Checkpoint
    from syncos_jax.sampling.run import Progress
    from syncos_jax.sampling.settings import Settings

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
        again: the record to make again, with its file.
        resume: whether to go on with what a killed run has left.
        every: how often the run's state is saved, in the words of the command line.
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
    sampler: Any = None
    seed: int | None = None
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


def check_places(jobs: list[Job]) -> None:
    """Makes sure that everything can be written before hours of work; raises InputError."""
    from syncos_jax.files import check_writable
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
                    f"--out {job.out} would replace {job.record}, the record that --from reads; "
                    "choose another name"
                )
            if not _is_record(job.record, FORMAT):
                raise InputError(
                    f"{job.record} is where the record of {job.out} goes, but is another file; "
                    "choose another name for --out, or give --no-sidecar"
                )


def check_fit(pipeline: Pipeline, job: Job) -> None:
    """Makes sure that scenario, label and format fit the model's video; raises InputError."""
    from syncos_jax.pipeline.encode import check_rate
    from syncos_jax.pipeline.label import render

    story = job.take.scenario
    pipeline.check(story)
    check_rate(job.out, story.fps or pipeline.model.config.fps)
    if job.label is not None:
        height, width = pipeline.frame_size(story)
        scale = _scale(job, height, width)
        render(job.label, height * scale, width * scale)


def _is_record(path: Path, wanted: str) -> bool:
    from syncos_jax.files.documents import read_mapping

    try:
        return read_mapping(path).get("format") == wanted
    except InputError:
        return False


def fit_memory(pipeline: Pipeline, jobs: list[Job], phases: Phases) -> None:
    """Lets every job's calls have as many windows as fit the devices."""
    from syncos_jax.sampling.memory import largest_batch

    found: dict[Any, int] = {}
    for job in jobs:
        story = job.take.scenario
        settings = job.sampler or pipeline.settings(story)
        kind = (pipeline.layout(story), pipeline.frame_shape(story), settings)
        before = _kept_batch(job)
        if before is not None:  # a killed run goes on with the calls it had
            job.sampler = dataclasses.replace(settings, batch=before)
            continue
        if kind not in found:
            with phases.phase("measure"):
                run = pipeline.start(story, settings, job.used_seed)
                fit = interruptible(partial(largest_batch, run))
            phases.say(str(fit))
            found[kind] = fit.windows
        job.sampler = dataclasses.replace(settings, batch=found[kind])


def _kept_batch(job: Job) -> int | None:
    """Windows of a call of the run that the job goes on with, if there is one."""
    from syncos_jax.pipeline.checkpoint import RUN, run_folder

    try:
        text = (run_folder(job.out) / RUN).read_text(encoding="utf-8") if job.resume else ""
        batch = json.loads(text)["run"]["sampler"]["batch"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return batch if isinstance(batch, int) else None


def make(pipeline: Pipeline, job: Job, phases: Phases, model_id: str) -> None:
    """Samples, decodes and writes one video, and says what it does.

    Raises InputError where the scenario does not fit the model, OSError where writing fails.
    """
    from syncos_jax.pipeline.checkpoint import parse_every, run_folder
    from syncos_jax.pipeline.fingerprint import fingerprint
    from syncos_jax.pipeline.timings import Stopwatch

    story = job.take.scenario
    settings = job.sampler or pipeline.settings(story)
    layout = pipeline.layout(story)
    tape = pipeline.tape(story, settings, job.used_seed)
    phases.say(
        f"{layout.frames} frames in {layout.count} windows of {layout.window}, "
        f"{len(story.events)} events, {settings.name}, {settings.steps} steps"
    )
    note = partial(_place, tape)
    run = fingerprint(pipeline, story, settings, job.used_seed)
    with kept_run(
        run_folder(job.out), run, phases.say, resume=job.resume, every=parse_every(job.every)
    ) as kept:
        with phases.phase("sample", "calls", first="compile", note=note) as progress:
            watch = Stopwatch(progress)
            with patiently(watch) as watched:
                sampling = partial(_sample, pipeline, job, settings, watched, kept)
                latents = interruptible(sampling)
        finish(pipeline, job, phases, model_id, latents, watch.row)
        kept.remove()


def _sample(
    pipeline: Pipeline, job: Job, settings: Settings, watch: Progress, kept: Checkpoint
) -> jax.Array:
    """The latents of a job; of a run with a preview, a look at them between its parts."""
    if job.preview is None or kept.latents() is not None:
        return pipeline.latents(job.take.scenario, settings, job.used_seed, watch, kept)
    from syncos_jax.pipeline.preview import Preview

    run = pipeline.start(job.take.scenario, settings, job.used_seed)
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
) -> None:
    """Decodes a job's latents and writes all that belongs to its video; raises as `make`."""
    from syncos_jax.pipeline.plan import run_kind
    from syncos_jax.runs import record as provenance
    from syncos_jax.pipeline.timings import Speed, recall, remember
    from syncos_jax.sampling.hosts import is_main_process

    story = job.take.scenario
    settings = job.sampler or pipeline.settings(story)
    with phases.phase("decode", "frames") as progress:
        frames = interruptible(partial(pipeline.decode, latents, progress=progress))
    if not is_main_process():  # of several, the first one writes
        return
    video = pipeline.video(story, frames)
    record = provenance.describe(pipeline, story, settings, job.used_seed, latents, model_id)
    with phases.phase("write"):
        scale = _write(job, video, latents, provenance.comment(record))
    seconds, count = phases.seconds, len(frames)
    record.update(
        files={
            "video": job.out.name,
            "contact_sheet": job.sheet.name if job.sheet else None,
            "latents": job.latents.name if job.latents else None,
        },
        video=_measures(job, video, scale),
        template=_template(job),
        take=_take(job),
        timings={name: round(value, 3) for name, value in seconds.items()},
        made_from=_compared(job, record, phases),
    )
    if job.record is not None:
        provenance.write_sidecar(job.record, record)
    if row_seconds is not None:
        cost = record["cost"]
        kind = run_kind(pipeline, story, cost["batch"])
        before = recall(kind) if str(kind) in _compiled else None
        _compiled.add(str(kind))
        speed = Speed(
            row_seconds * cost["rows"] / cost["full_calls"],
            compile=seconds.get("compile", 0.0) if before is None else before.compile,
            load=seconds.get("load", 0.0),
            decode_frame=seconds["decode"] / count,
            write_frame=seconds["write"] / count,
        )
        remember(kind, speed)
    _summary(job, record["video"])


def _place(tape: Any, done: int) -> str:
    """Where on the tape the next row is: step, timestep, and what is done there."""
    row = min(done, len(tape) - 1)
    step, steps = int(tape.rows.step[row]) + 1, int(tape.rows.step[-1]) + 1
    stage = "refining" if tape.rows.refine[row] else "denoising"
    return f"step {step} of {steps}, t = {tape.rows.t[row]:.0f}, {stage}"


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

    from syncos_jax.files import replacing

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


def _summary(job: Job, measures: dict[str, Any]) -> None:
    beside = [("stills", job.sheet), ("latents", job.latents), ("record", job.record)]
    written = "".join(f", {name} in {path}" for name, path in beside if path is not None)
    typer.echo(
        f"{job.out}: {measures['frames']} frames of {measures['width']}×{measures['height']}, "
        f"{measures['seconds']:.1f} s at {measures['fps']:g} frames per second{written}"
    )


def read_again(path: Path) -> tuple[Take, Any, int, dict[str, Any]]:
    """What a record says: take, sampler settings, seed, and the record; raises InputError."""
    from syncos_jax.runs.record import read_sidecar
    from syncos_jax.sampling.settings import settings_from_dict
    from syncos_jax.scenario import Scenario

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
    import jax

    there, here = record["model"], pipeline.weights_sha256
    dtype = str(jax.tree.leaves(pipeline._unet)[0].dtype)
    if there["weights_sha256"] != here and there.get("dtype") == dtype:
        raise InputError(
            f"{path}: was made with weights {there['weights_sha256'][:12]}..., but the model "
            f"{model!r} has {here[:12]}...; give the right one with --model"
        )


def json_line(data: Any) -> str:
    """JSON for people and programs."""
    return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)


def total(phases: Phases, begin: float) -> None:
    """The last line of a run on stderr."""
    spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.seconds.items())
    phases.say(f"total    {time.perf_counter() - begin:7.1f} s   ({spent})")
