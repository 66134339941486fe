"""Reads a clip of the captioned world off its pixels, without any network.

Made for frames that a diffusion model produced: a global colour shift is estimated and taken
out, the subject's mask is soft (its area does not change with blur), and the shape is voted by
all frames together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.metrics.world.attributes import ATTRIBUTES, BACKGROUNDS, COLOURS, SHAPES, SIZE
from syncos_jax.metrics.world.blobs import dilate, halve, main_blob, median_colour, smooth, square
from syncos_jax.metrics.world.drawing import backgrounds
from syncos_jax.metrics.world.shapefit import fit_shapes, nominal_over_radius

_PLACE_LIMIT = 60.0  # median distance (0..441) of a frame from its background image, at most
_SHIFT_LIMIT = 35.0  # largest colour shift that is taken out, a channel
_APART = 45.0  # a subject's pixel is at least this far from the background image
_PALETTE_LIMIT = 115.0  # and at most this far from some subject colour
_COLOUR_LIMIT = 90.0  # the median of a subject is this near to its colour
_AREA_LIMIT = 30.0  # smallest subject, px^2
_SCORE_LIMIT = 0.55  # a shape fits at least this well
_TYPICAL_SPEED = 22.0 / 7  # px a frame
_TYPICAL_GROWTH = float(np.log(1.75)) / 7  # a frame
_LARGEST = 255 * 3**0.5  # distance between two colours
_STILL = 0.35  # a smaller share of the typical rate counts as standing still


@dataclass(frozen=True)
class Track:
    """What each of ``F`` frames shows. Indices point into the tuples of names; -1 is unknown.

    Attributes:
        visible: bool ``[F]``, a subject was found. Where it is False, ``shape`` and ``colour``
            are -1 and ``x, y, size, area`` are NaN.
        shape, colour, background: int ``[F]``, indices into ``SHAPES``, ``list(COLOURS)``,
            ``BACKGROUNDS``.
        x, y: float ``[F]``, centre, px.
        size: float ``[F]``, nominal radius (as in ``Scene.size``), px, for the shape that the
            whole track votes for.
        area: float ``[F]``, visible area of the subject, px^2.
        shape_scores: float ``[F, len(SHAPES)]``, how well each shape fits; 1 is perfect.
        colour_distance: float ``[F, len(COLOURS)]``, of the subject's median from each colour
            (0..441); NaN where no subject is visible.
        background_distance: float ``[F, len(BACKGROUNDS)]``, median distance from each background
            image (0..441).
        clutter: float ``[F]``, area that looks like a subject outside of the subject, px^2.
    """

    visible: np.ndarray
    shape: np.ndarray
    colour: np.ndarray
    background: np.ndarray
    x: np.ndarray
    y: np.ndarray
    size: np.ndarray
    area: np.ndarray
    shape_scores: np.ndarray
    colour_distance: np.ndarray
    background_distance: np.ndarray
    clutter: np.ndarray


@lru_cache(maxsize=1)
def _small_backgrounds() -> np.ndarray:
    return halve(backgrounds())


def _find_place(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where each frame plays: the background image that is near to most pixels.

    Args:
        values: float32 ``[F, 64, 64, 3]``.

    Returns:
        index of the background, int ``[F]``; median distance from each, float
        ``[F, len(BACKGROUNDS)]``; median difference from that one, a colour shift, ``[F, 3]``.
    """
    small = halve(values)[:, None] - _small_backgrounds()
    apart = np.sqrt(square(small)).reshape(len(values), len(BACKGROUNDS), -1)
    place = np.minimum(apart, 100).mean(axis=2).argmin(axis=1)
    own = small[np.arange(len(values)), place].reshape(len(values), -1, 3)
    return place, np.median(apart, axis=2), np.median(own, axis=1)


