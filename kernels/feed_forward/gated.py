"""The gated unit on NVIDIA: a Pallas kernel (Triton) that computes value and gate of the same
features together, so that only their product is written. cuBLAS writes both, 2 I features a row, to
be read again for the gate.
"""

import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from syncos_jax.kernels import cuda
from syncos_jax.kernels.choice import Shaped, mesh_unsupported_reason

ROWS = 128
FEATURES = 64
"""Of a block: two sums of ROWS x FEATURES lie in the registers."""
CHANNELS = 64
"""That are multiplied at a time."""

ERF = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
ERF_RATE = 0.3275911
"""Of the error function, to 1.5e-7 (Abramowitz and Stegun, Handbook of Mathematical Functions,
7.1.26): Triton has none here."""


def geglu(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """As `plain.geglu`; ``x [..., C]`` of shapes that `unsupported_reason` has nothing against."""
    rows = x.reshape(-1, x.shape[-1])
    count, channels = rows.shape
    inner = kernel.shape[1] // 2
    out = jax.ShapeDtypeStruct((count, inner), x.dtype)
    y = pl.pallas_call(
        _kernel,
        grid=(inner // FEATURES, count // ROWS),
        in_specs=[
            pl.BlockSpec((ROWS, channels), lambda j, i: (i, 0)),
            pl.BlockSpec(kernel.shape, lambda j, i: (0, 0)),
            pl.BlockSpec(bias.shape, lambda j, i: (0,)),
        ],
        out_specs=pl.BlockSpec((ROWS, FEATURES), lambda j, i: (i, j)),
        out_shape=out,
        compiler_params=triton.CompilerParams(num_warps=8, num_stages=3),
        cost_estimate=pl.CostEstimate(
            flops=4 * count * channels * inner,
            bytes_accessed=sum(a.size * a.dtype.itemsize for a in (rows, kernel, bias, out)),
            transcendentals=count * inner,
        ),
        name="gated_unit",
    )(rows, kernel, bias)
    return y.reshape(*x.shape[:-1], inner)


def _kernel(x_ref, kernel, bias, out_ref) -> None:  # type: ignore[no-untyped-def]
    channels, inner = x_ref.shape[1], kernel.shape[1] // 2
    begin = pl.program_id(0) * FEATURES
    halves = [pl.ds(begin, FEATURES), pl.ds(inner + begin, FEATURES)]

    def multiply(step, sums):  # type: ignore[no-untyped-def]
        own = pl.ds(step * CHANNELS, CHANNELS)
        x = x_ref[:, own]
        return tuple(
            total + jnp.dot(x, kernel[own, half], preferred_element_type=jnp.float32)
            for total, half in zip(sums, halves, strict=True)
        )

    nothing = jnp.zeros((ROWS, FEATURES), jnp.float32)
    sums = jax.lax.fori_loop(0, channels // CHANNELS, multiply, (nothing, nothing))
    value, gate = (
        total + bias[half].astype(jnp.float32)[None, :]
        for total, half in zip(sums, halves, strict=True)
    )
    out_ref[...] = (value * gelu(gate)).astype(out_ref.dtype)


def gelu(x: jax.Array) -> jax.Array:
    """``x / 2 (1 + erf(x / sqrt 2))``, float32."""
    y = jnp.abs(x) * math.sqrt(0.5)
    t = 1.0 / (1.0 + ERF_RATE * y)
    series = jnp.zeros_like(t)
    for factor in reversed(ERF):
        series = (series + factor) * t
    erf = 1.0 - series * jnp.exp(-y * y)
    return 0.5 * (x + jnp.abs(x) * erf)


def unsupported_reason(x: Shaped, kernel: Shaped) -> str | None:
    """Why it cannot compute it; None where it can."""
    if x.dtype not in (jnp.bfloat16, jnp.float16):
        return f"it computes in half precision, not in {x.dtype}"
    channels, inner = kernel.shape[0], kernel.shape[1] // 2
    sides = {"rows": (x.size // x.shape[-1], ROWS), "channels": (channels, CHANNELS)}
    for name, (count, block) in {**sides, "features": (inner, FEATURES)}.items():
        if count % block:
            return f"{count} {name} are no multiple of {block}"
    return cuda.unsupported_reason() or mesh_unsupported_reason()
