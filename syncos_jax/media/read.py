"""Clips in: frames as they are shown (turned upright) and when, from files of other software."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image, ImageSequence, UnidentifiedImageError

from syncos_jax.errors import InputError
from syncos_jax.media.pictures import as_rgb

FOLDER_FPS = 8.0
"""Frames per second of a folder of PNG files, which says none itself."""


def frames_with_times(path: str | os.PathLike[str]) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (time, frame) of a clip: seconds from its first frame, RGB uint8 ``[H, W, 3]``.

    Frames come in the order in which they are shown and turned as their file says (phones write
    portrait clips lying on their side). A folder is read as PNG frames.

    Raises:
        InputError: the file cannot be read as a clip.
    """
    source = Path(path)
    try:
        if source.is_dir():
            for index, name in enumerate(sorted(source.glob("*.png"))):
                with Image.open(name) as picture:
                    yield index / FOLDER_FPS, np.asarray(as_rgb(picture))
        elif source.suffix.lower() in (".gif", ".webp", ".png", ".apng"):
            yield from _animation(source)
        else:
            yield from _stream(source)
    except (OSError, FFmpegError, UnidentifiedImageError) as error:
        reason = getattr(error, "strerror", None) or "not a picture"
        raise InputError(f"cannot be read as a video: {reason}", place=path) from error


def constant_rate(times: np.ndarray) -> tuple[float, np.ndarray]:
    """A frame rate for frames shown at `times` (seconds, rising), and which frame each tick shows.

    Equally spaced frames (within 15 ms, which GIF's hundredths need) keep their own rate, each
    shown once. Others get the rate of their median distance, each shown until the next one.

    Returns:
        Frames per second, and indices int ``[ticks]``.
    """
    if len(times) < 2:
        return 1.0, np.arange(len(times))
    if times[-1] <= times[0]:
        return FOLDER_FPS, np.arange(len(times))
    rate = (len(times) - 1) / (times[-1] - times[0])
    even = times[0] + np.arange(len(times)) / rate
    if np.abs(even - times).max() <= 0.015:
        return rate, np.arange(len(times))
    steps = np.diff(times)
    rate = 1 / float(np.median(steps[steps > 0]))
    ticks = np.arange(round((times[-1] - times[0]) * rate) + 1) / rate + times[0]
    return rate, np.searchsorted(times, ticks + 0.25 / rate, side="right") - 1


def at_rate(shown: Iterable[tuple[float, np.ndarray]], fps: float) -> Iterator[np.ndarray]:
    """Yields the frames of a clip at another rate: every 1 / `fps` seconds the one shown then.

    Args:
        shown: time and frame, as of `frames_with_times`; the last one is shown as long as the one
            before it.
        fps: frames per second.
    """
    ticks, last, step, current = 0, 0.0, 1 / fps, None
    for time, frame in shown:
        if current is not None:
            step = time - last
            while (ticks + 0.25) / fps < time:  # a quarter: times are rounded in many files
                yield current
                ticks += 1
        current, last = frame, time
    if current is not None:
        for _ in range(max(1 - ticks, round((last + step) * fps) - ticks)):
            yield current


def _stream(source: Path) -> Iterator[tuple[float, np.ndarray]]:
    with av.open(str(source)) as container:
        if not container.streams.video:
            raise InputError("has no video in it", place=source)
        stream = container.streams.video[0]
        first = None
        for index, frame in enumerate(container.decode(stream)):
            time = frame.time
            if time is None:
                time = index / float(stream.average_rate or FOLDER_FPS)
            first = time if first is None else first
            turns = round(getattr(frame, "rotation", 0) / 90) % 4
            yield time - first, np.rot90(frame.to_ndarray(format="rgb24"), turns)


def _animation(source: Path) -> Iterator[tuple[float, np.ndarray]]:
    with Image.open(source) as image:
        time = 0.0
        for frame in ImageSequence.Iterator(image):
            yield time, np.asarray(as_rgb(frame))
            # Browsers show frames without a duration so long, too.
            time += (frame.info.get("duration") or 100) / 1000
