"""Flash attention on TPUs: JAX's own Pallas kernel, with lengths that need no block size to divide
them.

It needs heads before tokens and lengths that are whole blocks. Keys that only fill up the last
block belong to another segment, which no query looks at.
"""

import jax
import jax.numpy as jnp

from syncos_jax.kernels.choice import Shaped

LANES = 128
BLOCKS = (1024, 512, 256, 128)
"""Queries, and keys, of a block: the largest that fills up at most an eighth."""


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """``q [b, T, N, D], k and v [b, S, N, D] -> [b, T, N, D]``, scaled by ``1 / sqrt(D)``."""
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas

    T, S, D = q.shape[1], k.shape[1], q.shape[3]
    rows, columns = block_of(T, D), block_of(S, D)
    q, k, v = (
        jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, -x.shape[1] % block), (0, 0)))
        for x, block in ((q, rows), (k, columns), (v, columns))
    )
    segments = None
    if k.shape[2] > S:
        filled = (jnp.arange(k.shape[2]) >= S).astype(jnp.int32)
        segments = pallas.SegmentIds(
            q=jnp.zeros((q.shape[0], q.shape[2]), jnp.int32),
            kv=jnp.broadcast_to(filled[None], (k.shape[0], k.shape[2])),
        )
    sizes = pallas.BlockSizes(
        block_q=rows,
        block_k_major=columns,
        block_k=columns,
        block_b=1,
        block_q_major_dkv=rows,
        block_k_major_dkv=columns,
        block_k_dkv=columns,
        block_q_dkv=rows,
        block_k_major_dq=columns,
        block_k_dq=columns,
        block_q_dq=rows,
    )
    # The kernel is written without regard to strict promotion.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        out = pallas.flash_attention(
            q, k, v, segment_ids=segments, sm_scale=D**-0.5, block_sizes=sizes
        )
    return out[:, :, :T].swapaxes(1, 2)


def block_of(length: int, head_size: int) -> int:
    """Tokens of a block."""
    most = 512 if head_size > LANES else 1024
    fitting = [size for size in BLOCKS if size <= most and -length % size <= length // 8]
    return fitting[0] if fitting else BLOCKS[-1]


def unsupported_reason(q: Shaped, keys: int) -> str | None:
    """Why it cannot compute `q` with as many keys; None where it can."""
    if q.dtype not in (jnp.bfloat16, jnp.float32):
        return f"it computes in bfloat16 and float32, not in {q.dtype}"
    if q.shape[-1] > LANES and q.shape[-1] % LANES:
        return f"heads have {q.shape[-1]} features, but past {LANES} it takes multiples of {LANES}"
    return None
