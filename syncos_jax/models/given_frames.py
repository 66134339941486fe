"""Frames that are given of a video, in pixels: what image-to-video networks are conditioned on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from syncos_jax.errors import InputError


class Picture(NamedTuple):
    """A picture, or the first frame of a clip, as it was before it was made to fit."""

    frame: int
    """The frame of the video that it gives."""
    pixels: np.ndarray
    """uint8 ``[H, W, 3]``."""


@dataclass(frozen=True, eq=False)
class GivenFrames:
    """The frames of a whole video, some of them given.

    Attributes:
        frames: uint8 ``[F, H, W, 3]``; read only where given.
        given: bool ``[F]``.
        pictures: those that the frames come from, in order.
        reference: whether a window without any given frame begins with the latest picture.
    """

    frames: np.ndarray
    given: np.ndarray
    pictures: tuple[Picture, ...]
    reference: bool = True

    def __post_init__(self) -> None:
        if not self.pictures:
            raise InputError("no picture is given")

    def latest(self, frame: int) -> int:
        """The number of the latest picture at a frame or before it; of the first one if there is
        none."""
        before = [n for n, picture in enumerate(self.pictures) if picture.frame <= frame]
        return before[-1] if before else 0

    def clip(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """What a clip of so many frames is conditioned on.

        Returns:
            Pixels float32 ``[count, H, W, 3]`` in [-1, 1], 0 (grey) where nothing is given, and
            which are given, bool ``[count]``.
        """
        frames, given = (v[start : start + count] for v in (self.frames, self.given))
        if self.reference and not given.any():
            given = np.arange(count) == 0
            frames = np.broadcast_to(
                self.frames[self.pictures[self.latest(start)].frame], frames.shape
            )
        pixels = np.where(given[:, None, None, None], frames / np.float32(127.5) - 1, 0)
        return pixels.astype(np.float32), given

    def clips(
        self, starts: np.ndarray, count: int
    ) -> Iterator[tuple[bytes, tuple[np.ndarray, np.ndarray]]]:
        """`clip` of each start, with a key that is equal for equal clips."""
        for start in starts:
            pixels, given = self.clip(int(start), count)
            yield given.tobytes() + pixels[given].tobytes(), (pixels, given)
