"""Sampler settings as plain mappings, the form they have in scenario files."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.sampling.sampler_config import SamplerConfig, current_names
from syncos_jax.sampling.samplers import ENDS, SAMPLERS, strength_settings

STRENGTH = "strength"


def sampler_fields(name: str) -> tuple[str, ...]:
    """The keys that the sampler `name` has in a scenario file, without `strength`; none where there
    is no such sampler."""
    if name not in SAMPLERS:
        return ()
    return tuple(f.name for f in dataclasses.fields(SAMPLERS[name]) if f.name != STRENGTH)


def sampler_from_dict(values: Mapping[str, Any]) -> SamplerConfig:
    """Reads settings as a scenario file holds them: ``{"name": "syncos", "steps": 50, ...}``.

    Raises:
      InputError: on a missing or unknown name, an unknown key, a bad value, or a strength next to
        settings that it sets.
    """
    if not isinstance(values, Mapping):
        raise InputError(expected="settings such as {name: syncos, steps: 50}", value=values)
    values = current_names(values)
    if "name" not in values:
        raise InputError("name is missing", expected=f"one of {', '.join(SAMPLERS)}")
    name = values.pop("name")
    if not isinstance(name, str) or name not in SAMPLERS:
        raise InputError(f"unknown name {name!r}", remedy=_hint(name, list(SAMPLERS)))
    known = [f.name for f in dataclasses.fields(SAMPLERS[name])]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r} of {name}", remedy=_hint(unknown[0], known))
    if values.get(STRENGTH) is not None:
        decided = strength_settings(values[STRENGTH])
        twice = [key for key in values if key in decided]
        if twice:
            raise InputError(
                f"strength sets {', '.join(decided)}", remedy=f"omit strength or {twice[0]}"
            )
    return SAMPLERS[name](**values)


def sampler_to_dict(settings: SamplerConfig) -> dict[str, Any]:
    """The inverse of `sampler_from_dict`, with every value written out."""
    values = {key: getattr(settings, key) for key in sampler_fields(settings.name)}
    return {"name": settings.name} | values


def merge_sampler_dict(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` of a scenario file with `changes`. A strength replaces all that it sets, any of
    that replaces a strength, and of the three ends of the refinement one replaces the others (of
    a strength's settings the end alone)."""
    values, changes = current_names(values), current_names(changes)
    decided = strength_settings(0.0)
    gone: set[str] = set()
    if STRENGTH in values and changes.keys() & (set(ENDS) - decided.keys()):
        values = {**values, **strength_settings(values[STRENGTH])}
        gone = {STRENGTH}
    if STRENGTH in changes:
        gone = {*decided, *ENDS}
    elif any(key in decided for key in changes):
        gone |= {STRENGTH}
    if any(changes.get(key) is not None for key in ENDS):
        gone |= set(ENDS)
    return {key: value for key, value in values.items() if key not in gone} | dict(changes)


def _hint(word: object, known: list[str]) -> str:
    close = difflib.get_close_matches(str(word), known, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"{meant}known: {', '.join(known)}"
