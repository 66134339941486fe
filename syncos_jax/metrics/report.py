"""All metrics of one video, as plain values for JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from syncos_jax.errors import InputError
from syncos_jax.metrics.drift import colour_drift, seam_visibility
from syncos_jax.metrics.features import background_features, pixel_features, subject_features
from syncos_jax.metrics.frames import (
    check_frames,
    cuts,
    dynamic_degree,
    mean_movement,
    temporal_flicker,
)
from syncos_jax.metrics.similarity import (
    concat_normalised,
    consistency,
    diversity,
    drift_curve,
    similarity_matrix,
)
from syncos_jax.metrics.world import SIZE
from syncos_jax.metrics.world.judge import Expected, judge_video
from syncos_jax.metrics.world.tracker import Track, track

VERSION = 2
"""Increases when the same frames give other values."""

SHORTEST_SCENE = 0.6  # seconds; PySceneDetect's 15 frames at 25 a second
_BLOCK_NOISE = 3.0  # grey levels within an enlarged pixel after H.264


def native_frames(frames: np.ndarray, scale: int | None = None) -> np.ndarray:
    """Undo an enlargement by repeated pixels, as ``syncos generate`` writes small videos.

    Args:
        frames: uint8 ``[F, H, W, 3]``.
        scale: enlargement along each side; None to detect the demo world's 64 × 64 frames,
            enlarged by an integer.

    Returns:
        The means of the blocks, uint8; ``frames`` itself where they are not enlarged.
    """
    frames = check_frames(frames)
    height, width = frames.shape[1:3]
    if scale is None:
        if height != width or height % SIZE or height == SIZE:
            return frames
        small = _block_means(frames, height // SIZE)
        large = small.repeat(height // SIZE, axis=1).repeat(height // SIZE, axis=2)
        apart = np.abs(large.astype(np.int16) - frames).mean()
        return small if apart < _BLOCK_NOISE else frames
    if not 1 <= scale <= min(height, width):
        raise InputError(f"native_frames: scale is {scale}, the frames {width}×{height}")
    return frames if scale == 1 else _block_means(frames, scale)


def _block_means(frames: np.ndarray, scale: int) -> np.ndarray:
    count, height, width = frames.shape[:3]
    rows, columns = height // scale, width // scale  # an odd side was filled up by one row
    blocks = frames[:, : rows * scale, : columns * scale]
    blocks = blocks.reshape(count, rows, scale, columns, scale, 3)
    means: np.ndarray = np.rint(blocks.mean(axis=(2, 4), dtype=np.float32)).astype(np.uint8)
    return means


def shows_world(found: Track) -> bool:
    """Whether the frames look like the demo world: most have one of its backgrounds."""
    return bool((found.background >= 0).mean() >= 0.5)


def evaluate(
    frames: np.ndarray,
    fps: float,
    events: Sequence[Expected] | None = None,
    features: Mapping[str, ArrayLike] | None = None,
    matrix: bool = True,
    seams: Collection[int] = (),
) -> dict[str, Any]:
    """Measure a video.

    Args:
        frames: uint8 ``[F, H, W, 3]`` at the model's own size (see `native_frames`).
        fps: frames per second.
        events: what it should show, for videos of the demo world, which are 64 × 64. None: the
            world's metrics are added only if the video looks like it, as one unspecified event.
        features: ``subject`` and ``background``, each ``[F, D]``, replacing the built-in ones:
            those of the tracked subject and its surroundings for the demo world, pixels of the
            whole frame for all other videos.
        matrix: whether to return the similarity matrix.
        seams: frames that begin after the end of one of the windows that the video is made of.

    Returns:
        ``frames, fps, seconds, features`` (``"world"``, ``"pixels"`` or ``"given"``),
        ``subject_consistency, background_consistency, temporal_flicker, dynamic_degree`` (bool),
        ``movement`` (see `mean_movement`), ``scenes, cuts, drift`` (cosine of each frame with the
        mean of the first event), ``colour_drift`` and ``seam_visibility`` (see
        there; None without seams),
        ``diversity_events`` (see `diversity`; of the events' mean pixel features, None without
        events), ``event_features`` (those means), ``similarity`` (of all pairs of frames), and
        ``world``: as `judge_video`, or None. Drift and similarity are of subject and background
        features together, in equal parts.

    Raises:
        InputError: frames or events do not fit.
    """
    frames = check_frames(frames)
    found = track(frames) if frames.shape[1:3] == (SIZE, SIZE) else None
    if found is None and events:
        raise InputError(
            f"the frames are {frames.shape[2]}×{frames.shape[1]}, but the demo world's are "
            f"{SIZE}×{SIZE}: what they should show cannot be read off them"
        )
    is_world = found is not None and (bool(events) or shows_world(found))
    spans = events or [Expected(0, len(frames))]
    pixels = pixel_features(frames, min(8, *frames.shape[1:3]))
    if features is not None:
        kind, given = "given", {name: np.asarray(value) for name, value in features.items()}
        for name in ("subject", "background"):
            if name not in given or len(given[name]) != len(frames):
                raise InputError(f"features: {name} must have one row for each frame")
    elif is_world and found is not None:
        kind, given = (
            "world",
            {
                "subject": subject_features(frames, found),
                "background": background_features(frames, found),
            },
        )
    else:
        kind, given = "pixels", {"subject": pixels, "background": pixels}
    of_cuts = cuts(frames, shortest=max(1, round(SHORTEST_SCENE * fps)))
    means = np.stack([pixels[event.start : event.stop].mean(axis=0) for event in spans])
    both = concat_normalised(given["subject"], given["background"])
    report: dict[str, Any] = {
        "frames": len(frames),
        "fps": float(fps),
        "seconds": len(frames) / fps,
        "features": kind,
        "subject_consistency": consistency(given["subject"]),
        "background_consistency": consistency(given["background"]),
        "temporal_flicker": temporal_flicker(frames),
        "dynamic_degree": dynamic_degree(frames, fps),
        "movement": mean_movement(frames, fps),
        "scenes": len(of_cuts) + 1,
        "cuts": of_cuts,
        "drift": _rounded(drift_curve(both, spans[0].stop - spans[0].start if events else 1)),
        "colour_drift": colour_drift(frames),
        "seam_visibility": seam_visibility(frames, seams) if len(seams) else None,
        "diversity_events": diversity(means) if events and len(events) > 1 else None,
        "event_features": _rounded(means, 1),
        "world": judge_video(frames, spans, found) if is_world else None,
    }
    if matrix:
        report["similarity"] = _rounded(similarity_matrix(both), 3)
    return report


def _rounded(values: np.ndarray, digits: int = 4) -> Any:
    return np.round(values.astype(np.float64), digits).tolist()
