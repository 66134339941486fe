"""What a scenario gives of its video beforehand: pictures, a clip to extend, a video to change.

`read_inputs` reads the files and says which frames they are; `known_frames` encodes them. In the
sampler they are one thing: frames whose latents are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.media.pictures import describe_fit, fit_picture, load_picture
from syncos_jax.media.register import file_sha256
from syncos_jax.media.video import load_video
from syncos_jax.models.family import Model
from syncos_jax.sampling.known import KnownFrames
from syncos_jax.sampling.placement import Placement
from syncos_jax.scenario import Scenario

_GREY = 128


@dataclass(frozen=True)
class InputFile:
    """A file that some frames come from.

    Attributes:
        role: "image", "end_image", "event 2 image", "extend" or "redo".
        path: as the scenario has it.
        sha256: of its bytes.
        start, stop: the video frames that it gives; of "redo" the whole video.
        note: how it was made to fit, one line.
    """

    role: str
    path: str
    sha256: str
    start: int
    stop: int
    note: str


@dataclass(frozen=True, eq=False)
class KnownInputs:
    """Frames that are given.

    Attributes:
        frames: uint8 ``[F, H, W, 3]`` in the size of the video, grey where nothing is known.
        given: which frames are known, bool ``[F]``.
        held: those of them that are still pictures, bool ``[F]``: such a frame may stand for
            several.
        files: where they come from.
    """

    frames: np.ndarray
    given: np.ndarray
    held: np.ndarray
    files: tuple[InputFile, ...]

    @cached_property
    def identity(self) -> list[dict[str, Any]]:
        """What decides the known frames, in plain values."""
        return [
            {"role": f.role, "sha256": f.sha256, "start": f.start, "stop": f.stop}
            for f in self.files
        ]


def read_inputs(
    model: Model, scenario: Scenario, frames: int, height: int, width: int
) -> KnownInputs | None:
    """Reads the files that a scenario names; None where it names none.

    Args:
        model: the video is made by.
        scenario: says what is given.
        frames: of the video; `height`, `width`: of a frame in pixels.

    Raises:
        InputError: a file cannot be read or does not fit, or two of them give the same frame.
    """
    canvas = np.full((frames, height, width, 3), _GREY, np.uint8)
    given, held = np.zeros(frames, bool), np.zeros(frames, bool)
    files: list[InputFile] = []
    for role, path, start, clip, known in _pieces(model, scenario, frames):
        stop = start + len(clip)
        if (given[start:stop] & known).any():
            raise InputError(
                "gives a frame that another input gives already",
                place=role,
                remedy="remove one of the two",
            )
        for index, picture in enumerate(clip, start):
            canvas[index] = fit_picture(picture, height, width, scenario.fit)
        given[start:stop] |= known
        held[start:stop] |= known & (len(clip) == 1)
        note = describe_fit(clip[0].shape, height, width, scenario.fit)
        files.append(InputFile(role, path, file_sha256(path), start, stop, note))
    if not files:
        return None
    if given.all():
        raise InputError("every frame is given, so there is nothing to make", place=files[0].role)
    return KnownInputs(canvas, given, held, tuple(files))


def known_frames(
    inputs: KnownInputs, model: Model, latents: int, cells: tuple[int, int], placement: Placement
) -> KnownFrames:
    """The latents of known frames.

    A latent frame that stands for several video frames is known where all of them are, or where one
    of them is a picture, which then stands for all.

    Args:
        inputs: the frames in pixels.
        model: encodes them.
        latents: latent frames of the video; `cells`: their height and width.
        placement: the devices.
    """
    geometry = model.geometry
    total = geometry.frames(latents)
    pixels = _padded(inputs.frames, total, tuple(side * geometry.cell for side in cells))
    given = np.pad(inputs.given, (0, total - len(inputs.given)), mode="edge")
    held = np.pad(inputs.held, (0, total - len(inputs.held)))
    bounds = geometry.first_frame(np.arange(latents + 1))
    mask = np.zeros(latents, bool)
    for latent, (start, stop) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        pictures = np.flatnonzero(held[start:stop])
        if len(pictures):
            pixels[start:stop] = pixels[start + pictures[0]]
        mask[latent] = given[start:stop].all() or len(pictures) > 0
    made = np.zeros((latents, *cells, geometry.channels), np.float32)
    known = np.flatnonzero(mask)
    if len(known) == 0:
        raise InputError(
            f"the clip is shorter than the {geometry.temporal} frames of one latent",
            place=inputs.files[0].role,
            remedy="give a longer one",
        )
    if geometry.temporal == 1:
        made[known] = model.encode_frames(pixels[known], placement)
    else:  # each latent depends on the frames before it
        last = int(known[-1]) + 1
        encoded = model.encode_frames(pixels[: geometry.frames(last)], placement)
        made[known] = encoded[known]
    return KnownFrames(made, mask, model.known_rule)


_Piece = tuple[str, str, int, np.ndarray | list[np.ndarray], np.ndarray]


def _pieces(model: Model, scenario: Scenario, frames: int) -> Iterator[_Piece]:
    """(role, path, first frame, pictures, which of them are known) of each file."""
    one = np.ones(1, bool)
    if scenario.extend is not None:
        clip = _clip(scenario.extend, "extend")
        geometry = model.geometry
        most = geometry.frames(max(1, geometry.window // 2))
        count = min(len(clip), most, frames - 1)
        while count > 1 and geometry.frames(geometry.latents(count)) != count:
            count -= 1
        yield "extend", scenario.extend, 0, clip[-count:], np.ones(count, bool)
    if scenario.redo is not None:
        yield _redone(model, scenario, frames)
    if scenario.image is not None:
        yield "image", scenario.image, 0, [load_picture(scenario.image)], one
    start = 0
    lengths = scenario.event_frames(model.geometry.fps)
    for number, (event, length) in enumerate(zip(scenario.events, lengths, strict=True), 1):
        if event.image is not None:
            picture = [load_picture(event.image)]
            yield f"event {number} image", event.image, min(start, frames - 1), picture, one
        start += length
    if scenario.end_image is not None:
        yield "end_image", scenario.end_image, frames - 1, [load_picture(scenario.end_image)], one


def _redone(model: Model, scenario: Scenario, frames: int) -> _Piece:
    redo = scenario.redo
    assert redo is not None
    clip = _clip(redo.video, "redo")
    if len(clip) != frames:
        raise InputError(
            f"the video has {len(clip)} frames, but the scenario's events have {frames}",
            place=("redo", redo.video),
            remedy="use the scenario that the video was made of",
        )
    known, start = np.ones(frames, bool), 0
    lengths = scenario.event_frames(model.geometry.fps)
    for number, length in enumerate(lengths, 1):
        if number in redo.events:
            known[start : start + length] = False
        start += length
    wrong = [number for number in redo.events if number > len(lengths)]
    if wrong:
        raise InputError(
            place=("redo", "events"),
            value=wrong[0],
            expected=f"numbers of events from 1 to {len(lengths)}",
        )
    return "redo", redo.video, 0, clip, known


def _clip(path: str, role: str) -> np.ndarray:
    if not Path(path).exists():
        raise InputError("no such file", place=(role, path))
    return load_video(path).frames


def _padded(frames: np.ndarray, total: int, size: tuple[int, ...]) -> np.ndarray:
    """Frames with the last one repeated up to `total`, in the middle of frames of this size."""
    (height, width), (tall, wide) = frames.shape[1:3], size
    top, left = (tall - height) // 2, (wide - width) // 2
    sides = ((top, tall - height - top), (left, wide - width - left))
    return np.pad(frames[:total], ((0, max(0, total - len(frames))), *sides, (0, 0)), mode="edge")
