"""Sound in from any file that has some, fitted to the length of a video; AAC or Opus out."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.error import FFmpegError

from syncos_jax.errors import InputError

RATE = 48_000
"""Samples per second of what is written."""
SHORTEST = 0.1
"""Seconds of sound below which a file is refused."""
_BIT_RATE = 96_000  # of a channel
_DISAGREE = 0.002  # seconds that the beginnings of picture and sound may differ by


@dataclass(frozen=True)
class Soundtrack:
    """The sound of a video: it begins with the first frame and is cut at the end of the last one.
    Where it is shorter, silence follows, or with `loop` its beginning.

    Attributes:
        path: a file with sound.
        loop: whether it is repeated until the video ends.
        in_sync: whether it keeps its place beside the file's own pictures.
    """

    path: str
    loop: bool = False
    in_sync: bool = False

    def samples(self, seconds: float) -> Iterator[np.ndarray]:
        """Yields the sound of a video of so many seconds, float32 ``[channels, n]`` at `RATE`, one
        or two channels, from -1 to 1.

        Raises:
            InputError: the file cannot be read, or has no sound or too little.
        """
        left, channels = round(seconds * RATE), 1
        while left > 0:
            found = 0
            for part in _decoded(self.path, self.in_sync):
                channels, found = len(part), found + part.shape[1]
                yield part[:, :left]
                left -= min(left, part.shape[1])
                if left <= 0:
                    return
            if found < SHORTEST * RATE:
                raise InputError(
                    f"{found / RATE:.2f} s of sound are too short",
                    place=self.path,
                    expected=f"at least {SHORTEST:g} s",
                )
            if not self.loop:
                break
        for start in range(0, left, RATE):
            yield np.zeros((channels, min(RATE, left - start)), np.float32)

    def check(self, seconds: float) -> str:
        """Reads the sound that a video of so many seconds has, and says how it is fitted, in one
        line. Raises InputError as `samples`."""
        for _ in self.samples(seconds):
            pass
        own = seconds_of_sound(self.path, seconds + 1)
        if own is None or own > seconds + 0.05:
            return f"cut after {seconds:g} s"
        if own > seconds - 0.05:
            return f"{seconds:g} s"
        return f"{own:.1f} s, {'repeated' if self.loop else 'then silence'} up to {seconds:g} s"


def has_sound(path: str | os.PathLike[str]) -> bool:
    """Whether a clip has a soundtrack worth keeping; False for folders and what is no clip."""
    if Path(path).is_dir():
        return False
    try:
        with av.open(str(path)) as container:
            found = bool(container.streams.audio)
    except (OSError, FFmpegError):
        return False
    return found and seconds_of_sound(path, SHORTEST) is None


def seconds_of_sound(path: str | os.PathLike[str], most: float) -> float | None:
    """How long the sound of a file is; None where it is longer than `most`."""
    total = 0
    for part in _decoded(str(path), in_sync=False):
        total += part.shape[1]
        if total > most * RATE:
            return None
    return total / RATE


def _decoded(path: str, in_sync: bool) -> Iterator[np.ndarray]:
    """The sound of a file, float32 ``[channels, n]`` at `RATE`."""
    done = 0
    try:
        with av.open(path) as container:
            if not container.streams.audio:
                raise InputError("has no sound in it", place=path)
            stream = container.streams.audio[0]
            late = _late(container, stream) if in_sync else 0
            if late > 0:
                yield np.zeros((min(2, stream.channels), late), np.float32)
            skip = max(0, -late)
            for part in _resampled(container, stream):
                done += part.shape[1]
                yield part[:, min(skip, part.shape[1]) :]
                skip = max(0, skip - part.shape[1])
    except FileNotFoundError as error:
        raise InputError("no such file", place=path) from error
    except (OSError, FFmpegError) as error:
        what = f"the sound is damaged after {done / RATE:.1f} s" if done else "cannot be read"
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{what}: {reason}", place=path, remedy="save it again, for example as WAV"
        ) from error


def _late(container: Any, stream: AudioStream) -> int:
    """How many samples after the first picture the sound begins."""
    if not container.streams.video or stream.time_base is None:
        return 0
    video = container.streams.video[0]
    if video.start_time is None or stream.start_time is None or video.time_base is None:
        return 0
    late = float(stream.start_time * stream.time_base - video.start_time * video.time_base)
    return round(late * RATE) if abs(late) > _DISAGREE else 0


def _resampled(container: Any, stream: AudioStream) -> Iterator[np.ndarray]:
    layout = "mono" if stream.channels == 1 else "stereo"
    resampler = AudioResampler(format="fltp", layout=layout, rate=RATE)
    for frame in itertools.chain(container.decode(stream), [None]):
        for made in resampler.resample(frame):
            yield np.clip(np.nan_to_num(made.to_ndarray()), -1, 1)


class SoundWriter:
    """Writes a soundtrack into an open container, in step with the pictures.

    Args:
        container: opened for writing, with its other streams.
        track: the sound.
        seconds: of the video.
    """

    def __init__(self, container: Any, track: Soundtrack, seconds: float) -> None:
        self._parts = track.samples(seconds)
        self._next = next(self._parts, None)
        self._container = container
        channels = 1 if self._next is None else len(self._next)
        codec = "libopus" if container.format.name == "webm" else "aac"
        self._layout = "mono" if channels == 1 else "stereo"
        self._stream = container.add_stream(codec, rate=RATE, layout=self._layout)
        self._stream.bit_rate = channels * _BIT_RATE
        self._done = 0

    def write(self, until: float | None = None) -> None:
        """Writes the sound before `until` seconds; None for all that is left, and ends it."""
        while self._next is not None and (until is None or self._done < until * RATE):
            frame = AudioFrame.from_ndarray(np.ascontiguousarray(self._next), "fltp", self._layout)
            frame.sample_rate, frame.pts = RATE, self._done
            self._done += self._next.shape[1]
            self._container.mux(self._stream.encode(frame))
            self._next = next(self._parts, None)
        if until is None:
            self._container.mux(self._stream.encode(None))
