"""``syncos generate``: scenario in, video out."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syncos_jax.cli.console import Phases, interruptible, user_errors

if TYPE_CHECKING:
    from syncos_jax.pipeline import Pipeline
    from syncos_jax.scenario import Scenario
    from syncos_jax.video import Video

EXAMPLES = """[bold]Examples[/bold]

syncos generate examples/red_ball.yaml --out ball.mp4

syncos generate examples/red_ball.yaml --seed 7 --sampler co_denoising --out baseline.mp4

syncos generate story.yaml --model converted/videocrafter2 --steps 25 --out story.mp4

A scenario file, which may as well be JSON:

global: a red ball on a green meadow

events: \\[{prompt: the ball rolls to the left, seconds: 2}, {prompt: the ball grows, seconds: 2}]
"""


def generate(
    scenario: Annotated[
        Path, typer.Argument(help="The scenario: a YAML or JSON file.", metavar="SCENARIO")
    ],
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", help="'demo', or the folder of a converted model.", metavar="NAME|DIR"
        ),
    ] = "demo",
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="FILE", help="The video to write: .mp4, .mov or .mkv."),
    ] = Path("out.mp4"),
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=2**32 - 1, help="Instead of the scenario's.", metavar="N", show_default=False
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(
            help="Instead of the scenario's: syncos, co_denoising or refinement_only.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Denoising steps, instead of the scenario's.", metavar="N", show_default=False
        ),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="How strongly to follow the prompts.", metavar="X", show_default=False),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Windows in one call of the network: fewer need less memory.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
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
    contact_sheet: Annotated[
        bool, typer.Option(help="Also write stills of every event to a PNG beside the video.")
    ] = True,
) -> None:
    """Make the long video of a scenario.

    The scenario says what stays the same (global) and what happens (events, each with a length).

    All randomness comes from the seed: the same seed gives the same video.
    """
    with user_errors():
        from syncos_jax.files import check_writable
        from syncos_jax.scenario import Scenario
        from syncos_jax.video import check_video_path

        begin = time.perf_counter()
        story = Scenario.from_file(scenario)
        changes = {"steps": steps, "guidance": guidance, "batch": batch}
        if sampler is not None or any(value is not None for value in changes.values()):
            story = story.with_sampler(sampler, **changes)
        check_video_path(out)
        sheet = check_writable(out.with_suffix(".png")) if contact_sheet else None

        phases = Phases()
        with phases.phase("load"):
            from syncos_jax.pipeline import Pipeline

            pipeline = Pipeline.from_pretrained(model)
        video = _make(pipeline, story, seed, phases)
        with phases.phase("write"):
            video.save(out, scale=scale or max(1, 256 // min(video.frames.shape[1:3])))
            if sheet is not None:
                video.contact_sheet(sheet)
        _summary(phases, video, out, sheet, time.perf_counter() - begin)


def _make(pipeline: Pipeline, story: Scenario, seed: int | None, phases: Phases) -> Video:
    layout = pipeline.layout(story)
    settings = pipeline.settings(story)
    phases.say(
        f"{layout.frames} frames in {layout.count} windows of {layout.window}, "
        f"{len(story.events)} events, {settings.name}, {settings.steps} steps"
    )
    with phases.phase("sample", "calls", first="compile") as progress:
        latents = interruptible(partial(pipeline.latents, story, settings, seed, progress=progress))
    with phases.phase("decode", "frames") as progress:
        frames = interruptible(partial(pipeline.decode, latents, progress=progress))
    return pipeline.video(story, frames)


def _summary(phases: Phases, video: Video, out: Path, sheet: Path | None, total: float) -> None:
    height, width = video.frames.shape[1:3]
    spent = ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.seconds.items())
    phases.say(f"total    {total:7.1f} s   ({spent})")
    stills = f", stills in {sheet}" if sheet else ""
    typer.echo(
        f"{out}: {len(video)} frames of {width}×{height}, {video.seconds:.1f} s at "
        f"{video.fps:g} frames per second{stills}"
    )
