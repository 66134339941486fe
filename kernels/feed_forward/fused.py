"""A Pallas kernel for TPUs: rows are read once and written once, and what is between them, four to
eight times as wide, never leaves the fast memory.

The weights lie there too, all of them, so it serves the finer levels of a UNet, where rows are many
and weights small.
"""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from syncos_jax.kernels import tpu
from syncos_jax.kernels.choice import Shaped
from syncos_jax.kernels.feed_forward.plain import Weights, gelu
from syncos_jax.kernels.layer_norm import layer_norm

LANES = 128
ROWS = 512
"""Of a block."""
INNER = 640
"""Features of the gated unit that are computed at a time, at most."""


def add(x: jax.Array, weights: Weights) -> jax.Array:
    """As `plain.add`."""
    rows = x.reshape(-1, x.shape[-1])
    count, channels = rows.shape
    inner = weights.kernel_out.shape[0]
    block = pl.BlockSpec((ROWS, channels), lambda i: (i, 0))
    given = [w if w.ndim == 2 else w.reshape(1, -1) for w in weights]
    out = pl.pallas_call(
        _kernel,
        grid=(pl.cdiv(count, ROWS),),
        in_specs=[block, *[tpu.whole() for _ in given]],
        out_specs=block,
        out_shape=jax.ShapeDtypeStruct(rows.shape, rows.dtype),
        compiler_params=tpu.parameters(1),
        cost_estimate=pl.CostEstimate(
            flops=6 * rows.size * inner,
            bytes_accessed=tpu.bytes_of(rows, rows, *given),
            transcendentals=count * inner,
        ),
        name="feed_forward",
    )(rows, *given)
    return out.reshape(x.shape)


def _kernel(x_ref, scale, shift, kernel_in, bias_in, kernel_out, bias_out, out_ref):  # type: ignore[no-untyped-def]
    x = x_ref[...]
    y = layer_norm(x, scale[...], shift[...])
    inner = kernel_out.shape[0]
    step = step_of(inner)
    total = x.astype(jnp.float32) + bias_out[...].astype(jnp.float32)
    for begin in range(0, inner, step):
        halves = []
        for start in (begin, inner + begin):
            part = slice(start, start + step)
            product = jnp.dot(y, kernel_in[:, part], preferred_element_type=jnp.float32)
            halves.append(product + bias_in[:, part].astype(jnp.float32))
        value, gate = halves
        gated = (value * gelu(gate)).astype(x.dtype)
        rows = slice(begin, begin + step)
        total += jnp.dot(gated, kernel_out[rows, :], preferred_element_type=jnp.float32)
    out_ref[...] = total.astype(x.dtype)


def step_of(inner: int) -> int:
    """How many of the inner features are computed at a time: whole lanes that divide them."""
    fitting = [n for n in range(LANES, INNER + 1, LANES) if inner % n == 0]
    return max(fitting, default=inner)


def unsupported_reason(x: Shaped, weights: Weights) -> str | None:
    """Why it cannot compute it; None where it can."""
    if x.dtype not in (jnp.bfloat16, jnp.float32):
        return f"it computes in bfloat16 and float32, not in {x.dtype}"
    inner = weights.kernel_out.shape[0]
    if inner % LANES:
        return f"the {inner} features between its products are no multiple of {LANES}"
    return tpu.unsupported_reason(weights)
