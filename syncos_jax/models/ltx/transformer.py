"""LTX-2's transformer, video stream only: tokens attend to one another, then to the text.

Names follow diffusers' ``LTX2VideoTransformer3DModel``; this is what it computes for the video with
``isolate_modalities=True``. Time embedding, modulation and the statistics of all norms are float32
whatever the weights are.

Sizes in comments: ``b`` samples, ``f h w`` latent frames, rows and columns, ``T`` tokens (one per
latent cell), ``C`` width, ``S`` text tokens, ``N`` heads, ``D`` head size.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.kernels.attention import attention
from syncos_jax.models.layers import DType, Linear, TimestepEmbedding
from syncos_jax.models.ltx.config import LTXTransformerConfig
from syncos_jax.models.ltx.positions import Rotation, rotate, video_rotation
from syncos_jax.models.t5 import RMSNorm

DEFAULT_FPS = 24.0
_ATTENTION_EPS = _OUT_EPS = 1e-6
"""Of the norms that a checkpoint does not configure."""


def timestep_features(t: jax.Array, channels: int) -> jax.Array:
    """Sinusoidal features ``[..., channels]`` of ``t`` ``[...]``, ordered cos then sin, float32.

    The frequencies are computed on the host, rounded as in training: at ``t = 1000`` the last place
    of one is 3e-5.
    """
    half = channels // 2
    exponent = np.float32(-math.log(10000.0)) * np.arange(half, dtype=np.float32)
    exponent = exponent / np.float32(half)
    frequencies = np.exp(exponent.astype(np.float64)).astype(np.float32)
    angles = t.astype(jnp.float32)[..., None] * frequencies.reshape((1,) * t.ndim + (half,))
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def normed(x: jax.Array, eps: float) -> jax.Array:
    """``x / rms(x)`` over the last axis, without weights; float32."""
    y = x.astype(jnp.float32)
    return y * jax.lax.rsqrt(jnp.square(y).mean(axis=-1, keepdims=True) + eps)


class Attention(nnx.Module):
    """Multi-head attention ``x [b, T, C], context [b, S, C'] -> [b, T, C]``.

    Queries and keys are normed across all heads, then rotated; where it is gated, each head's
    output is scaled by ``2 sigmoid`` of a linear map of `x`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        context: int | None = None,
        gated: bool,
        bias: bool = True,
        out_bias: bool = True,
        split: bool,
        dtype: DType,
        rngs: nnx.Rngs,
    ):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.heads, self.split = heads, split
        self.to_q = Linear(width, width, bias=bias, **kw)
        self.to_k = Linear(context or width, width, bias=bias, **kw)
        self.to_v = Linear(context or width, width, bias=bias, **kw)
        self.to_out = nnx.List([Linear(width, width, bias=out_bias, **kw)])
        self.norm_q = RMSNorm(width, eps=_ATTENTION_EPS, dtype=dtype)
        self.norm_k = RMSNorm(width, eps=_ATTENTION_EPS, dtype=dtype)
        self.to_gate_logits = nnx.data(Linear(width, heads, **kw) if gated else None)

    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        angle: Rotation | None = None,
        perturbed: jax.Array | None = None,
    ) -> jax.Array:
        """`perturbed` ``[b]`` bool: samples in which every token keeps its own value."""
        context = x if context is None else context
        q, k, v = self.norm_q(self.to_q(x)), self.norm_k(self.to_k(context)), self.to_v(context)
        q, k, v = (y.reshape(*y.shape[:2], self.heads, -1) for y in (q, k, v))
        if angle is not None:
            q, k = rotate(q, angle, self.split), rotate(k, angle, self.split)
        y = attention(q, k, v)
        if perturbed is not None:
            y = jnp.where(perturbed[:, None, None, None], v, y)
        if self.to_gate_logits is not None:
            gates = 2.0 * jax.nn.sigmoid(self.to_gate_logits(x).astype(jnp.float32))
            y = (y.astype(jnp.float32) * gates[..., None]).astype(x.dtype)
        return self.to_out[0](y.reshape(*x.shape[:2], -1))


