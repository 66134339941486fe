"""Which shape a soft mask shows: least squares against a bank of drawn templates.

Masks are brought to a standard grid first: centred on their centroid, in units of the radius of
the disc of equal area. The bank holds every shape at several sizes, shifts and blurs, so that a
subject that the frame's edge cuts is fitted too; grid points outside the frame do not count.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from syncos_jax.metrics.world.attributes import SHAPES, SIZE
from syncos_jax.metrics.world.drawing import signed_distance

_POINTS = 20  # grid points a side
_REACH = 1.95  # the grid spans -_REACH.._REACH radii
# Shifts and sizes (in radii) to try: a whole mask's centroid and area are right, a cut one's not.
_WHOLE = (np.linspace(-0.1, 0.1, 3), np.geomspace(0.9, 1.1, 4))
_CUT = (np.linspace(-0.32, 0.32, 5), np.geomspace(0.88, 1.34, 7))
_BLURS = (0.0, 0.25)  # standard deviation of the templates' blur, radii
_FINE = 4  # templates are drawn this much finer before they are blurred and averaged


class Bank(NamedTuple):
    """Templates, ``T`` of them: ``len(SHAPES)`` equal blocks.

    Attributes:
        images: float32 ``[P, T]``, coverage at the grid points.
        squares: float32 ``[P, T]``.
        shift: float32 ``[T, 2]``, centre x, y in radii.
        scale: float32 ``[T]``, nominal size over the disc's radius.
    """

    images: np.ndarray
    squares: np.ndarray
    shift: np.ndarray
    scale: np.ndarray


class Fit(NamedTuple):
    """The best template of each shape for ``F`` masks; ``S = len(SHAPES)``.

    Attributes:
        score: float32 ``[F, S]``, 1 minus squared error over the mask's own square; 1 is perfect.
        x, y, size: float32 ``[F, S]``, centre and nominal radius of that template, px.
    """

    score: np.ndarray
    x: np.ndarray
    y: np.ndarray
    size: np.ndarray


@lru_cache(maxsize=1)
def nominal_over_radius() -> np.ndarray:
    """For each shape, nominal size over the radius of the disc of equal area: ``[S]``."""
    fine = np.linspace(-2, 2, 801, dtype=np.float32)
    one = np.ones((1, 1, 1), np.float32)
    areas = [
        float((signed_distance(shape, fine[None, None, :], fine[None, :, None], one) < 0).sum())
        * (fine[1] - fine[0]) ** 2
        for shape in SHAPES
    ]
    return np.sqrt(np.pi / np.asarray(areas)).astype(np.float32)


def _grid() -> np.ndarray:
    return np.linspace(-_REACH, _REACH, _POINTS, dtype=np.float32)


@lru_cache(maxsize=2)
def _bank(cut: bool) -> Bank:
    shifts, sizes = (axis.astype(np.float32) for axis in (_CUT if cut else _WHOLE))
    step = 2 * _REACH / (_POINTS - 1)
    offsets = (np.arange(_POINTS * _FINE, dtype=np.float32) + 0.5) / _FINE - 0.5
    fine = offsets * step - _REACH
    scale, shift_y, shift_x = (
        axis.ravel() for axis in np.meshgrid(sizes, shifts, shifts, indexing="ij")
    )
    x = fine[None, None, :] - shift_x[:, None, None]
    y = fine[None, :, None] - shift_y[:, None, None]
    pools = []
    for blur in _BLURS:  # blur and averaging in one matrix, applied to both axes
        sigma = np.hypot(blur, 0.3 * step)
        weights = np.exp(-((_grid()[:, None] - fine[None, :]) ** 2) / (2 * sigma**2))
        pools.append((weights / weights.sum(axis=1, keepdims=True)).astype(np.float32))
    images, scales = [], []
    for shape, ratio in zip(SHAPES, nominal_over_radius(), strict=True):
        distance = signed_distance(shape, x, y, (scale * ratio)[:, None, None])
        drawn = np.clip(0.5 - distance * (_FINE / step), 0, 1)
        for pool in pools:
            images.append((pool @ drawn @ pool.T).reshape(len(scale), -1))
            scales.append(scale * ratio)
    stack = np.ascontiguousarray(np.concatenate(images).T)
    shift = np.tile(np.stack([shift_x, shift_y], axis=1), (len(SHAPES) * len(_BLURS), 1))
    return Bank(stack, stack**2, shift, np.concatenate(scales))


def _sample(masks: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear samples of ``masks [F, 64, 64]`` on the grid ``x, y [F, P]``, and validity."""
    inside_x = (x >= -0.5) & (x <= SIZE - 0.5)
    inside_y = (y >= -0.5) & (y <= SIZE - 0.5)
    x, y = np.clip(x, 0, SIZE - 1.001), np.clip(y, 0, SIZE - 1.001)
    left, top = x.astype(np.int64), y.astype(np.int64)
    part_x, part_y = (x - left)[:, None, :], (y - top)[:, :, None]
    frame = np.arange(len(masks))[:, None, None]
    left, top = left[:, None, :], top[:, :, None]
    upper = masks[frame, top, left] * (1 - part_x) + masks[frame, top, left + 1] * part_x
    lower = masks[frame, top + 1, left] * (1 - part_x) + masks[frame, top + 1, left + 1] * part_x
    values = upper * (1 - part_y) + lower * part_y
    valid = inside_x[:, None, :] & inside_y[:, :, None]
    return values.reshape(len(masks), -1), valid.reshape(len(masks), -1).astype(np.float32)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left [F, P] @ right [P, T]`` in pieces that BLAS does on one thread.

    On a loaded machine of two cores, its threads made the whole product 10 times slower.
    """
    out = np.empty((len(left), right.shape[1]), np.float32)
    columns = max(1, 32_000 // len(right))
    for row in range(0, len(left), 8):
        for column in range(0, right.shape[1], columns):
            part = slice(column, column + columns)
            out[row : row + 8, part] = left[row : row + 8] @ right[:, part]
    return out


def _fit(masks: np.ndarray, x: np.ndarray, y: np.ndarray, radius: np.ndarray, cut: bool) -> Fit:
    bank, unit = _bank(cut), radius[:, None]
    values, valid = _sample(masks, x[:, None] + unit * _grid(), y[:, None] + unit * _grid())
    values *= valid
    own = (values**2).sum(axis=1)
    if not cut:  # whatever lies outside the frame is empty in the mask and in the template
        valid = np.ones_like(valid[:1])
    error = own[:, None] - 2 * _product(values, bank.images) + _product(valid, bank.squares)
    error = error.reshape(len(masks), len(SHAPES), -1)
    best = error.argmin(axis=2)
    lowest = np.take_along_axis(error, best[:, :, None], axis=2)[:, :, 0]
    template = best + np.arange(len(SHAPES)) * error.shape[2]
    return Fit(
        score=1 - lowest / np.maximum(own, 1e-6)[:, None],
        x=x[:, None] + unit * bank.shift[template, 0],
        y=y[:, None] + unit * bank.shift[template, 1],
        size=unit * bank.scale[template],
    )


def fit_shapes(
    masks: np.ndarray, x: np.ndarray, y: np.ndarray, radius: np.ndarray, cut: np.ndarray
) -> Fit:
    """Fit every shape to every mask.

    Args:
        masks: float32 ``[F, 64, 64]`` in 0..1.
        x, y: float32 ``[F]``, centroids, px.
        radius: float32 ``[F]``, radius of the disc of the mask's area, px.
        cut: bool ``[F]``, the edge of the frame cuts the subject.
    """
    fit = Fit(*(np.zeros((len(masks), len(SHAPES)), np.float32) for _ in Fit._fields))
    for kind, rows in ((False, np.flatnonzero(~cut)), (True, np.flatnonzero(cut))):
        if len(rows):
            part = _fit(masks[rows], x[rows], y[rows], radius[rows], kind)
            for whole, some in zip(fit, part, strict=True):
                whole[rows] = some
    return fit
