"""Heads in the lanes of a TPU, for the kernels of this folder."""

import math

import jax
import jax.numpy as jnp

from syncos_jax.kernels.choice import Shaped

LANES = 128


def padded(weights: jax.Array, axis: int) -> jax.Array:
    """Zeros up to whole lanes."""
    widths = [(0, 0)] * weights.ndim
    widths[axis] = (0, -weights.shape[axis] % LANES)
    return jnp.pad(weights, widths)


def attend(q: jax.Array, k: jax.Array, v: jax.Array, size: int, allowed: jax.Array) -> jax.Array:
    """Attention of all heads that lie side by side in these lanes.

    The matrix unit multiplies 128 features at once; of narrower heads each is computed with the
    others' features set to zero.

    Args:
        q: ``[T, 128]``.
        k, v: ``[S, 128]``.
        size: features of a head; divides 128.
        allowed: ``[T, S]``, what may be attended to.

    Returns:
        ``[T, 128]`` float32.
    """
    lane = jax.lax.broadcasted_iota(jnp.int32, q.shape, 1)
    total = jnp.zeros(q.shape, jnp.float32)
    for begin in range(0, LANES, size):
        own = (lane >= begin) & (lane < begin + size)
        scores = jax.lax.dot_general(
            jnp.where(own, q, jnp.zeros_like(q)),
            k,
            (((1,), (1,)), ((), ())),
            preferred_element_type=jnp.float32,
        )
        scores = jnp.where(allowed, scores / math.sqrt(size), -jnp.inf)
        weights = jnp.exp(scores - scores.max(axis=1, keepdims=True))
        sums = weights.sum(axis=1, keepdims=True)
        values = jnp.dot(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
        total = total + jnp.where(own, values / sums, 0.0)
    return total


def unsupported_reason(x: Shaped, size: int) -> str | None:
    """Why the kernels cannot compute heads of a size; None where they can."""
    if x.dtype not in (jnp.bfloat16, jnp.float32):
        return f"it computes in bfloat16 and float32, not in {x.dtype}"
    if LANES % size:
        return f"heads of {size} features do not fill up {LANES}"
    return None
