"""Differences between two runs, by what decides their state (`Request.fingerprint`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from syncos_jax.files.text import key_path, short


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """``["seed was 0, is 1", ...]``: where two mappings of plain values differ.

    None and a missing value are equal: a setting that did not exist yet was off.
    """
    before, now = dict(_leaves(old)), dict(_leaves(new))
    found = []
    for path in [*now, *(path for path in before if path not in now)]:
        was, here = before.get(path), now.get(path)
        if was != here:
            old_text, new_text = ("nothing" if v is None else short(v) for v in (was, here))
            found.append(f"{key_path(path)} was {old_text}, is {new_text}")
    return found


def digest(run: Mapping[str, Any]) -> str:
    """SHA-256 of a mapping of plain values; equal for mappings without `differences`."""
    leaves = sorted((key_path(path), value) for path, value in _leaves(run) if value is not None)
    return hashlib.sha256(json.dumps(leaves).encode()).hexdigest()


def listed(differences: list[str], most: int = 3) -> str:
    """The first few differences in one line, with the number of further ones."""
    more = len(differences) - most
    return "; ".join(differences[:most]) + (f" (and {more} more)" if more > 0 else "")


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, value
