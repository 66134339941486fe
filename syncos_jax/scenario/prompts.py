r"""Scenarios from plain prompts, as other tools take them: one a line, or ``a | b | c``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from syncos_jax.errors import InputError
from syncos_jax.files.documents import read_text
from syncos_jax.scenario.scenario import Scenario

DEFAULT_SECONDS = 2.0


def read_prompts(path: str | os.PathLike[str]) -> list[str]:
    """The prompts of a text file, one a line; empty lines and lines that begin with # are left out.

    Raises InputError: no such file, not UTF-8, no prompt in it.
    """
    lines = [line.strip() for line in read_text(path).splitlines()]
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise InputError(f"{path}: has no prompt in it; write one a line")
    return prompts


def split_prompts(text: str) -> list[str]:
    r"""``"a | b"`` -> ``["a", "b"]``; ``\|`` is a bar within a prompt.

    Raises InputError where a prompt is empty.
    """
    prompts = [part.replace("\\|", "|").strip() for part in re.split(r"(?<!\\)\|", text)]
    if not all(prompts):
        raise InputError("`prompts`: one of the prompts is empty; write 'first | second | third'")
    return prompts


def from_prompts(
    prompts: Sequence[str], global_prompt: str = "", seconds: float | None = None
) -> Scenario:
    """One event for each prompt.

    Args:
        prompts: what happens, in order.
        global_prompt: what is the same all through. Where empty, each prompt stands alone
            (``structured=False``), so that it has to say everything.
        seconds: length of each event; None for 2.

    Raises InputError where one is too long, say.
    """
    length = DEFAULT_SECONDS if seconds is None else seconds
    return Scenario.from_dict(
        {
            "global": global_prompt,
            "events": [{"prompt": prompt, "seconds": float(length)} for prompt in prompts],
            "structured": bool(global_prompt.strip()),
        }
    )
