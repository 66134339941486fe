"""A Pallas kernel for TPUs: tokens are read once and written once."""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from syncos_jax.kernels import tpu
from syncos_jax.kernels.choice import Shaped

LANES = 128
ROWS = 256
"""Of a block."""


def norm(x: jax.Array, scale: jax.Array, shift: jax.Array, *, eps: float, first: int) -> jax.Array:
    """As `plain.norm`."""
    b, T, C = x.shape
    tokens = pl.BlockSpec((1, ROWS, C), lambda b, i: (b, i, 0))
    of_clip = pl.BlockSpec((1, scale.shape[1], C), lambda b, i: (b, 0, 0))

    def kernel(x_ref, scale_ref, shift_ref, out_ref):  # type: ignore[no-untyped-def]
        y = x_ref[0].astype(jnp.float32)
        y = y - y.mean(axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + eps)
        gain, more = (ref[0].astype(jnp.float32) for ref in (scale_ref, shift_ref))
        if first:
            token = pl.program_id(1) * ROWS + jax.lax.broadcasted_iota(jnp.int32, (ROWS, 1), 0)
            gain, more = (jnp.where(token < first, z[:1], z[1:]) for z in (gain, more))
        out_ref[0] = (y * gain + more).astype(out_ref.dtype)

    return pl.pallas_call(
        kernel,
        grid=(b, pl.cdiv(T, ROWS)),
        in_specs=[tokens, of_clip, of_clip],
        out_specs=tokens,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        compiler_params=tpu.parameters(2),
        cost_estimate=pl.CostEstimate(
            flops=0, bytes_accessed=tpu.bytes_of(x, x, scale, shift), transcendentals=b * T
        ),
        name="modulated_norm",
    )(x, scale, shift)


def unsupported_reason(x: Shaped) -> str | None:
    """Why it cannot compute it; None where it can."""
    if x.dtype not in (jnp.bfloat16, jnp.float32):
        return f"it computes in bfloat16 and float32, not in {x.dtype}"
    if x.shape[-1] % LANES:
        return f"{x.shape[-1]} features are no multiple of {LANES}"
    return tpu.unsupported_reason(())
