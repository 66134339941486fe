"""Over the frames at each cell, on NVIDIA: norm and projections by the compiler, and a Pallas
kernel (Triton) for the attention, which reads the frames of a cell where they lie and writes no
scores."""

import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from syncos_jax.kernels import cuda
from syncos_jax.kernels.attention_layer import plain
from syncos_jax.kernels.attention_layer.plain import TemporalWeights
from syncos_jax.kernels.choice import Shaped, mesh_unsupported_reason, with_gradient
from syncos_jax.kernels.layer_norm import layer_norm

FRAMES = (16, 32, 64)
"""What the matrix units take: they multiply 16 rows at least, and shapes are powers of two."""
SIZES = (16, 32, 64, 128)
"""Features of a head."""
CELLS = 8
"""Of a block, at most."""


def add(x: jax.Array, weights: TemporalWeights, heads: int) -> jax.Array:
    """As `plain.temporal`, whose gradient it has."""
    by_kernel = with_gradient(layer, plain.temporal, heads=heads)
    return by_kernel(x, weights)  # type: ignore[no-any-return]


def layer(x: jax.Array, weights: TemporalWeights, heads: int) -> jax.Array:
    """`add`, without a gradient."""
    y = layer_norm(x, weights.scale, weights.shift)
    # One product reads what is projected once, and the kernel finds its parts.
    y = y @ jnp.concatenate([weights.to_q, weights.to_k, weights.to_v], axis=1)
    y = attend(y, heads) @ weights.to_out
    return x + (y + weights.bias_out.reshape(1, 1, 1, -1))


def attend(qkv: jax.Array, heads: int) -> jax.Array:
    """Softmax attention among the frames.

    Args:
        qkv: queries, keys and values side by side, ``[B, F, L, 3 N D]``.
        heads: N.

    Returns:
        ``[B, F, L, N D]``.
    """
    B, F, L, wide = qkv.shape
    inner = wide // 3
    size, cells = inner // heads, math.gcd(L, CELLS)
    out = jax.ShapeDtypeStruct((B, F, L, inner), qkv.dtype)

    return pl.pallas_call(
        _kernel,
        grid=(L // cells, heads, B),
        in_specs=[pl.BlockSpec((1, F, cells, wide), lambda i, h, b: (b, 0, i, 0))],
        out_specs=pl.BlockSpec((1, F, cells, size), lambda i, h, b: (b, 0, i, h)),
        out_shape=out,
        compiler_params=triton.CompilerParams(num_warps=2, num_stages=1),
        cost_estimate=pl.CostEstimate(
            flops=4 * out.size * F,
            bytes_accessed=4 * out.size * out.dtype.itemsize,
            transcendentals=B * L * heads * F * F,
        ),
        name="attention_by_cells",
    )(qkv)


def _kernel(qkv_ref, out_ref) -> None:  # type: ignore[no-untyped-def]
    cells, size = out_ref.shape[2:]
    inner = qkv_ref.shape[3] // 3
    begin = pl.program_id(1) * size

    def attend(cell, _):  # type: ignore[no-untyped-def]
        q, k, v = (qkv_ref[0, :, cell, pl.ds(part * inner + begin, size)] for part in range(3))
        scores = jnp.dot(q, k.T, preferred_element_type=jnp.float32) / math.sqrt(size)
        weights = jnp.exp(scores - scores.max(axis=1, keepdims=True))
        sums = weights.sum(axis=1, keepdims=True)
        values = jnp.dot(weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
        out_ref[0, :, cell, :] = (values / sums).astype(out_ref.dtype)
        return 0

    jax.lax.fori_loop(0, cells, attend, 0)


def unsupported_reason(x: Shaped, weights: TemporalWeights, heads: int) -> str | None:
    """Why it cannot compute it; None where it can."""
    if x.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it computes in half precision, not in {x.dtype}"
    if x.shape[1] not in FRAMES:
        return f"a clip has {x.shape[1]} frames, not one of {FRAMES}"
    size = weights.to_q.shape[1] // heads
    if size not in SIZES:
        return f"a head has {size} features, not one of {SIZES}"
    return cuda.unsupported_reason() or mesh_unsupported_reason()
