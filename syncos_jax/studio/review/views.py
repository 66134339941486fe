"""What the template shows: takes, contact sheet, measures, charts, history, as plain values."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from syncos_jax.runs.metadata import metadata_path
from syncos_jax.studio.review.approvals import Reviews
from syncos_jax.studio.review.figures import axis, data_uri, heat_png, levels, polyline
from syncos_jax.studio.review.measure import Measured, reading
from syncos_jax.studio.review.settings import facts
from syncos_jax.studio.review.takes import MAX_STILLS, Take, still_frames


@dataclass(frozen=True, eq=False)
class Shown:
    """A take and its measures."""

    take: Take
    measured: Measured


def history(reviews: Reviews) -> list[dict[str, Any]]:
    """All entries with their video's name, the newest first."""
    entries = [
        {"name": name, **entry.model_dump(exclude={"sha256"})}
        for name, of_video in reviews.videos.items()
        for entry in of_video
    ]
    return sorted(entries, key=lambda entry: -entry["revision"])


def card(index: int, item: Shown, reviews: Reviews, src: str, low: float) -> dict[str, Any]:
    """A take as the template shows it; ``src`` is for its video, ``low`` the map's low end."""
    take, measured = item.take, item.measured
    path = str(take.path)
    size = len(measured.frames)
    edges = [sum(f < event.start for f in measured.frames) for event in take.events if event.index]
    decide = ["--by", "NAME", "--comment", "TEXT"]
    return {
        "id": index,
        "letter": chr(ord("A") + index),
        "name": take.name,
        "src": src,
        "width": take.width,
        "height": take.height,
        "facts": facts(take),
        "warnings": [
            {
                "kind": warning.kind,
                "text": warning.text,
                "frame": warning.frame,
                "at": "" if warning.frame is None else f"{warning.frame / take.fps:.2f} s",
            }
            for warning in measured.warnings
        ],
        "status": reviews.status(take.name, take.sha256),
        "history": reviews.of(take.name),
        "heat": {
            "src": heat_png(levels(measured.similarity, low)),
            "size": size,
            "edges": edges,
            "spoken": (
                f"Likeness of {size} frames of {take.name} with one another: from "
                f"{measured.similarity.min():.2f} to 1, on average {measured.similarity.mean():.2f}"
            ),
        },
        "sidecar": json.dumps(take.sidecar, indent=2, ensure_ascii=False)
        if "format" in take.sidecar
        else "",
        "approve_command": shlex.join(["syncos", "review", "approve", path, *decide[:2]]),
        "reject_command": shlex.join(["syncos", "review", "reject", path, *decide]),
        "again_command": shlex.join(
            ["syncos", "generate", "--from", str(metadata_path(take.path)), "--out"]
        )
        + " again"
        + take.path.suffix,
    }


def values(index: int, item: Shown, view: dict[str, Any], low: float) -> dict[str, Any]:
    """A take as the page's script needs it."""
    take, measured = item.take, item.measured
    return {
        "id": index,
        "letter": view["letter"],
        "name": take.name,
        "sha256": take.sha256,
        "seen": max((entry.revision for entry in view["history"]), default=0),
        "fps": take.fps,
        "frames": len(take),
        "events": [{"start": e.start, "stop": e.stop, "prompt": e.prompt} for e in take.events],
        "heat": {
            "low": low,
            "frames": measured.frames,
            "values": base64.b64encode(levels(measured.similarity, low).tobytes()).decode(),
        },
    }


