"""``syncos evaluate``: measure videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from syncos_jax.cli.console import user_errors
from syncos_jax.runs.progress import Phases, interruptible

if TYPE_CHECKING:
    from syncos_jax.metrics import Expected
    from syncos_jax.scenario import Scenario

EXAMPLES = """[bold]Examples[/bold]

syncos evaluate out.mp4

syncos evaluate out.mp4 --scenario examples/red_ball.yaml --json out.metrics.json

syncos evaluate takes/ --json metrics.json
"""

SUFFIXES = (".mp4", ".mov", ".mkv", ".webm")


def evaluate(
    video: Annotated[
        Path, typer.Argument(help="A video, or a folder of videos.", metavar="VIDEO|DIR")
    ],
    scenario: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What the video should show. By default the .json that 'syncos generate' writes "
            "beside a video tells it.",
            show_default=False,
        ),
    ] = None,
    json_out: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write everything as JSON.", show_default=False
        ),
    ] = None,
) -> None:
    """Measure how consistent a video is, and for the demo model whether it shows its prompts.

    Consistency, flicker, movement and cuts are measured of every video, by VBench's formulas over
    plain pixel features. Of the demo model's videos shape, colour, background and motion are read
    off the pixels and held against the scenario.

    Small videos that were enlarged when they were written are brought back to their own size.
    """
    with user_errors():
        from syncos_jax.files import check_writable

        if json_out is not None:
            check_writable(json_out)
        paths = _videos(video)
        story = _scenario(scenario)
        phases = Phases()
        reports = []
        with phases.phase("measure", "videos") as progress:
            for number, path in enumerate(paths, start=1):
                reports.append(interruptible(partial(measure, path, story)))
                progress(number, len(paths))
        _print(reports)
        if json_out is not None:
            _write(json_out, reports)


def measure(path: Path, story: Scenario | None = None) -> dict[str, Any]:
    """All measures of a video file.

    Args:
        path: the video.
        story: what it should show; None for what its sidecar says, if it has one.

    Raises InputError where the file is no video, or it does not fit the scenario.
    """
    from syncos_jax import metrics
    from syncos_jax.errors import InputError
    from syncos_jax.pipeline.video import load_video

    video = load_video(path)
    sidecar = read_sidecar(path)
    scale = sidecar.get("video", {}).get("scale") if sidecar else None
    frames = metrics.native_frames(video.frames, scale if isinstance(scale, int) else None)
    try:
        events = _events(story, sidecar, video.fps, len(frames))
        if events and not any(event.told for event in events):
            events = None  # a scenario of another world
        if events and frames.shape[1:3] != (64, 64) and story is None:
            events = None
        report = metrics.evaluate(frames, video.fps, events)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    height, width = frames.shape[1:3]
    return {"file": str(path), "width": width, "height": height, **report}


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """What ``syncos generate`` wrote beside a video; None where there is nothing of the kind."""
    from syncos_jax.runs.record import FORMAT, sidecar_path

    try:
        data = json.loads(sidecar_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(data, dict) and data.get("format") == FORMAT
    return data if ours else None


def _events(
    story: Scenario | None, sidecar: dict[str, Any] | None, fps: float, frames: int
) -> list[Expected] | None:
    from syncos_jax.errors import InputError
    from syncos_jax.metrics import Expected, expected_from_prompt

    if story is not None:
        lengths = story.event_frames(fps)
        if sum(lengths) != frames:
            raise InputError(
                f"has {frames} frames, but the scenario's events are {sum(lengths)} together; "
                "give the scenario that the video was made of"
            )
        stops = [sum(lengths[: index + 1]) for index in range(len(lengths))]
        spans = [
            (stop - length, stop, event.prompt)
            for stop, length, event in zip(stops, lengths, story.events, strict=True)
        ]
        overall = story.global_prompt
    elif sidecar is not None:
        try:
            spans = [(int(e["start"]), int(e["stop"]), str(e["prompt"])) for e in sidecar["events"]]
            overall = str(sidecar["scenario"].get("global", ""))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None
    else:
        return None
    return [
        Expected(start, stop, **expected_from_prompt(prompt, overall))
        for start, stop, prompt in spans
    ]


def _videos(path: Path) -> list[Path]:
    from syncos_jax.errors import InputError

    if not path.is_dir():
        return [path]
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise InputError(f"{path}: has no video in it ({', '.join(SUFFIXES)})")
    return found


def _scenario(path: Path | None) -> Scenario | None:
    if path is None:
        return None
    from syncos_jax.scenario import Scenario

    return Scenario.from_file(path)


def _print(reports: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from syncos_jax.experiments.measures import MEASURES
    from syncos_jax.experiments.measures import measure as measures_of

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for report in reports:
        table.add_column(Path(report["file"]).name, justify="right", overflow="fold")
    columns = [measures_of(report) for report in reports]
    for name, each in MEASURES.items():
        if any(column[name] is not None for column in columns):
            table.add_row(each.title, *(_shown(name, column[name]) for column in columns))
    Console(highlight=False, markup=False).print(table)
    for report in reports:
        _print_events(report, len(reports) > 1)


def _print_events(report: dict[str, Any], named: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    world = report["world"]
    if not world or not any(event["expected"] for event in world["events"]):
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("frames", "motion", "colour", "shape", "background"):
        table.add_column(title)
    for event in world["events"]:
        cells = [f"{event['start']}-{event['stop'] - 1}"]
        for name in ("motion", "colour", "shape", "background"):
            wanted, seen = event["expected"].get(name), event["seen"][name] or "?"
            wrong = wanted is not None and not event["right"][name]
            cells.append(f"{seen} (not {wanted})" if wrong else seen)
        table.add_row(*cells)
    console = Console(highlight=False, markup=False)
    console.print(f"\n{Path(report['file']).name if named else 'what the events show'}")
    console.print(table)


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name == "dynamic_degree":
        return "moves" if value else "still"
    return f"{value:.0f}" if name == "scenes" else f"{value:.3f}"


def _write(path: Path, reports: Sequence[dict[str, Any]]) -> None:
    from syncos_jax import __version__
    from syncos_jax.files import replacing
    from syncos_jax.metrics.report import VERSION

    data = {
        "format": "syncos_jax.metrics",
        "version": VERSION,
        "syncos_jax": __version__,
        "videos": list(reports),
    }
    with replacing(path) as temporary:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
