"""Layers of LTX-2's autoencoder.

Sizes: ``n`` videos, ``f h w`` frames, rows and columns, ``C`` channels.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.models.layers import LayerNorm, Linear
from syncos_jax.models.ltx.config import Change, strides
from syncos_jax.models.ltx.stream import Piece
from syncos_jax.models.ltx.transformer import normed
from syncos_jax.models.wan.causal import CausalConv

_EPS = 1e-8


class Conv(nnx.Module):
    """3 x 3 x 3 convolution ``[n, f, h, w, C] -> [n, f, h, w, O]``; the video's first and last
    frame stand for those outside of it."""

    def __init__(self, channels_in: int, channels_out: int, causal: bool, reflect: bool, **kw: Any):
        self.conv = CausalConv(channels_in, channels_out, reflect=reflect, **kw)
        self.before, self.after = (2, 0) if causal else (1, 1)

    def __call__(self, x: jax.Array, piece: Piece) -> jax.Array:
        return self.conv.over(piece.surrounded(x, self.before, self.after))

    def moved(self, start: Any, length: Any) -> tuple[Any, Any]:
        return start - self.after, length


class ResidualBlock(nnx.Module):
    """Two convolutions behind norms without weights, and a shortcut."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        causal: bool,
        reflect: bool,
        *,
        timed: bool = False,
        eps: float,
        **kw: Any,
    ):
        self.conv1 = Conv(channels_in, channels_out, causal, reflect, **kw)
        self.conv2 = Conv(channels_out, channels_out, causal, reflect, **kw)
        other = channels_in != channels_out
        self.norm3 = nnx.data(LayerNorm(channels_in, eps=eps, dtype=kw["dtype"]) if other else None)
        self.conv_shortcut = nnx.data(Linear(channels_in, channels_out, **kw) if other else None)
        self.scale_shift_table = nnx.data(
            nnx.Param(jnp.zeros((4, channels_in), jnp.float32)) if timed else None
        )

    def __call__(self, x: jax.Array, piece: Piece, time: jax.Array | None = None) -> jax.Array:
        """`time`: ``[n, 4, C]`` for a block that is conditioned on it."""
        changes: Any = [None] * 4
        if self.scale_shift_table is not None:
            assert time is not None
            table = self.scale_shift_table[...][None] + time
            changes = [table[:, i, None, None, None] for i in range(4)]
        y = self.conv1(activated(x, *changes[:2]), piece)
        y = self.conv2(activated(y, *changes[2:]), piece)
        x = piece.delayed(x, self.conv1.after + self.conv2.after)
        if self.norm3 is not None and self.conv_shortcut is not None:
            x = self.conv_shortcut(self.norm3(x))
        return x + y

    def moved(self, start: Any, length: Any) -> tuple[Any, Any]:
        return start - self.conv1.after - self.conv2.after, length


def activated(x: jax.Array, shift: Any = None, scale: Any = None) -> jax.Array:
    """SiLU of the normed ``x``, shifted and scaled."""
    y = normed(x, _EPS)
    if scale is not None:
        y = y * (1.0 + scale) + shift
    return jax.nn.silu(y).astype(x.dtype)


class Downsample(nnx.Module):
    """Convolution, then cells to channels, beside an average of the input's cells."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        change: Change,
        causal: bool,
        reflect: bool,
        **kw: Any,
    ):
        self.factors, self.channels = strides(change), channels_out
        cells = self.factors[0] * self.factors[1] ** 2
        self.conv = Conv(channels_in, channels_out // cells, causal, reflect, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.concatenate([x[:, : self.factors[0] - 1], x], axis=1)
        y = _folded(self.conv(x, Piece()), self.factors)
        shortcut = _folded(x, self.factors)
        return y + shortcut.reshape(*y.shape, -1).mean(axis=-1)


class Upsample(nnx.Module):
    """Convolution, then channels to cells; of a doubled video the first frame is dropped."""

    def __init__(
        self,
        channels: int,
        change: Change,
        divided: int,
        residual: bool,
        causal: bool,
        reflect: bool,
        **kw: Any,
    ):
        self.factors, self.residual = strides(change), residual
        self.cells = self.factors[0] * self.factors[1] ** 2
        self.repeats = self.cells // divided
        self.conv = Conv(channels, channels * self.cells // divided, causal, reflect, **kw)

    def __call__(self, x: jax.Array, piece: Piece) -> jax.Array:
        y = _unfolded(self.conv(x, piece), self.factors)
        if self.residual:
            shortcut = _unfolded(piece.delayed(x, self.conv.after), self.factors)
            y = y + jnp.tile(shortcut, self.repeats)
        return y[:, 1:] if piece.start is None and self.factors[0] == 2 else y

    def moved(self, start: Any, length: Any) -> tuple[Any, Any]:
        start, length = self.conv.moved(start, length)
        return (start, length) if self.factors[0] == 1 else (2 * start - 1, 2 * length - 1)


def _folded(x: jax.Array, factors: Sequence[int]) -> jax.Array:
    """Cells to channels: ``[n, f, h, w, C] -> [n, f/t, h/s, w/s, C t s s]``."""
    (time, space), (n, f, h, w, C) = factors, x.shape
    x = x.reshape(n, f // time, time, h // space, space, w // space, space, C)
    return x.transpose(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, f // time, h // space, w // space, -1)


def _unfolded(x: jax.Array, factors: Sequence[int]) -> jax.Array:
    """The inverse of `_folded`."""
    (time, space), (n, f, h, w) = factors, x.shape[:4]
    x = x.reshape(n, f, h, w, -1, time, space, space).transpose(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(n, f * time, h * space, w * space, -1)


def patched(x: jax.Array, p: int) -> jax.Array:
    """Pixels of each patch to channels (colour, column, row)."""
    n, f, h, w, C = x.shape
    x = x.reshape(n, f, h // p, p, w // p, p, C).transpose(0, 1, 2, 4, 6, 5, 3)
    return x.reshape(n, f, h // p, w // p, -1)


def unpatched(x: jax.Array, p: int) -> jax.Array:
    """The inverse of `patched`."""
    n, f, h, w, C = x.shape
    x = x.reshape(n, f, h, w, C // p**2, p, p).transpose(0, 1, 2, 6, 3, 5, 4)
    return x.reshape(n, f, h * p, w * p, -1)
