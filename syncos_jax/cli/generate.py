"""``syncos generate``: scenario in, video out."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syncos_jax.cli import devices as options
from syncos_jax.cli import run_options, scenario_options
from syncos_jax.cli.console import user_errors
from syncos_jax.errors import InputError
from syncos_jax.runs.progress import Phases
from syncos_jax.runs.signals import preemptible

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from syncos_jax.runs.job import Job
    from syncos_jax.sampling.placement import Parallel

EXAMPLES = """[bold]Examples[/bold]

syncos generate examples/red_ball.yaml --out ball.mp4

syncos generate examples/red_ball.yaml --seed 7 --sampler co_denoising --out baseline.mp4

syncos generate examples/red_ball.yaml --beside co_denoising --out ball.mp4

syncos generate examples/template.yaml --set place='*' --takes 3 --out ball.mp4

syncos generate --global "a red ball on a meadow" --prompt "it rolls | it grows" --out ball.webm

syncos generate story.yaml --model converted/videocrafter2 --steps 25 --out story.mp4

syncos generate --from story.json --out again.mp4

syncos generate story.yaml --devices all --windows-per-call auto --out story.mp4

srun syncos generate story.yaml --distributed --out story.mp4

A scenario file, which may as well be JSON:

global: a red ball on a green meadow

events: \\[{prompt: the ball rolls to the left, seconds: 2}, {prompt: the ball grows, seconds: 2}]
"""


def generate(
    scenario: scenario_options.ScenarioFile = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="'demo' (the default), or the folder of a converted model; @int8 behind it "
            "(demo@int8) quantizes the denoiser.",
            metavar="NAME|DIR",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The video to write (default out.mp4): .mp4, .mov, .mkv, .webm or .gif; a name "
            "without ending is a folder of PNG frames. Several videos get names like "
            "out-beach-seed1.mp4.",
            show_default=False,
        ),
    ] = None,
    values: scenario_options.Values = None,
    seed: scenario_options.Seed = None,
    seeds: scenario_options.Seeds = None,
    takes: scenario_options.Takes = None,
    prompts: scenario_options.Prompts = None,
    prompt: scenario_options.Prompt = None,
    global_prompt: scenario_options.Global = None,
    seconds: scenario_options.Seconds = None,
    again: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE.json",
            help="In place of a scenario: the record beside a video. Makes that video again, and "
            "says whether it came out the same.",
            show_default=False,
        ),
    ] = None,
    sampler: scenario_options.Sampler = None,
    strength: scenario_options.Strength = None,
    beside: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Make each video by this sampler as well, from the same noise, and write stills "
            "of both side by side: out-co_denoising.mp4 and out-compared.png.",
            show_default=False,
        ),
    ] = None,
    steps: scenario_options.Steps = None,
    guidance: scenario_options.Guidance = None,
    batch: options.WindowsPerCall = None,
    scale: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            metavar="N",
            help="Make each pixel this many wide and high. By default small videos grow to about "
            "256 pixels.",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Draw this onto every frame, for example 'generated'.",
            show_default=False,
        ),
    ] = None,
    watermark: run_options.Watermark = None,
    certificate: run_options.Certificate = None,
    key: run_options.SigningKey = None,
    latents: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write the latents, .npy or .npz.", show_default=False
        ),
    ] = None,
    cache: Annotated[
        bool,
        typer.Option(
            help="Keep compiled programs in $SYNCOS_CACHE (else ~/.cache/syncos_jax) for the next "
            "start; see syncos compile."
        ),
    ] = True,
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="While sampling, write a strip of the video as far as it is, in rough colours.",
            show_default=False,
        ),
    ] = None,
    preview_every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Calls of the network between previews.")
    ] = 20,
    contact_sheet: Annotated[
        bool, typer.Option(help="Also write stills of every event to a PNG beside the video.")
    ] = True,
    sidecar: Annotated[
        bool,
        typer.Option(help="Also write the record, all it takes to make it again, as .json."),
    ] = True,
    resume: run_options.Resume = True,
    checkpoint_every: run_options.CheckpointEvery = "30",
    devices: options.Devices = None,
    weights_over: options.WeightsOver = 1,
    parallel: options.ParallelBy = "shard_map",
    distributed: options.Distributed = False,
    coordinator: options.Coordinator = None,
    processes: options.Processes = None,
    process_id: options.ProcessId = None,
    join_timeout: options.JoinTimeout = 300.0,
) -> None:
    """Make the long video of a scenario, or several of a template.

    The scenario says what stays the same (global) and what happens (events, each with a length).

    All randomness comes from the seed: the same seed gives the same video.

    What was killed goes on where it was when the same command is started again. After SIGTERM the
    state of the run is saved and the exit code is 75.
    """
    with user_errors(), preemptible():
        from syncos_jax.media.label import check_label
        from syncos_jax.pipeline.checkpoint import parse_save_interval
        from syncos_jax.runs.job import Job, check_outputs, read_original

        begin = time.perf_counter()
        parse_save_interval(checkpoint_every)
        check_label(label)
        marking = run_options.read_marking(watermark, certificate, key)
        windows = options.read_windows_per_call(batch)
        fit = windows == "auto"
        changes = {
            "steps": steps,
            "guidance": guidance,
            "strength": strength,
            "batch": None if fit else windows,
        }
        record = None
        if again is not None:
            given = [scenario, values, seed, seeds, takes, prompts, prompt, global_prompt, seconds]
            given += [sampler, beside, batch, *changes.values()]
            if any(value is not None for value in given):
                raise InputError(
                    "--from makes a video again as it was; leave out the scenario, --set, --prompt,"
                    " --seed and the sampler's options"
                )
            take, settings, used, record = read_original(again)
            model = model or record["model"]["id"]
            scale = scale or record["video"].get("scale")
            label = label or record["video"].get("label")
            out = out or _name_of_copy(record)
            jobs = [Job(take, out, sampler=settings, seed=used, original=(again, record))]
        else:
            found = scenario_options.collect(
                scenario, values, seed, seeds, takes, prompts, prompt, global_prompt, seconds
            )
            found = scenario_options.with_sampler(found, sampler, changes)
            out = out or Path("out.mp4")
            paths = scenario_options.named_outputs(out, found)
            jobs = [Job(t, p, template=scenario) for t, p in zip(found, paths, strict=True)]
        if beside is not None:
            jobs = _with_rivals(jobs, beside)
        for job in jobs:
            job.scale, job.label, job.marking = scale, label, marking
            job.group = out.stem if job.compared is None else f"{out.stem}-{beside}"
            job.resume, job.every = resume, checkpoint_every
            job.sheet = job.out.with_suffix(".png") if contact_sheet else None
            job.metadata = job.out.with_suffix(".json") if sidecar else None
            job.preview_every = preview_every
            job.latents = latents and _named_like(latents, job, out)
            job.preview = preview and _named_like(preview, job, out)
        hosts = (distributed, coordinator, processes, process_id)
        mesh = options.open_mesh(devices, parallel, *hosts, weights_over, join_timeout)
        if options.is_main(distributed):
            check_outputs(jobs)
        _make_all(jobs, model or "demo", begin, cache, mesh, parallel, fit)


def _with_rivals(jobs: list[Job], sampler: str) -> list[Job]:
    """Behind every job the same one by another sampler."""
    both: list[Job] = []
    for job in jobs:
        settings = job.take.scenario.settings()
        own = "syncos" if settings is None else settings.name
        if own == "syncos" and sampler == "co_denoising":  # the same program, and all else the same
            change: tuple[str | None, dict[str, int]] = (None, {"refine_steps": 0})
        else:
            change = (sampler, {})
        (take,) = scenario_options.with_sampler([job.take], *change)
        if take.scenario.settings() == job.take.scenario.settings():
            raise InputError(f"--beside {sampler}: is the video's own sampler; name another one")
        rival = dataclasses.replace(
            job, take=take, out=scenario_options.with_ending(job.out, f"-{sampler}")
        )
        rival.titles = own, sampler
        rival.compared = scenario_options.with_ending(job.out, "-compared").with_suffix(".png")
        both += [job, rival]
    return both


def _named_like(path: Path, job: Job, out: Path) -> Path:
    """`path`, told apart from those of other jobs as the job's video is told apart from `out`."""
    return scenario_options.with_ending(path, job.out.stem.removeprefix(out.stem))


