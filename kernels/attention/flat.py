"""A Pallas kernel for TPUs that reads heads where dense layers leave them, side by side.

Tokens stay second to last, so nothing is transposed or padded: the last block of queries and of
keys is as ragged as the tokens are. The exponentials are of base 2, a power that the hardware has.
Heads of 64 features come in pairs that fill a row of lanes: the other head's features of a query
are zero in its scores, which costs the matrix unit nothing, since it multiplies 128 or 256 features
at a time anyway.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from syncos_jax.kernels import tpu
from syncos_jax.kernels.attention import flash
from syncos_jax.kernels.choice import Shaped, with_gradient

LANES = 128
SUBLANES = 16
HEAD_SIZES = (64, 128)
ROWS = 1024
"""Queries that are scored at a time, at most: with `KEYS` of them 8 MiB of scores."""
CHUNKS = 2
"""Times `ROWS` that keys and values are read for."""
KEYS = 2048
"""Of a block, at most."""
LOWEST = -1e30


def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """``q [b, T, N, D], k and v [b, S, N, D] -> [b, T, N, D]``, scaled by ``1 / sqrt(D)``."""
    return with_gradient(_attend, flash.attend)(q, k, v)


def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    b, T, N, D = q.shape
    S = k.shape[1]
    lanes = max(D, LANES)
    rows, chunks, blocks = query_blocks(T)
    keys, key_blocks = key_blocks_of(S)
    of_queries = pl.BlockSpec((1, rows * chunks, lanes), lambda b, n, i, j, c: (b, i, n))
    of_keys = pl.BlockSpec((1, keys, lanes), lambda b, n, i, j, c: (b, j, n))
    statistics = pltpu.VMEM((lanes // D, rows * chunks, LANES), jnp.float32)
    kernel = functools.partial(
        _kernel, head_size=D, rows=rows, last=S - keys * (key_blocks - 1), blocks=key_blocks
    )
    parallel, arbitrary = pltpu.PARALLEL, pltpu.ARBITRARY
    out = pl.pallas_call(
        kernel,
        grid=(b, N * D // lanes, blocks, key_blocks, chunks),
        in_specs=[of_queries, of_keys, of_keys],
        out_specs=of_queries,
        out_shape=jax.ShapeDtypeStruct((b, T, N * D), q.dtype),
        scratch_shapes=[
            statistics,
            statistics,
            pltpu.VMEM((rows * chunks, lanes), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=(parallel, parallel, parallel, arbitrary, arbitrary),
            vmem_limit_bytes=tpu.FAST_MEMORY,
        ),
        cost_estimate=pl.CostEstimate(
            flops=4 * b * N * T * S * D,
            bytes_accessed=tpu.bytes_of(q, q, k, v),
            transcendentals=b * N * T * S,
        ),
        name="flat_attention",
    )(q.reshape(b, T, N * D), k.reshape(b, S, N * D), v.reshape(b, S, N * D))
    return out.reshape(q.shape)


def _kernel(  # type: ignore[no-untyped-def]
    q_ref, k_ref, v_ref, out_ref, most_ref, sum_ref, total_ref, *, head_size, rows, last, blocks
):
    """One step: `rows` queries, and a block of keys of which the last has `last`.

    ``most_ref, sum_ref [heads, queries, LANES]``: running maximum of the scores, the same in all
    lanes, and sum of their powers, whose lanes are still to be added; ``total_ref`` the weighted
    values.
    """
    block, part = pl.program_id(3), pl.ds(pl.program_id(4) * rows, rows)

    @pl.when(block == 0)
    def _() -> None:
        shape = (most_ref.shape[0], rows, LANES)
        most_ref[:, part] = jnp.full(shape, LOWEST, jnp.float32)
        sum_ref[:, part] = jnp.zeros(shape, jnp.float32)
        total_ref[part] = jnp.zeros((rows, total_ref.shape[1]), jnp.float32)

    step = functools.partial(
        _add_keys, q_ref, k_ref, v_ref, most_ref, sum_ref, total_ref, part, head_size
    )
    if blocks > 1:
        pl.when(block < blocks - 1)(lambda: step(k_ref.shape[1]))

    pl.when(block == blocks - 1)(lambda: step(last))

    @pl.when(block == blocks - 1)
    def _() -> None:
        sums = [sum_ref[head, part].sum(axis=-1, keepdims=True) for head in range(sum_ref.shape[0])]
        out_ref[0, part] = (total_ref[part] / _by_head(sums, head_size)).astype(out_ref.dtype)


def _add_keys(  # type: ignore[no-untyped-def]
    q_ref, k_ref, v_ref, most_ref, sum_ref, total_ref, part, head_size, count
):
    """Adds the block's first `count` keys and values."""
    columns = min(-(-count // LANES) * LANES, k_ref.shape[1])
    # The scores in base 2. To scale them instead, after the product, takes 14 % more cycles.
    q = (q_ref[0, part].astype(jnp.float32) * (math.log2(math.e) / head_size**0.5)).astype(
        q_ref.dtype
    )
    k, v = k_ref[0, :columns], v_ref[0, :columns]
    if count < columns:  # what lies behind them is not even zero
        rest = v[columns - LANES :]
        rest = jnp.where(_index(rest, 0) < count + LANES - columns, rest, jnp.zeros_like(rest))
        v = jnp.concatenate([v[: columns - LANES], rest], axis=0)
    precision = jax.lax.Precision.HIGHEST if q.dtype == jnp.float32 else None
    product = functools.partial(
        jax.lax.dot_general, precision=precision, preferred_element_type=jnp.float32
    )
    shrinks, values = [], []
    for head in range(most_ref.shape[0]):
        own = q
        if head_size < q.shape[1]:
            first = _index(q, 1) < head_size
            own = jnp.where(first if head == 0 else ~first, q, jnp.zeros_like(q))
        scores = product(own, k, (((1,), (1,)), ((), ())))
        if count < columns:
            whole, rest = scores[:, : columns - LANES], scores[:, columns - LANES :]
            rest = jnp.where(_index(rest, 1) < count + LANES - columns, rest, LOWEST)
            scores = jnp.concatenate([whole, rest], axis=1)
        before = most_ref[head, part]
        most = jnp.maximum(before, scores.max(axis=-1, keepdims=True))
        shrink = jnp.exp2(before - most)
        weights = jnp.exp2(scores - _over_columns(most, scores.shape[1]))
        most_ref[head, part] = most
        sum_ref[head, part] = sum_ref[head, part] * shrink + _lane_sums(weights)
        shrinks.append(shrink)
        values.append(product(weights.astype(v.dtype), v, (((1,), (0,)), ((), ()))))
    total_ref[part] = total_ref[part] * _by_head(shrinks, head_size) + _by_head(values, head_size)


def _index(x: jax.Array, axis: int) -> jax.Array:
    return jax.lax.broadcasted_iota(jnp.int32, x.shape, axis)


def _lane_sums(x: jax.Array) -> jax.Array:
    """``[rows, columns] -> [rows, LANES]``: sums of columns as many apart."""
    if x.shape[1] % LANES:
        x = jnp.pad(x, ((0, 0), (0, -x.shape[1] % LANES)))
    parts = (x[:, start : start + LANES] for start in range(0, x.shape[1], LANES))
    return functools.reduce(jnp.add, parts)


def _by_head(arrays: list[jax.Array], head_size: int) -> jax.Array:
    """``[rows, 1 or lanes]`` of each head in its own lanes."""
    if len(arrays) == 1:
        return arrays[0]
    shape = (arrays[0].shape[0], LANES)
    first, second = (jnp.broadcast_to(array, shape) for array in arrays)
    return jnp.where(_index(first, 1) < head_size, first, second)


def _over_columns(x: jax.Array, columns: int) -> jax.Array:
    """``[rows, LANES]``, the same in all lanes, ``-> [rows, columns]``.

    Repeated whole: spread from one lane it would go through the slowest unit, for 40 % more cycles.
    """
    return jnp.tile(x, (1, -(-columns // LANES)))[:, :columns]


def query_blocks(tokens: int) -> tuple[int, int, int]:
    """Rows of a chunk, chunks of a block, and blocks."""
    blocks = -(-tokens // (ROWS * CHUNKS))
    chunks = min(CHUNKS, -(-tokens // ROWS))
    rows = -(-tokens // (blocks * chunks * SUBLANES)) * SUBLANES
    return rows, chunks, blocks


def key_blocks_of(tokens: int) -> tuple[int, int]:
    """Keys of a block, and blocks."""
    blocks = -(-tokens // KEYS)
    if blocks == 1:
        return tokens, 1
    return -(-tokens // (blocks * LANES)) * LANES, blocks


def unsupported_reason(q: Shaped, keys: int) -> str | None:
    """Why it cannot compute `q` with as many keys; None where it can."""
    if q.dtype not in (jnp.bfloat16, jnp.float32):
        return f"it computes in bfloat16 and float32, not in {q.dtype}"
    heads, size = q.shape[-2:]
    if size not in HEAD_SIZES:
        return f"heads have {size} features, but it takes 64 and 128"
    if heads * size % LANES:
        return f"{heads} heads of {size} features do not fill rows of {LANES}"
    return tpu.too_old()
