"""The takes of a folder: its videos, with what their sidecars say and the frames, made small."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from PIL import Image

from syncos_jax.errors import InputError
from syncos_jax.runs.metadata import METADATA, metadata_path, read_provenance
from syncos_jax.studio.review.approvals import file_sha256

#: What browsers play -> its media type. The H.264 in a .mov plays under the type of .mp4.
PLAYABLE = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm"}
OTHERS = (".mkv", ".avi", ".gif")
MAX_TAKES = 24
MAX_FRAMES = 100_000
STILLS = 6  # of one event
MAX_STILLS = 240  # of one take
_STILL_SIDE = 176
_SIDES = ((1000, 128), (5000, 64), (MAX_FRAMES, 32))  # up to so many frames, measured so large
_WORLD = 64  # the demo world's side, which the tracker needs

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Event:
    """One event of a take: frames ``start`` to ``stop`` (exclusive) and its local prompt."""

    index: int
    prompt: str
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Take:
    """One video and what is known about it.

    Attributes:
        path: of the file.
        sha256: of its bytes.
        fps, width, height: as the file has them.
        small: uint8 ``[F, h, w, 3]``, all frames, at most 128 pixels wide or high (fewer in long
            videos); where pixels were enlarged, from the size before that.
        stills: frame -> JPEG, ``STILLS`` of each event.
        events: never empty: one that holds all frames where nothing is known.
        sidecar: the video's metadata file (`syncos_jax.runs.metadata`). Without a usable one,
            the seed, sampler and model that the video's own metadata name, or nothing;
            it has no ``format`` then.
        notes: in plain words, what is missing or does not fit.
    """

    path: Path
    sha256: str
    fps: float
    width: int
    height: int
    small: np.ndarray
    stills: dict[int, bytes]
    events: tuple[Event, ...]
    sidecar: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.path.name

    def __len__(self) -> int:
        return len(self.small)

    @property
    def seconds(self) -> float:
        return len(self) / self.fps

    def event_at(self, frame: int) -> Event:
        """The event that a frame lies in."""
        return next((e for e in self.events if frame < e.stop), self.events[-1])


def find_videos(folder: str | os.PathLike[str]) -> list[Path]:
    """Videos of a folder, by name; raises InputError where there is no folder or none in it."""
    root = Path(folder)
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        remedy = "pass the folder it is in" if root.exists() else None
        raise InputError(what, place=root, remedy=remedy)
    files = sorted(p for p in root.iterdir() if p.is_file() and not p.name.startswith("."))
    videos = [p for p in files if p.suffix.lower() in (*PLAYABLE, *OTHERS)]
    if not videos:
        raise InputError(f"has no video in it ({', '.join((*PLAYABLE, *OTHERS))})", place=root)
    return videos


def find_takes(folder: str | os.PathLike[str]) -> tuple[list[Path], list[Path]]:
    """Videos of a folder that a browser plays, by name, and the other videos.

    Raises InputError as `find_videos`, and where browsers play none or there are more than
    ``MAX_TAKES``.
    """
    found = find_videos(folder)
    videos = [p for p in found if p.suffix.lower() in PLAYABLE]
    others = [p for p in found if p.suffix.lower() in OTHERS]
    if not videos:
        raise InputError(
            f"{folder}: browsers do not play {others[0].name}; make {', '.join(PLAYABLE)}"
        )
    if len(videos) > MAX_TAKES:
        raise InputError(
            f"{folder}: has {len(videos)} videos; a page shows up to {MAX_TAKES}: put fewer into "
            "a folder"
        )
    return videos, others


def read_take(path: Path, progress: Progress | None = None) -> Take:
    """Reads one video and its sidecar; raises InputError where the video cannot be read."""
    sha256 = file_sha256(path)
    sidecar, notes = _read_sidecar(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise InputError("has no video in it", place=path)
            stream = container.streams.video[0]
            fps = float(stream.average_rate or 0)
            duration = float(container.duration or 0) / 1e6
            expected = stream.frames or round(duration * fps)
            if expected > MAX_FRAMES:
                raise InputError(
                    f"has {expected} frames; a page shows up to {MAX_FRAMES}", place=path
                )
            wanted = _still_frames(events_of(sidecar, expected)[0])
            small, stills = [], {}
            side = next(side for frames, side in _SIDES if expected <= frames)
            width = height = 0
            for index, frame in enumerate(container.decode(stream)):
                picture = Image.fromarray(frame.to_ndarray(format="rgb24"))
                width, height = picture.size
                small.append(np.asarray(_shrink(picture, sidecar, side)))
                if index in wanted:
                    stills[index] = _jpeg(picture)
                if progress:
                    progress(index + 1, max(expected, index + 1))
    except (OSError, FFmpegError) as error:
        raise InputError(f"not readable as a video: {error.strerror}", place=path) from error
    if not small or not (math.isfinite(fps) and fps > 0):
        raise InputError("has no frames in it", place=path)
    events, found = events_of(sidecar, len(small))
    return Take(
        path, sha256, fps, width, height, np.stack(small), stills, events, sidecar, (*notes, *found)
    )


def events_of(sidecar: Mapping[str, Any], frames: int) -> tuple[tuple[Event, ...], list[str]]:
    """The events that a sidecar gives for a video of ``frames`` frames, and what is amiss."""
    whole = (Event(0, "", 0, max(frames, 1)),)
    entries = sidecar.get("events")
    if "format" not in sidecar:
        return whole, []
    if not isinstance(entries, list) or not entries:
        return whole, ["The notes beside this video name no events."]
    events: list[Event] = []
    for index, entry in enumerate(entries):
        values = entry if isinstance(entry, dict) else {}
        start, stop = values.get("start"), values.get("stop")
        if not (type(start) is int and type(stop) is int and 0 <= start < stop):
            return whole, [f"Event {index + 1} in the notes has no usable start and stop."]
        events.append(Event(index, str(values.get("prompt", "")), start, stop))
    if any(a.stop != b.start for a, b in pairwise(events)) or events[0].start != 0:
        return whole, ["The events in the notes do not follow one another without gaps."]
    if events[-1].stop != frames:
        note = (
            f"The notes speak of {events[-1].stop} frames, but the video has {frames}: they "
            "belong to another version of it."
        )
        kept = [Event(e.index, e.prompt, e.start, min(e.stop, frames)) for e in events]
        return tuple(e for e in kept if e.start < e.stop) or whole, [note]
    return tuple(events), []


def _read_sidecar(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The sidecar, or the little that the video's own metadata say; and what is amiss."""
    inside = read_provenance(path) or {}
    little: dict[str, Any] = {
        key: inside[key] for key in ("seed", "sampler", "model") if key in inside
    }
    notes = metadata_path(path)
    try:
        data = METADATA.read(notes)
    except FileNotFoundError:
        return little, [f"There is no {notes.name} beside this video: its prompts are unknown."]
    except InputError as error:
        return little, [f"{notes.name} cannot be used: {error}"]
    latents = data.get("latents")
    hashed = latents.get("sha256") if isinstance(latents, dict) else None
    if "latents_sha256" in inside and inside["latents_sha256"] != hashed:
        return data, [f"{notes.name} describes another video than this one (other latents)."]
    return data, []


