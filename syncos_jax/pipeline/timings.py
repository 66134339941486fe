"""How long runs took on this machine: written by every run, read by `syncos plan`.

One JSON file in the cache folder, used for estimates only: if it is missing or damaged it counts
as empty, and if it cannot be written nothing is stored.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.files import cache_folder, replacing

_MOST = 500


@dataclass(frozen=True)
class Speed:
    """How long the last run of a kind took, in seconds.

    Attributes:
        call: one network call, with its update.
        compile: until the first call was done.
        load: reading the model.
        decode_frame, write_frame: per frame, on average.
        scaled_from: samples per call of the measured run, if it was another number.
    """

    call: float
    compile: float = 0.0
    load: float = 0.0
    decode_frame: float = 0.0
    write_frame: float = 0.0
    scaled_from: int | None = None

    def total(self, calls: float, frames: int) -> float:
        """Seconds of a whole run."""
        per_frame = self.decode_frame + self.write_frame
        return self.load + self.compile + calls * self.call + frames * per_frame


def timings_path() -> Path:
    """The file."""
    return cache_folder() / "timings.json"


def remember(kind: Mapping[str, Any], speed: Speed) -> None:
    """Stores the speed of runs of a kind (`syncos_jax.pipeline.cost.timing_key`)."""
    entries = [entry for entry in _read() if entry["kind"] != dict(kind)]
    entries.append({"kind": dict(kind), "speed": asdict(speed), "when": int(time.time())})
    try:
        path = timings_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, durable=False) as temporary:
            temporary.write_text(json.dumps(entries[-_MOST:], indent=1) + "\n", encoding="utf-8")
    except (OSError, RuntimeError, InputError):
        return


def recall(kind: Mapping[str, Any]) -> Speed | None:
    """The speed of runs of a kind, or one scaled from another number of samples per call; None if
    unknown."""
    near: tuple[float, Speed, int] | None = None
    for entry in _read():
        there = entry["kind"]
        try:
            speed = Speed(**entry["speed"])
        except TypeError:
            continue
        if there == dict(kind):
            return speed
        if {**there, "clips": kind["clips"]} == dict(kind) and there.get("clips"):
            ratio = kind["clips"] / there["clips"]
            distance = max(ratio, 1 / ratio)
            if near is None or distance <= near[0]:
                near = distance, speed, there["clips"]
    if near is None:
        return None
    _, speed, clips = near
    scaled = speed.call * kind["clips"] / clips
    return Speed(**{**asdict(speed), "call": scaled, "scaled_from": clips})


def _read() -> list[dict[str, Any]]:
    try:
        entries = json.loads(timings_path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # RuntimeError: no home, or nested too deeply
        return []
    if not isinstance(entries, list):
        return []
    return [
        entry
        for entry in entries
        if isinstance(entry, dict)
        and isinstance(entry.get("kind"), dict)
        and isinstance(entry.get("speed"), dict)
    ]


class Stopwatch:
    """A progress callback around another one, which measures the seconds of a network call."""

    def __init__(self, progress: Any = None) -> None:
        self._progress = progress
        self._first: tuple[float, int] | None = None
        self._last: tuple[float, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        now = (time.perf_counter(), done)
        self._first = self._first or now
        self._last = now
        if self._progress is not None:
            self._progress(done, total)

    @property
    def call(self) -> float | None:
        """Seconds of a network call; None after fewer than two reports."""
        if self._first is None or self._last is None or self._last[1] <= self._first[1]:
            return None
        return (self._last[0] - self._first[0]) / (self._last[1] - self._first[1])
