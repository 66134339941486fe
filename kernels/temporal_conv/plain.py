"""The UNet's (3, 1, 1) convolution over frames, without a 3-D convolution.

XLA lowers a 3-D convolution badly on CPU and on GPU (jax#31662, openxla/xla#34273), while this one
is only three channel mixings of the same frames, one frame apart.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from syncos_jax.kernels.group_norm import group_norm


class Weights(NamedTuple):
    """Of a norm and a convolution over frames.

    Attributes:
        scale, shift: of the norm, ``[C]``.
        kernel: ``[3, C, O]``; tap 0 sees the frame before, tap 2 the frame after.
        bias: ``[O]``.
    """

    scale: jax.Array
    shift: jax.Array
    kernel: jax.Array
    bias: jax.Array


def norm_conv(x: jax.Array, weights: Weights, groups: int, eps: float) -> jax.Array:
    """Group norm over all frames, SiLU, convolution: ``[B, F, H, W, C] -> [B, F, H, W, O]``."""
    y = group_norm(x, weights.scale, weights.shift, groups, eps)
    with jax.named_scope("temporal_convolution"):
        return temporal_conv(jax.nn.silu(y), weights.kernel, weights.bias)


def temporal_conv(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Convolve over the frame axis with three taps and zero padding.

    On CPUs and TPUs one matrix product over the taps, stacked along the channels; elsewhere a 2-D
    convolution over frames and cells, which need not write the stacked taps. Four with their norms
    at 2 x 16 x 40 x 64 x 320 move, compiled for an H100, 1.4 GB so and 2.3 GB stacked; for a TPU
    v5e 4.5 GB, since the cells are copied into another order, and 1.7 GB stacked.

    Args:
        x: ``[B, F, H, W, C]``.
        kernel: ``[3, C, O]``; tap 0 sees the frame before, tap 2 the frame after.
        bias: ``[O]``.

    Returns:
        ``[B, F, H, W, O]`` in the dtype of ``x``.
    """
    y = jax.lax.platform_dependent(x, kernel, cpu=stacked, tpu=stacked, default=convolved)
    return y + bias.reshape(1, 1, 1, 1, -1)


@jax.jit
def stacked(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """As one matrix product, without the bias."""
    taps, channels, out = kernel.shape
    return neighbours(x) @ kernel.reshape(taps * channels, out)


def neighbours(x: jax.Array) -> jax.Array:
    """Each frame with the one before and the one after, ``[B, F, H, W, C] -> [B, F, H, W, 3 C]``;
    zeros outside of the clip."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    return jnp.concatenate([padded[:, :-2], x, padded[:, 2:]], axis=-1)


@jax.jit
def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """As a 2-D convolution, without the bias."""
    B, F, H, W, C = x.shape
    y = jax.lax.conv_general_dilated(
        x.reshape(B, F, H * W, C),
        kernel[:, None],
        window_strides=(1, 1),
        padding=((1, 1), (0, 0)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(B, F, H, W, -1)
