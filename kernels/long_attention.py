"""Attention among tens of thousands of tokens, without all scores in memory at a time.

A clip of Wan's at 480x832 has 32,760 tokens: 12 heads' scores would be 52 GB in float32.
"""

from typing import Literal

import jax
import jax.numpy as jnp

SCORES = 2**28
"""Bytes of scores that may be held at a time, where no fused kernel is used."""


def long_attention(q: jax.Array, k: jax.Array, v: jax.Array, *, scores: int = SCORES) -> jax.Array:
    """Softmax attention, unmasked, scaled by ``1 / sqrt(D)``.

    On NVIDIA GPUs (from Ampere on) and in half precision cuDNN's fused kernel does it. Elsewhere
    queries are taken in blocks, one after the other, where all at once would need more than
    `scores` bytes.

    Args:
        q: ``[b, T, N, D]``.
        k, v: ``[b, S, N, D]``.
        scores: bytes.

    Returns:
        ``[b, T, N, D]``.
    """
    b, T, N, D = q.shape
    if _fused(q):
        return _attend(q, k, v, "cudnn")
    block = max(1, scores // (4 * b * N * k.shape[1]))
    if block >= T:
        return _attend(q, k, v)
    count = -(-T // block)
    block = -(-T // count)  # of nearly equal size, so that little is padded
    padded = jnp.pad(q, ((0, 0), (0, count * block - T), (0, 0), (0, 0)))
    blocks = jnp.moveaxis(padded.reshape(b, count, block, N, D), 1, 0)
    out = jax.lax.map(lambda part: _attend(part, k, v), blocks)
    return jnp.moveaxis(out, 0, 1).reshape(b, count * block, N, D)[:, :T]


def _attend(
    q: jax.Array, k: jax.Array, v: jax.Array, implementation: Literal["cudnn"] | None = None
) -> jax.Array:
    with jax.numpy_dtype_promotion("standard"):  # it mixes float32 scores with half precision
        return jax.nn.dot_product_attention(q, k, v, implementation=implementation)


def _fused(q: jax.Array) -> bool:
    """Whether cuDNN's kernel can do it on the default device."""
    if jax.default_backend() != "gpu" or q.dtype not in (jnp.bfloat16, jnp.float16):
        return False
    capability = getattr(jax.local_devices()[0], "compute_capability", "0")
    return q.shape[-1] % 8 == 0 and q.shape[-1] <= 128 and float(capability) >= 8.0
