"""How Wan's image-to-video networks are given pictures: channels beside the latents, for each
window, and in Wan 2.1 features of an image encoder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from syncos_jax.models.given_frames import GivenFrames


def window_channels(
    given: GivenFrames,
    starts: np.ndarray,
    frames: int,
    temporal: int,
    encode: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Channels beside the latents of each window: the mask, then the latents of the clip that is
    grey where nothing is given.

    The mask has a channel for each frame of a latent frame; the first latent frame stands for one
    frame, which all of its channels tell.

    Args:
        given: frames of the whole video.
        starts: the first frame of each window.
        frames: of a window.
        temporal: frames of a latent frame but the first.
        encode: pixels float32 ``[frames, H, W, 3]`` in [-1, 1] -> scaled latents ``[f, h, w, C]``.

    Returns:
        float32 ``[N, f, h, w, temporal + C]``.
    """
    made: dict[bytes, np.ndarray] = {}
    windows = []
    for key, (pixels, known) in given.clips(starts, frames):
        if key not in made:
            latents = encode(pixels)
            mask = np.concatenate([np.repeat(known[:1], temporal), known[1:]])
            mask = mask.reshape(len(latents), 1, 1, temporal).astype(np.float32)
            mask = np.broadcast_to(mask, (*latents.shape[:3], temporal))
            made[key] = np.concatenate([mask, latents], axis=-1)
        windows.append(made[key])
    return np.stack(windows)


def window_features(
    given: GivenFrames,
    starts: np.ndarray,
    two: bool,
    encode: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Features of the picture that each window refers to, and with `two` of the next one.

    Args:
        given: frames of the whole video.
        starts: the first frame of each window.
        two: whether the network takes a first and a last image.
        encode: a picture uint8 ``[H, W, 3]`` -> features ``[n, D]``.

    Returns:
        float32 ``[N, n, D]``, or ``[N, 2 n, D]``.
    """
    each = [encode(picture.pixels) for picture in given.pictures]
    windows = []
    for start in starts:
        first = given.latest(int(start))
        chosen = [first, min(first + 1, len(each) - 1)] if two else [first]
        windows.append(np.concatenate([each[number] for number in chosen]))
    return np.stack(windows)
