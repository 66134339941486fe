"""``syncos evaluate``: metrics of videos."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from syncos_jax.cli.console import user_errors
from syncos_jax.runs.progress import Phases, interruptible

if TYPE_CHECKING:
    from syncos_jax.metrics import Expected
    from syncos_jax.metrics.measurer import Measurer
    from syncos_jax.metrics.prompts import Prompts
    from syncos_jax.metrics.sources import Sources
    from syncos_jax.scenario import Scenario

EXAMPLES = """Examples:
  syncos evaluate out.mp4
  syncos evaluate out.mp4 --scenario examples/red_ball.yaml --json out.metrics.json
  syncos evaluate takes/ --json metrics.json
  syncos evaluate out.mp4 --scenario story.yaml --features dino=dino-vitb16,clip=clip-vit-b-32
  syncos evaluate out.mp4 --features lite0,flow
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
            help="Scenario the video should show. Default: the metadata file that "
            "syncos generate writes next to the video.",
            show_default=False,
        ),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[=PATH],...",
            help="Networks to measure with: dino=DIR (subject consistency), clip=DIR "
            "(background consistency, prompt fidelity), "
            "clip-l=DIR,aesthetic=FILE (aesthetic quality), folders in "
            "transformers' format; lite0, minilm and flow, small offline "
            "networks of the extra 'measures'; pixels for none. Default: the "
            "installed offline networks, unless the video is the demo model's.",
            show_default=False,
        ),
    ] = None,
    json_out: Annotated[
        Path | None,
        typer.Option(
            "--json", metavar="FILE", help="Write all results as JSON.", show_default=False
        ),
    ] = None,
) -> None:
    """Compute metrics of videos: consistency, flicker, motion, prompts.

    By default, VBench's formulas on pixel features. For the demo model's videos, shape, colour,
    background and motion are also read from the pixels and compared with the scenario. With
    --features, networks measure the video; each value names its network and whether it is VBench's
    own (docs/metrics.md).

    Videos that were enlarged on writing are measured at their original size.
    """
    with user_errors():
        from syncos_jax.files import check_writable

        if json_out is not None:
            check_writable(json_out)
        paths = _videos(video)
        story = _scenario(scenario)
        sources = _sources(features)
        phases = Phases()
        reports = []
        with phases.phase("measure", "videos") as progress:
            for number, path in enumerate(paths, start=1):
                work = partial(measure, path, story, sources, features is not None)
                reports.append(interruptible(work))
                progress(number, len(paths))
        _print(reports)
        if json_out is not None:
            _write(json_out, reports)


def measure(
    path: Path,
    story: Scenario | None = None,
    sources: Sources | None = None,
    always: bool = False,
) -> dict[str, Any]:
    """All measures of a video file.

    Args:
        path: the video.
        story: what it should show; None for what its sidecar says, if it has one.
        sources: networks to measure with; their values are the report's ``networks``.
        always: whether they look at the demo model's videos too.

    Raises InputError if the file is not a video or does not match the scenario.
    """
    from syncos_jax import metrics
    from syncos_jax.errors import InputError
    from syncos_jax.media.video import load_video

    video = load_video(path)
    sidecar = read_sidecar(path)
    scale = sidecar.get("video", {}).get("scale") if sidecar else None
    frames = metrics.native_frames(video.frames, scale if isinstance(scale, int) else None)
    try:
        prompts = _prompts(story, sidecar, video.fps, len(frames))
        events = _events(prompts)
        other = story is None or (bool(sources) and always)
        if events and frames.shape[1:3] != (64, 64) and other:
            events = None
        report = metrics.evaluate(frames, video.fps, events)
        measured = []
        if sources and (always or report["features"] != "world"):
            measured = _measurer(sources)(video.frames, video.fps, prompts)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    height, width = frames.shape[1:3]
    found = [value.to_dict() for value in measured]
    return {"file": str(path), "width": width, "height": height, **report, "networks": found}


def _sources(features: str | None) -> Sources:
    """What ``--features`` names, or the stand-ins that are installed."""
    from syncos_jax.metrics.sources import Sources

    return Sources.installed() if features is None else Sources.parse(features)


@lru_cache(maxsize=1)
def _measurer(sources: Sources) -> Measurer:
    """Of all videos, so that networks are read once; and only where one is looked at: JAX and the
    networks take longer to load than most videos to measure without."""
    from syncos_jax.metrics.measurer import Measurer

    return Measurer(sources)


def read_sidecar(path: Path) -> dict[str, Any] | None:
    """The metadata that ``syncos generate`` wrote next to a video; None if there is none."""
    from syncos_jax.errors import InputError
    from syncos_jax.runs.metadata import METADATA, metadata_path

    try:
        return METADATA.read(metadata_path(path))
    except (OSError, InputError):
        return None


def _prompts(
    story: Scenario | None, sidecar: dict[str, Any] | None, fps: float, frames: int
) -> Prompts | None:
    """What the video should show, by its scenario or its sidecar."""
    from syncos_jax.errors import InputError
    from syncos_jax.metrics.prompts import Prompts

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
    return Prompts(overall, tuple(spans))


def _events(prompts: Prompts | None) -> list[Expected] | None:
    """What prompts tell of the demo world; None where they are of another world."""
    from syncos_jax.metrics import Expected, expected_from_prompt

    if prompts is None:
        return None
    events = [
        Expected(start, stop, **expected_from_prompt(prompt, prompts.overall))
        for start, stop, prompt in prompts.events
    ]
    return events if any(event.specified_attributes for event in events) else None


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

    from syncos_jax.metrics.catalogue import METRICS, metric_values

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("")
    for report in reports:
        table.add_column(Path(report["file"]).name, justify="right", overflow="fold")
    columns = [metric_values(report) for report in reports]
    for report, column in zip(reports, columns, strict=True):
        if report["features"] == "pixels":  # a network's word weighs more
            column |= dict.fromkeys(_replaced(report), None)
    for name, each in METRICS.items():
        if any(column[name] is not None for column in columns):
            table.add_row(each.title, *(_shown(name, column[name]) for column in columns))
    for name, title in _titles(reports).items():
        values = [{m["title"]: m["value"] for m in report["networks"]} for report in reports]
        table.add_row(title, *(_shown(name, value.get(title)) for value in values))
    Console(highlight=False, markup=False).print(table)
    for report in reports:
        _print_events(report, len(reports) > 1)


def _titles(reports: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Name -> title of all that networks measured."""
    return {m["name"]: m["title"] for report in reports for m in report["networks"]}


def _replaced(report: dict[str, Any]) -> list[str]:
    """The measures of plain pixels that networks have better ones of."""
    names = {m["name"] for m in report["networks"]}
    plain = []
    if names & {"subject_consistency", "background_consistency", "picture_consistency_lite0"}:
        plain += ["subject_consistency", "background_consistency"]
    if "dynamic_degree_flow" in names:
        plain.append("dynamic_degree")
    return plain


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
    if name.startswith("dynamic_degree"):
        return "moves" if value else "still"
    if name == "scenes":
        return f"{value:.0f}"
    return f"{value:.1f}" if name.endswith("prompt_rank") else f"{value:.3f}"


def _write(path: Path, reports: Sequence[dict[str, Any]]) -> None:
    from syncos_jax.files.versioned import FileFormat
    from syncos_jax.metrics.report import VERSION
    from syncos_jax.version import __version__

    measures = FileFormat(
        "syncos_jax.metrics", "measures of videos", "measure again", version=VERSION
    )
    measures.write(path, {"syncos_jax": __version__, "videos": list(reports)})
