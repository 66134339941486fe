"""``syncos compile``: compile ahead of ``syncos generate``."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from syncos_jax.cli import hardware, scenario_options
from syncos_jax.cli.console import user_errors
from syncos_jax.errors import InputError
from syncos_jax.runs.progress import Phases, interruptible

EXAMPLES = """Examples:
  syncos compile story.yaml --model models/videocrafter2
  syncos compile --frames 64 --steps 50 --sampler syncos
  syncos compile story.yaml --model videocrafter2 --on v5e:8

For a machine image (set the same variable for generate):

  SYNCOS_CACHE=/opt/syncos syncos compile story.yaml
"""


class _Enough(Exception):
    """Raised after the first decoded frames: everything is compiled."""


def compile(
    scenario: Annotated[
        Path | None,
        typer.Argument(
            help=("The scenario, or any of the same length; alternatively pass --frames."),
            metavar="SCENARIO",
            show_default=False,
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Length of the video in frames.", show_default=False),
    ] = None,
    model: scenario_options.Model = "demo",
    sampler: scenario_options.Sampler = None,
    strength: scenario_options.Strength = None,
    steps: Annotated[
        int | None, typer.Option(help="Denoising steps.", metavar="N", show_default=False)
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--windows-per-call",
            "--batch",
            min=1,
            help="Windows per network call.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    on: hardware.On = None,
    weights_over: hardware.WeightsOver = 1,
) -> None:
    """Compile ahead of time, so that generate starts at once.

    Compiled programs are cached in $SYNCOS_CACHE (default ~/.cache/syncos_jax) for this device
    type, these versions and these shapes: length and size of the video, sampler, steps and windows
    per call. Prompts, seeds, guidance and learning rates may differ.

    With --on, compiles for hardware you don't have and reports what it needs; nothing is cached.
    The exit code is 1 if it does not fit.
    """
    with user_errors():
        parsed = _scenario(scenario, frames).model_copy(update={"lora": ()})  # only shapes count
        parsed = parsed.with_sampler(
            sampler, steps=steps, strength=strength, windows_per_call=batch
        )
        if on is not None:
            hardware.compile_on(on, model, parsed, weights_over)
            return
        if weights_over != 1:
            raise InputError("--weights-over needs --on")

        phases = Phases()
        with phases.phase("load"):
            from syncos_jax.pipeline import Pipeline
            from syncos_jax.runs.cache import Watch, failed, keep_programs, size

            folder = keep_programs()
            if folder is None:
                raise InputError(
                    "the cache folder cannot be written; set SYNCOS_CACHE to another folder"
                )
            watch = Watch()
            pipeline = Pipeline.from_pretrained(model)
        with phases.phase("compile"):
            interruptible(partial(_first_steps, pipeline, parsed))
        typer.echo(
            f"{folder}: {watch.compiled} programs compiled, {watch.found} found, "
            f"{size(folder) / 2**20:.1f} MiB in all"
        )
        _check_stored(folder, failed(folder))


def _check_stored(folder: Path, lost: int) -> None:
    """Raises InputError if programs could not be stored."""
    if lost:
        raise InputError(
            f"{lost} programs could not be stored", place=folder, remedy="free some space there"
        )


def _scenario(file: Path | None, frames: int | None) -> Any:
    """The scenario of the file, or any scenario of that length."""
    from syncos_jax.scenario import Event, Scenario

    if (file is None) == (frames is None):
        raise InputError("pass either a scenario file or --frames")
    if file is not None:
        return Scenario.from_file(file)
    return Scenario(global_prompt="anything", events=(Event(prompt="anything", frames=frames),))


def _first_steps(pipeline: Any, parsed: Any) -> None:
    """Runs each part of generate once: text encoder, first network call, one decoder call."""
    import numpy as np

    def stop(done: int, total: int) -> None:
        raise _Enough

    request = pipeline.prepare(parsed)
    run = pipeline.start(request)
    run.advance(1)
    run.check()
    shape = (request.layout.frames, *request.frame_shape)
    with suppress(_Enough):
        pipeline.decode(np.zeros(shape, np.float32), progress=stop)
