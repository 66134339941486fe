"""Metrics of frames: flicker, cuts, movement."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image
from scipy import ndimage

from syncos_jax.errors import InputError

CUT_THRESHOLD = 27.0
"""PySceneDetect's default for its content detector."""

_REGULARISE = 4.0  # grey levels^2 a px^2: below a slope of 2 levels a pixel there is nothing to see


def temporal_flicker(frames: np.ndarray) -> float:
    """VBench's temporal flickering: ``(255 - mean |f_i - f_{i-1}|) / 255``; 1 is perfectly still.

    Args:
        frames: uint8 ``[F, H, W, 3]``. A single frame does not flicker: 1.
    """
    values = check_frames(frames).astype(np.float32)
    if len(values) == 1:
        return 1.0
    return float(1 - np.abs(np.diff(values, axis=0)).mean(dtype=np.float64) / 255)


def content_changes(frames: np.ndarray) -> np.ndarray:
    """How much the picture changes from frame to frame, as PySceneDetect's content detector.

    The mean over pixels of the absolute differences of hue (0 .. 180), saturation and value
    (0 .. 255), averaged over the three. Unlike there, hue differences wrap around.

    Args:
        frames: uint8 ``[F, H, W, 3]``.

    Returns:
        float64 ``[F - 1]``.
    """
    pictures = [Image.fromarray(frame).convert("HSV") for frame in check_frames(frames)]
    values = np.stack([np.asarray(picture, np.float64) for picture in pictures])
    change = np.abs(np.diff(values, axis=0)).mean(axis=(1, 2))
    hue = np.abs(np.diff(values[..., 0], axis=0))
    change[:, 0] = np.minimum(hue, 256 - hue).mean(axis=(1, 2)) * (180 / 256)
    mean: np.ndarray = change.mean(axis=1)
    return mean


def cuts(frames: np.ndarray, threshold: float = CUT_THRESHOLD, shortest: int = 1) -> list[int]:
    """Frames that begin a new scene; the number of scenes is one more than there are of them.

    Args:
        frames: uint8 ``[F, H, W, 3]``.
        threshold: least change (see `content_changes`) that is a cut.
        shortest: least number of frames between two cuts, and before the first.

    Returns:
        Indices of frames, ascending.
    """
    found: list[int] = []
    last = 0
    for frame, change in enumerate(content_changes(frames), start=1):
        if change >= threshold and frame - last >= shortest:
            found.append(frame)
            last = frame
    return found


def moves(magnitudes: ArrayLike, side: int, frames: int | None = None) -> bool:
    """VBench's dynamic degree of one video: does anything move?

    A pair of frames counts where the mean of the largest 5 % of its flow is above
    ``6 * side / 256`` pixels; the video moves where at least ``round(4 * frames / 16)`` pairs count
    (and at least one).

    Args:
        magnitudes: length of the optical flow in pixels, ``[pairs, H, W]``, of neighbouring frames
            sampled at 8 frames per second. (VBench takes RAFT's.)
        side: the shorter side of the picture.
        frames: how many frames the pairs are of; pairs + 1 where None.
    """
    strongest = movement(magnitudes, side)
    frames = len(strongest) + 1 if frames is None else frames
    return int((strongest > 1).sum()) >= max(1, round(4 * frames / 16))


def movement(magnitudes: ArrayLike, side: int) -> np.ndarray:
    """How much each pair of frames moves: the mean of the largest 5 % of its flow, over the
    ``6 * side / 256`` pixels above which VBench's dynamic degree counts it.

    Args:
        magnitudes: as for `moves`.
        side: the shorter side of the picture.

    Returns:
        float64 ``[pairs]``; 1 just counts.
    """
    flow = np.asarray(magnitudes, np.float64)
    if flow.ndim != 3 or 0 in flow.shape[1:]:
        raise InputError(f"flow has shape {list(flow.shape)}; expected [pairs, height, width]")
    flat = np.sort(flow.reshape(len(flow), -1), axis=1)
    top = max(1, int(flat.shape[1] * 0.05))
    strongest: np.ndarray = flat[:, -top:].mean(axis=1) / (6.0 * side / 256)
    return strongest


def frame_difference_flow(frames: np.ndarray) -> np.ndarray:
    """A stand-in for optical flow that needs no network: the normal flow of blurred frames.

    ``|I_t| |grad I| / (|grad I|^2 + 4)`` of the brightness after a Gaussian blur of 1/32 of the
    shorter side: displacement along the gradient. It is right for small displacements, too small
    for those much longer than the blur (about H / 16), and blind along edges. Good enough to tell
    moving from still; not a replacement for RAFT's values.

    Args:
        frames: uint8 ``[F, H, W, 3]``.

    Returns:
        Pixels, float64 ``[F - 1, H, W]``.
    """
    values = check_frames(frames).astype(np.float64) @ np.asarray([0.299, 0.587, 0.114])
    blur = min(values.shape[1:]) / 32
    values = ndimage.gaussian_filter(values, sigma=(0, blur, blur))
    if min(values.shape[1:]) < 2 or len(values) < 2:
        return np.zeros((len(values) - 1, *values.shape[1:]))
    middle = (values[1:] + values[:-1]) / 2
    slope_square = np.square(np.gradient(middle, axis=1)) + np.square(np.gradient(middle, axis=2))
    change = np.abs(np.diff(values, axis=0))
    flow: np.ndarray = change * np.sqrt(slope_square) / (slope_square + _REGULARISE)
    return flow


def dynamic_degree(frames: np.ndarray, fps: float) -> bool:
    """Whether a video moves, by `moves` over `frame_difference_flow`.

    Args:
        frames: uint8 ``[F, H, W, 3]``; every ``max(1, round(fps / 8))``-th is looked at.
        fps: frames per second.
    """
    sampled = _sampled(frames, fps)
    if len(sampled) < 2:
        return False
    return moves(frame_difference_flow(sampled), min(sampled.shape[1:3]))


def mean_movement(frames: np.ndarray, fps: float) -> float:
    """How much a video moves: the mean of `movement` where `dynamic_degree` counts pairs; 0 for a
    single frame."""
    sampled = _sampled(frames, fps)
    if len(sampled) < 2:
        return 0.0
    return float(movement(frame_difference_flow(sampled), min(sampled.shape[1:3])).mean())


def _sampled(frames: np.ndarray, fps: float) -> np.ndarray:
    return check_frames(frames)[:: max(1, round(fps / 8))]


def check_frames(frames: np.ndarray) -> np.ndarray:
    """``frames`` if uint8 ``[F, H, W, 3]`` and not empty, else InputError."""
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise InputError(
            f"frames are {frames.dtype} {list(frames.shape)}, but uint8 [F, H, W, 3] is needed"
        )
    return frames
