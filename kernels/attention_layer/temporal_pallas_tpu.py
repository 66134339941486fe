"""Over the frames at each cell: a Pallas kernel for TPUs. Cells are read where they lie, without a
transpose of the frames to the rows, and nothing but the sum is written.

A head's products over the few frames of one cell are far too small for the matrix unit. So 8 cells
are taken at a time: all their frames are scored against one another, and the scores of two
different cells are masked.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from syncos_jax.kernels import tpu
from syncos_jax.kernels.attention_layer import heads as lanes
from syncos_jax.kernels.attention_layer import plain
from syncos_jax.kernels.attention_layer.plain import TemporalWeights
from syncos_jax.kernels.choice import Shaped, with_gradient
from syncos_jax.kernels.layer_norm import layer_norm

CELLS = 8
"""That are scored together: a tile of the fast memory in float32."""
FRAMES = 32
"""At most: past them the masked scores cost more than they save."""
SCRATCH = 10 * 2**20
"""Bytes of queries, keys, values and their sums, float32, that a block may have."""


def add(x: jax.Array, weights: TemporalWeights, heads: int) -> jax.Array:
    """As `plain.temporal`, whose gradient it has."""
    by_kernel = with_gradient(kernel, plain.temporal, heads=heads)
    return by_kernel(x, weights)  # type: ignore[no-any-return]


def kernel(x: jax.Array, weights: TemporalWeights, heads: int) -> jax.Array:
    """`add`, without a gradient."""
    B, F, L, C = x.shape
    inner = weights.to_q.shape[1]
    row = functools.partial(jnp.reshape, shape=(1, C))
    columns = (weights.to_q, weights.to_k, weights.to_v)
    given = [row(weights.scale), row(weights.shift), *(lanes.padded(w, 1) for w in columns)]
    given += [lanes.padded(weights.to_out, 0), row(weights.bias_out)]
    wide = given[2].shape[1]
    cells = cells_of(F, wide, L)
    block = pl.BlockSpec((1, F, cells, C), lambda b, i: (b, 0, i, 0))
    return pl.pallas_call(
        functools.partial(_kernel, size=inner // heads, length=L),
        grid=(B, pl.cdiv(L, cells)),
        in_specs=[block, *[tpu.whole() for _ in given]],
        out_specs=block,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        scratch_shapes=[pltpu.VMEM((F, cells, wide), jnp.float32)] * 4,
        compiler_params=tpu.parameters(2),
        cost_estimate=pl.CostEstimate(
            flops=2 * x.size // C * inner * (4 * C + 2 * F),
            bytes_accessed=tpu.bytes_of(x, x, *given),
            transcendentals=B * L * heads * F * F,
        ),
        name="attention_over_frames",
    )(x, *given)


def _kernel(
    x_ref, scale, shift, to_q, to_k, to_v, to_out, bias_out, out_ref, q_ref, k_ref, v_ref, o_ref,
    *, size: int, length: int,
) -> None:  # type: ignore[no-untyped-def]  # fmt: skip
    _, F, cells, C = x_ref.shape
    wide = to_q.shape[1]
    x = x_ref[0]
    if length % cells:  # what lies behind the last cell may be anything
        cell = pl.program_id(1) * cells + jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
        x = jnp.where(cell < length, x, jnp.zeros_like(x))
    y = layer_norm(x, scale[...], shift[...]).reshape(F * cells, C)
    for weights, ref in ((to_q, q_ref), (to_k, k_ref), (to_v, v_ref)):
        product = jnp.dot(y, weights[...], preferred_element_type=jnp.float32)
        ref[...] = product.reshape(F, cells, wide)

    rows = (F * CELLS, F * CELLS)
    one, other = (jax.lax.broadcasted_iota(jnp.int32, rows, axis) for axis in (0, 1))
    same = (one - other) % CELLS == 0

    def attend(group, _):  # type: ignore[no-untyped-def]
        own = pl.ds(pl.multiple_of(group * CELLS, CELLS), CELLS)
        for begin in range(0, wide, lanes.LANES):
            part = slice(begin, begin + lanes.LANES)
            q, k, v = (
                ref[:, own, part].reshape(F * CELLS, lanes.LANES).astype(x.dtype)
                for ref in (q_ref, k_ref, v_ref)
            )
            o = lanes.attend(q, k, v, size, same)
            o_ref[:, own, part] = o.reshape(F, CELLS, lanes.LANES)
        return 0

    jax.lax.fori_loop(0, cells // CELLS, attend, 0)
    o = o_ref[...].reshape(F * cells, wide).astype(x.dtype)
    y = jnp.dot(o, to_out[...], preferred_element_type=jnp.float32)
    y = y + bias_out[...].astype(jnp.float32)
    out_ref[0] = (x.astype(jnp.float32) + y.reshape(F, cells, C)).astype(x.dtype)


def cells_of(frames: int, wide: int, length: int) -> int:
    """Cells of a block: whole tiles in half precision, with about 1,024 rows."""
    tile = 2 * CELLS
    most = min(1024 // frames, SCRATCH // (4 * 4 * frames * wide), -(-length // tile) * tile)
    return max(1, most // tile) * tile


def unsupported_reason(x: Shaped, weights: TemporalWeights, heads: int) -> str | None:
    """Why it cannot compute it; None where it can."""
    if x.shape[1] > FRAMES:
        return f"a clip of {x.shape[1]} frames is longer than {FRAMES}"
    return lanes.unsupported_reason(x, weights.to_q.shape[1] // heads) or tpu.unsupported_reason(
        weights
    )
