"""What is measured of a take, and the warnings in plain words that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from syncos_jax.metrics.features import pixel_features
from syncos_jax.metrics.frames import CUT_THRESHOLD, content_changes
from syncos_jax.metrics.report import evaluate
from syncos_jax.metrics.similarity import drift_curve, similarity_matrix
from syncos_jax.metrics.world import SIZE
from syncos_jax.metrics.world.judge import Expected, expected_from_prompt
from syncos_jax.studio.review.settings import overall_prompt
from syncos_jax.studio.review.takes import Event, Take

MAP_SIDE = 96  # frames along the similarity matrix, at most
CURVE_POINTS = 600

_JUMP = 6.0  # a change this many times the event's median, and above _LEAST, is abrupt
_LEAST = 5.0  # of content_changes (0 .. 255)
_FROZEN = 1.0  # grey levels, in the area that changes most from one frame to the next
_STILL = 5.0  # grey levels, in the area that changes most over a whole event
_CREEPS = 25.0  # the same, where the tracker follows the subject and sees no motion either
_UNLIKE = 0.5  # cosine
_CELLS = 8


@dataclass(frozen=True)
class Warning:
    """Something to look at: its kind (one word), a sentence, and the frame to go to or None."""

    kind: str
    text: str
    frame: int | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """The measures of one take.

    Attributes:
        report: of `syncos_jax.metrics.evaluate`, without the matrix.
        frames: of the similarity matrix, at most ``MAP_SIDE`` of them, ascending.
        similarity: float64 ``[n, n]``, cosine of the pixels of ``frames``.
        points: frames of the curves, ascending.
        drift: float64 ``[points]``, cosine with the mean of the first event.
        change: float64 ``[points]``, change from the frame before (0 .. 255; 0 for the first).
        warnings: what to look at, in order of frames.
    """

    report: dict[str, Any]
    frames: list[int]
    similarity: np.ndarray
    points: list[int]
    drift: np.ndarray
    change: np.ndarray
    warnings: tuple[Warning, ...]


def measure(take: Take) -> Measured:
    """Measures a take; deterministic, without a network."""
    frames = take.small
    events = [Expected(e.start, e.stop, **_expected(take, e)) for e in take.events]
    world = frames.shape[1:3] == (SIZE, SIZE) and take.sidecar.get("events") is not None
    world = world and any(event.specified_attributes for event in events)
    report = evaluate(frames, take.fps, events if world else None, matrix=False)
    pixels = pixel_features(frames, min(_CELLS, *frames.shape[1:3]))
    drift = drift_curve(pixels, take.events[0].stop)
    change = np.concatenate([[0.0], content_changes(frames)]) if len(frames) > 1 else np.zeros(1)
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(MAP_SIDE, len(frames))).round())
    chosen = chosen.astype(int)
    points = _points(len(frames), change)
    found = [
        *_cuts(take, change),
        *_stillness(take, report),
        *(_world(take, report["world"]) if report["world"] else _unlike(take, drift)),
    ]
    found.sort(key=lambda warning: -1 if warning.frame is None else warning.frame)
    notes = [Warning("Notes", note) for note in take.notes]
    return Measured(
        report,
        chosen.tolist(),
        similarity_matrix(pixels[chosen]),
        points,
        drift[points],
        change[points],
        (*notes, *found),
    )


def _expected(take: Take, event: Event) -> dict[str, str | None]:
    return expected_from_prompt(event.prompt, overall_prompt(take))


def _points(count: int, change: np.ndarray) -> list[int]:
    """Frames of the curves: all, or of each stretch the one with the greatest change."""
    if count <= CURVE_POINTS:
        return list(range(count))
    edges = np.linspace(0, count, CURVE_POINTS + 1).astype(int)
    return [int(a + change[a:b].argmax()) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def _cuts(take: Take, change: np.ndarray) -> list[Warning]:
    """Abrupt changes: inside events, and from one to the next."""
    found = []
    for event in take.events:
        inside = change[event.start + 1 : event.stop]
        if len(inside):
            usual = float(np.median(inside))
            limit = min(CUT_THRESHOLD, max(_LEAST, _JUMP * usual))
            for at in np.flatnonzero(inside >= limit) + event.start + 1:
                text = f"The picture changes abruptly inside {_name(event)}."
                found.append(Warning("Cut", text, int(at)))
        if event.index and change[event.start] >= CUT_THRESHOLD:
            text = f"Event {event.index + 1} begins with a hard cut."
            found.append(Warning("Cut", text, event.start))
    return found


def _stillness(take: Take, report: dict[str, Any]) -> list[Warning]:
    """Frozen stretches, and events that do not move."""
    found: list[Warning] = []
    frozen = most_changed(take.small[:-1], take.small[1:]) < _FROZEN
    least = max(3, round(take.fps / 2))
    at = 0
    still: set[int] = set()
    for is_frozen, run in groupby(frozen.tolist()):
        length = len(list(run))
        if is_frozen and length >= least:
            where = f"from frame {at + 1} to {at + length + 1}"  # people count from 1
            all_of = [e for e in take.events if at <= e.start and e.stop - 1 <= at + length]
            names = ", ".join(_name(e) for e in all_of) or "in " + _name(take.event_at(at + 1))
            what = "all of " + names if all_of else names
            text = f"Nothing changes for {length / take.fps:.1f} s, {where} ({what})."
            found.append(Warning("Frozen", text, at))
            still |= {e.index for e in all_of}
        at += length
    seen = (report["world"] or {}).get("events", [])
    for event in take.events:
        if event.stop - event.start < 2 or event.index in still:
            continue
        shown = take.small[event.start : event.stop]
        moved = most_changed(shown[:1].repeat(len(shown), axis=0), shown).max()
        tracked = seen[event.index]["seen"] if event.index < len(seen) else None
        unmoved = tracked is not None and tracked["colour"] and tracked["motion"] is None
        if moved < (_CREEPS if unmoved else _STILL):
            text = f"{_name(event).capitalize()} hardly moves: “{event.prompt}”."
            found.append(Warning("Still", text, event.start))
    return found


def most_changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Mean absolute difference in the area, of 8 × 8, where it is greatest.

    Args:
        before, after: uint8 ``[n, h, w, 3]``.

    Returns:
        float64 ``[n]``, grey levels.
    """
    height, width = before.shape[1:3]
    rows = np.unique(np.arange(_CELLS) * height // _CELLS)
    columns = np.unique(np.arange(_CELLS) * width // _CELLS)
    out = np.zeros(len(before))
    for index in range(len(before)):  # one by one: a long video's differences would not fit
        apart = np.abs(before[index].astype(np.int16) - after[index]).mean(axis=2)
        sums = np.add.reduceat(np.add.reduceat(apart, rows, axis=0), columns, axis=1)
        area = np.outer(np.diff([*rows, height]), np.diff([*columns, width]))
        out[index] = (sums / area).max()
    return out


def _world(take: Take, judged: dict[str, Any]) -> list[Warning]:
    """What the tracker reads off videos of the demo world."""
    found = []
    first: dict[str, tuple[int, str]] = {}
    for event, entry in zip(take.events, judged["events"], strict=False):
        seen, expected = entry["seen"], entry["expected"]
        for name in ("colour", "shape", "background"):
            value = seen[name]
            subject = "background" if name == "background" else f"subject's {name}"
            if value is None:
                continue
            if name in expected and value != expected[name]:
                text = (
                    f"The {subject} is {value} in event {event.index + 1}; the prompt says "
                    f"{expected[name]}."
                )
                found.append(Warning(name.capitalize(), text, event.start))
            before = first.setdefault(name, (event.index, value))
            if value != before[1] and name not in expected:
                text = (
                    f"The {subject} changes: {before[1]} in event {before[0] + 1}, {value} in "
                    f"event {event.index + 1}."
                )
                found.append(Warning(name.capitalize(), text, event.start))
                first[name] = (event.index, value)
        wanted, shown = expected.get("motion"), seen["motion"]
        if wanted and shown and wanted != shown:
            text = f"Event {event.index + 1} shows the motion {shown}; the prompt says {wanted}."
            found.append(Warning("Motion", text, event.start))
    if judged["visible"] < 0.9:
        share = 100 * (1 - judged["visible"])
        found.append(Warning("Subject", f"No subject is seen in {share:.0f} % of the frames."))
    return found


def _unlike(take: Take, drift: np.ndarray) -> list[Warning]:
    last = take.events[-1]
    value = float(drift[last.start : last.stop].mean())
    if value >= _UNLIKE or len(take.events) < 2:
        return []
    text = f"The last event looks unlike the first (likeness {value:.2f} of 1)."
    return [Warning("Drift", text, last.start)]


def _name(event: Event) -> str:
    return f"event {event.index + 1}"


def reading(measured: Measured, event: Event) -> str:
    """What the tracker saw in an event, in words; empty where it cannot read the video."""
    entries = (measured.report["world"] or {}).get("events", [])
    entry = next((e for e in entries if e["start"] <= event.start < e["stop"]), None)
    if entry is None:
        return ""
    seen = entry["seen"]
    subject = " ".join(seen[name] or "?" for name in ("colour", "shape"))
    motion = f"motion {seen['motion']}" if seen["motion"] else "no motion"
    return f"seen: {subject}, {motion}, {seen['background'] or 'unknown background'}"
