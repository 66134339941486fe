"""The measures that are compared, out of one video's report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from syncos_jax.demo.world.scene import ATTRIBUTES
from syncos_jax.metrics.similarity import diversity

Report = Mapping[str, Any]


@dataclass(frozen=True)
class Measure:
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
    def read(report: Report) -> float | None:
        value: Any = report.get("world")
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return None if value is None else float(value)

    return read


def _plain(key: str) -> Callable[[Report], float | None]:
    return lambda report: None if report.get(key) is None else float(report[key])


def _open_same(report: Report) -> float | None:
    found = (report.get("world") or {}).get("open_same") or {}
    return float(np.mean(list(found.values()))) if found else None


def _all_told(report: Report) -> float | None:
    events = (report.get("world") or {}).get("events", [])
    told = [right for event in events for right in event["right"].values()]
    return float(np.mean(told)) if told else None


MEASURES: dict[str, Measure] = {
    "coherence": Measure(
        "coherence",
        1,
        _world("coherence"),
        "share of frames on the most frequent colour, shape and background, mean over those of the "
        "three that are meant to stay; a frame without a visible subject has no colour or shape",
    ),
    "colour_held": Measure(
        "colour held", 1, _world("held", "colour"), "the same of the colour alone"
    ),
    "shape_held": Measure("shape held", 1, _world("held", "shape"), "the same of the shape alone"),
    "background_held": Measure(
        "background held", 1, _world("held", "background"), "the same of the background alone"
    ),
    "open_same": Measure(
        "open, same at the end",
        1,
        _open_same,
        "share of what the prompts leave open that the last event shows as the first does",
    ),
    "subject_consistency": Measure(
        "subject consistency",
        1,
        _plain("subject_consistency"),
        "VBench's formula over the tracked subject's colour and shape",
    ),
    "background_consistency": Measure(
        "background consistency",
        1,
        _plain("background_consistency"),
        "VBench's formula over the colours around the subject",
    ),
    "temporal_flicker": Measure(
        "temporal flicker", 1, _plain("temporal_flicker"), "VBench's formula; 1 is still"
    ),
    "dynamic_degree": Measure(
        "dynamic degree",
        1,
        _plain("dynamic_degree"),
        "share of videos that move, by VBench's rule over a stand-in for optical flow",
    ),
    "movement": Measure(
        "movement",
        1,
        _plain("movement"),
        "what that rule counts, by degrees: the mean over pairs of frames of the largest 5 % of "
        "the flow, over the length from which a pair counts",
    ),
    "scenes": Measure("scenes", -1, _plain("scenes"), "number of cuts and one"),
    "motion_right": Measure(
        "motion right", 1, _world("right", "motion"), "share of events with the prompted motion"
    ),
    "global_right": Measure(
        "global prompt right",
        1,
        _world("global_right"),
        "share of what the global prompt tells that the events show",
    ),
    "local_right": Measure(
        "local prompts right",
        1,
        _world("local_right"),
        "share of what the events' own prompts tell that they show",
    ),
    "right": Measure("prompts right", 1, _all_told, "both together"),
    "global_fidelity": Measure(
        "global fidelity",
        1,
        _world("fidelity", "global"),
        "how well the frames show what the global prompt tells, 0 to 1: how near to the colour and "
        "the background, how well the shape fits",
    ),
    "local_fidelity": Measure(
        "local fidelity",
        1,
        _world("fidelity", "local"),
        "the same of what the events tell, of the motion its speed",
    ),
    "fidelity": Measure("fidelity", 1, _world("fidelity", "all"), "both together"),
    "visible": Measure("subject visible", 1, _world("visible"), "share of frames"),
    "diversity_events": Measure(
        "difference of events",
        0,
        _plain("diversity_events"),
        "1 - mean cosine between the events' mean pixels",
    ),
}
"""By name, in the order of the tables."""


def measure(report: Report) -> dict[str, float | None]:
    """All of `MEASURES` for one video."""
    return {name: each.of(report) for name, each in MEASURES.items()}


Values = dict[str, dict[str, dict[tuple[str, int], float | None]]]
"""measure -> method -> (scenario, seed) -> value."""


def collect(records: Iterable[Mapping[str, Any]]) -> Values:
    """The measures of all videos by measure and method; a video that failed has none."""
    values: Values = {name: {} for name in MEASURES}
    for record in records:
        key = (record["scenario"], record["seed"])
        for name in MEASURES:
            value = (record["measures"] or {}).get(name)
            values[name].setdefault(record["method"], {})[key] = value
    return values


def diversity_of_seeds(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """How different videos of one scenario and different seeds are: method -> scenario -> value.

    1 - the mean cosine over pairs of seeds, of the events' mean pixels one after the other; only
    for scenarios with at least two videos.
    """
    features: dict[str, dict[str, list[np.ndarray]]] = {}
    for record in records:
        if record["report"] is not None:
            means = np.asarray(record["report"]["event_features"], np.float64).ravel()
            of_method = features.setdefault(record["method"], {})
            of_method.setdefault(record["scenario"], []).append(means)
    return {
        method: {name: diversity(np.stack(rows)) for name, rows in of.items() if len(rows) > 1}
        for method, of in features.items()
    }


def entropy_of_choices(records: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """How evenly seeds choose what the prompts of a scenario leave open, method -> scenario.

    Of each open attribute the values that the first event shows, over the seeds: their Shannon
    entropy as a share of the most that so many seeds can have, 0 where all choose the same and 1
    where no choice is more frequent than it must be; the mean over the open attributes. Only for
    scenarios with at least two videos that show one. Like all plug-in entropies it is below the
    true one with few seeds: compare methods over the same seeds.
    """
    chosen: dict[tuple[str, str, str], list[str]] = {}
    for record in records:
        world = (record["report"] or {}).get("world") or {}
        for attribute in world.get("open_same") or {}:
            value = world["events"][0]["seen"][attribute]
            if value is not None:
                key = record["method"], record["scenario"], attribute
                chosen.setdefault(key, []).append(value)
    found: dict[str, dict[str, list[float]]] = {}
    for (method, scenario, attribute), values in chosen.items():
        if len(values) > 1:
            share = _evenness(values, len(ATTRIBUTES[attribute]))
            found.setdefault(method, {}).setdefault(scenario, []).append(share)
    return {
        method: {scenario: float(np.mean(shares)) for scenario, shares in of.items()}
        for method, of in found.items()
    }


def _evenness(values: list[str], kinds: int) -> float:
    """Entropy of the values over that of the most even choice of so many among `kinds`."""
    even = np.bincount(np.arange(len(values)) % kinds)
    _, counts = np.unique(values, return_counts=True)
    return _entropy(counts) / _entropy(even)


def _entropy(counts: np.ndarray) -> float:
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())
