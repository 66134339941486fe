"""``syncos batch``: many scenarios in, their videos out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syncos_jax.cli import devices as options
from syncos_jax.cli import run_options, scenario_options
from syncos_jax.cli.console import FAILED, fail, user_errors
from syncos_jax.errors import InputError
from syncos_jax.runs.progress import Phases
from syncos_jax.runs.signals import preemptible

if TYPE_CHECKING:
    from jax.sharding import Mesh

EXAMPLES = """[bold]Examples[/bold]

syncos batch stories.jsonl --out videos

syncos batch examples --seeds 0-3 --steps 25 --out videos

syncos batch stories.jsonl --devices all --out videos        (a video on each device at a time)

srun syncos batch stories.jsonl --out /shared/videos         (processes that share the work)

stories.jsonl has a scenario in each line, as JSON, with a name or without:

{"name": "ball", "global": "a red ball", "events": \\[{"prompt": "it rolls", "seconds": 2}]}

[bold]Exit codes[/bold]: 0 all are done, 1 some have failed, 75 terminated (start it again).
"""


def batch(
    source: Annotated[
        Path,
        typer.Argument(
            help="A file that ends in .jsonl, or a folder of scenario files (YAML, JSON).",
            metavar="SCENARIOS.jsonl|DIR",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="DIR", help="The folder for the videos; made if need be."
        ),
    ],
    model: scenario_options.Model = "demo",
    suffix: Annotated[
        str,
        typer.Option("--format", metavar="SUFFIX", help="mp4, mov, mkv, webm or gif."),
    ] = "mp4",
    seeds: scenario_options.Seeds = None,
    sampler: scenario_options.Sampler = None,
    strength: scenario_options.Strength = None,
    steps: scenario_options.Steps = None,
    guidance: scenario_options.Guidance = None,
    windows: Annotated[
        int | None,
        typer.Option(
            "--windows-per-call",
            min=1,
            help="Windows in one call of the network: fewer need less memory.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    contact_sheet: Annotated[
        bool, typer.Option(help="Also write stills of every event to a PNG beside each video.")
    ] = True,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="Devices of this process; as many videos are made at a time. Default: one.",
            show_default=False,
            rich_help_panel=options.PANEL,
        ),
    ] = None,
    devices_per_video: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Devices that share the windows of each video; with --devices.",
            rich_help_panel=options.PANEL,
        ),
    ] = 1,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Try again what failed while it was being made."),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Make only what is missing, and go on with what was killed; otherwise make "
            "everything anew.",
        ),
    ] = True,
    checkpoint_every: run_options.CheckpointEvery = "30",
    cache: Annotated[
        bool,
        typer.Option(
            help="Keep compiled programs in $SYNCOS_CACHE (else ~/.cache/syncos_jax) for the next "
            "start."
        ),
    ] = True,
) -> None:
    """Make the videos of many scenarios.

    Scenarios of the same length and settings share one compiled program. manifest.json in the
    folder says what is done, failed (and why) and pending. Started again, the command makes only
    what is missing; a scenario that is broken fails alone.

    The same line may be started several times, on all hosts that see the folder: the processes
    share the work, and a video is made by one of them.
    """
    with user_errors(), preemptible():
        from syncos_jax.pipeline.checkpoint import parse_every
        from syncos_jax.pipeline.encode import SUFFIXES
        from syncos_jax.runs.manifest import read_items

        every = parse_every(checkpoint_every)
        suffix = "." + suffix.lstrip(".").lower()
        if suffix not in SUFFIXES:
            raise InputError(f"--format: must be one of {', '.join(SUFFIXES)}, got {suffix[1:]!r}")
        changes = {"steps": steps, "guidance": guidance, "strength": strength, "batch": windows}
        items = read_items(
            source, scenario_options.read_seeds(seeds) if seeds is not None else None
        )
        _make_folder(out)
        mesh = _mesh(devices, devices_per_video)
        phases = Phases()
        with phases.phase("load"):
            from syncos_jax.pipeline import Pipeline
            from syncos_jax.runs.cache import keep_programs

            if cache:
                keep_programs()
            batched = mesh is not None and mesh.shape["data"] > 1
            pipeline = Pipeline.from_pretrained(model, mesh=mesh, batched=batched)
        from syncos_jax.runs.batch import Batch

        work = Batch(pipeline, model, out, suffix, every, phases)
        work.contact_sheet = contact_sheet
        work.add(items, sampler, changes)
        work.open(resume, retry_failed)
        begin = time.perf_counter()
        work.make_all()
        failed = work.summary(time.perf_counter() - begin)
        if failed:
            for name, error in failed.items():
                fail(f"{name}: {error}")
            raise typer.Exit(FAILED)


def _make_folder(out: Path) -> None:
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: {out.parent} does not exist; make it first")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is not a folder; choose another name")
    out.mkdir(exist_ok=True)


def _mesh(devices: str | None, per_video: int) -> Mesh | None:
    """The devices of this process, with a place for a video for every `per_video` of them."""
    if devices is None:
        if per_video > 1:
            raise InputError("--devices-per-video needs --devices as well")
        return None
    wanted = options.read_devices(devices)
    import jax

    from syncos_jax.sampling.devices import make_mesh, provide_cpu_devices

    provide_cpu_devices(wanted)
    count = wanted or len(jax.local_devices())
    if count % per_video:
        raise InputError(
            f"--devices-per-video: {per_video} does not divide the {count} devices; choose another"
        )
    return make_mesh(count, data=count // per_video)
