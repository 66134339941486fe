"""The latents of the frames that a scenario gives, and what networks are conditioned on of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.models.family import Model
from syncos_jax.models.given_frames import GivenFrames
from syncos_jax.pipeline.known_inputs import KnownInputs
from syncos_jax.sampling.known import KnownFrames, KnownRule
from syncos_jax.sampling.placement import Placement
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.windows import WindowLayout


def known_latents(
    inputs: KnownInputs, model: Model, latents: int
) -> tuple[np.ndarray, KnownRule | None]:
    """Which latent frames the sampler keeps, bool ``[f]``, and how; None where it keeps none.

    A latent frame that stands for several video frames is known where all of them are, or where one
    of them is a picture, which then stands for all.

    Args:
        inputs: the frames in pixels.
        model: how its denoiser receives known frames.
        latents: latent frames of the video.

    Raises:
        InputError: less is known than the frames of one latent frame.
    """
    geometry = model.geometry
    total = geometry.frames(latents)
    given = np.pad(inputs.given, (0, total - len(inputs.given)), mode="edge")
    held = np.pad(inputs.held, (0, total - len(inputs.held)))
    bounds = geometry.first_frame(np.arange(latents + 1))
    pieces = [slice(int(start), int(stop)) for start, stop in pairwise(bounds)]
    pictures = np.array([held[piece].any() for piece in pieces])
    mask = np.array([given[piece].size > 0 and bool(given[piece].all()) for piece in pieces])
    mask |= pictures
    if not mask.any():
        raise InputError(
            f"the clip is shorter than the {geometry.temporal} frames of one latent",
            place=inputs.files[0].role,
            remedy="give a longer one",
        )
    if inputs.rule != "condition":
        return mask, inputs.rule
    mask = model.held_frames(mask, pictures)
    return mask, "replace" if mask.any() else None


def known_frames(
    inputs: KnownInputs, model: Model, latents: int, cells: tuple[int, int], placement: Placement
) -> KnownFrames | None:
    """The latents of known frames; None where the sampler keeps none (`known_latents`).

    Args:
        inputs: the frames in pixels.
        model: encodes them.
        latents: latent frames of the video; `cells`: their height and width.
        placement: the devices.
    """
    mask, rule = known_latents(inputs, model, latents)
    if rule is None:
        return None
    geometry = model.geometry
    total = geometry.frames(latents)
    pixels = _padded(inputs.frames, total, tuple(side * geometry.cell for side in cells))
    held = np.pad(inputs.held, (0, total - len(inputs.held)))
    bounds = geometry.first_frame(np.arange(latents + 1))
    for start, stop in pairwise(bounds):
        pictures = np.flatnonzero(held[start:stop])
        if len(pictures):
            pixels[start:stop] = pixels[start + pictures[0]]
    made = np.zeros((latents, *cells, geometry.channels), np.float32)
    known = np.flatnonzero(mask)
    if geometry.temporal == 1:
        made[known] = model.encode_frames(pixels[known], placement)
    else:  # each latent depends on the frames before it, which are those of the next known one
        if inputs.kept is None:  # a video that is redone shows all of them
            _fill_gaps(pixels, bounds, mask)
        last = int(known[-1]) + 1
        encoded = model.encode_frames(pixels[: geometry.frames(last)], placement)
        made[known] = encoded[known - (last - len(encoded))]
    return KnownFrames(made, mask, rule)


def none_known(
    settings: SamplerConfig, layout: WindowLayout, frame_shape: tuple[int, ...], model: Model
) -> KnownFrames | None:
    """Of a video without known frames: None, or for samplers that make some as they go (`Chained`)
    none yet, and how the model receives them."""
    if not settings.chained:
        return None
    shape = (layout.frames, *frame_shape)
    return KnownFrames(np.zeros(shape, np.float32), np.zeros(shape[0], bool), model.known_rule)


def _fill_gaps(pixels: np.ndarray, bounds: np.ndarray, mask: np.ndarray) -> None:
    """Gives unknown latent frames the first frame of the known one that follows."""
    following: int | None = None
    for latent in reversed(range(len(mask))):
        start, stop = int(bounds[latent]), int(bounds[latent + 1])
        if mask[latent]:
            following = start
        elif following is not None:
            pixels[start:stop] = pixels[following]


def given_frames(
    inputs: KnownInputs, model: Model, latents: int, cells: tuple[int, int], reference: bool
) -> GivenFrames:
    """The frames in pixels, in the size of the latents, for networks conditioned on pictures.

    Args:
        inputs: the frames.
        model: whose geometry counts.
        latents: latent frames of the video; `cells`: their height and width.
        reference: as in `GivenFrames`.
    """
    geometry = model.geometry
    total = geometry.frames(latents)
    frames = _padded(inputs.frames, total, tuple(side * geometry.cell for side in cells))
    given = np.pad(inputs.given, (0, total - len(inputs.given)))
    return GivenFrames(frames, given, inputs.pictures, reference)


def _padded(frames: np.ndarray, total: int, size: tuple[int, ...]) -> np.ndarray:
    """Frames with the last one repeated up to `total`, in the middle of frames of this size."""
    (height, width), (tall, wide) = frames.shape[1:3], size
    top, left = (tall - height) // 2, (wide - width) // 2
    sides = ((top, tall - height - top), (left, wide - width - left))
    return np.pad(frames[:total], ((0, max(0, total - len(frames))), *sides, (0, 0)), mode="edge")
