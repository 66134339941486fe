"""Layers that all networks share. Arrays are channels-last; norms keep their statistics in float32.

Sizes in comments and signatures: ``B`` clips, ``F`` frames, ``H W`` height and width, ``C``
channels, ``E`` time embedding, ``S`` text tokens, ``D`` text features.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.kernels.group_norm import group_norm
from syncos_jax.kernels.layer_norm import layer_norm
from syncos_jax.kernels.temporal_conv import temporal_conv

DType = jnp.dtype | type | str


class AbstractRngs:
    """Stands for ``nnx.Rngs`` where only shapes are wanted (``nnx.eval_shape``).

    The counters of real ones take time with the square of the layers: 5 s for a UNet of 7 million
    parameters, with one key for all of them 0.5 s. And nothing is drawn, since tracing an
    initialiser for every layer is half of what is left.
    """

    def __init__(self) -> None:
        self._key = jax.random.key(0)

    def params(self) -> jax.Array:
        """The same key for every layer."""
        return self._key


def _kernel_init(rngs: nnx.Rngs | AbstractRngs, **axes: int | tuple[int, ...]) -> Any:
    if isinstance(rngs, AbstractRngs):
        return nnx.initializers.zeros_init()
    return nnx.initializers.lecun_normal(**axes)


def Linear(
    features_in: int, features_out: int, *, bias: bool = True, dtype: DType, rngs: nnx.Rngs
) -> nnx.Linear:
    """Dense layer over the last axis, computing and keeping its weights in ``dtype``."""
    return nnx.Linear(
        features_in,
        features_out,
        use_bias=bias,
        kernel_init=_kernel_init(rngs),
        dtype=dtype,
        param_dtype=dtype,
        rngs=rngs,
    )


def Conv(
    channels_in: int,
    channels_out: int,
    size: int = 3,
    *,
    stride: int = 1,
    padding: Sequence[tuple[int, int]] | None = None,
    dtype: DType,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Square 2-D convolution; symmetric padding (``size // 2``) unless given, as in PyTorch.

    JAX's "SAME" pads a strided convolution on one side only, which no checkpoint here means.
    """
    if padding is None:
        padding = ((size // 2, size // 2),) * 2
    return nnx.Conv(
        channels_in,
        channels_out,
        (size, size),
        strides=(stride, stride),
        padding=padding,
        kernel_init=_kernel_init(rngs),
        dtype=dtype,
        param_dtype=dtype,
        rngs=rngs,
    )


class TemporalConv(nnx.Module):
    """(3, 1, 1) convolution over frames: ``[B, F, H, W, C] -> [B, F, H, W, O]``."""

    def __init__(self, channels_in: int, channels_out: int, *, dtype: DType, rngs: nnx.Rngs):
        init = _kernel_init(rngs, in_axis=(0, 1))
        self.kernel = nnx.Param(init(rngs.params(), (3, channels_in, channels_out), dtype))
        self.bias = nnx.Param(jnp.zeros((channels_out,), dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        with jax.named_scope("temporal_convolution"):
            return temporal_conv(x, self.kernel[...], self.bias[...])


class GroupNorm(nnx.Module):
    """Group normalisation over all axes but the first: ``[B, ..., C]``.

    A 5-D input shares its statistics over frames; flatten ``B`` and ``F`` for statistics per frame.
    """

    def __init__(self, channels: int, groups: int, *, eps: float, dtype: DType):
        self.scale = nnx.Param(jnp.ones((channels,), dtype))
        self.bias = nnx.Param(jnp.zeros((channels,), dtype))
        self.groups, self.eps = groups, eps

    def __call__(self, x: jax.Array) -> jax.Array:
        return group_norm(x, self.scale[...], self.bias[...], self.groups, self.eps)


class LayerNorm(nnx.Module):
    """Normalisation of the last axis. PyTorch's epsilon (1e-5), not Flax's (1e-6)."""

    def __init__(self, channels: int, *, eps: float = 1e-5, dtype: DType):
        self.scale = nnx.Param(jnp.ones((channels,), dtype))
        self.bias = nnx.Param(jnp.zeros((channels,), dtype))
        self.eps = eps

    def __call__(self, x: jax.Array) -> jax.Array:
        return layer_norm(x, self.scale[...], self.bias[...], self.eps)


def timestep_features(t: jax.Array, channels: int) -> jax.Array:
    """Sinusoidal features ``[..., channels]`` of ``t`` ``[...]``, ordered cos then sin, float32.

    Frequencies are ``exp(-ln(10000) i / half)`` for ``i = 0 … half - 1``.
    """
    half = channels // 2
    frequencies = jnp.exp(jnp.arange(half, dtype=jnp.float32) * (-math.log(10000.0) / half))
    angles = t.astype(jnp.float32)[..., None] * frequencies.reshape((1,) * t.ndim + (half,))
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimestepEmbedding(nnx.Module):
    """Two-layer MLP on sinusoidal features: ``[..., C] -> [..., E]``."""

    def __init__(self, channels: int, features: int, *, dtype: DType, rngs: nnx.Rngs):
        self.linear_1 = Linear(channels, features, dtype=dtype, rngs=rngs)
        self.linear_2 = Linear(features, features, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.linear_2(jax.nn.silu(self.linear_1(x)))


def upsample_nearest(x: jax.Array, height: int, width: int) -> jax.Array:
    """Repeat each pixel of ``[n, h, w, C]`` twice, cut to ``[n, height, width, C]``.

    The cut serves sizes that were odd before they were halved.
    """
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, :height, :width]
