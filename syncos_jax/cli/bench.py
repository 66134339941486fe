"""``syncos bench``: time a model on this machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from syncos_jax.cli.console import user_errors
from syncos_jax.runs.progress import Phases, interruptible

EXAMPLES = """Examples:
  syncos bench --model tiny
  syncos bench --model demo --what unet,call --repeat 20 --json demo.json
  syncos bench --model videocrafter2 --dtype bfloat16 --windows-per-call 2 --what unet,vae
"""


class DType(StrEnum):
    """Dtypes of weights and computation."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def bench(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="'tiny', 'modelscope' or 'videocrafter2' (these sizes, with random "
            "weights), 'demo', or a model folder; append @int8 to quantize the "
            "denoiser.",
            metavar="NAME|DIR",
        ),
    ] = "demo",
    dtype: Annotated[
        DType | None,
        typer.Option(
            help="Dtype of weights and computation. Default: bfloat16 on "
            "accelerators, float32 on CPU.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--windows-per-call",
            "--batch",
            min=1,
            metavar="N",
            help="Windows per network call. Default: all windows of the video; 1 for "
            "modelscope and videocrafter2.",
            show_default=False,
        ),
    ] = None,
    guided: Annotated[
        bool | None,
        typer.Option(
            "--guided/--no-guided",
            help="Time UNet calls with or without guidance. Default: both.",
            show_default=False,
        ),
    ] = None,
    what: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="What to time: a comma-separated list of unet, vae, text, call (one "
            "network call of a run), video.",
        ),
    ] = "unet,vae,text,call,video",
    frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help=("Frames of the long video. Default: four times the model's clip."),
            show_default=False,
        ),
    ] = None,
    sampler: Annotated[
        str, typer.Option(metavar="NAME", help="Sampler for call and video.")
    ] = "co_denoising",
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Denoising steps for video.")] = 50,
    repeat: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Number of timed calls (a third of it for videos)."),
    ] = 9,
    json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write all results as JSON.", show_default=False),
    ] = None,
) -> None:
    """Time a model: its networks, one network call, a whole video.

    Reports lowering, compilation and first call separately from later calls (median and spread).
    FLOPs are counted by XLA; utilisation is relative to a large matrix product timed in the same
    run. Random weights are as fast as trained ones.
    """
    with user_errors():
        from syncos_jax.errors import InputError
        from syncos_jax.files import check_writable

        kinds = tuple(part.strip() for part in what.split(",") if part.strip())
        kinds = tuple("call" if kind == "row" else kind for kind in kinds)  # its old name
        known = ("unet", "vae", "text", "call", "video")
        for kind in kinds:
            if kind not in known:
                raise InputError(f"--what must be a list of {', '.join(known)}, got {kind!r}")
        if json is not None:
            check_writable(json)
        phases = Phases()
        values = _measure(
            phases,
            model,
            dtype and dtype.value,
            sampler,
            steps,
            kinds,
            repeat,
            guided=guided,
            frames=frames,
            batch=batch,
        )
        if json is not None:
            from syncos_jax.bench.report import write_json

            write_json(json, values)
            typer.echo(f"{json}: all results as JSON")


def _measure(
    phases: Phases,
    name: str,
    dtype: str | None,
    sampler: str,
    steps: int,
    kinds: tuple[str, ...],
    repeat: int,
    *,
    guided: bool | None,
    frames: int | None,
    batch: int | None,
) -> dict[str, Any]:
    """Times everything, prints the table, returns the results."""
    import jax.numpy as jnp

    from syncos_jax.bench import device, networks, report
    from syncos_jax.bench.work import Case, jobs
    from syncos_jax.sampling.sampler_dict import sampler_from_dict
    from syncos_jax.sampling.windows import WindowLayout

    with phases.phase("load"):
        loaded = networks.bench_model(name, dtype)
    geometry = loaded.geometry
    frames = frames or 4 * geometry.frames(geometry.window)
    layout = WindowLayout(geometry.latents(frames), geometry.window, geometry.stride)
    batch = min(batch or (1 if name in networks.RANDOM[1:] else layout.count), layout.count)
    settings = sampler_from_dict(
        {"name": sampler, "steps": steps, "guidance": loaded.guidance, "batch": batch}
    )
    case = Case(loaded, frames, batch, (False, True) if guided is None else (guided,), settings)
    with phases.phase("peak"):
        peak = interruptible(lambda: device.measure_peak(jnp.dtype(loaded.dtype)))
    results = []
    for title, job in jobs(case, kinds, repeat=repeat, peak_flops=peak.flops):
        with phases.phase(title):
            results += interruptible(job)
    values = {
        "command": report.command(),
        **device.machine(),
        "model": {
            "name": loaded.name,
            "dtype": loaded.dtype,
            "parameters": networks.parameters(loaded.params),
            "latent": [geometry.window, *case.latent],
            "frames": frames,
            "windows": layout.count,
            "batch": batch,
        },
        "peak": {"flops": peak.flops, "bytes": peak.bytes, "size": peak.size, "dtype": peak.dtype},
        "measurements": [result.to_dict() for result in results],
    }
    _show(values, [report.row(result) for result in results], report.peak_line(peak))
    return values


def _show(values: dict[str, Any], rows: list[tuple[str, ...]], peak: str) -> None:
    from rich.console import Console
    from rich.table import Table

    from syncos_jax.bench.report import HEADER

    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, title in enumerate(HEADER):
        table.add_column(title, justify="right" if index > 1 else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    model = values["model"]
    # A table wider than a file's 80 columns is still one line a row there.
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=200)
    console.print(table)
    versions = ", ".join(f"{name} {version}" for name, version in values["versions"].items())
    console.print(
        f"{model['name']}, {model['dtype']}, clips of {'×'.join(map(str, model['latent']))}; "
        f"{values['device']}, {values['cores']} cores, "
        f"{values['others_busy'] or 0:g} busy with other programs"
    )
    console.print(peak)
    console.print(versions)
