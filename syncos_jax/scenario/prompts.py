r"""Scenarios from plain prompts, as other tools take them: one a line, or ``a | b | c``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.scenario.prompt_files import read_prompt_file
from syncos_jax.scenario.scenario import Scenario

DEFAULT_SECONDS = 2.0


def read_prompts(path: str | os.PathLike[str]) -> list[str]:
    """The prompts of a file, as `read_prompt_file` reads it, without their lengths.

    Raises InputError: no such file, not UTF-8, no prompt in it.
    """
    return [event["prompt"] for event in read_prompt_file(path).events]


def split_prompts(text: str) -> list[str]:
    r"""``"a | b"`` -> ``["a", "b"]``; ``\|`` is a bar within a prompt.

    Raises InputError where a prompt is empty.
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
        prompts: what happens, in order: texts, or events that may have a length of their own.
        global_prompt: what is the same all through. Where empty, each prompt stands alone
            (``structured=False``), so that it has to say everything.
        seconds: length of each event that has none of its own; None for 2.

    Raises InputError where one is too long, say.
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