def _find_subject(difference: np.ndarray, ground: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is far from the background and nearer to a subject colour, and its piece that is the
    subject; bool ``[F, 64, 64]`` both."""
    soft = smooth(difference)
    contrast = square(soft)
    mask = contrast > _APART**2
    found = soft[mask] + ground[mask]
    nearest = square(found[:, None, :] - _palette()).min(axis=1)
    mask[mask] = nearest < np.minimum(_PALETTE_LIMIT**2, contrast[mask])
    return mask, main_blob(mask)


def _palette() -> np.ndarray:
    return np.asarray(list(COLOURS.values()), np.float32)


def track(frames: np.ndarray) -> Track:
    """Read shape, colour, background and position off every frame.

    Args:
        frames: uint8 ``[F, 64, 64, 3]``, RGB.

    Raises:
        InputError: frames of another dtype or shape, or none.
    """
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (SIZE, SIZE, 3):
        raise InputError(
            f"frames must be uint8 [F, {SIZE}, {SIZE}, 3], not {frames.dtype} {list(frames.shape)}"
        )
    if not len(frames):
        raise InputError("there are no frames to track")
    values = frames.astype(np.float32)
    place, place_distance, shift = _find_place(values)
    values -= np.clip(shift, -_SHIFT_LIMIT, _SHIFT_LIMIT)[:, None, None, :]
    ground = backgrounds()[place]
    difference = values - ground
    mask, blob = _find_subject(difference, ground)
    median = median_colour(values, blob)
    distances = np.sqrt(square(median[:, None, :] - _palette()))

    # Soft mask: the share of the subject's colour in each pixel, on the blob and close to it.
    contrast = median[:, None, None, :] - ground
    along = np.einsum("...c,...c->...", difference, contrast)
    alpha = along / np.maximum(square(contrast), 1)
    near = dilate(dilate(dilate(blob)))
    alpha = np.clip(alpha, 0, 1) * near
    area = alpha.sum(axis=(1, 2))
    visible = area >= _AREA_LIMIT
    cut = np.any(blob[:, [0, -1], :] | blob[:, :, [0, -1]].swapaxes(1, 2), axis=(1, 2))
    x, y, size, scores = _fit(alpha, area, cut, visible)
    known = visible & (scores.max(axis=1) > _SCORE_LIMIT)
    near_colour = visible & (distances.min(axis=1) < _COLOUR_LIMIT)
    near_place = place_distance[np.arange(len(frames)), place] < _PLACE_LIMIT
    return Track(
        visible=visible,
        shape=np.where(known, scores.argmax(axis=1), -1),
        colour=np.where(near_colour, distances.argmin(axis=1), -1),
        background=np.where(near_place, place, -1),
        x=x,
        y=y,
        size=size,
        area=np.where(visible, area, np.nan),
        shape_scores=scores,
        colour_distance=np.where(visible[:, None], distances, np.nan),
        background_distance=place_distance,
        clutter=(mask & ~near).sum(axis=(1, 2)).astype(np.float64),
    )


def _fit(
    alpha: np.ndarray, area: np.ndarray, cut: np.ndarray, visible: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Position, size (for the shape that all frames vote for together) and scores of the shapes.

    Args:
        alpha: soft mask of the subject, float ``[F, 64, 64]``.
        area: its sums, ``[F]``.
        cut: bool ``[F]``, the subject reaches beyond the frame: the whole of it is fitted.
        visible: bool ``[F]``; where it is False, the scores are 0 and the rest NaN.

    Returns:
        ``x, y, size``, float ``[F]``, and the scores, float ``[F, len(SHAPES)]``.
    """
    safe = np.maximum(area, 1)
    axis = np.arange(SIZE, dtype=np.float32)
    x, y = alpha.sum(axis=1) @ axis / safe, alpha.sum(axis=2) @ axis / safe
    radius = np.sqrt(safe / np.pi)
    fit = fit_shapes(alpha, x, y, radius, cut)
    scores = np.where(visible[:, None], fit.score, 0)
    voted = int(scores.sum(axis=0).argmax())
    size = radius * nominal_over_radius()[voted]
    x, y, size = (
        np.where(visible, np.where(cut, fitted[:, voted], whole), np.nan)
        for fitted, whole in ((fit.x, x), (fit.y, y), (fit.size, size))
    )
    return x, y, size, scores


def _slope(time: np.ndarray, values: np.ndarray) -> float:
    """Median of the slopes of all pairs: a few stray frames do not turn it."""
    first, second = np.triu_indices(len(time), 1)
    return float(np.median((values[second] - values[first]) / (time[second] - time[first])))


def motion(track: Track, start: int = 0, stop: int | None = None) -> str | None:
    """The motion in frames ``start..stop-1``, or None where the subject stands still.

    The rate of displacement is compared with the rate of log size, each in units of the rate
    that is typical of the world; the larger one names the motion. At least 3 visible frames
    that are at least half of the range are needed, or the answer is None.
    """
    rates = motion_rates(track, start, stop)
    if rates is None:
        return None
    name = max(rates, key=lambda key: rates[key])
    return name if rates[name] >= _STILL else None


def motion_rates(track: Track, start: int = 0, stop: int | None = None) -> dict[str, float] | None:
    """How fast the subject of frames ``start..stop-1`` moves in each of the world's ways.

    Returns:
        motion -> rate, of which 1 is typical of the world and opposites have opposite signs; None
        with fewer than 3 visible frames, or in less than half of the range.
    """
    stop = len(track.visible) if stop is None else stop
    if not 0 <= start < stop <= len(track.visible):
        raise InputError(f"frames {start}..{stop} are not a range within 0..{len(track.visible)}")
    time = np.flatnonzero(track.visible[start:stop]) + start
    if len(time) < max(3, (stop - start) / 2):
        return None
    speed_x = _slope(time, track.x[time]) / _TYPICAL_SPEED
    speed_y = _slope(time, track.y[time]) / _TYPICAL_SPEED
    growth = _slope(time, np.log(track.size[time])) / _TYPICAL_GROWTH
    return {
        "left": -speed_x,
        "right": speed_x,
        "up": -speed_y,
        "down": speed_y,
        "grow": growth,
        "shrink": -growth,
    }


def read(track: Track, start: int = 0, stop: int | None = None) -> dict[str, str | None]:
    """The four attributes of frames ``start..stop-1``: names, or None where unknown.

    Shape is the best sum of scores, colour and background the most frequent. A subject that is
    visible in less than half of the frames has no shape, colour or motion.
    """
    moving = motion(track, start, stop)
    window = slice(start, stop)
    seen = track.visible[window].mean() >= 0.5
    scores = track.shape_scores[window].sum(axis=0)
    known = (track.shape[window] >= 0).mean() >= 0.5
    return {
        "shape": SHAPES[int(scores.argmax())] if seen and known else None,
        "colour": _most(track.colour[window], tuple(COLOURS)) if seen else None,
        "background": _most(track.background[window], BACKGROUNDS),
        "motion": moving,
    }


def _most(indices: np.ndarray, names: tuple[str, ...]) -> str | None:
    """The name that most frames agree on; None where fewer than half are known."""
    known = indices[indices >= 0]
    return names[int(np.bincount(known).argmax())] if 2 * len(known) >= len(indices) else None


def fidelity(
    track: Track, specified: Mapping[str, str], start: int = 0, stop: int | None = None
) -> dict[str, float]:
    """How closely frames ``start..stop-1`` match the specified attributes, 0 to 1.

    Args:
        track: of a video.
        specified: attribute -> name, some of ``shape, colour, background, motion``.
        start, stop: which frames.

    Returns:
        attribute -> 0 to 1. Means over the frames of how well the shape fits, and of 1 minus the
        distance from the colour or background as a share of the largest there can be (441; 0 for
        shape and colour of a frame without a subject). Of the motion the rate, at most 1.
    """
    window = slice(start, stop)
    found: dict[str, float] = {}
    for attribute, name in specified.items():
        index = ATTRIBUTES[attribute].index(name)
        if attribute == "motion":
            rates = motion_rates(track, start, stop)
            found[attribute] = 0.0 if rates is None else float(np.clip(rates[name], 0, 1))
        elif attribute == "shape":
            found[attribute] = float(np.clip(track.shape_scores[window, index], 0, 1).mean())
        else:
            distance = getattr(track, f"{attribute}_distance")[window, index]
            found[attribute] = float(np.nan_to_num(1 - distance / _LARGEST).mean())
    return found


def judge(frames: np.ndarray, expected: Mapping[str, str | None]) -> dict[str, bool]:
    """Whether a clip shows what it should.

    Args:
        frames: uint8 ``[F, 64, 64, 3]``, one event.
        expected: names for some of ``shape, colour, background, motion``; an attribute that is
            absent or None is not judged.

    Returns:
        attribute -> right (True) or wrong, for every attribute that is judged.
    """
    wanted = dict(expected)
    unknown = sorted(set(wanted) - set(ATTRIBUTES))
    if unknown:
        raise InputError(f"{unknown[0]!r} is not one of {', '.join(ATTRIBUTES)}")
    for name, allowed in ATTRIBUTES.items():
        if wanted.get(name) is not None and wanted[name] not in allowed:
            raise InputError(f"{name} {wanted[name]!r} is not one of {', '.join(allowed)}")
    seen = read(track(frames))
    return {name: seen[name] == wanted[name] for name in ATTRIBUTES if wanted.get(name) is not None}
