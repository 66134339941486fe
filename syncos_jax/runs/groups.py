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
"""Status of a video that has been sampled and is being decoded and written."""


@dataclass
class BatchVideo:
    """One video of a batch.

    Attributes:
      item: its scenario, and where it was read from.
      status: pending, in hand, done or failed.
      error: why it failed, one line.
      job: the request and the files to write.
      run: `Request.fingerprint`, in plain values.
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
        """The prepared request of its job."""
        assert self.job is not None and self.job.request is not None
        return self.job.request


Group = list[BatchVideo]


def in_groups(videos: Sequence[BatchVideo], side_by_side: int) -> list[Group]:
    """Videos that are made together: same program, up to `side_by_side` of them.

    Groups do not depend on which videos are done, so that the run of a killed group is found again.
    Failed videos are excluded.
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
    """The videos of a group that are still to be made."""
    return [video for video in group if video.status == PENDING]


def run_of(group: Sequence[BatchVideo], side_by_side: int, folder: Path) -> tuple[Path, dict]:
    """The folder of a group's run state, in `folder`, and the run's fingerprint."""
    one = group[0]
    assert one.job is not None and one.run is not None
    if side_by_side == 1:
        return run_folder(one.job.out), one.run
    names = "\n".join(video.name for video in group)
    name = "group-" + hashlib.sha256(names.encode()).hexdigest()[:12]
    return run_folder(folder / name), {"videos": {video.name: video.run for video in group}}
