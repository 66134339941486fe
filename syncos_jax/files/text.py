"""Words for errors about documents: pydantic's validation errors as `InputError`, key paths."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from syncos_jax.errors import InputError, short

__all__ = ["all_errors", "did_you_mean", "key_path", "short"]


def key_path(location: Iterable[str | int]) -> str:
    """('events', 2, 'seconds') -> 'events[2].seconds'."""
    path = ""
    for part in location:
        if isinstance(part, str) and not part.replace("-", "_").isidentifier():
            part = short(part)  # empty or of several words
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """ "; did you mean 'X'?" where one of `known` is close to `word`, else the list of them."""
    known = list(known)
    close = difflib.get_close_matches(str(word)[:60].lower(), known, n=1, cutoff=0.65)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"


def all_errors(
    error: ValidationError, expected: Mapping[str, str], keys: Mapping[str, list[str]]
) -> list[InputError]:
    """Everything that pydantic found wrong with a document, unknown keys first.

    Args:
      error: what pydantic raised.
      expected: key, or "level.key", -> what may stand there, without a verb.
      keys: the known keys of each level; a level is named after the key above it ("" at the top).
    """
    found = error.errors(include_url=False)
    # Unknown keys first: often one is a misspelling of a missing one.
    found.sort(key=lambda entry: entry["type"] not in ("extra_forbidden", "invalid_key"))
    return [_input_error(entry, expected, keys) for entry in found]


def _input_error(
    entry: Mapping[str, Any], expected: Mapping[str, str], keys: Mapping[str, list[str]]
) -> InputError:
    path, kind = key_path(entry["loc"]), entry["type"]
    names = [part for part in entry["loc"] if isinstance(part, str)]
    key = names[-1] if names else ""
    level = names[-2] if len(names) > 1 else ""
    wanted = expected.get(f"{level}.{key}", expected.get(key, "something else"))
    if kind in ("extra_forbidden", "invalid_key"):
        remedy = did_you_mean(entry["loc"][-1], keys.get(level, [])).removeprefix("; ")
        return InputError("unknown key", place=path, remedy=remedy)
    if kind == "missing":
        return InputError("is missing", place=path, expected=wanted)
    if kind == "value_error":
        cause = entry["ctx"]["error"]
        if isinstance(cause, InputError):
            return cause.in_key(path)
        return InputError(str(cause), place=path or None)
    quoted = kind == "string_type" and isinstance(entry["input"], bool | int | float)
    return InputError(
        place=path or "the scenario",
        value=entry["input"],
        expected=wanted,
        remedy="put text in quotes" if quoted else None,
    )
