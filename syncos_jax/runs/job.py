"""One video to make: what it shows, which files are written, and the checks before sampling."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncos_jax.errors import Argument, InputError
from syncos_jax.files import check_writable
from syncos_jax.media.encode import STREAMS, check_rate
from syncos_jax.media.label import render
from syncos_jax.media.marking import Marking
from syncos_jax.media.register import input_sha256
from syncos_jax.pipeline.checkpoint import RUN, run_folder
from syncos_jax.runs.progress import Phases, interruptible
from syncos_jax.scenario import Scenario
from syncos_jax.scenario.template import Take

if TYPE_CHECKING:
    from syncos_jax.pipeline import Pipeline
    from syncos_jax.pipeline.request import Request
    from syncos_jax.sampling.sampler_config import SamplerConfig

_MIN_HEIGHT = 256  # small videos are enlarged to about this


@dataclass
class Job:
    """One video to make, and the files to write.

    Attributes:
        take: the scenario, and what distinguishes it from the other takes.
        out: the video: a file, or a folder for PNG frames.
        sheet: the contact sheet, .png.
        latents: the latents, .npy or .npz.
        metadata: the metadata file, .json.
        template: the scenario's file.
        marking: watermark and Content Credentials; by default as the environment says.
        scale, label: as for `Video.save`; scale None enlarges small videos.
        sampler, seed: in place of the scenario's.
        request: made by `prepare`.
        original: to reproduce a video: its metadata file, and the content.
        resume: whether to resume an interrupted run.
        every: how often the run's state is saved (`parse_save_interval`).
        preview: a PNG that is updated during sampling; preview_every: calls between updates.
        compared: a PNG of the previous job and this one, the same scenario by another sampler, side
            by side; titles: the text above each.
    """

    take: Take
    out: Path
    sheet: Path | None = None
    latents: Path | None = None
    metadata: Path | None = None
    template: Path | None = None
    scale: int | None = None
    label: str | None = None
    marking: Marking = field(default_factory=Marking.from_environment)
    sampler: SamplerConfig | None = None
    seed: int | None = None
    request: Request | None = None
    original: tuple[Path, dict[str, Any]] | None = None
    group: str = ""
    resume: bool = True
    every: str = "30"
    preview: Path | None = None
    preview_every: int = 20
    compared: Path | None = None
    titles: tuple[str, ...] = ()

    @property
    def used_seed(self) -> int:
        """The seed of the run."""
        return self.take.scenario.seed if self.seed is None else self.seed

    def prepare(self, pipeline: Pipeline) -> Request:
        """The request for `pipeline`, derived once; raises InputError as `Pipeline.prepare`."""
        if self.request is None:
            request = pipeline.prepare(self.take.scenario, self.sampler, self.used_seed)
            self.request = pipeline.fitted(request)
        return self.request


def check_outputs(jobs: list[Job]) -> None:
    """Checks, before hours of sampling, that every file can be written; raises InputError."""
    from syncos_jax.media.video import check_video_path
    from syncos_jax.runs.metadata import METADATA

    for job in jobs:
        check_video_path(job.out)
        if job.take.scenario.audio is not None and job.out.suffix.lower() not in STREAMS:
            raise InputError(
                "GIF files and folders of frames have no sound",
                place=job.out,
                remedy=f"write {', '.join(STREAMS)}, or omit the soundtrack",
            )
        if job.latents is not None and job.latents.suffix.lower() not in (".npy", ".npz"):
            raise InputError("the file of latents must end in .npy or .npz", place=job.latents)
        for path in (job.sheet, job.latents, job.metadata, job.preview, job.compared):
            if path is not None:
                check_writable(path)
        if job.metadata is not None and job.metadata.exists():
            if job.original is not None and job.metadata.resolve() == job.original[0].resolve():
                raise InputError(
                    f"{job.out} would replace {job.metadata}, the metadata file that is read",
                    argument="out",
                    remedy="choose another name",
                )
            if not METADATA.holds(job.metadata):
                raise InputError(
                    f"the metadata file of {job.out} goes here, but another file is there",
                    place=job.metadata,
                    remedy=(
                        "choose another name for ",
                        Argument("out"),
                        ", or pass ",
                        Argument("metadata", None),
                    ),
                )


def check_files(scenarios: Iterable[Scenario]) -> None:
    """Raises InputError if a picture, clip or sound is missing, before anything is loaded."""
    for scenario in scenarios:
        for path in scenario.input_files:
            if not Path(path).exists():
                raise InputError("no such file", place=path)


def check_fit(pipeline: Pipeline, job: Job) -> None:
    """Checks that scenario, label and format fit the model's video; raises InputError."""
    request = job.prepare(pipeline)
    check_rate(job.out, request.fps)
    scale = scale_of(job, request.height, request.width)
    job.marking.check(job.out, request.height * scale, request.width * scale)
    if job.label is not None:
        render(job.label, request.height * scale, request.width * scale)


