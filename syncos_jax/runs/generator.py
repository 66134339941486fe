"""A worker that holds a model and makes the videos of what it is given.

As an actor, or as a stage of a pipeline.

It needs nothing but this package, so it serves any engine that gives rows to an object: Ray Data's
``map_batches``, a pool of processes, a queue.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from syncos_jax.errors import InputError
from syncos_jax.runs.items import Item, check_name
from syncos_jax.runs.markers import DONE
from syncos_jax.scenario.template import Template

if TYPE_CHECKING:
    from syncos_jax.runs.batch import Batch


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker makes, and how.

    Attributes:
      out: where the videos go: a folder that all workers see, or a place in an object store.
      model: ``"demo"``, or the folder of a model.
      suffix: of the videos, with its dot.
      sampler: the name of a sampler in place of the scenarios'; None for theirs.
      changes: settings in place of theirs: steps, guidance, strength, batch.
      devices: of a worker, which share each video.
      work: with an object store, where videos are made before they are sent.
      checkpoint_every: how often the state of a run is saved (`parse_save_interval`).
      contact_sheet: whether stills are written, too.
      resume: whether what is made already is left, and what was killed goes on.
      retry_failed: whether what failed while it was made is tried again.
      cache: whether compiled programs are kept on disk.
    """

    out: str
    model: str = "demo"
    suffix: str = ".mp4"
    sampler: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    devices: int = 1
    work: str | None = None
    checkpoint_every: str = "30"
    contact_sheet: bool = False
    resume: bool = True
    retry_failed: bool = False
    cache: bool = True


class Worker:
    """Holds the loaded model and its compiled programs; makes items of a batch.

    Args:
      work: what to make, and how.
      name: of this worker, for the markers.
    """

    def __init__(self, work: WorkerConfig, name: str = "worker") -> None:
        self.work = work
        self.name = name

    @cached_property
    def batch(self) -> Batch:
        """The items in hand, with the model; loaded when it is first asked for.

        Raises InputError for a model or a place that is not there.
        """
        from syncos_jax.pipeline import Pipeline
        from syncos_jax.pipeline.checkpoint import parse_save_interval
        from syncos_jax.runs.batch import Batch
        from syncos_jax.runs.cache import keep_programs
        from syncos_jax.runs.outputs import Outputs
        from syncos_jax.runs.progress import Phases

        work, mesh = self.work, None
        if work.devices > 1:
            from syncos_jax.sampling.devices import make_mesh, provide_cpu_devices

            provide_cpu_devices(work.devices)
            mesh = make_mesh(work.devices)
        if work.cache:
            keep_programs()
        batch = Batch(
            Pipeline.from_pretrained(work.model, mesh=mesh),
            work.model,
            Outputs(work.out, work.work),
            work.suffix,
            parse_save_interval(work.checkpoint_every),
            Phases(Console(stderr=True, highlight=False, soft_wrap=True, force_terminal=False)),
            self.name,
        )
        batch.contact_sheet = work.contact_sheet
        return batch

    def make(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """Makes what is missing of some items; returns name, status, error and video of each.

        Raises InputError as `batch`, and where one was made with other settings before.
        """
        batch, work = self.batch, self.work
        batch.videos = []
        batch.add(items, work.sampler, work.changes)
        batch.open(work.resume, work.retry_failed)
        batch.make_all()
        return [
            {
                "name": video.name,
                "status": video.status,
                "error": video.error,
                "video": str(batch.outputs.root / video.file) if video.status == DONE else "",
            }
            for video in batch.videos
        ]


class VideoGenerator:
    """Makes the videos of rows of scenarios; for ``map_batches`` of Ray Data, or by itself.

    A video and its marker are written as by `syncos batch`, so that rows which come again, because
    a worker was lost or the pipeline was started again, are not made twice.

    Args:
      out: where the videos go: a folder that all workers see, or ``s3://bucket/videos``.
      model: ``"demo"``, or the folder of a model.
      options: of `WorkerConfig`: suffix, sampler, changes, devices, work, checkpoint_every,
        contact_sheet, resume, retry_failed, cache.

    Raises InputError for a model or a place that is not there, TypeError for another option.
    """

    def __init__(
        self, out: str | os.PathLike[str], model: str | os.PathLike[str] = "demo", **options: Any
    ) -> None:
        self.worker = Worker(WorkerConfig(str(out), str(model), **options), "map_batches")
        _ = self.worker.batch

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Makes the videos of a batch of rows.

        Args:
          batch: columns. ``scenario``: each as a mapping or as JSON text. ``name``: what its files
            are called, letters, digits, _ . and -; without that column, a hash of the scenario.

        Returns:
          The columns, and ``name``, ``video`` (its file), ``status`` (done, failed) and ``error``
          (one line). A scenario that is broken fails alone.

        Raises InputError where there is no column ``scenario``, or a video was made with other
        settings before.
        """
        if "scenario" not in batch:
            raise InputError(f"map_batches: no column 'scenario', but {sorted(batch)}")
        rows = list(batch["scenario"])
        names = list(batch["name"]) if "name" in batch else [_name(row) for row in rows]
        items = [_item(str(name), row) for name, row in zip(names, rows, strict=True)]
        first = {item.name: item for item in items}  # equal rows are one video
        made = {one["name"]: one for one in self.worker.make(list(first.values()))}
        columns: dict[str, Any] = dict(batch)
        for key in ("name", "video", "status", "error"):
            columns[key] = np.asarray([made[item.name][key] for item in items], object)
        return columns


def _data(row: Any) -> Any:
    return json.loads(row) if isinstance(row, str | bytes) else row


def _name(row: Any) -> str:
    try:
        text = json.dumps(_data(row), sort_keys=True)
    except (ValueError, TypeError, RecursionError):
        text = str(row)
    return "scenario-" + hashlib.sha256(text.encode()).hexdigest()[:16]


def _item(name: str, row: Any) -> Item:
    try:
        check_name(name, "row")
        return Item(name, Path(name), name, Template.from_dict(_data(row), source=name).expand()[0])
    except (InputError, ValueError, RecursionError) as error:
        given = hashlib.sha256(f"{name} {row}".encode()).hexdigest()[:16]
        return Item(f"row-{given}", Path("rows"), name, error=str(error))
