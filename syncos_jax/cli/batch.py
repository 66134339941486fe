"""``syncos batch``: generate the videos of many scenarios."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from syncos_jax.cli import devices as options
from syncos_jax.cli import run_options, scenario_options
from syncos_jax.cli.command import Commands, Group
from syncos_jax.cli.console import FAILED, TERMINATED, fail, user_errors
from syncos_jax.errors import InputError
from syncos_jax.runs.progress import Phases
from syncos_jax.runs.signals import preemptible
from syncos_jax.scenario.lora_files import LoraFile

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from syncos_jax.runs.markers import Status
    from syncos_jax.runs.worker_config import WorkerConfig

EXAMPLES = """Examples:
  syncos batch stories.jsonl --out videos
  syncos batch pictures.csv --out videos
  syncos batch examples --seeds 0-3 --steps 25 --out videos
  syncos batch stories.jsonl --devices all --out videos        (one video per device)
  srun syncos batch stories.jsonl --out /shared/videos         (each task generates its shard)
  syncos batch stories.jsonl --shard 0/8 --out s3://bucket/videos
  syncos batch status videos                                   (done, failed, pending)

stories.jsonl holds one scenario per line, as JSON; the name is optional:

  {"name": "ball", "global": "a red ball", "events": [{"prompt": "it rolls", "seconds": 2}]}

table.csv holds one video per row. Columns: name, global, prompt (events separated by |), seconds or
frames (of each event), negative, seed, fps, image, end_image, extend, join, redo, reference, fit,
audio, loop_audio. Paths in both are relative to the file.

Exit codes: 0 all done, 1 some failed, 2 invalid input, 75 terminated, or some videos are
left to another process (rerun the command).
"""
STATUS_EXAMPLES = """Examples:
  syncos batch status videos
  syncos batch status s3://bucket/videos --json

Exit codes: 0 all done, 1 some failed, 75 some are pending.
"""


_ADDRESS = re.compile(r"auto|local|ray://.+|[\w.-]+:\d+")


class _Group(Group):
    """``syncos batch SCENARIOS`` is short for ``syncos batch make SCENARIOS``."""

    default = "make"
    default_help = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Adds the address ``auto`` to a bare --ray."""
        return super().parse_args(ctx, self.with_address(args))

    @staticmethod
    def with_address(args: list[str]) -> list[str]:
        """`args` with the address ``auto`` where --ray has none."""
        words = []
        for word, after in zip(args, [*args[1:], ""], strict=False):
            words.append(word)
            if word == "--ray" and not _ADDRESS.fullmatch(after):
                words.append("auto")
        return words


app = Commands(
    "Generate the videos of many scenarios: syncos batch SCENARIOS --out DIR.", cls=_Group
)


