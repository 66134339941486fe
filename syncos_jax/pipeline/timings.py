"""How long runs took on this machine: written by every run, read by `syncos plan`.

One JSON file in the cache folder. It holds estimates and nothing else: a file that is missing,
damaged or not writable is as good as an empty one.
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
    """What the last run of a kind took, in seconds.

    Attributes:
        row: one call of the network with all that belongs to it.
        compile: until the first row was done.
        load: reading the model.
        decode_frame, write_frame: a frame, on average.
        scaled_from: clips of a call in the run that was measured, where it was another number.
    """

    row: float
    compile: float = 0.0
    load: float = 0.0
    decode_frame: float = 0.0
    write_frame: float = 0.0
    scaled_from: int | None = None

    def total(self, rows: float, frames: int) -> float:
        """Seconds of a whole run."""
        per_frame = self.decode_frame + self.write_frame
        return self.load + self.compile + rows * self.row + frames * per_frame


def timings_path() -> Path:
    """The file."""
    return cache_folder() / "timings.json"


def remember(kind: Mapping[str, Any], speed: Speed) -> None:
    """Writes down the speed of runs of a kind (`syncos_jax.pipeline.plan.timing_key`)."""
    entries = [entry for entry in _read() if entry["kind"] != dict(kind)]
    entries.append({"kind": dict(kind), "speed": asdict(speed), "when": int(time.time())})
    try:
        path = timings_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(entries[-_MOST:], indent=1) + "\n", encoding="utf-8")
    except (OSError, RuntimeError, InputError):
        return


def recall(kind: Mapping[str, Any]) -> Speed | None:
    """The speed of runs of a kind; of another number of clips in a call, scaled, where this one
    has not been run yet; None where nothing is known."""
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
    scaled = speed.row * kind["clips"] / clips
    return Speed(**{**asdict(speed), "row": scaled, "scaled_from": clips})


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
    """Seconds of a row, from the reports of a run: a progress callback around another one."""

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
    def row(self) -> float | None:
        """Seconds of a row; None where fewer than two reports came."""
        if self._first is None or self._last is None or self._last[1] <= self._first[1]:
            return None
        return (self._last[0] - self._first[0]) / (self._last[1] - self._first[1])
