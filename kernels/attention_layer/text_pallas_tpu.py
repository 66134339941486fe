"""To the text: a Pallas kernel for TPUs that holds the text's keys and values in the fast memory,
reads the tokens once and writes nothing but the sum."""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from syncos_jax.kernels import tpu
from syncos_jax.kernels.attention_layer import heads as lanes
from syncos_jax.kernels.attention_layer import plain
from syncos_jax.kernels.attention_layer.plain import TextWeights
from syncos_jax.kernels.choice import Shaped, with_gradient
from syncos_jax.kernels.layer_norm import layer_norm

ROWS = 512
"""Tokens of a block."""
WORDS = 512
"""At most: of longer texts the scores belong to a kernel that goes through them in parts."""


def add(x: jax.Array, k: jax.Array, v: jax.Array, weights: TextWeights, heads: int) -> jax.Array:
    """As `plain.text`, whose gradient it has."""
    by_kernel = with_gradient(kernel, plain.text, heads=heads)
    return by_kernel(x, k, v, weights)  # type: ignore[no-any-return]


def kernel(x: jax.Array, k: jax.Array, v: jax.Array, weights: TextWeights, heads: int) -> jax.Array:
    """`add`, without a gradient."""
    B, T, C = x.shape
    words, inner = k.shape[1:]
    k, v = (lanes.padded(lanes.padded(a, 1), 2) for a in (k, v))
    row = functools.partial(jnp.reshape, shape=(1, C))
    given = [row(weights.scale), row(weights.shift), lanes.padded(weights.to_q, 1)]
    given += [lanes.padded(weights.to_out, 0), row(weights.bias_out)]
    block = pl.BlockSpec((1, ROWS, C), lambda b, i: (b, i, 0))
    text = pl.BlockSpec((1, *k.shape[1:]), lambda b, i: (b, 0, 0))
    return pl.pallas_call(
        functools.partial(_kernel, size=inner // heads, words=words),
        grid=(B, pl.cdiv(T, ROWS)),
        in_specs=[block, text, text, *[tpu.whole() for _ in given]],
        out_specs=block,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        compiler_params=tpu.parameters(2),
        cost_estimate=pl.CostEstimate(
            flops=4 * B * T * inner * (C + words),
            bytes_accessed=tpu.bytes_of(x, x, k, v, *given),
            transcendentals=B * T * heads * words,
        ),
        name="attention_to_text",
    )(x, k, v, *given)


def _kernel(
    x_ref, k_ref, v_ref, scale, shift, to_q, to_out, bias_out, out_ref, *, size: int, words: int
) -> None:  # type: ignore[no-untyped-def]  # fmt: skip
    x = x_ref[0]
    y = layer_norm(x, scale[...], shift[...])
    shape = (x.shape[0], k_ref.shape[1])
    allowed = jax.lax.broadcasted_iota(jnp.int32, shape, 1) < words
    total = x.astype(jnp.float32) + bias_out[...].astype(jnp.float32)
    for begin in range(0, to_q.shape[1], lanes.LANES):
        part = slice(begin, begin + lanes.LANES)
        q = jnp.dot(y, to_q[:, part], preferred_element_type=jnp.float32).astype(x.dtype)
        o = lanes.attend(q, k_ref[0, :, part], v_ref[0, :, part], size, allowed).astype(x.dtype)
        total += jnp.dot(o, to_out[part, :], preferred_element_type=jnp.float32)
    out_ref[0] = total.astype(x.dtype)


def unsupported_reason(x: Shaped, words: int, weights: TextWeights, heads: int) -> str | None:
    """Why it cannot compute it; None where it can."""
    if words > WORDS:
        return f"a text of {words} tokens is longer than {WORDS}"
    return lanes.unsupported_reason(x, weights.to_q.shape[1] // heads) or tpu.unsupported_reason(
        weights
    )