@app.command("make", epilog=EXAMPLES, hidden=True)
def batch(
    source: Annotated[
        Path,
        typer.Argument(
            help="A .jsonl file, a .csv table, or a folder of scenario files (YAML, JSON).",
            metavar="SCENARIOS.jsonl|TABLE.csv|DIR",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR|URL",
            help="Output folder, created if missing; or a URL in an object store, "
            "such as s3://bucket/videos.",
        ),
    ],
    model: scenario_options.Model = "demo",
    suffix: Annotated[
        str,
        typer.Option(
            "--format", metavar="SUFFIX", help="Video format: mp4, mov, mkv, webm or gif."
        ),
    ] = "mp4",
    seeds: scenario_options.Seeds = None,
    lora: scenario_options.Lora = None,
    sampler: scenario_options.Sampler = None,
    strength: scenario_options.Strength = None,
    steps: scenario_options.Steps = None,
    guidance: scenario_options.Guidance = None,
    windows: Annotated[
        int | None,
        typer.Option(
            "--windows-per-call",
            min=1,
            help="Windows per network call; fewer need less memory.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    contact_sheet: Annotated[
        bool, typer.Option(help="Also write a contact sheet (PNG) next to each video.")
    ] = True,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Generate only part I (from 0) of N; a hash of its name assigns "
            "each video to a part. Default: the index of this SLURM array, srun "
            "or Kubernetes Indexed Job task; otherwise everything.",
            show_default=False,
            rich_help_panel=options.PANEL,
        ),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="With an object store: local folder for videos before upload and "
            "for checkpoints. Default: in the cache folder.",
            show_default=False,
            rich_help_panel=options.PANEL,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="[ADDRESS]",
            help="Generate on a Ray cluster: HOST:PORT, ray://..., auto (default: "
            "the running cluster, or a new one on this machine) or local.",
            show_default=False,
            rich_help_panel=options.PANEL,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="With --ray: number of workers, each with --devices devices. "
            "Default: as many as the cluster's devices allow; one per node "
            "without GPUs or TPUs.",
            show_default=False,
            rich_help_panel=options.PANEL,
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help=("Devices of this process; each generates its own videos. Default: one."),
            show_default=False,
            rich_help_panel=options.PANEL,
        ),
    ] = None,
    devices_per_video: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help=("Devices that share the windows of one video; needs --devices."),
            rich_help_panel=options.PANEL,
        ),
    ] = 1,
    retry_failed: Annotated[
        bool,
        typer.Option("--retry-failed", help="Retry videos that failed."),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Generate only missing videos and resume interrupted ones; "
            "--no-resume generates every video again.",
        ),
    ] = True,
    checkpoint_every: run_options.CheckpointEvery = "30",
    cache: Annotated[
        bool,
        typer.Option(
            help=("Cache compiled programs in $SYNCOS_CACHE (default ~/.cache/syncos_jax).")
        ),
    ] = True,
) -> None:
    """Generate the videos of many scenarios.

    Scenarios of the same length and settings share one compiled program. While one video is
    sampled, the previous one is decoded and written. Each finished video gets a marker in the
    folder manifest; rerunning the command generates only videos without one. An invalid scenario
    does not stop the others.

    Several tasks can share a batch: each generates one shard and can be restarted independently.
    syncos batch status shows their combined progress.
    """
    with user_errors(), preemptible():
        from syncos_jax.media.encode import SUFFIXES
        from syncos_jax.runs.items import read_items
        from syncos_jax.runs.markers import Markers
        from syncos_jax.runs.on_ray import make_on_ray
        from syncos_jax.runs.outputs import Outputs
        from syncos_jax.runs.shards import parse_shard, shard_of_environment
        from syncos_jax.runs.worker_config import WorkerConfig

        suffix = "." + suffix.lstrip(".").lower()
        if suffix not in SUFFIXES:
            raise InputError(f"--format: must be one of {', '.join(SUFFIXES)}, got {suffix[1:]!r}")
        changes = {"steps": steps, "guidance": guidance, "strength": strength}
        changes["windows_per_call"] = windows
        items = read_items(source, None if seeds is None else scenario_options.read_seeds(seeds))
        loras = tuple(lora or scenario_options.lora_of(i.take.scenario for i in items if i.take))
        scenario_options.say_comments(item.file for item in items)
        scenario_options.say_foreign_syntax(item.take.scenario for item in items if item.take)
        _check_ray(ray, workers, shard, devices, devices_per_video)
        outputs = Outputs(out, work)
        phases = Phases()
        config = WorkerConfig(
            out,
            model,
            suffix,
            sampler,
            {name: value for name, value in changes.items() if value is not None},
            checkpoint_every=checkpoint_every,
            contact_sheet=contact_sheet,
            resume=resume,
            retry_failed=retry_failed,
            cache=cache,
            lora=loras,
        )
        if ray is not None:
            Markers(outputs).describe(items)
            placed = [item.absolute() for item in items]
            _end(make_on_ray(_for_ray(config, devices, work), placed, phases, ray, workers), 0)
            return
        part = shard_of_environment() if shard is None else parse_shard(shard)
        mesh = _mesh(devices, devices_per_video)
        Markers(outputs).describe(items)
        own = [item for item in items if part.owns(item.name)]
        if part.count > 1:
            phases.say(f"shard {part}: {len(own)} of {len(items)} videos")
        with phases.phase("load"):
            from syncos_jax.pipeline import Pipeline
            from syncos_jax.runs.cache import keep_programs

            if cache:
                keep_programs()
            batched = mesh is not None and mesh.shape["data"] > 1
            pipeline = Pipeline.from_pretrained(model, lora=config.lora, mesh=mesh, batched=batched)
        from syncos_jax.runs.batch import Batch

        made = Batch(pipeline, config, outputs, phases, str(part))
        made.add(own)
        made.open()
        made.make_all()
        _end(made.summary(), made.left)


