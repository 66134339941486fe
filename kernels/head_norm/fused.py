"""A Pallas kernel for TPUs: queries or keys are read once and written once, their heads never
separated.

Partners of a rotation are neighbours, so they are exchanged by moving a row of lanes by one in
either direction. Means of heads that are half a row wide are products with a block matrix.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from syncos_jax.kernels import tpu
from syncos_jax.kernels.choice import Shaped

LANES = 128
ROWS = 256
"""Of a block."""


def norm(
    x: jax.Array,
    scale: jax.Array,
    shift: jax.Array | None,
    cos: jax.Array | None,
    sin: jax.Array | None,
    *,
    heads: int,
    eps: float,
) -> jax.Array:
    """As `plain.norm`."""
    b, T, C = x.shape
    size = C // heads
    repeats = max(1, LANES // size)
    given = [x, scale.reshape(1, -1)]
    if shift is not None:
        given[1:] = [jnp.tile(z.reshape(1, -1), (1, repeats)) for z in (scale, shift)]
    tokens = pl.BlockSpec((1, ROWS, C), lambda b, i: (b, i, 0))
    specs = [tokens, *[pl.BlockSpec(z.shape, lambda b, i: (0, 0)) for z in given[1:]]]
    if cos is not None and sin is not None:
        given += [jnp.tile(table, (1, repeats)) for table in (cos, sin)]
        specs += [pl.BlockSpec((ROWS, size * repeats), lambda b, i: (i, 0))] * 2
    kernel = functools.partial(
        _kernel, size=size, eps=eps, layer=shift is not None, turned=cos is not None
    )
    return pl.pallas_call(
        kernel,
        grid=(b, pl.cdiv(T, ROWS)),
        in_specs=specs,
        out_specs=tokens,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        compiler_params=tpu.parameters(2),
        cost_estimate=pl.CostEstimate(
            flops=0, bytes_accessed=tpu.bytes_of(x, *given), transcendentals=b * T
        ),
        name="head_norm",
    )(*given)


def _kernel(x_ref, scale_ref, *others, size, eps, layer, turned):  # type: ignore[no-untyped-def]
    *refs, out_ref = others
    x = x_ref[0].astype(jnp.float32)
    width = max(size, LANES)
    if not layer:
        x = x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + eps)
        x = x * scale_ref[...].astype(jnp.float32)
    else:
        shift_ref, *refs = refs
    for start in range(0, x.shape[1], width):
        part = slice(start, start + width)
        y = x[:, part]
        if layer:
            y = y - _mean(y, size)
            y = y * jax.lax.rsqrt(_mean(jnp.square(y), size) + eps)
            y = y * scale_ref[...].astype(jnp.float32) + shift_ref[...].astype(jnp.float32)
        if turned:
            cos_ref, sin_ref = refs
            y = y.astype(out_ref.dtype).astype(jnp.float32)
            even = jax.lax.broadcasted_iota(jnp.int32, y.shape, 1) % 2 == 0
            partner = jnp.where(even, pltpu.roll(y, width - 1, 1), pltpu.roll(y, 1, 1))
            y = y * cos_ref[...] + partner * sin_ref[...]
        out_ref[0, :, part] = y.astype(out_ref.dtype)


def _mean(y: jax.Array, size: int) -> jax.Array:
    """Of each head of `size` features, in all of its lanes."""
    if size >= y.shape[1]:
        return y.mean(axis=-1, keepdims=True)
    row, column = (
        jax.lax.broadcasted_iota(jnp.int32, (y.shape[1], y.shape[1]), axis) for axis in (0, 1)
    )
    same = jnp.where((row < size) == (column < size), jnp.float32(1 / size), jnp.float32(0))
    return jnp.dot(y, same, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)


def unsupported_reason(x: Shaped, heads: int) -> str | None:
    """Why it cannot compute it; None where it can."""
    if x.dtype not in (jnp.bfloat16, jnp.float32):
        return f"it computes in bfloat16 and float32, not in {x.dtype}"
    if x.shape[-1] % LANES or x.shape[-1] // heads not in (LANES // 2, LANES):
        return f"{heads} heads of {x.shape[-1] // heads} features do not fill rows of {LANES}"
    return tpu.unsupported_reason(())
