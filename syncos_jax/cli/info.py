"""``syncos info``: show model details."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from syncos_jax.cli.console import user_errors
from syncos_jax.errors import InputError

EXAMPLES = """Examples:
  syncos info
  syncos info converted/videocrafter2
"""


SUMMARY = (
    *("model", "family", "clip", "frame", "schedule", "sampling", "distilled", "networks", "total"),
)
"""What is shown without --verbose."""


def info(
    model: Annotated[
        str,
        typer.Argument(
            help="'demo', a model folder, or any file or folder of weights, to see what it holds; "
            "append @int8 to quantize the denoiser.",
            metavar="NAME|DIR|FILE",
        ),
    ] = "demo",
    verbose: Annotated[bool, typer.Option("--verbose", help="Show all details.")] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare every file of a converted model with its hash."),
    ] = False,
) -> None:
    """Show model details: clip length, networks, schedule."""
    with user_errors():
        from rich.console import Console
        from rich.table import Table

        from syncos_jax.pipeline.load import load_model

        if verify:
            typer.echo(verified(model))
            return
        weights = weight_files(model)
        if weights is not None:
            for name, what in weights:
                typer.echo(f"{name}: {what}")
            return
        loaded = load_model(model)
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in describe(loaded):
            if verbose or name in SUMMARY:
                table.add_row(name, value)
        Console(highlight=False, markup=False).print(table)


def weight_files(model: str) -> list[tuple[str, str]] | None:
    """(name, description) of a weight file, or of each in a folder that is not a model; None for
    anything else."""
    from pathlib import Path

    from syncos_jax.weights_convert.diffusers_config import read_json
    from syncos_jax.weights_convert.recognise import describe

    path = Path(model)
    if model == "demo" or not path.exists() or (path / "model_index.json").is_file():
        return None
    if (path / "config.json").is_file():
        try:
            settings = read_json(path / "config.json")
        except InputError:  # which reading it as a model reports
            return None
        if not {"_class_name", "architectures"} & set(settings):
            return None
    return describe(path)


def verified(model: str) -> str:
    """Compares a model's files with their hashes; raises InputError on a mismatch."""
    from syncos_jax.models import saved
    from syncos_jax.pipeline.load import model_folder

    folder = model_folder(model)
    found = saved.damaged(folder)
    if found is None:
        raise InputError(
            f"{folder}: has no file hashes ({saved.SEAL}); convert the checkpoint again"
        )
    if found:
        more = f" and {len(found) - 10} more" if len(found) > 10 else ""
        raise InputError(
            f"{folder}: damaged files: {', '.join(found[:10])}{more}; copy the folder or convert "
            "the checkpoint again"
        )
    return f"{folder}: all files match their hashes"


def describe(model: Any) -> Iterator[tuple[str, str]]:
    """(name, value) of every detail of a loaded model."""
    config, geometry = model.config, model.geometry
    yield "model", str(model.name)
    yield "family", model.family
    frames = geometry.frames(geometry.window)
    latent = f" ({geometry.window} latent frames)" if geometry.temporal > 1 else ""
    seconds = f"{frames / geometry.fps:g} s at {geometry.fps:g} frames per second"
    yield "clip", f"{frames} frames{latent}, {seconds}"
    yield "frame", f"{geometry.width}×{geometry.height} pixels (width × height)"
    sides = f"{geometry.width // geometry.cell}×{geometry.height // geometry.cell}"
    scale = getattr(config, "latent_scale", None)
    scaled = "" if scale is None else f", scale {scale:g}"
    yield "latent", f"{sides}, {geometry.channels} channels{scaled}"
    yield "schedule", _schedule(model.schedule)
    stride = geometry.stride
    yield "sampling", f"{config.steps} steps, guidance {config.guidance:g}, stride {stride}"
    if model.few_steps is not None:
        yield "distilled", str(model.few_steps)
    total = 0
    held = [name for name in type(model).config_class.networks if hasattr(model, name)]
    yield "networks", ", ".join(held)
    for name in held:
        count, size = _size(getattr(model, name))
        total += count
        yield name, f"{count:,} parameters, {size / 2**20:,.1f} MiB"
    yield "total", f"{total:,} parameters"
    shown = {"name", "window", "fps", "height", "width", "stride", "steps", "guidance"}
    shown |= {"few_steps"}
    shown |= {"latent_factor", "latent_channels", "latent_scale"}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name not in shown and value not in (None, "", (), {}):
            yield from _rest(field.name.replace("_", " "), value)


def _rest(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _rest(f"{name}: {str(key).replace('_', ' ')}", item)
    elif not dataclasses.is_dataclass(value):
        yield name, ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _schedule(schedule: Any) -> str:
    if getattr(schedule, "flow_shift", None) is not None:
        return f"flow, shift {schedule.flow_shift:g}"
    return f"{len(schedule.signal)} timesteps ({schedule.spacing}), predicts {schedule.prediction}"


def _size(network: Any) -> tuple[int, int]:
    import jax
    from flax import nnx

    leaves = jax.tree.leaves(nnx.state(network, nnx.Param))
    return sum(leaf.size for leaf in leaves), sum(
        leaf.size * leaf.dtype.itemsize for leaf in leaves
    )
