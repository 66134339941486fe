"""The reference."""

import jax
import jax.numpy as jnp


def norm(
    x: jax.Array,
    scale: jax.Array,
    shift: jax.Array | None,
    cos: jax.Array | None,
    sin: jax.Array | None,
    *,
    heads: int,
    eps: float,
) -> jax.Array:
    """As `choice.head_norm`, and, where there is no shift, as `choice.rms_norm`."""
    y = x.astype(jnp.float32)
    if shift is None:
        y = y * jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + eps)
        y = y * scale.astype(y.dtype).reshape(1, 1, -1)
    y = y.reshape(*x.shape[:2], heads, -1)
    if shift is not None:
        y = y - y.mean(axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + eps)
        scale, shift = (z.astype(y.dtype).reshape(1, 1, 1, -1) for z in (scale, shift))
        y = y * scale + shift
    if cos is not None and sin is not None:
        y = y.astype(x.dtype).astype(jnp.float32)
        pairs = y.reshape(*y.shape[:-1], -1, 2)
        swapped = pairs[..., ::-1].reshape(y.shape)
        y = y * cos[None, :, None] + swapped * sin[None, :, None]
    return y.reshape(x.shape).astype(x.dtype)
