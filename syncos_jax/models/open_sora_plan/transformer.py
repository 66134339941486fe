"""Open-Sora Plan v1.3's transformer: most blocks attend to every fourth token (Skiparse, Lin et
al., arXiv 2412.00131).

Names follow the original ``OpenSoraT2V_v1_3``. Time embedding, modulation and the statistics of all
norms are float32 whatever the weights are.

Sizes in comments: ``b`` samples, ``f h w`` latent frames, rows and columns, ``T`` tokens, ``C``
width, ``S`` text tokens, ``N`` heads, ``D`` head size.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.kernels.attention import attention
from syncos_jax.models.arguments import check_denoiser_inputs
from syncos_jax.models.layers import DType, Linear
from syncos_jax.models.ltx.transformer import FeedForward, TextProjection, TimeModulation
from syncos_jax.models.open_sora_plan.config import OpenSoraPlanTransformerConfig
from syncos_jax.models.wan.transformer import modulated_norm

Rotation = tuple[jax.Array, jax.Array]
THETA = 10000.0
_MASKED = -10000.0
_OUT_EPS = 1e-6


def rotation(config: OpenSoraPlanTransformerConfig, f: int, h: int, w: int) -> Rotation:
    """Cosines and sines ``[1, T, 1, 3, D/6]``: a third of the features turns with each axis."""
    third = config.head_size // 3
    exponent = np.arange(0, third, 2, dtype=np.float32) / np.float32(third)
    frequency = np.float32(1.0) / np.power(np.float32(THETA), exponent)
    parts = []
    for axis, (length, scale) in enumerate(zip((f, h, w), config.scales, strict=True)):
        shape = [1, 1, 1, third // 2]
        shape[axis] = length
        position = np.arange(length, dtype=np.float32) / np.float32(scale)
        angle = (position[:, None] * frequency[None]).reshape(shape)
        parts.append(np.broadcast_to(angle, (f, h, w, third // 2)).reshape(1, -1, 1, 1, third // 2))
    angles = np.concatenate(parts, axis=3)
    return jnp.asarray(np.cos(angles)), jnp.asarray(np.sin(angles))


def rotate(x: jax.Array, angle: Rotation) -> jax.Array:
    """Turns the pairs ``(i, i + D/6)`` within each third of ``x [b, T, N, D]``."""
    cos, sin = angle
    y = x.astype(jnp.float32).reshape(*x.shape[:-1], 3, 2, -1)
    first, second = y[..., 0, :], y[..., 1, :]
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-2)
    return turned.reshape(x.shape).astype(x.dtype)


def sparse_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, sparse: int, by_runs: bool
) -> jax.Array:
    """Attention within groups of tokens ``[b, T, N, D]``.

    Args:
        q, k, v: queries, keys and values.
        sparse: number of groups.
        by_runs: groups are made of every so-manieth run of so many neighbours; False: of every
            so-manieth token.
    """
    T, size = q.shape[1], sparse * sparse
    if T % size == 0:
        inner = (T // size, sparse, sparse) if by_runs else (T // sparse, sparse, 1)

        def grouped(x: jax.Array) -> jax.Array:
            b, _, N, D = x.shape
            return x.reshape(b, *inner, N, D).swapaxes(1, 2).reshape(b * sparse, -1, N, D)

        y = attention(grouped(q), grouped(k), grouped(v))
        b, _, N, D = q.shape
        return y.reshape(b, inner[1], inner[0], inner[2], N, D).swapaxes(1, 2).reshape(q.shape)
    # Groups have other lengths: each by itself. (The original pads them, and masks the padding.)
    index = np.arange(T)
    group = index // sparse % sparse if by_runs else index % sparse
    out = jnp.zeros_like(q)
    for number in range(sparse):
        own = np.flatnonzero(group == number)
        if len(own):
            out = out.at[:, own].set(attention(q[:, own], k[:, own], v[:, own]))
    return out


def masked_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """Attention to the keys where ``mask [b, S]`` is on, by a kernel that knows no mask: one more
    feature of queries and keys adds -10000 to the scores of the others."""
    size = q.shape[-1]
    wide = -(-(size + 1) // 8) * 8
    spare = ((0, 0),) * 3 + ((0, wide - size),)
    bias = jnp.where(mask.astype(bool), 0.0, _MASKED)[:, :, None].astype(k.dtype)
    scaled = (q.astype(jnp.float32) * math.sqrt(wide / size)).astype(q.dtype)
    scaled = jnp.pad(scaled, spare).at[..., size].set(math.sqrt(wide))
    keys = jnp.pad(k, spare).at[..., size].set(jnp.broadcast_to(bias, k.shape[:-1]))
    return attention(scaled, keys, jnp.pad(v, spare))[..., :size]


class Attention(nnx.Module):
    """Multi-head attention ``x [b, T, C], context [b, S, C] -> [b, T, C]``."""

    def __init__(
        self, config: OpenSoraPlanTransformerConfig, sparse: int, by_runs: bool, **kw: Any
    ):
        width = config.width
        self.heads, self.sparse, self.by_runs = config.heads, sparse, by_runs
        self.to_q = Linear(width, width, **kw)
        self.to_k = Linear(width, width, **kw)
        self.to_v = Linear(width, width, **kw)
        self.to_out = nnx.List([Linear(width, width, **kw)])

    def __call__(
        self,
        x: jax.Array,
        angle: Rotation | None = None,
        context: jax.Array | None = None,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        source = x if context is None else context
        q, k, v = self.to_q(x), self.to_k(source), self.to_v(source)
        q, k, v = (y.reshape(*y.shape[:2], self.heads, -1) for y in (q, k, v))
        if mask is not None:
            y = masked_attention(q, k, v, mask)
        else:
            if angle is not None:
                q, k = rotate(q, angle), rotate(k, angle)
            one = self.sparse == 1
            y = attention(q, k, v) if one else sparse_attention(q, k, v, self.sparse, self.by_runs)
        return self.to_out[0](y.reshape(*x.shape[:2], -1))


class Block(nnx.Module):
    """Self-attention and feed-forward, shifted, scaled and gated by the time; text in between."""

    def __init__(self, config: OpenSoraPlanTransformerConfig, index: int, **kw: Any):
        sparse = config.sparse if config.sparse_from <= index < config.sparse_to else 1
        self.eps = config.eps
        self.attn1 = Attention(config, sparse, index % 2 == 1, **kw)
        self.attn2 = Attention(config, 1, False, **kw)
        self.ff = FeedForward(config.width, **kw)
        self.scale_shift_table = nnx.Param(jnp.zeros((6, config.width), jnp.float32))

    def __call__(
        self, x: jax.Array, text: jax.Array, mask: jax.Array, time: jax.Array, angle: Rotation
    ) -> jax.Array:
        """``x [b, T, C], text [b, S, C], mask [b, S], time [b, 1 or T, 6, C] -> [b, T, C]``."""
        table = self.scale_shift_table[...][None, None] + time
        shift, scale, gate, ff_shift, ff_scale, ff_gate = jnp.moveaxis(table, 2, 0)
        with jax.named_scope("self_attention"):
            y = self.attn1(modulated_norm(x, shift, scale, self.eps), angle)
            x = (x.astype(jnp.float32) + y.astype(jnp.float32) * gate).astype(x.dtype)
        with jax.named_scope("cross_attention"):  # of the stream itself, which no norm is before
            x = x + self.attn2(x, context=text, mask=mask)
        with jax.named_scope("feed_forward"):
            y = self.ff(modulated_norm(x, ff_shift, ff_scale, self.eps))
            return (x.astype(jnp.float32) + y.astype(jnp.float32) * ff_gate).astype(x.dtype)


class OpenSoraPlanTransformer(nnx.Module):
    """The denoiser of Open-Sora Plan v1.3: predicts ``v``.

    Args:
        config: sizes.
        dtype: of weights and computation.
    """

    def __init__(
        self,
        config: OpenSoraPlanTransformerConfig,
        *,
        dtype: DType = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.config, self.dtype = config, jnp.dtype(dtype)
        kw: dict[str, Any] = {"dtype": self.dtype, "rngs": rngs}
        cells = config.patch**2
        self.pos_embed = Linear(cells * config.in_channels, config.width, **kw)
        self.caption_projection = TextProjection(config.text_features, config.width, **kw)
        self.adaln_single = TimeModulation(config.time_features, config.width, 6, **kw)
        self.blocks = nnx.List([Block(config, i, **kw) for i in range(config.layers)])
        self.scale_shift_table = nnx.Param(jnp.zeros((2, config.width), jnp.float32))
        self.proj_out = Linear(config.width, cells * config.out_channels, **kw)

    def __call__(
        self, x: jax.Array, t: jax.Array, text: jax.Array, mask: jax.Array | None = None
    ) -> jax.Array:
        """Predicts ``v``.

        Args:
            x: noisy latents ``[b, f, h, w, C]``.
            t: timesteps (0 .. 999) ``[b]``, or of each latent frame ``[b, f]``.
            text: the prompts' features ``[b, S, D]``.
            mask: ``[b, S]``, 0 where a text token is padding; None for no padding.

        Returns:
            ``[b, f, h, w, C]`` float32.

        Raises:
            InputError: the latents' size cannot be divided into patches.
        """
        config = self.config
        check_denoiser_inputs(
            x, t, text, channels=config.in_channels, features=config.text_features
        )
        (b, f, h, w, _), p = x.shape, config.patch
        if h % p or w % p:
            raise InputError(f"latents of {h} x {w} cells cannot be divided into patches of {p}")
        rows, columns = h // p, w // p
        per_frame = (t if t.ndim == 2 else t[:, None]).astype(jnp.float32)
        embedded, time = self.adaln_single(per_frame)
        if per_frame.shape[1] > 1:
            embedded, time = (jnp.repeat(y, rows * columns, axis=1) for y in (embedded, time))
        words = self.caption_projection(text.astype(self.dtype))
        if mask is None:
            mask = jnp.ones(text.shape[:2], bool)
        angle = rotation(config, f, rows, columns)
        y = x.astype(self.dtype).reshape(b, f, rows, p, columns, p, -1)
        y = y.transpose(0, 1, 2, 4, 3, 5, 6).reshape(b, f * rows * columns, -1)
        y = self.pos_embed(y)
        for block in self.blocks:
            y = block(y, words, mask, time, angle)
        table = self.scale_shift_table[...][None, None] + embedded[:, :, None]
        y = self.proj_out(modulated_norm(y, table[:, :, 0], table[:, :, 1], _OUT_EPS))
        y = y.reshape(b, f, rows, columns, p, p, -1).transpose(0, 1, 2, 4, 3, 5, 6)
        return y.reshape(b, f, h, w, -1).astype(jnp.float32)