def sheet(shown: Sequence[Shown], cards: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the contact sheet: one an event, in it one strip a take."""
    rows = []
    for index in range(min(MAX_STILLS, max(len(item.take.events) for item in shown))):
        cells, prompts = [], []
        for item, view in zip(shown, cards, strict=True):
            take = item.take
            if index >= len(take.events):
                continue
            event = take.events[index]
            prompts.append(event.prompt)
            frames = still_frames(event, min(MAX_STILLS, len(take.events)))
            stills = [
                {
                    "frame": frame,
                    "at": f"{frame / take.fps:.2f} s",
                    "src": data_uri(take.stills[frame], "image/jpeg"),
                }
                for frame in frames
                if frame in take.stills
            ]
            cells.append(
                {
                    "take": view,
                    "stills": stills,
                    "prompt": event.prompt,
                    "reading": reading(item.measured, event),
                    "when": f"{event.start / take.fps:.1f} to {event.stop / take.fps:.1f} s",
                }
            )
        same = len(set(prompts)) == 1
        for cell in cells:
            cell["prompt"] = "" if same else cell["prompt"]
        when = {cell["when"] for cell in cells}
        rows.append(
            {
                "number": index + 1,
                "prompt": prompts[0] if same else "differs from take to take",
                "when": when.pop() if len(when) == 1 else "",
                "cells": cells,
            }
        )
    return rows


# Key of the report -> label; 1: more is better, -1: less is better, 0: neither; what it says.
_MEASURES: dict[str, tuple[str, int, str]] = {
    "subject_consistency": ("Subject consistency", 1, "1: every frame has the first one's subject"),
    "background_consistency": ("Background consistency", 1, "1: the place stays the same"),
    "temporal_flicker": ("Stillness", 0, "1: nothing changes; low: flicker, fast movement"),
    "dynamic_degree": ("Something moves", 1, "by the displacement of edges"),
    "scenes": ("Scenes", -1, "1: no hard cut"),
    "diversity_events": ("Events differ by", 0, "0: all events look the same"),
}
_WORLD_MEASURES: dict[str, tuple[str, int, str]] = {
    "local_right": ("Events as prompted", 1, "share of what the local prompts say that is seen"),
    "global_right": ("Global prompt kept", 1, "share of what the global prompt says that is seen"),
    "coherence": ("Attributes held", 1, "share of frames with the usual colour, shape, background"),
    "visible": ("Subject visible", 1, "share of frames"),
    "repetition": ("Motion repeats", -1, "0: steps do not come again; 1: they do, exactly"),
}


def measures(shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """Rows of the table of measures, the best of each marked."""
    reports = [item.measured.report for item in shown]
    worlds = [report["world"] or {} for report in reports]
    rows = [_row([r.get(key) for r in reports], *title) for key, title in _MEASURES.items()]
    if any(worlds):
        rows += [
            _row([w.get(key) for w in worlds], *title) for key, title in _WORLD_MEASURES.items()
        ]
    counts = [len(item.measured.warnings) for item in shown]
    rows.append(_row(counts, "Warnings", -1, "listed with each take"))
    return [row for row in rows if row]


def _row(values: list[Any], label: str, sense: int, help: str) -> dict[str, Any]:
    values = [round(value, 3) if isinstance(value, float) else value for value in values]
    known = [value for value in values if value is not None]
    if not known:
        return {}
    best = {1: max, -1: min}[sense](known) if sense and len(set(known)) > 1 else None

    def text(value: Any) -> str:
        if value is None:
            return "–"
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    cells = [{"text": text(v), "best": best is not None and v == best} for v in values]
    return {"label": label, "help": help, "cells": cells}


_CHARTS = {
    "drift": ("Drift", "likeness of every frame with the first event; 1 is the same"),
    "change": ("Change", "from one frame to the next; a spike is a cut, zero is frozen"),
}


def chart(kind: str, shown: Sequence[Shown], spine: Take) -> dict[str, Any]:
    """The curves of all takes over the time of the longest, ``spine``; ``kind``: _CHARTS."""
    curves = [item.measured.drift if kind == "drift" else item.measured.change for item in shown]
    everything = [float(value) for curve in curves for value in curve]
    low, high = axis(everything, 1.0 if kind == "drift" else None)
    lines = [
        {
            "id": index,
            "points": polyline(
                [(frame + 0.5) / item.take.fps / spine.seconds for frame in item.measured.points],
                curve.tolist(),
                low,
                high,
            ),
        }
        for index, (item, curve) in enumerate(zip(shown, curves, strict=True))
    ]
    spoken = "; ".join(
        f"{item.take.name} from {curve[0]:.2f} to {curve[-1]:.2f}, at least {curve.min():.2f}, "
        f"at most {curve.max():.2f}"
        for item, curve in zip(shown, curves, strict=True)
    )
    title, help = _CHARTS[kind]
    return {
        "key": kind,
        "title": title,
        "help": help,
        "labels": [f"{high:g}", f"{(low + high) / 2:g}", f"{low:g}"],
        "spoken": f"{title}, {help}. {spoken}",
        "edges": [round(1000 * e.start / len(spine), 1) for e in spine.events if e.index],
        "lines": lines,
        "data": {
            "key": kind,
            "lines": [
                {"frames": item.measured.points, "values": curve.round(4).tolist()}
                for item, curve in zip(shown, curves, strict=True)
            ],
        },
    }