def _shrink(picture: Image.Image, sidecar: Mapping[str, Any], side: int) -> Image.Image:
    """Takes an enlargement back, then makes the picture at most ``side`` wide and high.

    Without a sidecar a square of 64, 128, … pixels may be an enlarged picture of the demo world.
    """
    video = sidecar.get("video")
    scale = video.get("scale") if isinstance(video, dict) else None
    if type(scale) is not int or not 1 <= scale <= 64:
        square = picture.width == picture.height and picture.width % _WORLD == 0
        scale = picture.width // _WORLD if square else 1
    if scale > 1:
        picture = picture.reduce(scale)
    return _fit(picture, side, Image.Resampling.BOX)


def _fit(picture: Image.Image, side: int, kind: Image.Resampling) -> Image.Image:
    factor = side / max(picture.size)
    if factor >= 1:
        return picture
    width, height = (max(1, round(side * factor)) for side in picture.size)
    return picture.resize((width, height), kind)


def _jpeg(picture: Image.Image) -> bytes:
    small = _fit(picture, _STILL_SIDE, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=82, optimize=True)
    return buffer.getvalue()


def still_frames(event: Event, events: int) -> list[int]:
    """Frames of an event that are shown, evenly spaced from its first to its last."""
    count = min(STILLS, max(1, MAX_STILLS // events), event.stop - event.start)
    return sorted({round(f) for f in np.linspace(event.start, event.stop - 1, count)})


def _still_frames(events: tuple[Event, ...]) -> set[int]:
    shown = events[:MAX_STILLS]
    return {frame for event in shown for frame in still_frames(event, len(shown))}
