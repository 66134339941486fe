"""What the sidecars of takes say, laid out flat so that takes can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from syncos_jax.studio.review.takes import Take

# Not settings: what came out, when, how long it took, what stands elsewhere on the page.
_LEFT_OUT = {
    "format", "version", "generated", "generator", "created", "files", "timings", "latents", "take",
    "cost", "title", "events", "scenario", "scenario_sha256", "made_from",
}  # fmt: skip
_NOTHING = "–"


def flat(take: Take) -> dict[str, str]:
    """Setting -> its value as text, in the order of the page."""
    sidecar = take.sidecar
    scenario = _part(sidecar, "scenario")
    values: dict[str, str] = {}
    for key in ("global", "negative", "structured", "stride", "fps"):
        if key in scenario:
            prompt = key in ("global", "negative")
            values[f"prompt: {key}" if prompt else key] = _text(scenario[key])
    if "format" in sidecar:
        for event in take.events:
            values[f"event {event.index + 1}"] = event.prompt
            values[f"event {event.index + 1} frames"] = f"{event.start} to {event.stop - 1}"
    for key, value in sidecar.items():
        if key not in _LEFT_OUT:
            values.update(_leaves(key, value))
    values["file"] = f"{take.width}×{take.height}, {len(take)} frames at {take.fps:g} per second"
    return values


def differences(takes: Sequence[Take]) -> list[dict[str, Any]]:
    """Rows (key, one cell a take) of the settings that are not the same in all takes."""
    tables = [flat(take) for take in takes]
    rows = [{"key": k, "cells": [t.get(k, _NOTHING) for t in tables]} for k in _keys(tables)]
    return [row for row in rows if len(set(row["cells"])) > 1]


def shared(takes: Sequence[Take]) -> list[dict[str, str]]:
    """Rows (key, value) of the settings that are the same in all takes."""
    tables = [flat(take) for take in takes]
    return [
        {"key": key, "value": tables[0][key]}
        for key in _keys(tables)
        if len({table.get(key) for table in tables}) == 1
    ]


def facts(take: Take) -> list[str]:
    """What stands under a take's name: length, seed, sampler, model, time of sampling."""
    sidecar = take.sidecar
    result = [f"{take.seconds:.1f} s, {len(take)} frames"]
    if "seed" in sidecar:
        result.append(f"seed {_text(sidecar['seed'])}")
    sampler = _part(sidecar, "sampler")
    if "name" in sampler:
        steps = f", {_text(sampler['steps'])} steps" if "steps" in sampler else ""
        result.append(f"{_text(sampler['name'])}{steps}")
    if "name" in _part(sidecar, "model"):
        result.append(f"model {_text(_part(sidecar, 'model')['name'])}")
    seconds = _part(sidecar, "timings").get("sample")
    if isinstance(seconds, int | float):
        result.append(f"sampled in {seconds:.0f} s")
    return result


def overall_prompt(take: Take) -> str:
    """The global prompt; empty where none is known."""
    return str(_part(take.sidecar, "scenario").get("global", ""))


def _part(sidecar: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = sidecar.get(key)
    return value if isinstance(value, dict) else {}


def _leaves(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}: {name}", inner)
    else:
        yield key, _text(value)


def _text(value: Any) -> str:
    if value is None:
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if len(text) <= 400 else text[:400] + " …"


def _keys(tables: Sequence[Mapping[str, str]]) -> list[str]:
    return list(dict.fromkeys(key for table in tables for key in table))
