"""Resizing exactly as torch's ``interpolate`` without antialiasing, as matrices.

Both networks' inputs and ViT's position embeddings are resized so; JAX's own ``image.resize`` has
another cubic kernel (a = -0.5, torch's is -0.75) and other edges.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Kind = Literal["bilinear", "bicubic"]

_CUBIC = -0.75


def sampling_matrix(size: int, out: int, kind: Kind, scale: float | None = None) -> np.ndarray:
    """The weights by which ``out`` samples are read off ``size`` ones, along one axis.

    Sample ``i`` lies at ``(i + 0.5) / scale - 0.5``; taps beyond an edge read the edge.

    Args:
        size: samples that there are.
        out: samples that are wanted.
        kind: ``"bilinear"`` (2 taps) or ``"bicubic"`` (4 taps, a = -0.75).
        scale: out / size unless given.

    Returns:
        float32 ``[out, size]``; every row sums to 1.
    """
    places = (np.arange(out) + 0.5) / (out / size if scale is None else scale) - 0.5
    first = np.floor(places)
    t = places - first
    if kind == "bilinear":
        taps: tuple[int, ...] = (0, 1)
        weights = [1 - t, t]
    else:
        taps = (-1, 0, 1, 2)
        weights = [_outer(t + 1), _inner(t), _inner(1 - t), _outer(2 - t)]
    matrix = np.zeros((out, size))
    for tap, weight in zip(taps, weights, strict=True):
        columns = np.clip(first + tap, 0, size - 1).astype(int)
        np.add.at(matrix, (np.arange(out), columns), weight)
    return matrix.astype(np.float32)


def _inner(t: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel for 0 <= t <= 1."""
    return ((_CUBIC + 2) * t - (_CUBIC + 3)) * t * t + 1


def _outer(t: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel for 1 <= t <= 2."""
    return ((_CUBIC * t - 5 * _CUBIC) * t + 8 * _CUBIC) * t - 4 * _CUBIC


def resize(frames: np.ndarray, height: int, width: int, kind: Kind) -> np.ndarray:
    """Frames of another size: ``[F, H, W, C]`` to float32 ``[F, height, width, C]``.

    Values are not rounded and, with ``"bicubic"``, not clipped: they may leave the input's range,
    as they do in torch for floating-point images.
    """
    frames = frames.astype(np.float32)
    rows = sampling_matrix(frames.shape[1], height, kind)
    columns = sampling_matrix(frames.shape[2], width, kind)
    wide = np.moveaxis(np.tensordot(columns, frames, axes=(1, 2)), 0, 2)
    out: np.ndarray = np.moveaxis(np.tensordot(rows, wide, axes=(1, 1)), 0, 1)
    return np.ascontiguousarray(out)


def shorter_side(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) with the shorter side of ``size``, the longer rounded down."""
    if height <= width:
        return size, int(size * width / height)
    return int(size * height / width), size


def centre_crop(frames: np.ndarray, size: int) -> np.ndarray:
    """The middle ``size`` × ``size`` pixels of ``[F, H, W, C]``, as torchvision takes them."""
    top, left = (round((side - size) / 2) for side in frames.shape[1:3])
    return frames[:, top : top + size, left : left + size]
