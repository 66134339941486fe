"""Layers of Wan's autoencoder that look back in time, and what they remember of a video's stream.

A 3-D convolution is written as a 2-D one over its taps in time, stacked along the channels: XLA has
no fast 3-D convolution on GPUs (openxla/xla#34273) or CPUs.

Sizes: ``n`` videos, ``f h w`` frames, rows and columns, ``C`` channels.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.kernels.attention import attention
from syncos_jax.models.layers import AbstractRngs, Conv, DType, Linear, upsample_nearest

Kept = tuple[jax.Array, ...]
"""The last input frames of every layer that looks back, in the order in which they are called."""


class Stream:
    """One piece of a video on its way through the layers: hands each its last frames.

    Args:
        kept: what the piece before left; None for the first piece, which is the first frame alone.
    """

    def __init__(self, kept: Kept | None):
        self.first = kept is None
        self._old: Iterator[jax.Array] = iter(kept or ())
        self._new: list[jax.Array] = []

    def extend(self, x: jax.Array, frames: int) -> jax.Array:
        """``x`` with the last `frames` before it, which are zeros at the start."""
        before = self._zeros(x, frames) if self.first else next(self._old)
        x = jnp.concatenate([before, x], axis=1)
        self._new.append(x[:, -frames:])
        return x

    def begin(self, x: jax.Array, frames: int) -> None:
        """In the first piece: remember the last `frames` of ``x``, with zeros before them."""
        self._new.append(jnp.concatenate([self._zeros(x, frames), x], axis=1)[:, -frames:])

    @property
    def kept(self) -> Kept:
        """For the next piece."""
        return tuple(self._new)

    @staticmethod
    def _zeros(x: jax.Array, frames: int) -> jax.Array:
        return jnp.zeros((x.shape[0], frames, *x.shape[2:]), x.dtype)


class CausalConv(nnx.Module):
    """Convolution ``[n, f, h, w, C] -> [n, f, h, w, O]`` over this frame and those before.

    The kernel's axes are row, column, (tap, channel), output.

    Args:
        channels_in, channels_out: channels.
        taps: in time, the last one on the frame itself.
        size: in space, odd.
        reflect: whether the borders in space are mirrored; False for zeros.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        taps: int = 3,
        size: int = 3,
        *,
        reflect: bool = False,
        dtype: DType,
        rngs: nnx.Rngs,
    ):
        init: Any = nnx.initializers.lecun_normal(in_axis=(0, 1, 2))
        if isinstance(rngs, AbstractRngs):
            init = nnx.initializers.zeros_init()
        shape = (size, size, taps * channels_in, channels_out)
        self.kernel = nnx.Param(init(rngs.params(), shape, dtype))
        self.bias = nnx.Param(jnp.zeros((channels_out,), dtype))
        self.taps, self.size, self.reflect = taps, size, reflect

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        return self.over(stream.extend(x, self.taps - 1) if self.taps > 1 else x)

    def over(self, x: jax.Array, stride: int = 1, space: int = 1) -> jax.Array:
        """Of frames that are all there: ``f -> (f - taps) // stride + 1``; with `space` 2 to half
        the height and width, padded below and on the right."""
        n = x.shape[0]
        out = (x.shape[1] - self.taps) // stride + 1
        last = stride * (out - 1) + 1
        stacked = [x[:, tap : tap + last : stride] for tap in range(self.taps)]
        y = stacked[0] if self.taps == 1 else jnp.concatenate(stacked, axis=-1)
        kernel, bias = self.kernel[...], self.bias[...]
        if self.size == 1:
            return y @ kernel[0, 0] + bias.reshape(1, 1, 1, 1, -1)
        border = (self.size // 2,) * 2 if space == 1 else (0, 1)
        if self.reflect:
            y = jnp.pad(y, ((0, 0), (0, 0), border, border, (0, 0)), mode="reflect")
            border = (0, 0)
        y = jax.lax.conv_general_dilated(
            y.reshape(n * out, *y.shape[2:4], -1),
            kernel,
            (space, space),
            [border] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return (y + bias.reshape(1, 1, 1, -1)).reshape(n, out, *y.shape[1:])


class ChannelNorm(nnx.Module):
    """Each pixel's channels over their root mean square, times a scale."""

    def __init__(self, channels: int, *, dtype: DType):
        self.scale = nnx.Param(jnp.ones((channels,), dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(jnp.float32)
        length = jnp.sqrt(jnp.square(y).sum(axis=-1, keepdims=True))
        y = y / jnp.maximum(length, 1e-12) * x.shape[-1] ** 0.5
        scale = self.scale[...].astype(jnp.float32)
        return (y * scale.reshape((1,) * (x.ndim - 1) + (-1,))).astype(x.dtype)


class ResidualBlock(nnx.Module):
    """Two causal convolutions beside a shortcut."""

    def __init__(self, channels_in: int, channels_out: int, *, dtype: DType, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.norm1 = ChannelNorm(channels_in, dtype=dtype)
        self.conv1 = CausalConv(channels_in, channels_out, **kw)
        self.norm2 = ChannelNorm(channels_out, dtype=dtype)
        self.conv2 = CausalConv(channels_out, channels_out, **kw)
        self.conv_shortcut = nnx.data(
            CausalConv(channels_in, channels_out, 1, 1, **kw)
            if channels_in != channels_out
            else None
        )

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        y = self.conv1(jax.nn.silu(self.norm1(x)), stream)
        y = self.conv2(jax.nn.silu(self.norm2(y)), stream)
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x, stream))


class FrameAttention(nnx.Module):
    """Single-head attention among the pixels of each frame."""

    def __init__(self, channels: int, *, dtype: DType, rngs: nnx.Rngs):
        self.norm = ChannelNorm(channels, dtype=dtype)
        self.to_qkv = Linear(channels, 3 * channels, dtype=dtype, rngs=rngs)
        self.proj = Linear(channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        n, f, h, w, C = x.shape
        y = self.to_qkv(self.norm(x)).reshape(n * f, h * w, 1, 3 * C)
        y = attention(*jnp.split(y, 3, axis=-1))
        return x + self.proj(y.reshape(x.shape))


class Downsample(nnx.Module):
    """Half the height and width, and perhaps half the frames.

    The first frame of a video passes alone; then two become one.
    """

    def __init__(self, channels: int, *, time: bool, dtype: DType, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.conv = Conv(channels, channels, stride=2, padding=((0, 1), (0, 1)), **kw)
        self.time_conv = nnx.data(CausalConv(channels, channels, 3, 1, **kw) if time else None)

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        x = _per_frame(self.conv, x)
        if self.time_conv is None:
            return x
        if stream.first:
            stream.begin(x, 1)
            return x
        return self.time_conv.over(stream.extend(x, 1), stride=2)


class Upsample(nnx.Module):
    """Twice the height and width, and perhaps twice the frames (the first of a video stays one)."""

    def __init__(
        self, channels_in: int, channels_out: int, *, time: bool, dtype: DType, rngs: nnx.Rngs
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.conv = Conv(channels_in, channels_out, **kw)
        self.time_conv = nnx.data(
            CausalConv(channels_in, 2 * channels_in, 3, 1, **kw) if time else None
        )

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        if self.time_conv is not None:
            if stream.first:  # which the convolution never sees, later either
                stream.begin(jnp.zeros_like(x), 2)
            else:
                n, f, h, w, C = x.shape
                y = self.time_conv(x, stream).reshape(n, f, h, w, 2, C)
                x = y.transpose(0, 1, 4, 2, 3, 5).reshape(n, 2 * f, h, w, C)
        return _per_frame(
            lambda y: self.conv(upsample_nearest(y, 2 * y.shape[1], 2 * y.shape[2])), x
        )


def _per_frame(layer: Any, x: jax.Array) -> jax.Array:
    """A layer on images, over the frames of videos."""
    n, f = x.shape[:2]
    y = layer(x.reshape(n * f, *x.shape[2:]))
    return y.reshape(n, f, *y.shape[1:])


def averaged(x: jax.Array, channels: int, factors: Sequence[int]) -> jax.Array:
    """A shortcut around a level that shrinks: pixels to channels, and these averaged to `channels`.

    Args:
        x: ``[n, f, h, w, C]``; where `f` cannot be divided, frames of zeros come before it.
        channels: to have in the end.
        factors: by which time and space shrink.
    """
    time, space = factors
    x = jnp.pad(x, ((0, 0), (-x.shape[1] % time, 0), (0, 0), (0, 0), (0, 0)))
    n, f, h, w, C = x.shape
    x = x.reshape(n, f // time, time, h // space, space, w // space, space, C)
    x = x.transpose(0, 1, 3, 5, 7, 2, 4, 6)
    return x.reshape(*x.shape[:4], channels, -1).mean(axis=-1)


def repeated(x: jax.Array, channels: int, factors: Sequence[int], first: bool) -> jax.Array:
    """A shortcut around a level that grows: channels, repeated as needed, to pixels.

    Args:
        x: ``[n, f, h, w, C]``.
        channels: to have in the end.
        factors: by which time and space grow.
        first: whether this is the first frame of a video, which stays one.
    """
    time, space = factors
    n, f, h, w, C = x.shape
    x = jnp.repeat(x, channels * time * space * space // C, axis=-1)
    x = x.reshape(n, f, h, w, channels, time, space, space).transpose(0, 1, 5, 2, 6, 3, 7, 4)
    x = x.reshape(n, f * time, h * space, w * space, channels)
    return x[:, time - 1 :] if first else x
