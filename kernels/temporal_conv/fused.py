"""A Pallas kernel for TPUs: norm, SiLU and the three taps in one pass. What a channel is multiplied
by and what is added, once the group's mean and variance are known, is computed before."""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from syncos_jax.kernels import tpu
from syncos_jax.kernels.choice import Shaped, with_gradient
from syncos_jax.kernels.group_norm import factors
from syncos_jax.kernels.temporal_conv import plain
from syncos_jax.kernels.temporal_conv.plain import Weights

TILE = 16
"""Cells that lie together in the fast memory, in half precision."""
BLOCK = 2 * 2**20
"""Bytes of a block in float32."""


def norm_conv(x: jax.Array, weights: Weights, groups: int, eps: float) -> jax.Array:
    """As `plain.norm_conv`, whose gradient it has."""
    by_kernel = with_gradient(kernel, plain.norm_conv, groups=groups, eps=eps)
    return by_kernel(x, weights)  # type: ignore[no-any-return]


def kernel(x: jax.Array, weights: Weights, groups: int, eps: float) -> jax.Array:
    """`norm_conv`, without a gradient."""
    B, F, H, W, C = x.shape
    out = weights.bias.shape[0]
    by, plus = factors(x, weights.scale, weights.shift, groups, eps)
    flat = x.reshape(B, F, H * W, C)
    cells = cells_of(F, max(C, out), H * W)
    channel = pl.BlockSpec((1, 1, C), lambda b, i: (b, 0, 0))
    given = [weights.kernel, weights.bias.reshape(1, out)]
    result = jax.ShapeDtypeStruct((B, F, H * W, out), x.dtype)
    y = pl.pallas_call(
        _kernel,
        grid=(B, pl.cdiv(H * W, cells)),
        in_specs=[
            pl.BlockSpec((1, F, cells, C), lambda b, i: (b, 0, i, 0)),
            channel,
            channel,
            *[tpu.whole() for _ in given],
        ],
        out_specs=pl.BlockSpec((1, F, cells, out), lambda b, i: (b, 0, i, 0)),
        out_shape=result,
        compiler_params=tpu.parameters(2),
        cost_estimate=pl.CostEstimate(
            flops=6 * x.size * out,
            bytes_accessed=tpu.bytes_of(x, result, by, plus, *given),
            transcendentals=x.size,
        ),
        name="norm_conv_over_frames",
    )(flat, by, plus, *given)
    return y.reshape(B, F, H, W, out)


def _kernel(x_ref, by, plus, taps, bias, out_ref) -> None:  # type: ignore[no-untyped-def]
    _, F, cells, C = x_ref.shape
    y = x_ref[0].astype(jnp.float32).reshape(F * cells, C) * by[0] + plus[0]
    y = (y * jax.nn.sigmoid(y)).astype(x_ref.dtype)
    total = jnp.dot(y, taps[1], preferred_element_type=jnp.float32)
    total += bias[...].astype(jnp.float32)
    if F > 1:
        none = jnp.zeros((cells, C), y.dtype)
        before = jnp.concatenate([none, y[:-cells]], axis=0)
        total += jnp.dot(before, taps[0], preferred_element_type=jnp.float32)
        after = jnp.concatenate([y[cells:], none], axis=0)
        total += jnp.dot(after, taps[2], preferred_element_type=jnp.float32)
    out_ref[0] = total.reshape(F, cells, -1).astype(out_ref.dtype)


def cells_of(frames: int, channels: int, length: int) -> int:
    """Cells of a block: whole tiles, up to `BLOCK`."""
    most = min(BLOCK // (4 * frames * channels), -(-length // TILE) * TILE)
    return max(1, most // TILE) * TILE


def unsupported_reason(x: Shaped, weights: Weights) -> str | None:
    """Why it cannot compute it; None where it can."""
    if x.dtype not in (jnp.bfloat16, jnp.float32):
        return f"it computes in bfloat16 and float32, not in {x.dtype}"
    return tpu.unsupported_reason(weights)
