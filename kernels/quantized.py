"""Products and convolutions of 8-bit integers, in place of ones in floating point.

Weights are integers with one scale for each output channel. What they meet is made integers on the
way, with one scale for each row of a product (a token, a cell) and for each image of a convolution:
the largest magnitude becomes 127. Sums are 32-bit integers, so that nothing else is rounded.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

LARGEST = 127


def quantize(x: jax.Array, axes: Sequence[int] | int) -> tuple[jax.Array, jax.Array]:
    """The nearest 8-bit integers and their scale: ``x`` is about ``values * scale``.

    Args:
        x: any floating dtype.
        axes: that share a scale.

    Returns:
        int8, and float32 with those axes of length 1; 1 where all of `x` is 0.
    """
    y = x.astype(jnp.float32)
    most = jnp.max(jnp.abs(y), axis=axes, keepdims=True)
    scale = jnp.where(most > 0, most / LARGEST, 1.0)
    values = jnp.clip(jnp.round(y / scale), -LARGEST, LARGEST)
    return values.astype(jnp.int8), scale


def quantized_product(x: jax.Array, kernel: jax.Array, scale: jax.Array) -> jax.Array:
    """About ``x @ (kernel * scale)``.

    Args:
        x: ``[..., C]``.
        kernel: int8 ``[C, O]``.
        scale: float32 ``[O]``.

    Returns:
        ``[..., O]`` in the dtype of `x`.
    """
    values, of_rows = quantize(x, -1)
    dimensions = (((x.ndim - 1,), (0,)), ((), ()))
    sums = jax.lax.platform_dependent(
        values,
        kernel,
        cpu=lambda a, b: jax.lax.dot_general(*_floats(a, b), dimensions),
        default=lambda a, b: jax.lax.dot_general(
            a, b, dimensions, preferred_element_type=jnp.int32
        ).astype(jnp.float32),
    )
    return (sums * of_rows * _last(scale, x)).astype(x.dtype)


def quantized_conv(
    x: jax.Array,
    kernel: jax.Array,
    scale: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]] | str,
) -> jax.Array:
    """About the 2-D convolution of `x` with ``kernel * scale``.

    Args:
        x: ``[n, H, W, C]``.
        kernel: int8 ``[h, w, C, O]``.
        scale: float32 ``[O]``.
        strides, padding: as ``jax.lax.conv_general_dilated`` takes them.

    Returns:
        ``[n, H', W', O]`` in the dtype of `x`.
    """
    values, of_images = quantize(x, (1, 2, 3))
    convolve = partial(
        jax.lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    sums = jax.lax.platform_dependent(
        values,
        kernel,
        cpu=lambda a, b: convolve(*_floats(a, b)),
        default=lambda a, b: convolve(a, b, preferred_element_type=jnp.int32).astype(jnp.float32),
    )
    return (sums * of_images * _last(scale, x)).astype(x.dtype)


def _last(values: jax.Array, x: jax.Array) -> jax.Array:
    """As the last axis of an array like `x`."""
    return values.reshape((1,) * (x.ndim - 1) + (-1,))


def _floats(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A CPU multiplies these many times faster; the sums are exact up to 2^24."""
    return a.astype(jnp.float32), b.astype(jnp.float32)
