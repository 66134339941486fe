"""Attention and transformer blocks of the UNet: within a frame, to the text, and over frames."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.kernels.attention import attention
from syncos_jax.kernels.attention_layer import (
    TemporalWeights,
    TextWeights,
    temporal_attention,
    temporal_pallas_tpu,
    temporal_triton,
    text_attention,
)
from syncos_jax.kernels.feed_forward import Weights, feed_forward, gelu
from syncos_jax.models.layers import DType, GroupNorm, LayerNorm, Linear


class Attention(nnx.Module):
    """Multi-head attention: ``x [n, T, C], context [n, S, D] -> [n, T, C]``."""

    def __init__(
        self,
        channels: int,
        heads: int,
        head_size: int,
        *,
        context: int | None = None,
        bias: bool = False,
        dtype: DType,
        rngs: nnx.Rngs,
    ):
        inner = heads * head_size
        context = channels if context is None else context
        self.heads, self.head_size, self.bias = heads, head_size, bias
        self.to_q = Linear(channels, inner, bias=bias, dtype=dtype, rngs=rngs)
        self.to_k = Linear(context, inner, bias=bias, dtype=dtype, rngs=rngs)
        self.to_v = Linear(context, inner, bias=bias, dtype=dtype, rngs=rngs)
        self.to_out = nnx.List([Linear(inner, channels, dtype=dtype, rngs=rngs)])

    def __call__(self, x: jax.Array, context: jax.Array | None = None) -> jax.Array:
        q, k, v = (
            y.reshape(*y.shape[:2], self.heads, self.head_size) for y in self._project(x, context)
        )
        return self.to_out[0](attention(q, k, v).reshape(*x.shape[:2], -1))

    def _project(self, x: jax.Array, context: jax.Array | None) -> Sequence[jax.Array]:
        """Queries, keys and values, each ``[n, T or S, heads * head_size]``."""
        parts = (self.to_q, self.to_k, self.to_v)
        if context is None and not self.bias and all(isinstance(p, nnx.Linear) for p in parts):
            # One product in place of three narrow ones: 4.4 against 6.3 ms (11,264 x 64 x 192).
            kernels = [p.kernel[...] for p in parts]
            return jax.lax.platform_dependent(x, *kernels, cpu=_one_product, default=_three)
        context = x if context is None else context
        return self.to_q(x), self.to_k(context), self.to_v(context)


def _one_product(x: jax.Array, *kernels: jax.Array) -> list[jax.Array]:
    return jnp.split(x @ jnp.concatenate(kernels, axis=1), 3, axis=2)


def _three(x: jax.Array, *kernels: jax.Array) -> list[jax.Array]:
    return [x @ kernel for kernel in kernels]


class GEGLU(nnx.Module):
    """Gated linear unit; the first half is the value, the second the gate (exact GELU)."""

    def __init__(self, channels: int, inner: int, *, dtype: DType, rngs: nnx.Rngs):
        self.proj = Linear(channels, 2 * inner, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        value, gate = jnp.split(self.proj(x), 2, axis=-1)
        return value * gelu(gate)


class FeedForward(nnx.Module):
    """GEGLU to four times the width and back."""

    def __init__(self, channels: int, *, dtype: DType, rngs: nnx.Rngs):
        self.gate = GEGLU(channels, 4 * channels, dtype=dtype, rngs=rngs)
        self.out = Linear(4 * channels, channels, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(self.gate(x))


class TransformerBlock(nnx.Module):
    """Two attentions and a feed-forward, each after a norm and added to its input.

    ``context`` is the text's feature size; without it the second attention attends to itself too,
    as in the temporal transformers of ModelScope and VideoCrafter2.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        head_size: int,
        *,
        context: int | None,
        dtype: DType,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.norm1 = LayerNorm(channels, dtype=dtype)
        self.attn1 = Attention(channels, heads, head_size, **kw)
        self.norm2 = LayerNorm(channels, dtype=dtype)
        self.attn2 = Attention(channels, heads, head_size, context=context, **kw)
        self.norm3 = LayerNorm(channels, dtype=dtype)
        self.ff = FeedForward(channels, **kw)

    def self_attend(self, x: jax.Array) -> jax.Array:
        return x + self.attn1(self.norm1(x))

    def attend(self, x: jax.Array, context: jax.Array | None) -> jax.Array:
        norm, attn = self.norm2, self.attn2
        if context is None or not _dense(attn.to_q, attn.to_out[0]):
            return x + attn(norm(x), context)
        k, v = attn.to_k(context), attn.to_v(context)
        weights = TextWeights(*_arrays(norm, attn.to_q, attn.to_out[0]))
        return text_attention(x, k, v, weights, heads=attn.heads)

    def frame_weights(self) -> list[tuple[TemporalWeights, int]] | None:
        """Weights and heads of both attentions, as the kernel takes them; None where it cannot."""
        found = []
        for norm, attn in ((self.norm1, self.attn1), (self.norm2, self.attn2)):
            layers = (attn.to_q, attn.to_k, attn.to_v, attn.to_out[0])
            if attn.bias or not _dense(*layers):
                return None
            found.append((TemporalWeights(*_arrays(norm, *layers)), attn.heads))
        return found

    def feed_forward(self, x: jax.Array) -> jax.Array:
        layers = (self.ff.gate.proj, self.ff.out)
        with jax.named_scope("feed_forward"):
            if not _dense(*layers):
                return x + self.ff(self.norm3(x))
            return feed_forward(x, Weights(*_arrays(self.norm3, *layers)))


