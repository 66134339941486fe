"""The reference; what runs everywhere but on TPUs. The gated linear unit is Shazeer's (arXiv
2002.05202)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from syncos_jax.kernels.choice import Kernel, compute, with_gradient
from syncos_jax.kernels.feed_forward import gated
from syncos_jax.kernels.layer_norm import layer_norm


class Weights(NamedTuple):
    """Of a feed-forward.

    Attributes:
        scale, shift: of the norm, ``[C]``.
        kernel_in: ``[C, 2 I]``; its first half makes the value, the second the gate.
        bias_in: ``[2 I]``.
        kernel_out: ``[I, C]``.
        bias_out: ``[C]``.
    """

    scale: jax.Array
    shift: jax.Array
    kernel_in: jax.Array
    bias_in: jax.Array
    kernel_out: jax.Array
    bias_out: jax.Array


def add(x: jax.Array, weights: Weights) -> jax.Array:
    """``x + geglu(norm(x)) @ kernel_out + bias_out``, ``[..., C] -> [..., C]``."""
    y = layer_norm(x, weights.scale, weights.shift)
    y = geglu(y, weights.kernel_in, weights.bias_in) @ weights.kernel_out
    return x + (y + weights.bias_out.reshape((1,) * (x.ndim - 1) + (-1,)))


def geglu(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, *, implementation: str | None = None
) -> jax.Array:
    """``value * gelu(gate)`` with ``value, gate = split(x @ kernel + bias)``, exact GELU.

    Args:
        x: ``[..., C]``.
        kernel: ``[C, 2 I]``; its first half makes the value, the second the gate.
        bias: ``[2 I]``.
        implementation: "plain" or "triton" (NVIDIA); None for that of the platform that the program
            is lowered for, where it can compute these shapes, else "plain".

    Returns:
        ``[..., I]`` in the dtype of ``x``.

    Raises:
        InputError: the one named is unknown or cannot compute these shapes.
        NotImplementedError: the program is lowered for a platform that it does not run on.
    """
    kernels = {"triton": Kernel("cuda", _triton, gated.unsupported_reason(x, kernel))}
    return compute("gated unit", by_products, kernels, implementation, x, kernel, bias)


def by_products(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """The reference."""
    value, gate = jax.lax.platform_dependent(
        x, kernel, bias, cpu=two_products, tpu=two_products, default=one_product
    )
    return value * gelu(gate)


_triton = with_gradient(gated.geglu, by_products)


def two_products(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One for each half: fewer strides on a CPU, 15.5 against 17.5 ms (11,264 x 64 x 512); on a TPU
    fused with what follows, where halves of one product are written and read again (0.4 against
    0.9 GB for 81,920 x 320 x 2,560, compiled for v5e)."""
    inner, rank = kernel.shape[1] // 2, (1,) * (x.ndim - 1)
    value = x @ kernel[:, :inner] + bias[:inner].reshape(*rank, -1)
    gate = x @ kernel[:, inner:] + bias[inner:].reshape(*rank, -1)
    return value, gate


def one_product(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both halves at once."""
    y = x @ kernel + bias.reshape(*(1,) * (x.ndim - 1), -1)
    value, gate = jnp.split(y, 2, axis=-1)
    return value, gate


def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU, ``x / 2 (1 + erf(x / sqrt 2))``, computed in float32 whatever the dtype.

    jax.nn.gelu has erfc in its place, which is slower: 18 % of the whole unit on a CPU. What is
    lost are digits of values that are next to nothing (below 1e-6).
    """
    y = x.astype(jnp.float32)
    return (0.5 * y * (1.0 + jax.lax.erf(y * math.sqrt(0.5)))).astype(x.dtype)
