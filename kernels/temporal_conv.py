"""The UNet's (3, 1, 1) convolution over frames, written as matrix products.

XLA lowers a 3-D convolution badly on CPU and on GPU (jax#31662, openxla/xla#34273), while this one
is only three channel mixings of the same frames, one frame apart.
"""

import jax
import jax.numpy as jnp


def temporal_conv(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Convolve over the frame axis with three taps and zero padding.

    Args:
        x: ``[B, F, H, W, C]``.
        kernel: ``[3, C, O]``; tap 0 sees the frame before, tap 2 the frame after.
        bias: ``[O]``.

    Returns:
        ``[B, F, H, W, O]`` in the dtype of ``x``.
    """
    padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
    neighbours = jnp.concatenate([padded[:, :-2], x, padded[:, 2:]], axis=-1)
    taps, channels, out = kernel.shape
    y = neighbours @ kernel.reshape(taps * channels, out)
    return y + bias.reshape(1, 1, 1, 1, -1)
