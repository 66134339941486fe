"""The videos of a batch, and which of them are made together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syncos_jax.pipeline.checkpoint import run_folder
from syncos_jax.runs.items import Item
from syncos_jax.runs.job import Job
from syncos_jax.runs.markers import FAILED, PENDING

if TYPE_CHECKING:
    from syncos_jax.pipeline.request import Request

IN_HAND = "in hand"
"""The status of a video that is sampled, and is being decoded and written."""


@dataclass
class BatchVideo:
    """One video of a batch.

    Attributes:
      item: its scenario, and where it was read from.
      status: what has become of it.
      error: why it failed, one line.
      job: the files to write, and the request.
      run: what it is made with, in plain values.
      made: how often it has been made.
    """

    item: Item
    status: str = PENDING
    error: str = ""
    job: Job | None = None
    run: dict[str, Any] | None = None
    made: int = 0

    @property
    def name(self) -> str:
        """Its name in the batch."""
        return self.item.name

    @property
    def file(self) -> str:
        """The name of its file."""
        assert self.job is not None
        return self.job.out.name

    @property
    def request(self) -> Request:
        """The request of its job."""
        assert self.job is not None and self.job.request is not None
        return self.job.request


Group = list[BatchVideo]


def in_groups(videos: Sequence[BatchVideo], side_by_side: int) -> list[Group]:
    """Videos that are made together: by program, and as many as are made side by side.

    They do not depend on what is done already, so that a group whose run was killed is found again.
    What has failed is left out.
    """
    by_program: dict[Any, Group] = {}
    for video in videos:
        if video.run is not None:
            by_program.setdefault(video.request.program, []).append(video)
    groups = [
        [video for video in same[start : start + side_by_side] if video.status != FAILED]
        for same in by_program.values()
        for start in range(0, len(same), side_by_side)
    ]
    return [group for group in groups if group]


def pending(group: Sequence[BatchVideo]) -> Group:
    """Those of a group that are neither made nor failed."""
    return [video for video in group if video.status == PENDING]


def run_of(group: Sequence[BatchVideo], side_by_side: int, folder: Path) -> tuple[Path, dict]:
    """The folder of a group's run, in `folder`, and what the run is."""
    one = group[0]
    assert one.job is not None and one.run is not None
    if side_by_side == 1:
        return run_folder(one.job.out), one.run
    names = "\n".join(video.name for video in group)
    name = "group-" + hashlib.sha256(names.encode()).hexdigest()[:12]
    return run_folder(folder / name), {"videos": {video.name: video.run for video in group}}
