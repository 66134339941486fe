"""The collaborative score: Stein variational gradient descent over windows.

Collaborative Score Distillation (Kim et al., arXiv 2307.04787), as used for the coupling of
windows by SynCoS (Kim et al., arXiv 2503.08605).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Matrix products of float32 are cut to fewer bits by default on accelerators; distances are
# differences of such products, and B is small, so full precision costs nothing.
_PRECISION = jax.lax.Precision.HIGHEST


def squared_distances(x: jax.Array) -> jax.Array:
    """``d_ij = |X_i - X_j|^2`` of ``x`` ``[B, D]``: float32 ``[B, B]``, 0 on the diagonal."""
    count = x.shape[0]
    x = x - x.mean(axis=0, keepdims=True)  # distances stay, rounding in the products shrinks
    gram = jnp.einsum("id,jd->ij", x, x, precision=_PRECISION)
    norm = jnp.diagonal(gram)
    d = jnp.maximum(norm[:, None] + norm[None, :] - 2.0 * gram, 0.0)
    return jnp.where(jnp.eye(count, dtype=bool), 0.0, d)


def bandwidth(d: jax.Array) -> jax.Array:
    """Median heuristic ``h = median(d) / log(B + 1)`` over all ``B * B`` entries of ``d``.

    1 where that is 0 (a single window, or windows that are all alike): the kernel is then 1
    between equal windows and its gradient 0.
    """
    h = jnp.median(d) / jnp.log(jnp.asarray(d.shape[0] + 1, d.dtype))
    return jnp.where(h > 0.0, h, 1.0)


def collaborative_score(x: jax.Array, s: jax.Array, b: jax.Array | float) -> jax.Array:
    """``G^i = b^2 / B * sum_j [k_ij s^j + grad_{X_i} k_ij]`` with ``k_ij = exp(-d_ij / h)``.

    One *descends* along ``G``: the first term spreads each window's score to windows like it, the
    second pushes windows apart. ``h`` counts as constant in the gradient.

    Args:
      x: noisy windows ``X``, float32 ``[B, ...]``.
      s: noise residuals ``predicted - added``, float32, shaped like `x`.
      b: noise rate at the timestep.

    Returns:
      ``G``, float32, shaped like `x`.
    """
    count = x.shape[0]
    flat_x, flat_s = x.reshape(count, -1), s.reshape(count, -1)
    d = squared_distances(flat_x)
    h = bandwidth(d)
    k = jnp.exp(-d / h)
    # grad_{X_i} k_ij = -2/h (X_i - X_j) k_ij, summed over j.
    mixed = (
        jnp.einsum("ij,jd->id", k, flat_s + (2.0 / h) * flat_x, precision=_PRECISION)
        - (2.0 / h) * k.sum(axis=1, keepdims=True) * flat_x
    )
    return (b**2 / count * mixed).reshape(x.shape)
