"""Attention in plain JAX that holds the scores of some heads or queries at a time.

For CPUs, for float32 on GPUs, and for heads that are wider than the fused kernels take (the single
head of an autoencoder). Heads lie in front of the tokens, so that every product is one of matrices,
and what the weights of the values sum to divides the result in place of the scores: on a CPU that
takes 0.2 to 0.6 of the time of `plain`. The gradient computes each part's scores again.
"""

import jax
import jax.numpy as jnp

SCORES = 2**28
"""Bytes of scores in float32 that are held at a time."""
LEAST = 128
"""Queries of a part: fewer make poor matrix products."""


def attend(q: jax.Array, k: jax.Array, v: jax.Array, *, scores: int = SCORES) -> jax.Array:
    """``q [b, T, N, D], k and v [b, S, N, D] -> [b, T, N, D]``, scaled by ``1 / sqrt(D)``.

    Args:
        scores: bytes that may be held; at least those of `LEAST` queries are.
    """
    b, T, N, D = q.shape
    group, block = parts(q.shape, k.shape[1], scores)
    q, k, v = (x.swapaxes(1, 2).reshape(b * N, -1, x.shape[3]) for x in (q, k, v))
    if group == b * N and block >= T:
        out = _attend(q, k, v)
    else:
        split = tuple(x.reshape(-1, group, *x.shape[1:]) for x in (q, k, v))
        out = jax.lax.map(lambda part: _over_queries(part[0], part[1], part[2], block), split)
    return out.reshape(b, N, T, D).swapaxes(1, 2)


def parts(shape: tuple[int, ...], keys: int, scores: int = SCORES) -> tuple[int, int]:
    """Heads (of all batch entries) and queries of a part, for q of `shape`."""
    b, T, N, _ = shape
    block = min(T, max(LEAST, scores // (4 * keys)))
    most = max(1, scores // (4 * keys * block))
    group = next(size for size in range(min(b * N, most), 0, -1) if b * N % size == 0)
    return group, block


def _over_queries(q: jax.Array, k: jax.Array, v: jax.Array, block: int) -> jax.Array:
    n, T, D = q.shape
    attend = jax.checkpoint(_attend)
    if block >= T:
        return attend(q, k, v)
    count = -(-T // block)
    block = -(-T // count)  # of nearly equal size, so that little is padded
    padded = jnp.pad(q, ((0, 0), (0, count * block - T), (0, 0)))
    blocks = jnp.moveaxis(padded.reshape(n, count, block, D), 1, 0)
    out = jax.lax.map(lambda part: attend(part, k, v), blocks)
    return jnp.moveaxis(out, 0, 1).reshape(n, count * block, D)[:, :T]


def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """``q [n, T, D], k and v [n, S, D] -> [n, T, D]``."""
    scale = jnp.float32(q.shape[2] ** -0.5)
    scores = jnp.einsum("ntd,nsd->nts", q, k, preferred_element_type=jnp.float32)
    highest = jax.lax.stop_gradient(scores.max(axis=2, keepdims=True))
    weights = jnp.exp((scores - highest) * scale)
    values = jnp.einsum(
        "nts,nsd->ntd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32
    )
    return (values / weights.sum(axis=2, keepdims=True)).astype(q.dtype)