def _dense(*layers: Any) -> bool:
    """Whether they are dense layers as they were made, not quantized ones."""
    return all(isinstance(layer, nnx.Linear) for layer in layers)


def _arrays(norm: LayerNorm, *layers: nnx.Linear) -> list[jax.Array]:
    """Scale, shift, and of each layer kernel and, where it has one, bias."""
    found = [norm.scale[...], norm.bias[...]]
    for layer in layers:
        found.append(layer.kernel[...])
        if layer.bias is not None:
            found.append(layer.bias[...])
    return found


class SpatialTransformer(nnx.Module):
    """Attention among the pixels of each frame, and from every pixel to the text.

    ``x [B, F, H, W, C], text [B, S, D] -> [B, F, H, W, C]``. Group statistics are per frame.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        head_size: int,
        *,
        context: int,
        groups: int,
        dtype: DType,
        rngs: nnx.Rngs,
    ):
        inner = heads * head_size
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.norm = GroupNorm(channels, groups, eps=1e-6, dtype=dtype)
        self.proj_in = Linear(channels, inner, **kw)
        self.transformer_blocks = nnx.List(
            [TransformerBlock(inner, heads, head_size, context=context, **kw)]
        )
        self.proj_out = Linear(inner, channels, **kw)

    def __call__(self, x: jax.Array, text: jax.Array) -> jax.Array:
        B, F, H, W, C = x.shape
        with jax.named_scope("spatial_attention"):
            y = self.proj_in(self.norm(x.reshape(B * F, H * W, C)))
            for block in self.transformer_blocks:
                y = block.self_attend(y)
                # All frames of a clip read the same text: one key-value projection a clip, not a
                # frame.
                with jax.named_scope("cross_attention"):
                    y = block.attend(y.reshape(B, F * H * W, -1), text)
                y = block.feed_forward(y).reshape(B * F, H * W, -1)
            return x + self.proj_out(y).reshape(x.shape)


class TemporalTransformer(nnx.Module):
    """Attention over the frames at each pixel: ``[B, F, H, W, C] -> [B, F, H, W, C]``.

    Group statistics are over all frames of the clip. There is no mask and no position, so any
    number of frames is legal and only the temporal convolutions know their order.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        head_size: int,
        *,
        groups: int,
        dtype: DType,
        rngs: nnx.Rngs,
    ):
        inner = heads * head_size
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.norm = GroupNorm(channels, groups, eps=1e-6, dtype=dtype)
        self.proj_in = Linear(channels, inner, **kw)
        self.transformer_blocks = nnx.List(
            [TransformerBlock(inner, heads, head_size, context=None, **kw)]
        )
        self.proj_out = Linear(inner, channels, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        B, F, H, W, C = x.shape
        with jax.named_scope("temporal_attention"):
            y = self.norm(x).reshape(B, F, H * W, C)
            able = dict.fromkeys(self._in_place_on(y), self._in_place)
            if able:
                y = jax.lax.platform_dependent(y, default=self._by_rows, **able)
            else:
                y = self._by_rows(y)
            return x + y.reshape(x.shape)

    def _in_place_on(self, y: jax.Array) -> list[str]:
        """Platforms with a kernel that can attend over the frames of ``y [B, F, L, C]``."""
        found = [block.frame_weights() for block in self.transformer_blocks]
        if not _dense(self.proj_in) or None in found:
            return []
        shape = jax.ShapeDtypeStruct((*y.shape[:3], self.proj_in.out_features), y.dtype)
        layers = [layer for own in found for layer in own or ()]
        return [
            platform
            for platform, kernel in (("tpu", temporal_pallas_tpu), ("cuda", temporal_triton))
            if all(kernel.unsupported_reason(shape, *layer) is None for layer in layers)
        ]

    def _in_place(self, y: jax.Array) -> jax.Array:
        """``[B, F, L, C]``, where it lies."""
        y = self.proj_in(y)
        for block in self.transformer_blocks:
            for weights, heads in block.frame_weights() or ():
                y = temporal_attention(y, weights, heads=heads)
            y = block.feed_forward(y)
        return self.proj_out(y)

    def _by_rows(self, y: jax.Array) -> jax.Array:
        """The same, frames brought next to one another first."""
        B, F, L, C = y.shape
        y = self.proj_in(y.swapaxes(1, 2).reshape(B * L, F, C))
        for block in self.transformer_blocks:
            y = block.feed_forward(block.attend(block.self_attend(y), None))
        return self.proj_out(y).reshape(B, L, F, C).swapaxes(1, 2)
