"""What a scenario gives of its video beforehand: pictures, a clip to extend, a video to change.

`read_inputs` reads the files and says which frames they are;
`syncos_jax.pipeline.known_frames.known_frames` encodes them. In the sampler they are one thing:
frames whose latents are known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.media.pictures import Fit, describe_fit, fit_picture, load_picture, recompressed
from syncos_jax.media.read import at_rate, frames_with_times
from syncos_jax.media.register import input_sha256
from syncos_jax.models.family import Model
from syncos_jax.models.given_frames import Picture
from syncos_jax.sampling.known import KnownRule
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.scenario import Scenario

MAX_CLIP_BYTES = 4_000_000_000
"""Size of a clip in memory, fitted to the video, above which it is refused."""
_GREY = 128


@dataclass(frozen=True)
class InputFile:
    """A file that some frames, or the sound, come from.

    Attributes:
        role: "image", "end_image", "event 2 image", "extend", "redo" or "audio".
        path: as the scenario has it.
        sha256: of its bytes.
        start, stop: the video frames that it gives; of "redo" and "audio" the whole video. Below 0:
            frames before the first one.
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
    """Frames that are given. The sampled video has `lead` frames more than the scenario's events.

    Attributes:
        frames: uint8 ``[F, H, W, 3]`` in the size of the video, grey where nothing is known.
        given: which frames are known, bool ``[F]``.
        held: those of them that are still pictures, bool ``[F]``: such a frame may stand for
            several.
        files: where they come from.
        lead: how many frames of the extended clip the sampled video begins with.
        before: frames that come before those of the events in the result, uint8 ``[n, H, W, 3]``.
        kept: which frames of the result stay as they were in the video whose events are redone,
            bool ``[F]``; None for none.
        rule: how the network receives the known frames.
        pictures: as they were before they were made to fit; of a clip, its first known frame.
    """

    frames: np.ndarray
    given: np.ndarray
    held: np.ndarray
    files: tuple[InputFile, ...]
    lead: int
    before: np.ndarray
    kept: np.ndarray | None
    rule: KnownRule
    pictures: tuple[Picture, ...] = ()

    @cached_property
    def identity(self) -> list[dict[str, Any]]:
        """What decides the known frames, in plain values."""
        return [
            {"role": f.role, "sha256": f.sha256, "start": f.start, "stop": f.stop}
            for f in self.files
        ]

    def finished(self, frames: np.ndarray) -> np.ndarray:
        """The result: decoded frames ``[F, H, W, 3]`` after the clip that they extend, and with the
        frames of a video that are kept."""
        if self.kept is not None:
            frames = np.where(self.kept[:, None, None, None], self.frames, frames)
        return np.concatenate([self.before, frames[self.lead :]]) if self.lead else frames


@dataclass(frozen=True)
class _Size:
    """What pictures and clips are fitted to."""

    height: int
    width: int
    fps: float
    fit: Fit

    def picture(self, picture: np.ndarray) -> np.ndarray:
        return fit_picture(picture, self.height, self.width, self.fit)

    def note(self, shape: tuple[int, ...]) -> str:
        return describe_fit(shape, self.height, self.width, self.fit)


@dataclass(frozen=True)
class _Piece:
    """A file and the frames that it gives from `start` on; `known`: which of them."""

    role: str
    path: str
    start: int
    frames: np.ndarray
    known: np.ndarray
    note: str
    pixels: np.ndarray | None = None

    @property
    def stop(self) -> int:
        return self.start + len(self.frames)

    @property
    def picture(self) -> Picture:
        """What it first gives, before it was made to fit where it is a still picture."""
        first = int(np.flatnonzero(self.known)[0])
        return Picture(
            self.start + first, self.frames[first] if self.pixels is None else self.pixels
        )


def read_inputs(
    model: Model, scenario: Scenario, frames: int, height: int, width: int
) -> KnownInputs | None:
    """Reads the files that a scenario names; None where it names none.

    Args:
        model: the video is made by.
        scenario: says what is given.
        frames: of its events; `height`, `width`: of a frame in pixels.

    Raises:
        InputError: a file cannot be read or does not fit, or two of them give the same frame.
    """
    size = _Size(height, width, float(scenario.fps or model.geometry.fps), scenario.fit)
    before, lead, files = np.zeros((0, height, width, 3), np.uint8), 0, list[InputFile]()
    pieces = list[_Piece]()
    if scenario.extend is not None:
        clip, note = _clip(scenario.extend, "extend", size)
        lead = _lead(model, len(clip))
        before = clip if scenario.join else clip[:0]
        known = np.ones(lead, bool)
        note += f"; goes on from its last {lead} frames"
        pieces.append(_Piece("extend", scenario.extend, 0, clip[len(clip) - lead :], known, note))
    pieces += _pieces(model, scenario, frames, lead, size)
    if not pieces:
        return None
    canvas = np.full((lead + frames, height, width, 3), _GREY, np.uint8)
    given, held = np.zeros(lead + frames, bool), np.zeros(lead + frames, bool)
    kept, shift = None, len(before) - lead
    for piece in pieces:
        span = slice(piece.start, piece.stop)
        if (given[span] & piece.known).any():
            raise InputError(
                "gives a frame that another input gives already",
                place=piece.role,
                remedy="remove one of the two",
            )
        canvas[span] = piece.frames
        given[span] |= piece.known
        held[span] |= piece.known & (len(piece.frames) == 1)
        if piece.role == "redo":
            kept = piece.known
        start, stop = piece.start + shift, piece.stop + shift
        if piece.role == "extend" and scenario.join:
            start = 0
        sha256 = input_sha256(piece.path)
        files.append(InputFile(piece.role, piece.path, sha256, start, stop, piece.note))
    if given.all():
        raise InputError("every frame is given, so there is nothing to make", place=files[0].role)
    pictures = sorted((piece.picture for piece in pieces), key=lambda picture: picture.frame)
    rule = _rule(model, scenario)
    return KnownInputs(canvas, given, held, tuple(files), lead, before, kept, rule, tuple(pictures))


