"""Layer normalisation (Ba et al., arXiv 1607.06450) with statistics in float32."""

import jax
import jax.numpy as jnp

EPS = 1e-5
"""PyTorch's; Flax has 1e-6."""


def layer_norm(x: jax.Array, scale: jax.Array, shift: jax.Array, eps: float = EPS) -> jax.Array:
    """Normalises the last axis.

    Args:
        x: ``[..., C]``.
        scale, shift: ``[C]``.
        eps: added to the variance.

    Returns:
        Like `x`, in its dtype.
    """
    shape = (1,) * (x.ndim - 1) + (-1,)
    with jax.named_scope("norm"):
        y = x.astype(jnp.float32)
        y = y - y.mean(axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + eps)
        y = y * scale.astype(y.dtype).reshape(shape) + shift.astype(y.dtype).reshape(shape)
        return y.astype(x.dtype)
