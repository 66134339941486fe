"""Values of many videos: by method and video, and how much the seeds of a scenario differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from syncos_jax.metrics.catalogue import METRICS
from syncos_jax.metrics.similarity import diversity
from syncos_jax.metrics.world import ATTRIBUTES

Values = dict[str, dict[str, dict[tuple[str, int], float | None]]]
"""measure -> method -> (scenario, seed) -> value."""


def collect(records: Iterable[Mapping[str, Any]]) -> Values:
    """The measures of all videos by measure and method; a video that failed has none."""
    values: Values = {name: {} for name in METRICS}
    for record in records:
        key = (record["scenario"], record["seed"])
        for name in METRICS:
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
