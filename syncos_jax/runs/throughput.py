"""How fast a batch is made, and how much of the time its sampler was busy."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass
class SamplerUtilisation:
    """The fraction of the time since the first network call spent sampling.

    Compilation is excluded: it happens once for each shape. The seconds that a run stands still for
    its own checkpoints count as busy.

    Attributes:
      busy: seconds spent sampling.
      compiling: seconds after the first call spent compiling further shapes.
      begun, ended: times (`time.monotonic`) of the first and the last call.
    """

    busy: float = 0.0
    compiling: float = 0.0
    begun: float | None = None
    ended: float = 0.0

    def add(self, dispatched: float, first_part: float, finished: float, compiled: bool) -> None:
        """Counts a run.

        Args:
          dispatched: when its first part was handed to the devices (`time.monotonic`).
          first_part: when that part was done.
          finished: when the last part was done.
          compiled: whether its program was compiled within the time of the first part.
        """
        start = first_part if compiled else dispatched
        if self.begun is None:
            self.begun = start
        elif compiled:
            self.compiling += first_part - dispatched
        self.busy += finished - start
        self.ended = finished

    @property
    def value(self) -> float | None:
        """0 to 1; None before any call."""
        if self.begun is None or self.ended <= self.begun:
            return None
        return self.busy / (self.ended - self.begun - self.compiling)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Session:
    """What one start of the command has made; `report` is what is saved.

    Attributes:
      shard: part of the batch, as text.
      devices: of this process.
      sampler: how busy the sampler was.
    """

    shard: str
    devices: int
    started: str = field(default_factory=_now)
    host: str = field(default_factory=socket.gethostname)
    process: int = field(default_factory=os.getpid)
    videos: int = 0
    frames: int = 0
    sampler: SamplerUtilisation = field(default_factory=SamplerUtilisation)
    begin: float = field(default_factory=time.perf_counter)

    def report(self) -> dict[str, Any]:
        """Plain values, with the rates so far."""
        spent = time.perf_counter() - self.begin
        busy = self.sampler.value
        return {
            "started": self.started,
            "host": self.host,
            "process": self.process,
            "shard": self.shard,
            "devices": self.devices,
            "videos": self.videos,
            "frames": self.frames,
            "seconds": round(spent, 3),
            "videos_per_hour": round(3600 * self.videos / spent, 2),
            "frames_per_second": round(self.frames / spent, 3),
            "sampler_busy": None if busy is None else round(busy, 4),
        }
