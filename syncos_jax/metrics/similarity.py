"""Measures on features of frames, any array ``[F, D]``: one row a frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from syncos_jax.errors import InputError


def similarity_matrix(features: ArrayLike) -> np.ndarray:
    """Cosine of every pair of frames; drift shows as a fading away from the diagonal.

    Args:
        features: ``[F, D]``, finite. A row of zeros has cosine 0 with every other frame and 1 with
            itself.

    Returns:
        float64 ``[F, F]``, symmetric, in [-1, 1], ones on the diagonal.

    Raises InputError where the features are not two-dimensional and finite.
    """
    unit = _unit(features)
    matrix = np.clip(unit @ unit.T, -1.0, 1.0)
    np.fill_diagonal(matrix, 1.0)
    return matrix


def consistency(features: ArrayLike) -> float:
    """VBench's subject and background consistency (Huang et al., arXiv 2311.17982, appendix).

    The mean over ``i = 1 .. F-1`` of ``(max(0, cos(f_i, f_{i-1})) + max(0, cos(f_i, f_0))) / 2``.
    With DINO features it is their subject consistency, with CLIP features their background
    consistency. A single frame is consistent: 1.

    Args:
        features: ``[F, D]``.
    """
    matrix = similarity_matrix(features)
    if len(matrix) == 1:
        return 1.0
    previous = np.maximum(np.diagonal(matrix, 1), 0)
    first = np.maximum(matrix[0, 1:], 0)
    return float(((previous + first) / 2).mean())


def drift_curve(features: ArrayLike, first: int = 1) -> np.ndarray:
    """How like the beginning every frame is.

    Args:
        features: ``[F, D]``.
        first: frames that are the beginning: 1 for the first frame, the first event's length for
            the mean of its features.

    Returns:
        float64 ``[F]``: cosine with the mean of the first ``first`` rows.

    Raises InputError where ``first`` is not in 1 .. F.
    """
    values = _check(features)
    if not 1 <= first <= len(values):
        raise InputError(f"drift_curve: first is {first}; give 1 to {len(values)} frames")
    start = _unit(values[:first].mean(axis=0, keepdims=True))[0]
    return np.clip(_unit(values) @ start, -1.0, 1.0)


def diversity(features: ArrayLike) -> float:
    """How different things are: 1 - the mean cosine over all pairs of rows.

    Of the mean features of videos of different seeds, or of the events of one video. 0 where all
    rows point the same way, and for a single row.

    Args:
        features: ``[n, D]``, one row a video or an event.
    """
    matrix = similarity_matrix(features)
    pairs = matrix[np.triu_indices(len(matrix), 1)]
    return float(1 - pairs.mean()) if len(pairs) else 0.0


def concat_normalised(*features: ArrayLike) -> np.ndarray:
    """Concatenate features of the same frames so that each has equal weight in the cosine.

    Args:
        features: each ``[F, D]``, of the same F.

    Returns:
        float64 ``[F, sum of D]``: rows of length 1, end to end.
    """
    return np.concatenate([_unit(each) for each in features], axis=1)


def _check(features: ArrayLike) -> np.ndarray:
    values = np.asarray(features, np.float64)
    if values.ndim != 2 or 0 in values.shape:
        raise InputError(f"features have shape {list(values.shape)}; expected [frames, numbers]")
    if not np.isfinite(values).all():
        raise InputError("features are not finite; fix or drop these frames")
    return values


def _unit(features: ArrayLike) -> np.ndarray:
    values = _check(features)
    largest = np.abs(values).max(axis=1, keepdims=True)
    values = values / np.where(largest > 0, largest, 1.0)  # squares neither over- nor underflow
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit: np.ndarray = values / np.where(length > 0, length, 1.0)
    return unit