def _end(failed: dict[str, str], left: int) -> None:
    """Lists failures and exits with the matching code."""
    for name, error in failed.items():
        fail(f"{name}: {error}")
    if failed or left:
        raise typer.Exit(FAILED if failed else TERMINATED)


def _for_ray(config: WorkerConfig, devices: str | None, work: Path | None) -> WorkerConfig:
    """The configuration with absolute paths: Ray workers have another working directory."""
    from syncos_jax.runs.outputs import is_remote

    out, model = config.out, config.model
    return dataclasses.replace(
        config,
        out=out if is_remote(out) else str(Path(out).resolve()),
        model=str(Path(model).resolve()) if Path(model).is_dir() else model,
        devices=int(devices or 1),
        work=None if work is None else str(work.resolve()),
        lora=tuple(str(LoraFile.parse(text).within(Path.cwd())) for text in config.lora),
    )


def _check_ray(
    ray: str | None, workers: int | None, shard: str | None, devices: str | None, per_video: int
) -> None:
    if ray is None:
        if workers is not None:
            raise InputError("--workers needs --ray")
        return
    if shard is not None:
        raise InputError("--shard and --ray cannot be combined")
    if devices is not None and not devices.isdigit() or per_video > 1:
        raise InputError("with --ray, --devices must be a number: the devices of each worker")


@app.command("status", epilog=STATUS_EXAMPLES)
def status(
    out: Annotated[str, typer.Argument(help="The batch's --out.", metavar="DIR|URL")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the progress of a batch: videos, failures, throughput."""
    with user_errors():
        from syncos_jax.runs.markers import DONE, PENDING, read_status
        from syncos_jax.runs.outputs import Outputs

        found = read_status(Outputs(out, make=False))
        if as_json:
            figures = {"items": found.items, "failed": found.failed, "sessions": found.sessions}
            from syncos_jax.runs.generate_video import json_line

            typer.echo(json_line(figures))
        else:
            _print_status(found)
        if found.count(DONE) < len(found.items):
            raise typer.Exit(TERMINATED if found.count(PENDING) else FAILED)


def _print_status(found: Status) -> None:
    typer.echo(found.summary)
    for name, error in found.failed.items():
        typer.echo(f"failed: {name}: {error}")
    for session in found.sessions:
        where = f"{session['host']} {session['process']}, shard {session['shard']}"
        typer.echo(
            f"{session['started']} {where}: {session['videos']} videos in "
            f"{session['seconds']:.0f} s, {session['videos_per_hour']:g} an hour"
        )
    seconds = found.total("seconds")
    if seconds:
        busy = found.sampler_busy
        typer.echo(
            f"total: {found.total('videos'):g} videos, {found.total('frames'):g} frames in "
            f"{seconds:.0f} s over {len(found.sessions)} sessions"
            + ("" if busy is None else f"; sampler busy {100 * busy:.0f} % of the time")
        )


def _mesh(devices: str | None, per_video: int) -> Mesh | None:
    """The devices of this process, in groups of `per_video` that share a video."""
    if devices is None:
        if per_video > 1:
            raise InputError("--devices-per-video needs --devices")
        return None
    wanted = options.read_devices(devices)
    import jax

    from syncos_jax.sampling.devices import make_mesh, provide_cpu_devices

    provide_cpu_devices(wanted)
    count = wanted or len(jax.local_devices())
    if count % per_video:
        raise InputError(f"--devices-per-video {per_video} does not divide the {count} devices")
    return make_mesh(count, data=count // per_video)
