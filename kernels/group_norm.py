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
        mean, rate = _statistics(flat, groups, eps)
        y = ((flat - mean) * rate).reshape(x.shape)
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
        mean, rate = _statistics(flat, groups, eps)
        by = rate * scale.astype(jnp.float32).reshape(1, 1, -1)
        return by, shift.astype(jnp.float32).reshape(1, 1, -1) - mean * by


def _statistics(flat: jax.Array, groups: int, eps: float) -> tuple[jax.Array, jax.Array]:
    """Each channel's group's mean, and one over its standard deviation: ``[B, T, C]`` to two of
    ``[B, 1, C]``.

    The array is read once for both. Squares are of the distances from a value of the same channel,
    so that nothing is lost where the mean is large beside the deviation.
    """
    pivot = flat[:, :1]
    distance = flat - pivot
    first = distance.mean(axis=1, keepdims=True)
    second = jnp.square(distance).mean(axis=1, keepdims=True)
    mean = _of_groups(pivot + first, groups)
    off = pivot - mean
    variance = _of_groups(second + 2.0 * off * first + jnp.square(off), groups)
    return mean, jax.lax.rsqrt(jnp.maximum(variance, 0.0) + eps)


def _of_groups(x: jax.Array, groups: int) -> jax.Array:
    """``[B, 1, C]``: each channel's group's mean."""
    size = x.shape[2] // groups
    return jnp.repeat(x.reshape(-1, groups, size).mean(axis=2), size, axis=1)[:, None]
