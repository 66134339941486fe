"""What long videos do over time: colours that drift, seams that show, motion that repeats."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from syncos_jax.metrics.frames import check_frames

_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
"""Linear sRGB to XYZ, D65 (IEC 61966-2-1)."""


def lab(frames: np.ndarray) -> np.ndarray:
    """sRGB to CIELAB under D65 (CIE 15, IEC 61966-2-1).

    Args:
        frames: uint8 ``[F, H, W, 3]``.

    Returns:
        float64 ``[F, H, W, 3]``: lightness 0 .. 100, and a and b.
    """
    levels = np.arange(256) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    xyz = linear[check_frames(frames)] @ (_TO_XYZ / _TO_XYZ.sum(axis=1, keepdims=True)).T
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def colour_drift(frames: np.ndarray) -> dict[str, float]:
    """How far the colours of the last eighth of a video are from those of its first eighth.

    Args:
        frames: uint8 ``[F, H, W, 3]``.

    Returns:
        In units of CIELAB: ``mean``, the distance of the mean colours (2.3 is just noticeable);
        ``chroma`` (mean distance from grey) and ``contrast`` (standard deviation of lightness of a
        frame), the last frames' less the first ones'.
    """
    part = -(-len(frames) // 8)
    change = _statistics(frames[-part:]) - _statistics(frames[:part])
    return {
        "mean": float(np.linalg.norm(change[:3])),
        "chroma": float(change[3]),
        "contrast": float(change[4]),
    }


def _statistics(frames: np.ndarray) -> np.ndarray:
    """Mean colour, chroma and contrast, ``[5]``; a frame at a time, as they may be large."""
    found = []
    for frame in frames:
        values = lab(frame[None])
        chroma = np.hypot(values[..., 1], values[..., 2]).mean()
        found.append([*values.mean(axis=(0, 1, 2)), chroma, values[..., 0].std()])
    return np.asarray(found).mean(axis=0)


def seam_visibility(frames: np.ndarray, seams: Collection[int]) -> float | None:
    """How much more a picture changes where two pieces of a video meet than within them.

    The mean distance in CIELAB between the pixels of neighbouring frames: of the pairs across a
    seam, over that of all others.

    Args:
        frames: uint8 ``[F, H, W, 3]``.
        seams: the first frames of the pieces but the first.

    Returns:
        1 where seams are as other frames; None without a seam, or where nothing else changes.
    """
    across: list[float] = []
    within: list[float] = []
    before = lab(frames[:1])
    for number in range(1, len(frames)):
        after = lab(frames[number : number + 1])
        change = float(np.linalg.norm(after - before, axis=-1).mean())
        (across if number in seams else within).append(change)
        before = after
    if not across or not within or not any(within):
        return None
    return float(np.mean(across) / np.mean(within))


def repetition(path: np.ndarray, edges: list[int]) -> float | None:
    """How much a motion repeats itself, beyond what each event asks for.

    Of the steps from frame to frame, less their mean within each event, the largest correlation
    with the same steps 4 frames to half a video later.

    Args:
        path: float ``[F, n]``, what moves (centre and size); NaN where it is not seen.
        edges: the first frames of the events, ascending from 0.

    Returns:
        -1 .. 1; None where fewer than three quarters of the steps are seen, or nothing moves.
    """
    steps = np.diff(path, axis=0)
    seen = np.asarray(np.isfinite(steps).all(axis=1))
    if len(steps) < 16 or seen.mean() < 0.75:
        return None
    bounds = [0, *(edge for edge in edges if 0 < edge < len(steps)), len(steps)]
    rest = np.where(seen[:, None], steps, 0.0)
    for first, last in zip(bounds, bounds[1:], strict=False):
        own = seen[first:last]
        if own.any():
            rest[first:last][own] -= rest[first:last][own].mean(axis=0)
    found = []
    for lag in range(4, len(rest) // 2 + 1):
        before, after = rest[:-lag], rest[lag:]
        power = np.sqrt((before**2).sum() * (after**2).sum())
        if power > 1e-9:
            found.append(float((before * after).sum() / power))
    return max(found, default=None)
