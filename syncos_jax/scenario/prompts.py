r"""Scenarios from plain prompts: a list, or one text ``a | b | c``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.scenario.scenario import Scenario

DEFAULT_SECONDS = 2.0


def split_prompts(text: str) -> list[str]:
    r"""``"a | b"`` -> ``["a", "b"]``; ``\|`` is a bar within a prompt.

    Raises:
        InputError: an empty prompt.
    """
    prompts = [part.replace("\\|", "|").strip() for part in re.split(r"(?<!\\)\|", text)]
    if not all(prompts):
        raise InputError(
            "one of the prompts is empty",
            argument="prompts",
            remedy="write 'first | second | third'",
        )
    return prompts


def from_prompts(
    prompts: Sequence[str | Mapping[str, Any]],
    global_prompt: str = "",
    seconds: float | None = None,
) -> Scenario:
    """One event for each prompt.

    Args:
        prompts: what happens, in order: texts, or events with an optional length.
        global_prompt: what stays the same throughout. If empty, each prompt is used alone
            (``structured=False``) and has to describe everything.
        seconds: length of events that have none; None for 2.

    Raises:
        InputError: an invalid event, such as a prompt that is too long.
    """
    length = DEFAULT_SECONDS if seconds is None else seconds
    return Scenario.from_dict(
        {
            "global": global_prompt,
            "events": [_with_length(prompt, float(length)) for prompt in prompts],
            "structured": bool(global_prompt.strip()),
        }
    )


def _with_length(prompt: str | Mapping[str, Any], seconds: float) -> dict[str, Any]:
    event = {"prompt": prompt} if isinstance(prompt, str) else dict(prompt)
    return event if {"seconds", "frames"} & set(event) else {**event, "seconds": seconds}