def fit_memory(pipeline: Pipeline, jobs: Sequence[Job], phases: Phases) -> None:
    """Sets every job's windows per call to the most that fit the devices' free memory."""
    from syncos_jax.sampling.memory import largest_batch

    found: dict[Any, int] = {}
    for job in jobs:
        request = job.prepare(pipeline)
        windows = _windows_of_saved_run(job)
        if windows is None:
            kind = (request.layout, request.frame_shape, request.sampler)
            if kind not in found:
                with phases.phase("measure"):
                    fit = interruptible(partial(largest_batch, pipeline.start(request)))
                phases.say(str(fit))
                found[kind] = fit.windows
            windows = found[kind]
        job.sampler, job.request = request.sampler.replace(windows_per_call=windows), None


def _windows_of_saved_run(job: Job) -> int | None:
    """Windows per call of the interrupted run that the job resumes; None without one."""
    try:
        text = (run_folder(job.out) / RUN).read_text(encoding="utf-8") if job.resume else ""
        batch = json.loads(text)["run"]["sampler"]["windows_per_call"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return batch if isinstance(batch, int) else None


def scale_of(job: Job, height: int, width: int) -> int:
    """The factor by which the video's pixels are repeated when it is written."""
    return job.scale or default_scale(height, width)


def default_scale(height: int, width: int) -> int:
    """How many times a video of this size is enlarged unless a scale is given."""
    return max(1, _MIN_HEIGHT // min(height, width))


def read_original(path: Path) -> tuple[Take, Any, int, dict[str, Any]]:
    """Take, sampler settings, seed and content of a metadata file, to make its video again.

    Raises:
      InputError: something needed is missing in it.
    """
    from syncos_jax.runs.metadata import read_metadata
    from syncos_jax.sampling.sampler_dict import sampler_from_dict

    record = read_metadata(path)
    scale, label = record["video"].get("scale"), record["video"].get("label")
    if scale is not None and (type(scale) is not int or not 1 <= scale <= 64):
        raise InputError(place=(path, "video.scale"), value=scale, expected="an integer, 1 to 64")
    if label is not None and not isinstance(label, str):
        raise InputError(place=(path, "video.label"), value=label, expected="text or null")
    try:
        scenario = Scenario.from_dict(record["scenario"])
    except InputError as error:
        raise error.in_key("scenario").within(path) from error
    check_inputs(path, record)
    try:
        settings = sampler_from_dict(record["sampler"])
    except InputError as error:
        raise error.in_key("sampler").within(path) from error
    return Take(scenario), settings, record["seed"], record


def check_inputs(path: Path, record: dict[str, Any]) -> None:
    """Raises InputError if a picture, clip or sound has changed since the video was made."""
    for entry in record.get("inputs") or []:
        file, sha256 = str(entry.get("path")), entry.get("sha256")
        if Path(file).exists() and sha256 != input_sha256(file):
            raise InputError(
                "not the file that the video was made with",
                place=(path, f"inputs.{entry.get('role')}", file),
                remedy="put the old one back, or make a new video from the scenario",
            )


def check_model(pipeline: Pipeline, path: Path, record: dict[str, Any], model: str) -> None:
    """Raises InputError if a video is to be made again with other weights."""
    then, now = record["model"], pipeline.model.weights_sha256
    if then["weights_sha256"] != now and then.get("dtype") == pipeline.model.dtype:
        raise InputError(
            f"made with weights {then['weights_sha256'][:12]}..., but the model {model!r} has "
            f"{now[:12]}...",
            place=path,
            remedy=("pass the right one as ", Argument("model")),
        )
