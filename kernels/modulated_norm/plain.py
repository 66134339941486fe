"""The reference."""

import jax
import jax.numpy as jnp


def norm(x: jax.Array, scale: jax.Array, shift: jax.Array, *, eps: float, first: int) -> jax.Array:
    """As `choice.modulated_norm`."""
    y = x.astype(jnp.float32)
    y = y - y.mean(axis=-1, keepdims=True)
    y = y * jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + eps)
    scale, shift = (over_tokens(z, x.shape[1], first).astype(y.dtype) for z in (scale, shift))
    return (y * scale + shift).astype(x.dtype)


def over_tokens(values: jax.Array, tokens: int, first: int) -> jax.Array:
    """``[b, 1, C]`` as it is; ``[b, 2, C] -> [b, tokens, C]``, of which `first` are the first's."""
    if not first:
        return values
    of_first = (jnp.arange(tokens) < first)[None, :, None]
    return jnp.where(of_first, values[:, :1], values[:, 1:])
