"""Rotary position embedding of LTX-2: over the whole width, so that heads have other frequencies.

Angles reach 15,676 radians, where float32 is spaced 0.001: coordinates and products are rounded to
float32 one by one, as in training, and nothing is fused with them.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.models.ltx.config import LTXTransformerConfig, RotaryConfig

Rotation = tuple[jax.Array, jax.Array]
"""Cosines and sines ``[1, T, N, D/2]`` of the tokens' angles, float32."""


def frequencies(count: int, rotary: RotaryConfig) -> np.ndarray:
    """``theta^u pi/2`` for `count` values ``u`` from 0 to 1, float32."""
    dtype = np.float64 if rotary.double else np.float32
    exponent = np.linspace(0.0, 1.0, count, dtype=dtype)
    return (np.power(dtype(rotary.theta), exponent) * dtype(math.pi) / dtype(2)).astype(np.float32)


def bounds(cells: int, factor: int) -> np.ndarray:
    """First and last-but-one pixel of each of some latent cells, float32 ``[cells, 2]``."""
    index = np.arange(cells, dtype=np.float32)
    return np.stack([index, index + 1], axis=-1) * np.float32(factor)


def _angles(middle: Any, span: int, table: np.ndarray) -> Any:
    """Angles ``[cells, frequencies]`` of the middles ``[cells]``: one rounding per operation."""
    divisor: Any = np.full(middle.shape, span, np.float32)
    if isinstance(middle, jax.Array):
        divisor = jax.lax.optimization_barrier(jnp.asarray(divisor))
    position = middle / divisor * np.float32(2.0) - np.float32(1.0)
    return position[:, None] * table[None]


def video_rotation(
    config: LTXTransformerConfig, size: tuple[int, int, int], fps: jax.Array
) -> Rotation:
    """The rotation of a clip's tokens.

    Args:
        config: the transformer's.
        size: latent frames, rows and columns.
        fps: frames per second of the video, float32 scalar: positions in time are seconds.
    """
    f, h, w = size
    table = frequencies(config.width // 6, config.rotary)
    time, *space = (bounds(n, factor) for n, factor in zip(size, config.cell, strict=True))
    # The first latent frame stands for one frame, so all later ones come earlier.
    time = np.maximum(time + np.float32(config.causal_offset - config.cell[0]), 0.0)
    # A divisor that is one number for all would be inverted first, which rounds twice.
    rate = jax.lax.optimization_barrier(jnp.full(time.shape, fps, jnp.float32))
    seconds = jnp.asarray(time) / rate
    middle = (seconds[:, 0] + seconds[:, 1]) / 2.0
    angles = [_angles(middle, config.span[0], table)]
    for edges, span in zip(space, config.span[1:], strict=True):
        middles = (edges[:, 0] + edges[:, 1]) / np.float32(2.0)
        angles.append(_angles(middles, span, table))
    full = (f, h, w, len(table), 1)

    def over_tokens(of_time: Any, of_host: Any) -> jax.Array:
        parts = []
        for axis, angle in enumerate(angles):
            shape = [1, 1, 1, len(table), 1]
            shape[axis] = size[axis]
            part = of_time(angle) if axis == 0 else jnp.asarray(of_host(angle))
            parts.append(jnp.broadcast_to(part.reshape(shape), full))
        return jnp.concatenate(parts, axis=-1).reshape(f * h * w, -1)

    return _by_head(
        over_tokens(jnp.cos, np.cos), over_tokens(jnp.sin, np.sin), config.heads, config.head_size
    )


def text_rotation(
    tokens: int, positions: int, heads: int, head_size: int, rotary: RotaryConfig
) -> Rotation:
    """The rotation of text tokens, whose positions are divided by `positions`."""
    table = frequencies(heads * head_size // 2, rotary)
    angle = _angles(np.arange(tokens, dtype=np.float32), positions, table)
    return _by_head(jnp.asarray(np.cos(angle)), jnp.asarray(np.sin(angle)), heads, head_size)


def _by_head(cos: jax.Array, sin: jax.Array, heads: int, head_size: int) -> Rotation:
    """``[T, pairs] -> [1, T, N, D/2]``; pairs that are too few have pairs in front that stay."""
    spare = heads * head_size // 2 - cos.shape[1]
    cos = jnp.pad(cos, ((0, 0), (spare, 0)), constant_values=1.0)
    sin = jnp.pad(sin, ((0, 0), (spare, 0)))
    shape = (1, cos.shape[0], heads, head_size // 2)
    return cos.reshape(shape), sin.reshape(shape)


def rotate(x: jax.Array, angle: Rotation, split: bool) -> jax.Array:
    """Turns the pairs of ``x [b, T, N, D]``: ``(i, i + D/2)`` where `split`, else neighbours."""
    cos, sin = angle
    y = x.astype(jnp.float32)
    if split:
        first, second = jnp.split(y, 2, axis=-1)
    else:
        y = y.reshape(*x.shape[:-1], -1, 2)
        first, second = y[..., 0], y[..., 1]
    turned = first * cos - second * sin, second * cos + first * sin
    y = jnp.concatenate(turned, axis=-1) if split else jnp.stack(turned, axis=-1)
    return y.reshape(x.shape).astype(x.dtype)
