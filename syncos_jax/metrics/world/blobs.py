"""Image operations of the tracker: filters, connected parts, colours of a region."""

from __future__ import annotations

import numpy as np


def halve(images: np.ndarray) -> np.ndarray:
    """Mean of 2 x 2 pixels: ``[..., 64, 64, 3]`` -> ``[..., 32, 32, 3]``."""
    rows = images[..., 0::2, :, :] + images[..., 1::2, :, :]
    return (rows[..., 0::2, :] + rows[..., 1::2, :]) * np.float32(0.25)


def square(values: np.ndarray) -> np.ndarray:
    """Squared length over the last axis (colour); faster than a sum over so short an axis."""
    return np.einsum("...c,...c->...", values, values)


def dilate(mask: np.ndarray) -> np.ndarray:
    """Dilation of a bool mask ``[F, 64, 64]`` by one pixel to 4 sides."""
    out = mask.copy()
    out[:, 1:] |= mask[:, :-1]
    out[:, :-1] |= mask[:, 1:]
    out[:, :, 1:] |= mask[:, :, :-1]
    out[:, :, :-1] |= mask[:, :, 1:]
    return out


def smooth(values: np.ndarray) -> np.ndarray:
    """Binomial 3 x 3 filter over axes 1 and 2."""
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) * np.float32(1 / 16)


def main_blob(mask: np.ndarray) -> np.ndarray:
    """The connected part of ``mask [F, 64, 64]`` around its densest 9 x 9 neighbourhood."""
    total = np.cumsum(np.cumsum(np.pad(mask, ((0, 0), (5, 4), (5, 4))), axis=1), axis=2)
    dense = total[:, 9:, 9:] - total[:, :-9, 9:] - total[:, 9:, :-9] + total[:, :-9, :-9]
    seed = (dense * mask).reshape(len(mask), -1).argmax(axis=1)
    blob = np.zeros_like(mask)
    blob.reshape(len(mask), -1)[np.arange(len(mask)), seed] = True
    blob &= mask
    count = -1
    while (grown := int(np.count_nonzero(blob))) != count:
        count = grown
        for _ in range(4):
            blob = dilate(blob) & mask
    return blob


def median_colour(frames: np.ndarray, blob: np.ndarray) -> np.ndarray:
    """Median over the heart of each blob, as far from its edge as 12 pixels allow: ``[F, 3]``."""
    out = np.zeros((len(frames), 3), np.float32)
    layers = [blob]
    for _ in range(3):
        layers.append(~dilate(~layers[-1]))
    for index, frame in enumerate(frames):
        deep = [layer[index] for layer in layers if np.count_nonzero(layer[index]) >= 12]
        if deep:
            out[index] = np.median(frame[deep[-1]], axis=0)
    return out
