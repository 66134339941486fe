"""Rotary position embedding (Su et al., arXiv 2104.09864) of the video transformers."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from syncos_jax.kernels.head_norm import Turn

Rotation = tuple[jax.Array, jax.Array]
"""Cosines and sines of the angles, float32 ``[T, D / 2]`` or ``[1, T, 1, D / 2]``."""


def rotate(x: jax.Array, angle: Rotation) -> jax.Array:
    """Rotates the feature pairs ``(0, 1), (2, 3), ...`` of ``x [b, T, N, D]``; like `x`."""
    cos, sin = (table if table.ndim == x.ndim else table[None, :, None] for table in angle)
    pairs = x.astype(jnp.float32).reshape(*x.shape[:-1], -1, 2)
    even, odd = pairs[..., 0], pairs[..., 1]
    rotated = jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1)
    return rotated.reshape(x.shape).astype(x.dtype)


def turn(angle: Rotation) -> Turn:
    """The same rotation as cosines and signed sines of every feature, ``[T, D]``."""
    cos, sin = (table.reshape(-1, table.shape[-1]) for table in angle)
    signed = jnp.stack([-sin, sin], axis=-1).reshape(sin.shape[0], -1)
    return jnp.repeat(cos, 2, axis=-1), signed
