"""The metrics of a video by name, read from its report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """One number of a video.

    Attributes:
        title: in tables and plots.
        better: 1 where more is better, -1 where less is, 0 where neither.
        of: from the report of `syncos_jax.metrics.evaluate`; None where it does not apply.
        says: what it is.
    """

    title: str
    better: int
    of: Callable[[Report], float | None]
    says: str


def _world(*path: str) -> Callable[[Report], float | None]:
    return _path("world", *path)


def _path(*path: str) -> Callable[[Report], float | None]:
    def read(report: Report) -> float | None:
        value: Any = report
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return None if value is None else float(value)

    return read


def _plain(key: str) -> Callable[[Report], float | None]:
    return lambda report: None if report.get(key) is None else float(report[key])


def _open_same(report: Report) -> float | None:
    found = (report.get("world") or {}).get("open_same") or {}
    return float(np.mean(list(found.values()))) if found else None


def _all_attributes_accuracy(report: Report) -> float | None:
    events = (report.get("world") or {}).get("events", [])
    found = [right for event in events for right in event["right"].values()]
    return float(np.mean(found)) if found else None


def _identity(report: Report) -> float | None:
    drift = report.get("drift")
    return float(np.mean(drift[-max(1, len(drift) // 8) :])) if drift else None


METRICS: dict[str, Metric] = {
    "coherence": Metric(
        "coherence",
        1,
        _world("coherence"),
        "share of frames on the most frequent colour, shape and background, mean over those of the "
        "three that are meant to stay; a frame without a visible subject has no colour or shape",
    ),
    "colour_held": Metric(
        "colour held", 1, _world("held", "colour"), "the same of the colour alone"
    ),
    "shape_held": Metric("shape held", 1, _world("held", "shape"), "the same of the shape alone"),
    "background_held": Metric(
        "background held", 1, _world("held", "background"), "the same of the background alone"
    ),
    "open_same": Metric(
        "open, same at the end",
        1,
        _open_same,
        "share of unspecified attributes that are the same in the last event as in the first",
    ),
    "subject_consistency": Metric(
        "subject consistency",
        1,
        _plain("subject_consistency"),
        "VBench's formula over the tracked subject's colour and shape",
    ),
    "background_consistency": Metric(
        "background consistency",
        1,
        _plain("background_consistency"),
        "VBench's formula over the colours around the subject",
    ),
    "temporal_flicker": Metric(
        "temporal flicker", 1, _plain("temporal_flicker"), "VBench's formula; 1 is still"
    ),
    "dynamic_degree": Metric(
        "dynamic degree",
        1,
        _plain("dynamic_degree"),
        "share of videos that move, by VBench's rule over a stand-in for optical flow",
    ),
    "movement": Metric(
        "movement",
        1,
        _plain("movement"),
        "what that rule counts, by degrees: the mean over pairs of frames of the largest 5 % of "
        "the flow, over the length from which a pair counts",
    ),
    "scenes": Metric("scenes", -1, _plain("scenes"), "number of cuts and one"),
    "motion_right": Metric(
        "motion accuracy", 1, _world("right", "motion"), "share of events with the prompted motion"
    ),
    "global_right": Metric(
        "global prompt accuracy",
        1,
        _world("global_right"),
        "share of attributes that the global prompt specifies and the events show",
    ),
    "local_right": Metric(
        "local prompt accuracy",
        1,
        _world("local_right"),
        "share of attributes that the events' own prompts specify and they show",
    ),
    "right": Metric("prompt accuracy", 1, _all_attributes_accuracy, "both together"),
    "global_fidelity": Metric(
        "global fidelity",
        1,
        _world("fidelity", "global"),
        "how closely the frames match the global prompt, 0 to 1: distance to the colour and the "
        "background, fit of the shape",
    ),
    "local_fidelity": Metric(
        "local fidelity",
        1,
        _world("fidelity", "local"),
        "the same for the events' prompts; for a motion its speed",
    ),
    "fidelity": Metric("fidelity", 1, _world("fidelity", "all"), "both together"),
    "repetition": Metric(
        "repetition of motion",
        -1,
        _world("repetition"),
        "the largest correlation of the subject's steps, less each event's mean, with those 4 "
        "frames to half a video later",
    ),
    "identity": Metric(
        "identity at the end",
        1,
        _identity,
        "mean cosine of the last eighth of the frames with the first event, of subject and "
        "background features",
    ),
    "seam_visibility": Metric(
        "seams",
        -1,
        _plain("seam_visibility"),
        "change of the pixels in CIELAB where a window ends, over that everywhere else; 1: not "
        "visible",
    ),
    "colour_drift": Metric(
        "colour drift",
        -1,
        _path("colour_drift", "mean"),
        "distance in CIELAB of the mean colour of the last eighth of the frames from that of the "
        "first; 2.3 is just noticeable",
    ),
    "chroma_drift": Metric(
        "change of saturation", 0, _path("colour_drift", "chroma"), "the same of their chroma"
    ),
    "contrast_drift": Metric(
        "change of contrast",
        0,
        _path("colour_drift", "contrast"),
        "the same of the standard deviation of their lightness",
    ),
    "visible": Metric("subject visible", 1, _world("visible"), "share of frames"),
    "diversity_events": Metric(
        "difference of events",
        0,
        _plain("diversity_events"),
        "1 - mean cosine between the events' mean pixels",
    ),
}
"""By name, in the order of the tables."""


def metric_values(report: Report) -> dict[str, float | None]:
    """All of `METRICS` for one video."""
    return {name: each.of(report) for name, each in METRICS.items()}
