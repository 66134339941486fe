"""What decides the state of a run, in plain values, and where two runs differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import jax

from syncos_jax.files.text import key_path, short

if TYPE_CHECKING:
    from syncos_jax.pipeline import Pipeline
    from syncos_jax.sampling.settings import Settings
    from syncos_jax.scenario import Scenario


def fingerprint(
    pipeline: Pipeline,
    scenario: Scenario,
    sampler: Settings | None = None,
    seed: int | None = None,
) -> dict[str, Any]:
    """What decides the state of a run, in plain values; the number of devices does not.

    Arguments as for a call of the pipeline.
    """
    from syncos_jax.runs.record import device_of, versions
    from syncos_jax.sampling.settings import settings_to_dict

    said = scenario.to_dict()
    device = device_of(pipeline)
    found = versions()
    config = pipeline.model.config
    return {
        "scenario": {k: v for k, v in said.items() if k not in ("sampler", "seed")},
        "sampler": settings_to_dict(sampler or pipeline.settings(scenario)),
        "seed": scenario.seed if seed is None else seed,
        "model": {
            "name": config.name,
            "weights_sha256": pipeline.weights_sha256,
            "dtype": str(jax.tree.leaves(pipeline._unet)[0].dtype),
        },
        "layout": asdict(pipeline.layout(scenario)),
        "frame_shape": list(pipeline.frame_shape(scenario)),
        "versions": {name: found[name] for name in ("syncos_jax", "jax", "jaxlib")},
        "device": {name: device[name] for name in ("platform", "kind")},
    }


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """``["seed was 0, is 1", ...]``: where two mappings of plain values differ."""
    before, now = dict(_leaves(old)), dict(_leaves(new))
    found = []
    for path in [*now, *(path for path in before if path not in now)]:
        was, here = (side.get(path, _NOTHING) for side in (before, now))
        if was != here:
            said = ["nothing" if value is _NOTHING else short(value) for value in (was, here)]
            found.append(f"{key_path(path)} was {said[0]}, is {said[1]}")
    return found


_NOTHING = object()


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value