class FeedForward(nnx.Module):
    """GELU (tanh form) between two dense layers, four times as wide."""

    def __init__(self, width: int, *, bias: bool = True, dtype: DType, rngs: nnx.Rngs):
        self.proj = Linear(width, 4 * width, bias=bias, dtype=dtype, rngs=rngs)
        self.out = Linear(4 * width, width, bias=bias, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(jax.nn.gelu(self.proj(x), approximate=True))


class TimeModulation(nnx.Module):
    """A timestep's embedding, and `count` vectors of the width from it."""

    def __init__(self, features: int, width: int, count: int, *, dtype: DType, rngs: nnx.Rngs):
        self.features, self.count = features, count
        self.embedder = TimestepEmbedding(features, width, dtype=jnp.float32, rngs=rngs)
        self.linear = Linear(width, count * width, dtype=dtype, rngs=rngs)

    def __call__(self, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """``t [b, n] -> [b, n, C]`` and ``[b, n, count, C]``, float32."""
        embedded = self.embedder(timestep_features(t, self.features))
        y = jax.nn.silu(embedded)
        if isinstance(self.linear, nnx.Linear):
            kernel, bias = self.linear.kernel[...], self.linear.bias
            assert bias is not None
            y = y @ kernel.astype(jnp.float32) + bias[...].astype(jnp.float32)[None, None]
        else:  # quantized
            y = self.linear(y).astype(jnp.float32)
        return embedded, y.reshape(*t.shape, self.count, -1)


class Block(nnx.Module):
    """Self-attention, attention to the text, feed-forward."""

    def __init__(self, config: LTXTransformerConfig, *, dtype: DType, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        width, self.eps, self.text_modulated = config.width, config.eps, config.text_modulated
        each: dict[str, Any] = {
            "gated": config.gated,
            "bias": config.bias,
            "out_bias": config.out_bias,
            "split": config.rotary.split,
            **kw,
        }
        self.attn1 = Attention(width, config.heads, **each)
        self.attn2 = Attention(width, config.heads, context=config.text_features, **each)
        self.ff = FeedForward(width, bias=config.inner_bias, **kw)
        self.scale_shift_table = nnx.Param(jnp.zeros((config.modulations, width), jnp.float32))
        if config.text_modulated:
            shape = (2, config.text_features)
            self.prompt_scale_shift_table = nnx.Param(jnp.zeros(shape, jnp.float32))

    def __call__(
        self,
        x: jax.Array,
        text: jax.Array,
        time: jax.Array,
        text_time: jax.Array | None,
        angle: Rotation,
        perturbed: jax.Array | None,
    ) -> jax.Array:
        """One block.

        Args:
            x: tokens ``[b, T, C]``.
            text: ``[b, S, C]``.
            time: modulation ``[b, 1 or T, 6 or 9, C]``, float32.
            text_time: the text's modulation ``[b, 1, 2, C]``, float32, or None.
            angle: of the tokens.
            perturbed: see `Attention`; None where no sample is.
        """
        table = self.scale_shift_table[...][None, None] + time
        (shift, scale, gate), (ff_shift, ff_scale, ff_gate), *rest = (
            jnp.moveaxis(table[:, :, i : i + 3], 2, 0) for i in range(0, table.shape[2], 3)
        )
        with jax.named_scope("self_attention"):
            y = normed(x, self.eps) * (1.0 + scale) + shift
            x = _added(x, self.attn1(y.astype(x.dtype), None, angle, perturbed), gate)
        with jax.named_scope("cross_attention"):
            y, gate = normed(x, self.eps), None
            if self.text_modulated:
                shift, scale, gate = rest[0]
                y = y * (1.0 + scale) + shift
                of_text = self.prompt_scale_shift_table[...][None, None]
                of_text = of_text if text_time is None else of_text + text_time
                words = text.astype(jnp.float32) * (1.0 + of_text[:, :, 1]) + of_text[:, :, 0]
                text = words.astype(x.dtype)
            x = _added(x, self.attn2(y.astype(x.dtype), text), gate)
        with jax.named_scope("feed_forward"):
            y = normed(x, self.eps) * (1.0 + ff_scale) + ff_shift
            return _added(x, self.ff(y.astype(x.dtype)), ff_gate)


def _added(x: jax.Array, y: jax.Array, gate: jax.Array | None) -> jax.Array:
    """``x + gate y``, summed in float32."""
    update = y.astype(jnp.float32)
    update = update if gate is None else update * gate
    return (x.astype(jnp.float32) + update).astype(x.dtype)


class TextProjection(nnx.Module):
    """The text's features to the transformer's width (LTX-2.0)."""

    def __init__(self, features: int, width: int, *, dtype: DType, rngs: nnx.Rngs):
        self.linear_1 = Linear(features, width, dtype=dtype, rngs=rngs)
        self.linear_2 = Linear(width, width, dtype=dtype, rngs=rngs)

    def __call__(self, text: jax.Array) -> jax.Array:
        return self.linear_2(jax.nn.gelu(self.linear_1(text), approximate=True))


class LTXTransformer(nnx.Module):
    """The denoiser of LTX-2, video stream only: predicts the flow ``eps - x0``.

    Args:
        config: sizes.
        dtype: of weights and computation.
    """

    def __init__(self, config: LTXTransformerConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, jnp.dtype(dtype)
        kw: dict[str, Any] = {"dtype": self.dtype, "rngs": rngs}
        self.proj_in = Linear(config.in_channels, config.width, **kw)
        self.caption_projection = nnx.data(
            None
            if config.text_projection is None
            else TextProjection(config.text_projection, config.width, **kw)
        )
        of_time = config.time_features, config.width
        self.time_embed = TimeModulation(*of_time, config.modulations, **kw)
        self.prompt_adaln = nnx.data(
            TimeModulation(*of_time, 2, **kw)
            if config.text_modulated and config.text_by_time
            else None
        )
        self.blocks = nnx.List([Block(config, **kw) for _ in range(config.layers)])
        self.scale_shift_table = nnx.Param(jnp.zeros((2, config.width), jnp.float32))
        self.proj_out = Linear(config.width, config.out_channels, **kw)

    def __call__(
        self,
        x: jax.Array,
        t: jax.Array,
        text: jax.Array,
        fps: jax.Array | float = DEFAULT_FPS,
        perturbed: jax.Array | None = None,
        perturbed_blocks: tuple[int, ...] = (),
    ) -> jax.Array:
        """Predicts the flow.

        Args:
            x: noisy latents ``[b, f, h, w, C]``.
            t: timesteps (1000 at pure noise) ``[b]``, or of each latent frame ``[b, f]``; the text
                is modulated by the highest one.
            text: the prompts' features ``[b, S, D]``, none of them padding.
            fps: frames per second of the video, a scalar.
            perturbed: samples ``[b]``, bool, whose tokens do not attend to one another in
                `perturbed_blocks` (spatio-temporal guidance, arXiv 2411.18664).
            perturbed_blocks: indices of blocks.

        Returns:
            ``[b, f, h, w, C]`` float32.
        """
        b, f, h, w, _ = x.shape
        per_frame = (t if t.ndim == 2 else t[:, None]).astype(jnp.float32)
        embedded, time = self.time_embed(per_frame)
        if per_frame.shape[1] > 1:
            embedded, time = (jnp.repeat(y, h * w, axis=1) for y in (embedded, time))
        text_time = None
        if self.prompt_adaln is not None:
            text_time = self.prompt_adaln(per_frame.max(axis=1, keepdims=True))[1]
        text = text.astype(self.dtype)
        if self.caption_projection is not None:
            text = self.caption_projection(text)
        angle = video_rotation(self.config, (f, h, w), jnp.asarray(fps, jnp.float32))
        y = self.proj_in(x.astype(self.dtype).reshape(b, f * h * w, -1))
        for index, block in enumerate(self.blocks):
            mask = perturbed if index in perturbed_blocks else None
            y = block(y, text, time, text_time, angle, mask)
        table = self.scale_shift_table[...][None, None] + embedded[:, :, None]
        y = y.astype(jnp.float32)
        y = y - y.mean(axis=-1, keepdims=True)
        y = normed(y, _OUT_EPS) * (1.0 + table[:, :, 1]) + table[:, :, 0]
        y = self.proj_out(y.astype(self.dtype))
        return y.reshape(b, f, h, w, -1).astype(jnp.float32)
