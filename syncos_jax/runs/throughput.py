"""How fast a batch is made, and which share of the time its sampler was at work."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


@dataclass
class SamplerShare:
    """The share of the time in which rows were played, of all since the first was.

    Compilation is left out: it comes once for each shape. So are the seconds that a run stands
    still for its own checkpoints counted as idle.

    Attributes:
      busy: seconds in which rows were played.
      compiling: seconds after the first row that went into compiling further shapes.
      begun, ended: the time (`time.monotonic`) of the first row and of the last.
    """

    busy: float = 0.0
    compiling: float = 0.0
    begun: float | None = None
    ended: float = 0.0

    def add(self, dispatched: float, first_part: float, played: float, compiled: bool) -> None:
        """Counts a run.

        Args:
          dispatched: when its first part was handed to the devices.
          first_part: when that was played.
          played: when the last one was.
          compiled: whether its program was compiled first, in the first part's time.
        """
        start = first_part if compiled else dispatched
        if self.begun is None:
            self.begun = start
        elif compiled:
            self.compiling += first_part - dispatched
        self.busy += played - start
        self.ended = played

    @property
    def share(self) -> float | None:
        """0 to 1; None before any row."""
        if self.begun is None or self.ended <= self.begun:
            return None
        return self.busy / (self.ended - self.begun - self.compiling)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Session:
    """What one start of the command has made; `report` is what is written down.

    Attributes:
      shard: of the batch, as text.
      devices: of this process.
      sampler: the share of its time that rows were played.
    """

    shard: str
    devices: int
    started: str = field(default_factory=_now)
    host: str = field(default_factory=socket.gethostname)
    process: int = field(default_factory=os.getpid)
    videos: int = 0
    frames: int = 0
    sampler: SamplerShare = field(default_factory=SamplerShare)
    begin: float = field(default_factory=time.perf_counter)

    def report(self) -> dict[str, Any]:
        """Plain values, with the rates so far."""
        spent = time.perf_counter() - self.begin
        busy = self.sampler.share
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
