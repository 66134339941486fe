"""Dynamic degree with OpenCV's optical flow, which needs no weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.metrics.frames import check_frames, moves


def opencv() -> Any:
    """The module ``cv2``; InputError where it is not installed."""
    try:
        import cv2
    except ImportError as error:
        raise InputError(
            f"optical flow needs OpenCV ({error}); pip install 'syncos-jax[measures]'"
        ) from error
    return cv2


def dis_flow(frames: np.ndarray) -> np.ndarray:
    """How far pixels move between neighbouring frames, by dense inverse search.

    Kroeger et al., arXiv 1603.03590, as OpenCV has it, with its medium preset, on brightness.

    Args:
        frames: uint8 ``[F, H, W, 3]``, at least 2 of at least 16 × 16 pixels.

    Returns:
        Pixels, float32 ``[F - 1, H, W]``.

    Raises InputError without OpenCV, and for fewer or smaller frames.
    """
    cv2 = opencv()
    frames = check_frames(frames)
    count, height, width = frames.shape[:3]
    if count < 2 or min(height, width) < 16:
        raise InputError(
            f"optical flow is of at least 2 frames of 16×16 pixels; these are {count} of "
            f"{width}×{height}"
        )
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    pairs = zip(grey[:-1], grey[1:], strict=True)
    return np.stack([np.linalg.norm(search.calc(a, b, None), axis=2) for a, b in pairs])


def dis_dynamic_degree(frames: np.ndarray, fps: float) -> bool:
    """VBench's dynamic degree (see `moves`) over `dis_flow` in place of RAFT's flow.

    Args:
        frames: uint8 ``[F, H, W, 3]``; every ``max(1, round(fps / 8))``-th is looked at.
        fps: frames per second.
    """
    sampled = check_frames(frames)[:: max(1, round(fps / 8))]
    if len(sampled) < 2:
        return False
    return moves(dis_flow(sampled), min(sampled.shape[1:3]))
