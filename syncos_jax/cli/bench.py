"""``syncos bench``: how fast a model is on this machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from syncos_jax.cli.console import user_errors
from syncos_jax.runs.progress import Phases, interruptible

EXAMPLES = """[bold]Examples[/bold]

syncos bench --model tiny

syncos bench --model demo --what unet,row --repeat 20 --json demo.json

syncos bench --model videocrafter2 --dtype bfloat16 --batch 2 --what unet,vae
"""


class DType(StrEnum):
    """Types that the networks compute in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def bench(
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="'tiny', 'modelscope' or 'videocrafter2' (of that size, with random weights), "
            "'demo', or the folder of a model; @int8 behind it quantizes the denoiser.",
            metavar="NAME|DIR",
        ),
    ] = "demo",
    dtype: Annotated[
        DType | None,
        typer.Option(
            help="Of weights and computation; bfloat16 on accelerators, float32 on CPU.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Windows in one call of the network; by default all of the video, for "
            "modelscope and videocrafter2 1.",
            show_default=False,
        ),
    ] = None,
    guided: Annotated[
        bool | None,
        typer.Option(
            "--guided/--no-guided",
            help="Calls of the UNet with guidance (twice the clips) or without; by default both.",
            show_default=False,
        ),
    ] = None,
    what: Annotated[
        str,
        typer.Option(metavar="LIST", help="Some of unet, vae, text, row, video; with commas."),
    ] = "unet,vae,text,row,video",
    frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Of the long video; by default four times the model's clip.",
            show_default=False,
        ),
    ] = None,
    sampler: Annotated[
        str, typer.Option(metavar="NAME", help="Of the row and the video.")
    ] = "co_denoising",
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="Of the video.")] = 50,
    repeat: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Calls that are timed (a third of it for videos)."),
    ] = 9,
    json: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write everything as JSON.", show_default=False),
    ] = None,
) -> None:
    """Measure a model here: its networks, one row of a run, the whole video.

    Lowering, compilation and the first call are told apart from the calls after it, whose median
    and spread are given. Operations are counted by XLA, of rows and videos for the clips they have;
    the share is of what this device reaches in a large matrix product, measured in the same run.
    Random weights are as fast as trained ones.
    """
    with user_errors():
        from syncos_jax.errors import InputError
        from syncos_jax.files import check_writable

        kinds = tuple(part.strip() for part in what.split(",") if part.strip())
        known = ("unet", "vae", "text", "row", "video")
        for kind in kinds:
            if kind not in known:
                raise InputError(f"--what: {kind!r} is none of {', '.join(known)}")
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
            typer.echo(f"{json}: everything as JSON")


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
    """Measures, shows the table, returns everything."""
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
