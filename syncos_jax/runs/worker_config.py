"""What the workers of a batch make, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from syncos_jax.pipeline.save_interval import parse_save_interval


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker makes, and how.

    Attributes:
      out: where the videos go: a folder that all workers see, or a place in an object store.
      model: ``"demo"``, or a model folder.
      suffix: of the videos, with its dot.
      sampler: name of a sampler in place of the scenarios'; None for theirs.
      changes: settings in place of theirs: steps, guidance, strength, windows_per_call.
      devices: of a worker, which share each video.
      work: with an object store, the local folder where videos are made before they are sent.
      checkpoint_every: how often the state of a run is saved (`parse_save_interval`).
      contact_sheet: whether contact sheets are written, too.
      resume: whether finished videos are skipped and interrupted ones resumed.
      retry_failed: whether videos that failed while being made are tried again.
      cache: whether compiled programs are stored on disk.
      lora: LoRA files that are merged into the model's weights, ``[NETWORK=]FILE[:STRENGTH]`` each;
        in place of the scenarios'.

    Raises:
      InputError: `checkpoint_every` is invalid.
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
    lora: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parse_save_interval(self.checkpoint_every)
