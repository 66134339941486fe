"""Scenes to frames: shapes by signed distance functions, objects by sampling; antialiased."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from demo_model.world.captions import caption
from demo_model.world.objects import OBJECTS, SCENERY, drawn_object, scenery
from demo_model.world.scene import Scene, sample_scene
from syncos_jax.errors import InputError
from syncos_jax.metrics.world import CLIP_FRAMES, COLOURS, SIZE
from syncos_jax.metrics.world.drawing import signed_distance

SHADING = 0.08  # the upper left of a subject is this much lighter, the lower right darker
_CHUNK = 32  # frames rendered together: the working set stays in the cache


def coverage(shape: str, x: np.ndarray, y: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Share of every pixel that a subject covers.

    Args:
        shape: a name from ``SHAPES``.
        x, y, size: centre and nominal radius, px, ``[n]`` each.

    Returns:
        float32 ``[n, 64, 64]`` in 0..1.
    """
    grid = np.arange(SIZE, dtype=np.float32)
    x, y, size = (np.asarray(value, np.float32)[:, None, None] for value in (x, y, size))
    distance = signed_distance(shape, grid[None, None, :] - x, grid[None, :, None] - y, size)
    return np.clip(np.float32(0.5) - distance, 0, 1)


def render(scenes: Sequence[Scene], frames: int = CLIP_FRAMES) -> np.ndarray:
    """Draw clips.

    Args:
        scenes: what to draw, ``n`` of them.
        frames: frames a clip; the motion continues at the same rate past ``CLIP_FRAMES``.

    Returns:
        uint8 ``[n, frames, 64, 64, 3]``, RGB.
    """
    if frames < 1:
        raise InputError(f"frames must be at least 1, not {frames}")
    out = np.empty((len(scenes) * frames, SIZE, SIZE, 3), np.uint8)
    if not scenes:
        return out.reshape(0, frames, SIZE, SIZE, 3)
    paths = np.concatenate([scene.path(frames) for scene in scenes])
    colours = np.repeat(
        np.asarray([COLOURS[scene.colour] for scene in scenes], np.float32), frames, axis=0
    )
    places = np.repeat([SCENERY.index(scene.background) for scene in scenes], frames)
    names = np.repeat([scene.shape for scene in scenes], frames)
    images = scenery()
    for name in dict.fromkeys(names):
        rows = np.flatnonzero(names == name)
        for chosen in (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)):
            alpha, light = _subjects(str(name), paths[chosen])
            for channel in range(3):
                ground = images[places[chosen], :, :, channel]
                paint = np.minimum(light * colours[chosen, channel, None, None], 255)
                out[chosen, :, :, channel] = ground + alpha * (paint - ground) + np.float32(0.5)
    return out.reshape(len(scenes), frames, SIZE, SIZE, 3)


def _subjects(name: str, paths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and light, float32 ``[n, 64, 64]``, of a shape or object along ``paths [n, 3]``."""
    if name in OBJECTS:
        drawn = [drawn_object(name, *map(float, place)) for place in paths]
        return np.stack([cover for cover, _ in drawn]), np.stack([light for _, light in drawn])
    grid = np.arange(SIZE, dtype=np.float32)
    x, y, size = paths.T[:, :, None, None]
    x, y = grid[None, None, :] - x, grid[None, :, None] - y
    alpha = np.clip(np.float32(0.5) - signed_distance(name, x, y, size), 0, 1)
    return alpha, 1 - np.clip((x + y) / (2 * size), -1, 1) * np.float32(SHADING)


def render_clips(
    rng: np.random.Generator, n: int, frames: int = CLIP_FRAMES
) -> tuple[np.ndarray, list[Scene], list[str]]:
    """Draw ``n`` random clips: frames uint8 ``[n, frames, 64, 64, 3]``, scenes, captions."""
    if n < 0:
        raise InputError(f"the number of clips must not be negative, but is {n}")
    scenes = [sample_scene(rng) for _ in range(n)]
    return render(scenes, frames), scenes, [caption(scene, rng) for scene in scenes]
