"""A worker that holds a model and makes the videos it is given: as an actor, or a pipeline stage.

It needs only this package, so it serves any engine that passes rows to an object: Ray Data's
``map_batches``, a pool of processes, a queue.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from syncos_jax.errors import InputError
from syncos_jax.runs.items import Item, check_name
from syncos_jax.runs.markers import DONE
from syncos_jax.runs.worker_config import WorkerConfig
from syncos_jax.scenario.template import Template

if TYPE_CHECKING:
    from syncos_jax.runs.batch import Batch


class Worker:
    """Holds the loaded model and its compiled programs; makes items of a batch.

    Args:
      config: what to make, and how.
      name: of this worker, for the markers.
    """

    def __init__(self, config: WorkerConfig, name: str = "worker") -> None:
        self.config = config
        self.name = name

    @cached_property
    def batch(self) -> Batch:
        """The batch with the model, loaded on first use.

        Raises:
          InputError: no such model or place.
        """
        from syncos_jax.pipeline import Pipeline
        from syncos_jax.runs.batch import Batch
        from syncos_jax.runs.cache import keep_programs
        from syncos_jax.runs.outputs import Outputs
        from syncos_jax.runs.progress import Phases

        config, mesh = self.config, None
        if config.devices > 1:
            from syncos_jax.sampling.devices import make_mesh, provide_cpu_devices

            provide_cpu_devices(config.devices)
            mesh = make_mesh(config.devices)
        if config.cache:
            keep_programs()
        pipeline = Pipeline.from_pretrained(config.model, lora=config.lora, mesh=mesh)
        console = Console(stderr=True, highlight=False, soft_wrap=True, force_terminal=False)
        return Batch(pipeline, config, Outputs(config.out, config.work), Phases(console), self.name)

    def make(self, items: Sequence[Item]) -> list[dict[str, Any]]:
        """Makes what is missing of some items; returns name, status, error and video of each.

        Raises:
          InputError: as `batch`, or a video was made with other settings before.
        """
        batch = self.batch
        batch.videos = []
        batch.add(items)
        batch.open()
        batch.make_all()
        return [
            {
                "name": video.name,
                "status": video.status,
                "error": video.error,
                "video": batch.outputs.address(video.file) if video.status == DONE else "",
            }
            for video in batch.videos
        ]


class VideoGenerator:
    """Makes the videos of rows of scenarios; for ``map_batches`` of Ray Data, or by itself.

    Videos and markers are written as by `syncos batch`, so that rows which come again, because a
    worker died or the pipeline was restarted, are not made twice.

    Args:
      out: where the videos go: a folder that all workers see, or ``s3://bucket/videos``.
      model: ``"demo"``, or a model folder.
      options: fields of `WorkerConfig`: suffix, sampler, changes, devices, work, checkpoint_every,
        contact_sheet, resume, retry_failed, cache, lora.

    Raises:
      InputError: no such model or place.
      TypeError: unknown option.
    """

    def __init__(
        self, out: str | os.PathLike[str], model: str | os.PathLike[str] = "demo", **options: Any
    ) -> None:
        self.worker = Worker(WorkerConfig(str(out), str(model), **options), "map_batches")
        _ = self.worker.batch

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Makes the videos of a batch of rows.

        Args:
          batch: columns. ``scenario``: each a mapping or JSON text. ``name``: of its files
            (letters, digits, _ . and -); without that column, a hash of the scenario.

        Returns:
          The columns, and ``name``, ``video`` (its file), ``status`` (done, failed) and ``error``
          (one line). An invalid scenario fails alone.

        Raises:
          InputError: no column ``scenario``, or a video was made with other settings before.
        """
        if "scenario" not in batch:
            raise InputError("no column 'scenario'", place="map_batches", value=sorted(batch))
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
    except (ValueError, RecursionError) as error:
        found = error if isinstance(error, InputError) else InputError(str(error))
        given = hashlib.sha256(f"{name} {row}".encode()).hexdigest()[:16]
        return Item(f"row-{given}", Path("rows"), name, error=found)
