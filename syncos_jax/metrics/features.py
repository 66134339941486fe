"""Features of frames that need no network.

Bring better ones where you have them (DINO, CLIP): every measure takes any array ``[F, D]``. These
are for videos whose content is as plain as the demo world's.
"""

from __future__ import annotations

import numpy as np

from syncos_jax.metrics.frames import check_frames
from syncos_jax.metrics.world import SIZE
from syncos_jax.metrics.world.tracker import Track

_GREY = 127.5


def pixel_features(frames: np.ndarray, cells: int = 8) -> np.ndarray:
    """Mean colours of ``cells`` × ``cells`` areas, minus mid-grey.

    The grey is taken off because the cosine of two vectors of positive numbers is near 1 whatever
    they show. Sensitive to colours and places of large things, blind to detail.

    Args:
        frames: uint8 ``[F, H, W, 3]``, at least ``cells`` pixels high and wide.

    Returns:
        float32 ``[F, cells * cells * 3]``.
    """
    frames = check_frames(frames)
    return _cell_means(frames, np.ones(frames.shape[:3], np.float32), cells)


def background_features(frames: np.ndarray, track: Track, cells: int = 8) -> np.ndarray:
    """`pixel_features` of what is not the tracked subject.

    Args:
        frames: uint8 ``[F, 64, 64, 3]``.
        track: of these frames.
        cells: areas along each side; one that the subject covers all of takes the mean of the
            frame's others, so that a subject that moves changes little.

    Returns:
        float32 ``[F, cells * cells * 3]``.
    """
    return _cell_means(check_frames(frames), ~_disc(track, 1.3), cells)


def subject_features(frames: np.ndarray, track: Track) -> np.ndarray:
    """What the tracked subject is, wherever it is and however large: colour and shape.

    The mean colour of its middle minus mid-grey, and how well each shape fits minus the mean of
    that, each of length 1. Zeros where no subject is visible, so that such a frame is like no
    other.

    Args:
        frames: uint8 ``[F, 64, 64, 3]``.
        track: of these frames.

    Returns:
        float32 ``[F, 3 + number of shapes]``.
    """
    middle = _disc(track, 0.5).astype(np.float32)
    total = np.einsum("fhw,fhwc->fc", middle, check_frames(frames).astype(np.float32))
    colour = total / np.maximum(middle.sum(axis=(1, 2)), 1)[:, None] - _GREY
    shape = track.shape_scores - track.shape_scores.mean(axis=1, keepdims=True)
    features = np.concatenate([_unit(colour), _unit(shape)], axis=1)
    return np.where(track.visible[:, None], features, 0).astype(np.float32)


def _disc(track: Track, radii: float) -> np.ndarray:
    """bool ``[F, 64, 64]``: nearer to the subject's centre than ``radii`` of its nominal radii."""
    axis = np.arange(SIZE)
    x, y, size = (np.nan_to_num(v)[:, None, None] for v in (track.x, track.y, track.size))
    away = np.square(axis[None, None, :] - x) + np.square(axis[None, :, None] - y)
    disc: np.ndarray = away <= np.maximum(np.square(radii * size), 1)
    return disc & track.visible[:, None, None]


def _cell_means(frames: np.ndarray, weight: np.ndarray, cells: int) -> np.ndarray:
    height, width = frames.shape[1:3]
    rows, columns = (np.arange(side) * cells // side for side in (height, width))
    to_rows = (rows == np.arange(cells)[:, None]).astype(np.float32)
    to_columns = (columns == np.arange(cells)[:, None]).astype(np.float32)
    values = (frames.astype(np.float32) - _GREY) * weight[..., None]
    total = np.einsum("ih,fhwc,jw->fijc", to_rows, values, to_columns, optimize=True)
    count = np.einsum(
        "ih,fhw,jw->fij", to_rows, weight.astype(np.float32), to_columns, optimize=True
    )
    seen = (count > 0)[..., None]
    rest = total.sum(axis=(1, 2)) / np.maximum(count.sum(axis=(1, 2)), 1)[:, None]
    means = np.where(seen, total / np.maximum(count, 1)[..., None], rest[:, None, None])
    return means.reshape(len(frames), -1).astype(np.float32)


def _unit(values: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit: np.ndarray = values / np.where(length > 0, length, 1)
    return unit
