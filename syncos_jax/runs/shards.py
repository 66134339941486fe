"""Shards of a batch: which of several tasks makes an item, by a hash of its name.

Every task builds the same list of items and takes its part. Tasks do not communicate, so any of
them can be restarted, alone, later, or on another machine.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from syncos_jax.errors import Argument, InputError

_EXPECTED = "I/N, such as 0/8, with I from 0 to N - 1"


@dataclass(frozen=True)
class Shard:
    """One of `count` parts of a batch.

    Attributes:
      index: which one, from 0.
      count: how many there are.

    Raises:
      InputError: `index` is out of range.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.index < self.count:
            raise InputError(argument="shard", value=str(self), expected=_EXPECTED)

    def owns(self, name: str) -> bool:
        """Whether this shard makes the item of that name: its SHA-256 modulo `count`."""
        digest = hashlib.sha256(name.encode()).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.index

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """``"2/8"``: the third of eight; raises InputError."""
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    if match is None:
        raise InputError(argument="shard", value=text, expected=_EXPECTED)
    return Shard(int(match[1]), int(match[2]))


def shard_of_environment(environment: Mapping[str, str] | None = None) -> Shard:
    """The shard of this task, from its scheduler's variables; without any, the whole batch.

    ================ =============================================================================
    SLURM array      SLURM_ARRAY_TASK_ID, _COUNT, _MIN, _MAX and _STEP
    srun             SLURM_PROCID of SLURM_STEP_NUM_TASKS; in an array, within each of its jobs
    Kubernetes       JOB_COMPLETION_INDEX of JOB_COMPLETIONS, which the manifest has to set
    ================ =============================================================================

    Raises:
      InputError: the index is set without a count, or the array has gaps, so that its number of
        tasks is not the number of shards.
    """
    values = os.environ if environment is None else environment
    index, count = 0, 1
    if "SLURM_ARRAY_TASK_ID" in values:
        index, count = _of_array(values)
    elif "JOB_COMPLETION_INDEX" in values:
        index = _number(values, "JOB_COMPLETION_INDEX")
        if "JOB_COMPLETIONS" not in values:
            raise InputError(
                "JOB_COMPLETION_INDEX is set, but JOB_COMPLETIONS is not",
                argument="shard",
                remedy=("set JOB_COMPLETIONS to the Job's completions, or pass ", _SHARD),
            )
        count = _number(values, "JOB_COMPLETIONS")
    if "SLURM_PROCID" in values and "SLURM_STEP_NUM_TASKS" in values:
        tasks = _number(values, "SLURM_STEP_NUM_TASKS")
        index, count = index * tasks + _number(values, "SLURM_PROCID"), count * tasks
    return Shard(index, count)


_SHARD = Argument("shard")


def _of_array(values: Mapping[str, str]) -> tuple[int, int]:
    index, count = (_number(values, f"SLURM_ARRAY_TASK_{word}") for word in ("ID", "COUNT"))
    first = _number(values, "SLURM_ARRAY_TASK_MIN", 0)
    step = _number(values, "SLURM_ARRAY_TASK_STEP", 1) or 1
    last = _number(values, "SLURM_ARRAY_TASK_MAX", first + (count - 1) * step)
    if (last - first) // step + 1 != count or (index - first) % step:
        raise InputError(
            f"the array of {count} tasks has gaps between {first} and {last}, so the number of "
            "shards is unknown",
            argument="shard",
            remedy=("pass ", Argument("shard", f"{index}/N")),
        )
    return (index - first) // step, count


def _number(values: Mapping[str, str], name: str, default: int | None = None) -> int:
    if name not in values and default is not None:
        return default
    text = values.get(name, "")
    if not text.isdigit():
        raise InputError(
            f"{name} is {text!r}, not a number", argument="shard", remedy=("pass ", _SHARD)
        )
    return int(text)