def inputs_for(
    model: Model, scenario: Scenario, settings: SamplerConfig, frames: int, size: tuple[int, int]
) -> KnownInputs | None:
    """As `read_inputs`, of a size ``(height, width)``.

    Raises:
        InputError: also where a model that makes videos from pictures has none, or the sampler
            cannot show it any.
    """
    known = read_inputs(model, scenario, frames, *size)
    if model.known_rule != "condition":
        return known
    if known is None:
        raise InputError(
            f"is missing; the model {model.name!r} makes videos from pictures",
            place="image",
            expected="a picture that the video begins with",
        )
    if settings.lookahead is not None or settings.chained:
        raise InputError(
            f"the model {model.name!r} sees a picture at a window's place, and the windows of "
            f"{settings.name} have none",
            place="sampler",
            remedy="use another sampler",
        )
    return known


def _rule(model: Model, scenario: Scenario) -> KnownRule:
    if scenario.reference and model.known_rule not in ("timestep", "condition"):
        raise InputError(
            f"the model {model.name!r} has no timestep for each frame",
            place="reference",
            remedy="remove it",
        )
    wanted = model.known_reference if scenario.reference is None else scenario.reference
    return "reference" if wanted and model.known_rule == "timestep" else model.known_rule


def _lead(model: Model, clip: int) -> int:
    """How many frames of a clip the video that extends it begins with: half a window at most, and
    whole latent frames."""
    geometry = model.geometry
    count = min(clip, geometry.frames(max(1, geometry.window // 2)))
    while count > 1 and geometry.frames(geometry.latents(count)) != count:
        count -= 1
    return count


def _pieces(
    model: Model, scenario: Scenario, frames: int, lead: int, size: _Size
) -> Iterator[_Piece]:
    """The pictures, and the video to change; the events begin at frame `lead`."""
    if scenario.redo is not None:
        yield _redone(model, scenario, frames, size)
    if scenario.image is not None:
        yield _picture(model, "image", scenario.image, 0, size)
    start = lead
    lengths = scenario.event_frames(model.geometry.fps)
    for number, (event, length) in enumerate(zip(scenario.events, lengths, strict=True), 1):
        if event.image is not None:
            yield _picture(model, f"event {number} image", event.image, start, size)
        start += length
    if scenario.end_image is not None:
        yield _picture(model, "end_image", scenario.end_image, lead + frames - 1, size)


def _picture(model: Model, role: str, path: str, start: int, size: _Size) -> _Piece:
    picture = load_picture(path)
    note, crf = size.note(picture.shape), model.picture_crf
    if crf:
        picture = recompressed(picture, crf)
        note += f", compressed with H.264 at CRF {crf}"
    fitted = size.picture(picture)[None]
    return _Piece(role, path, start, fitted, np.ones(1, bool), note, picture)


def _redone(model: Model, scenario: Scenario, frames: int, size: _Size) -> _Piece:
    redo = scenario.redo
    assert redo is not None
    clip, note = _clip(redo.video, "redo", size)
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
    return _Piece("redo", redo.video, 0, clip, known, note)


def _clip(path: str, role: str, size: _Size) -> tuple[np.ndarray, str]:
    """A clip's frames at the size and rate of the video, and how it was made to fit."""
    if not Path(path).exists():
        raise InputError("no such file", place=(role, path))
    shape, times = (0, 0, 3), list[float]()

    def shown() -> Iterator[tuple[float, np.ndarray]]:
        nonlocal shape
        for time, frame in frames_with_times(path):
            shape = frame.shape
            times.append(time)
            yield time, frame

    folder = Path(path).is_dir()  # says no rate itself
    found = (frame for _, frame in shown()) if folder else at_rate(shown(), size.fps)
    fitted, most = list[np.ndarray](), MAX_CLIP_BYTES // (size.height * size.width * 3)
    for frame in found:
        if len(fitted) == most:
            raise InputError(
                f"longer than {most} frames of {size.width}×{size.height}",
                place=(role, path),
                remedy="cut it to a shorter one",
            )
        fitted.append(size.picture(frame))
    if not fitted:
        raise InputError("has no frames in it", place=(role, path))
    note = size.note(shape)
    rate = (len(times) - 1) / times[-1] if times[-1] > 0 else size.fps
    if not folder and abs(rate / size.fps - 1) > 0.01:
        note += f", {rate:.4g} to {size.fps:g} fps"
    return np.stack(fitted), note