def _name_of_copy(record: dict) -> Path:
    name = Path(str(record["files"].get("video") or "")).name or "out.mp4"
    return Path(name).with_stem(Path(name).stem + "-again")


def _make_all(
    jobs: list[Job],
    model: str,
    begin: float,
    cache: bool,
    mesh: Mesh | None,
    parallel: Parallel,
    fit: bool,
) -> None:
    from syncos_jax.runs.generate_video import compare, generate_video, total
    from syncos_jax.runs.job import check_fit, check_model, fit_memory

    phases = Phases(options.console(mesh))
    with phases.phase("load"):
        from syncos_jax.pipeline import Pipeline
        from syncos_jax.runs.cache import keep_programs

        if cache:
            keep_programs()
        pipeline = Pipeline.from_pretrained(
            model, mesh=mesh, parallel=parallel, rules=options.rules(mesh)
        )
    for job in jobs:  # all of them before the first is made
        if job.original is not None:
            check_model(pipeline, *job.original, model)
        check_fit(pipeline, job)
    if fit:
        fit_memory(pipeline, jobs, phases)
    before = None
    for number, job in enumerate(jobs, 1):
        own = phases
        if len(jobs) > 1:
            own = Phases(phases.console)
            own.seconds.update(phases.seconds)
            own.say(f"video {number} of {len(jobs)}: {job.out}, seed {job.used_seed}")
        video = generate_video(pipeline, job, own, model, typer.echo)
        if job.compared is not None and video is not None and before is not None:
            compare(job, (before, video), typer.echo)
        before = video
    total(phases, begin)
