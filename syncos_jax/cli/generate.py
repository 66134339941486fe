"""``syncos generate``: generate the video of a scenario."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from syncos_jax.cli import devices as options
from syncos_jax.cli import input_options, run_options, scenario_options
from syncos_jax.cli.console import user_errors
from syncos_jax.errors import InputError
from syncos_jax.runs.progress import Phases
from syncos_jax.runs.signals import preemptible

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from syncos_jax.runs.job import Job
    from syncos_jax.sampling.placement import Parallel

EXAMPLES = """Examples:
  syncos generate examples/red_ball.yaml --out ball.mp4
  syncos generate examples/red_ball.yaml --seed 7 --sampler co_denoising --out baseline.mp4
  syncos generate examples/red_ball.yaml --compare-with co_denoising --out ball.mp4
  syncos generate examples/template.yaml --set place='*' --takes 3 --out ball.mp4
  syncos generate --global "a red ball on a meadow" --prompt "it rolls | it grows" --out ball.webm
  syncos generate story.yaml --model converted/videocrafter2 --steps 25 --out story.mp4
  syncos generate story.yaml --image start.png --audio music.mp3 --out story.mp4
  syncos generate next.yaml --extend story.mp4 --out longer.mp4
  syncos generate story.yaml --redo story.mp4:2 --seed 1 --out another-second-event.mp4
  syncos generate story.yaml --model wan --lora style.safetensors:0.8 --out story.mp4
  syncos generate --from story.json --out again.mp4
  syncos generate story.yaml --devices all --windows-per-call auto --out story.mp4
  srun syncos generate story.yaml --distributed --out story.mp4

A scenario file (YAML or JSON):

  global: a red ball on a green meadow
  events: [{prompt: the ball rolls to the left, seconds: 2}, {prompt: the ball grows, seconds: 2}]
"""


def generate(
    scenario: scenario_options.ScenarioFile = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="'demo' (default), or the folder of a converted model; append @int8 "
            "to quantize the denoiser.",
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
            help="Video to write (default out.mp4). The file extension sets the "
            "format: .mp4, .mov, .mkv, .webm, .gif; without one, a folder of "
            "PNG frames. Several videos get names like out-beach-seed1.mp4.",
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
    lora: scenario_options.Lora = None,
    negative: scenario_options.Negative = None,
    frames: scenario_options.Frames = None,
    size: scenario_options.Size = None,
    fps: scenario_options.Fps = None,
    image: input_options.Image = None,
    end_image: input_options.EndImage = None,
    extend: input_options.Extend = None,
    join: input_options.Join = None,
    redo: input_options.Redo = None,
    reference: input_options.Reference = None,
    fit: input_options.Fit = None,
    audio: input_options.Audio = None,
    loop_audio: input_options.LoopAudio = None,
    again: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FILE.json",
            help="Instead of a scenario: a video's metadata file. Generates that "
            "video again and reports whether it is identical.",
            show_default=False,
        ),
    ] = None,
    sampler: scenario_options.Sampler = None,
    strength: scenario_options.Strength = None,
    beside: Annotated[
        str | None,
        typer.Option(
            "--compare-with",
            "--beside",
            metavar="NAME",
            help="Also generate each video with this sampler, from the same noise, "
            "and write a side-by-side contact sheet: out-co_denoising.mp4, "
            "out-compared.png.",
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
            help="Enlarge the video N times. Default: small videos grow to about 256 pixels.",
            show_default=False,
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Draw this text on every frame, for example 'generated'.",
            show_default=False,
        ),
    ] = None,
    watermark: run_options.Watermark = None,
    certificate: run_options.Certificate = None,
    key: run_options.SigningKey = None,
    latents: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write the latents (.npy or .npz).", show_default=False
        ),
    ] = None,
    cache: Annotated[
        bool,
        typer.Option(
            help="Cache compiled programs in $SYNCOS_CACHE (default "
            "~/.cache/syncos_jax); see syncos compile."
        ),
    ] = True,
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help=("While sampling, write a preview strip of the video in rough colours."),
            show_default=False,
        ),
    ] = None,
    preview_every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Network calls between previews.")
    ] = 20,
    contact_sheet: Annotated[
        bool, typer.Option(help="Also write a contact sheet (PNG) next to the video.")
    ] = True,
    sidecar: Annotated[
        bool,
        typer.Option(
            help="Also write a metadata file (.json) with all settings needed to "
            "generate the video again."
        ),
    ] = True,
    quiet: run_options.Quiet = False,
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
    """Generate the video of a scenario, or several of a template.

    A scenario describes what stays the same (global) and what happens (events, each with a
    length). The same seed gives the same video.

    Rerun the same command to resume an interrupted run. On SIGTERM the run is saved and the exit
    code is 75.
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
        choose = windows == "auto"
        inputs: dict[str, Any] = {"image": image, "end_image": end_image, "extend": extend}
        inputs |= {"redo": redo, "join": join, "reference": reference, "fit": fit, "audio": audio}
        inputs["loop_audio"] = loop_audio
        changes: dict[str, Any] = {"steps": steps, "guidance": guidance, "strength": strength}
        changes["windows_per_call"] = None if choose else windows
        record = None
        if again is not None:
            given = [scenario, values, seed, seeds, takes, prompts, prompt, global_prompt, seconds]
            given += [negative, frames, size, fps, sampler, beside, batch, lora]
            given += [*inputs.values(), *changes.values()]
            if any(value is not None for value in given):
                raise InputError(
                    "--from generates a video again with its own settings; omit the scenario, "
                    "--set, --prompt, --seed and the options that change them"
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
            found = scenario_options.with_video(found, negative, frames, size, fps, inputs)
            found = scenario_options.with_lora(found, lora)
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
        _make_all(jobs, model or "demo", begin, cache, mesh, parallel, choose, quiet)


def _with_rivals(jobs: list[Job], sampler: str) -> list[Job]:
    """Each job followed by the same one with another sampler."""
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
            raise InputError(f"--compare-with {sampler}: is the video's own sampler")
        rival = dataclasses.replace(
            job, take=take, out=scenario_options.with_ending(job.out, f"-{sampler}")
        )
        rival.titles = own, sampler
        rival.compared = scenario_options.with_ending(job.out, "-compared").with_suffix(".png")
        both += [job, rival]
    return both


def _named_like(path: Path, job: Job, out: Path) -> Path:
    """`path` with the suffix that distinguishes the job's video from `out`."""
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
    quiet: bool,
) -> None:
    from rich.console import Console

    from syncos_jax.runs.generate_video import compare, generate_video, total
    from syncos_jax.runs.job import check_files, check_fit, check_model, fit_memory

    phases = Phases(Console(quiet=True) if quiet else options.console(mesh))
    say = (lambda _: None) if quiet else typer.echo
    check_files(job.take.scenario for job in jobs)
    with phases.phase("load"):
        from syncos_jax.pipeline import Pipeline
        from syncos_jax.pipeline.load import check_steps
        from syncos_jax.runs.cache import keep_programs

        check_steps(model, [job.sampler or job.take.scenario.settings() for job in jobs])
        if cache:
            keep_programs()
        lora = scenario_options.lora_of(job.take.scenario for job in jobs)
        pipeline = Pipeline.from_pretrained(
            model, lora=lora, mesh=mesh, parallel=parallel, rules=options.rules(mesh)
        )
    for job in jobs:  # all of them before the first is generated
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
        video = generate_video(pipeline, job, own, model, say)
        if job.compared is not None and video is not None and before is not None:
            compare(job, (before, video), say)
        before = video
    total(phases, begin)
