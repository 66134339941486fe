"""Group normalisation (Wu and He, arXiv 1803.08494) with statistics in float32."""

import jax
import jax.numpy as jnp


def group_norm(
    x: jax.Array, scale: jax.Array, shift: jax.Array, groups: int, eps: float
) -> jax.Array:
    """Normalises each group of channels over all axes but the first.

    Args:
        x: ``[B, ..., C]``.
        scale, shift: ``[C]``.
        groups: divides C.
        eps: added to the variance.

    Returns:
        Like `x`, in its dtype.
    """
    shape = (1,) * (x.ndim - 1) + (-1,)
    with jax.named_scope("norm"):
        flat = x.astype(jnp.float32).reshape(x.shape[0], -1, x.shape[-1])
        centred, rate = _centred(flat, groups, eps)
        y = (centred * rate).reshape(x.shape)
        y = y * scale.astype(y.dtype).reshape(shape) + shift.astype(y.dtype).reshape(shape)
        return y.astype(x.dtype)


def factors(
    x: jax.Array, scale: jax.Array, shift: jax.Array, groups: int, eps: float
) -> tuple[jax.Array, jax.Array]:
    """What `group_norm` multiplies each channel of a clip by, and what it adds then.

    Args:
        x, scale, shift, groups, eps: as of `group_norm`.

    Returns:
        Two of ``[B, 1, C]`` float32.
    """
    with jax.named_scope("norm"):
        flat = x.astype(jnp.float32).reshape(x.shape[0], -1, x.shape[-1])
        mean = _group_mean(flat, groups)
        _, rate = _centred(flat, groups, eps)
        by = rate * scale.astype(jnp.float32).reshape(1, 1, -1)
        return by, shift.astype(jnp.float32).reshape(1, 1, -1) - mean * by


def _centred(flat: jax.Array, groups: int, eps: float) -> tuple[jax.Array, jax.Array]:
    centred = flat - _group_mean(flat, groups)
    variance = _group_mean(jnp.square(centred), groups)
    return centred, jax.lax.rsqrt(variance + eps)


def _group_mean(x: jax.Array, groups: int) -> jax.Array:
    """``[B, T, C] -> [B, 1, C]``: each channel's group's mean.

    Sums per channel first, then per group: on CPUs several times faster than groups.
    """
    size = x.shape[2] // groups
    means = x.mean(axis=1).reshape(-1, groups, size).mean(axis=2)
    return jnp.repeat(means, size, axis=1)[:, None]
