"""pydantic's findings in one line: the place, what stands there, what was expected, the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from syncos_jax.errors import short as short


def key_path(location: Iterable[str | int]) -> str:
    """('events', 2, 'seconds') -> 'events[2].seconds'."""
    path = ""
    for part in location:
        if isinstance(part, str) and not part.replace("-", "_").isidentifier():
            part = short(part)  # empty, say, or of several words
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """'; did you mean X?' where one of ``known`` is close to ``word``, else the list of them."""
    known = list(known)
    close = difflib.get_close_matches(str(word)[:60].lower(), known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def explain(
    error: ValidationError, expected: Mapping[str, str], keys: Mapping[str, list[str]]
) -> str:
    """The first finding of ``error`` in one line, and how many more there are.

    Args:
        error: what pydantic raised.
        expected: key, or "level.key", -> what may stand there, in words.
        keys: the known keys of a level; the level is the name of the key above ('' at the top).
    """
    first, *others = explained(error, expected, keys)
    return first + (f" (and {len(others)} more)" if others else "")


def explained(
    error: ValidationError, expected: Mapping[str, str], keys: Mapping[str, list[str]]
) -> list[str]:
    """All findings of ``error``, each in one line; arguments as for `explain`."""
    findings = error.errors(include_url=False)
    # An unknown key first: it often is the missing one, misspelt.
    findings.sort(key=lambda f: f["type"] not in ("extra_forbidden", "invalid_key"))
    return [_explained(found, expected, keys) for found in findings]


def _explained(
    found: Mapping[str, Any], expected: Mapping[str, str], keys: Mapping[str, list[str]]
) -> str:
    path, kind = key_path(found["loc"]), found["type"]
    names = [part for part in found["loc"] if isinstance(part, str)]
    key = names[-1] if names else ""
    level = names[-2] if len(names) > 1 else ""
    wanted = expected.get(f"{level}.{key}", expected.get(key, "something else"))
    if kind in ("extra_forbidden", "invalid_key"):
        return f"{path}: unknown key{did_you_mean(found['loc'][-1], keys.get(level, []))}"
    if kind == "missing":
        return f"{path}: is missing; expected {wanted}"
    if kind == "value_error":
        return f"{path}: {found['ctx']['error']}" if path else str(found["ctx"]["error"])
    text = f"{path or 'the scenario'}: is {short(found['input'])}, but expected {wanted}"
    if kind == "string_type" and isinstance(found["input"], bool | int | float):
        text += "; put text in quotes"
    return text
