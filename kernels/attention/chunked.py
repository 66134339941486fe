"""Attention in plain JAX that holds the scores of some queries at a time.

For float32 on GPUs, for heads that are wider than the fused kernels take (the single head of an
autoencoder), and for a CPU's memory. The gradient computes each part's scores again.
"""

import jax
import jax.numpy as jnp

from syncos_jax.kernels.attention import plain

SCORES = 2**28
"""Bytes of scores in float32 that are held at a time."""
LEAST = 128
"""Queries of a part: fewer make poor matrix products."""


def attend(q: jax.Array, k: jax.Array, v: jax.Array, *, scores: int = SCORES) -> jax.Array:
    """``q [b, T, N, D], k and v [b, S, N, D] -> [b, T, N, D]``, scaled by ``1 / sqrt(D)``.

    Args:
        scores: bytes that may be held; at least those of `LEAST` queries are.
    """
    group, block = parts(q.shape, k.shape[1], scores)
    if group == q.shape[0]:
        return _over_queries(q, k, v, block)
    split = [x.reshape(-1, group, *x.shape[1:]) for x in (q, k, v)]
    out = jax.lax.map(lambda part: _over_queries(part[0], part[1], part[2], block), tuple(split))
    return out.reshape(q.shape)


def parts(shape: tuple[int, ...], keys: int, scores: int = SCORES) -> tuple[int, int]:
    """Batch entries and queries of a part, for q of `shape`."""
    b, T, N, _ = shape
    of_query = 4 * N * keys
    block = min(T, max(LEAST, scores // of_query))
    most = max(1, scores // (of_query * block))
    group = next(size for size in range(min(b, most), 0, -1) if b % size == 0)
    return group, block


def _over_queries(q: jax.Array, k: jax.Array, v: jax.Array, block: int) -> jax.Array:
    b, T, N, D = q.shape
    if block >= T:
        return plain.attend(q, k, v)
    count = -(-T // block)
    block = -(-T // count)  # of nearly equal size, so that little is padded
    padded = jnp.pad(q, ((0, 0), (0, count * block - T), (0, 0), (0, 0)))
    blocks = jnp.moveaxis(padded.reshape(b, count, block, N, D), 1, 0)
    out = jax.lax.map(jax.checkpoint(lambda part: plain.attend(part, k, v)), blocks)
    return jnp.moveaxis(out, 0, 1).reshape(b, count * block, N, D)[:, :T]
