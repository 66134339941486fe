"""Where a token lies in its clip: CogVideoX's added sines and cosines, and its rotations.

Neither is in a checkpoint. Both are made from three small tables, one an axis, so that nothing of
the size of a clip is a constant of a program.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.models.cogvideox.config import CogVideoXTransformerConfig
from syncos_jax.models.rotary import Rotation

THETA = 10000.0
"""Base of the frequencies."""

Grid = tuple[int, int, int]
"""Tokens along frames, rows and columns."""


def _over_grid(tables: Sequence[np.ndarray | None], grid: Grid, order: Sequence[int]) -> jax.Array:
    """Tables ``[length, features]`` of the axes, side by side in `order`: ``[f h w, sum]``."""
    parts = []
    for axis in order:
        table = tables[axis]
        assert table is not None
        shape = [1, 1, 1, table.shape[1]]
        shape[axis] = table.shape[0]
        part = jnp.asarray(table, jnp.float32).reshape(shape)
        parts.append(jnp.broadcast_to(part, (*grid, table.shape[1])))
    return jnp.concatenate(parts, axis=-1).reshape(grid[0] * grid[1] * grid[2], -1)


def sincos_positions(config: CogVideoXTransformerConfig, grid: Grid) -> jax.Array:
    """What is added to the video's tokens, ``[f h w, C]`` float32.

    A quarter of the features tells the frame, the rest half and half the column and the row.
    """

    def table(length: int, features: int, scale: float) -> np.ndarray:
        position = (np.arange(length, dtype=np.float32) / np.float32(scale)).astype(np.float64)
        frequencies = THETA ** (-np.arange(features // 2) / (features / 2.0))
        angles = np.outer(position, frequencies)
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

    time, space = config.width // 4, config.width * 3 // 8
    tables = (
        table(grid[0], time, config.temporal_scale),
        table(grid[1], space, config.spatial_scale),
        table(grid[2], space, config.spatial_scale),
    )
    return _over_grid(tables, grid, (0, 2, 1))


def rotation(config: CogVideoXTransformerConfig, grid: Grid, text: int) -> Rotation:
    """Cosines and sines ``[text + f h w, D / 2]`` of the angles of all tokens, float32.

    Text does not turn. A quarter of a head's feature pairs turns with the frame, the rest half and
    half with the row and the column.
    """
    rows, columns = axis_positions(config, grid)
    places = np.arange(grid[0], dtype=np.float32), rows, columns
    sizes = config.head_size // 4, config.head_size // 8 * 3, config.head_size // 8 * 3
    angles = []
    for place, size in zip(places, sizes, strict=True):
        # In float32 as the models were trained: at 100 frames this shows.
        share = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
        frequencies = np.float32(1.0) / np.float32(THETA) ** share
        angles.append(np.outer(place, frequencies))
    cos, sin = (
        _over_grid([function(table) for table in angles], grid, (0, 1, 2))
        for function in (np.cos, np.sin)
    )
    pairs = config.head_size // 2
    return (
        jnp.concatenate([jnp.ones((text, pairs), jnp.float32), cos]),
        jnp.concatenate([jnp.zeros((text, pairs), jnp.float32), sin]),
    )


def axis_positions(config: CogVideoXTransformerConfig, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the rows and of the columns, float32.

    In the first version a clip of another shape is fitted into the grid that the model was trained
    on, as large as it goes, in its middle; in 1.5 it is its upper left corner.
    """
    _, rows, columns = grid
    if config.patch_frames is not None:
        return np.arange(rows, dtype=np.float32), np.arange(columns, dtype=np.float32)
    height, width = config.sample_height // config.patch, config.sample_width // config.patch
    if rows / columns > height / width:
        fitted = height, round(height / rows * columns)
    else:
        fitted = round(width / columns * rows), width
    places = []
    for count, size, whole in zip((rows, columns), fitted, (height, width), strict=True):
        start = round((whole - size) / 2.0)
        stop = (start + size) * (count - 1) / count
        places.append(np.linspace(start, stop, count).astype(np.float32))
    return places[0], places[1]
