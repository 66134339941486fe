"""CogVideoX's transformer: text and video are one sequence whose tokens all attend to one another.

Names follow diffusers' ``CogVideoXTransformer3DModel``.

Sizes in comments: ``b`` clips, ``f h w`` latent frames, rows and columns, ``T`` tokens, ``C``
width, ``S`` text tokens, ``N`` heads, ``D`` head size, ``E`` time embedding, ``n`` times a clip: 1,
or one for each token's frame.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.kernels.attention import attention
from syncos_jax.kernels.head_norm import Turn, head_norm
from syncos_jax.kernels.modulated_norm import modulated_norm, over_tokens
from syncos_jax.models.arguments import check_denoiser_inputs
from syncos_jax.models.blocks import call_block
from syncos_jax.models.cogvideox.config import CogVideoXTransformerConfig
from syncos_jax.models.cogvideox.positions import (
    Grid,
    rotation,
    sincos_positions,
)
from syncos_jax.models.layers import DType, LayerNorm, Linear, TimestepEmbedding
from syncos_jax.models.rotary import turn

OFFSET = 2.0
"""What CogVideoX 1.5's image-to-video is given as its offset."""


class Norm(nnx.Module):
    """Layer norm of the last axis, with weights or without, which may be scaled and shifted."""

    def __init__(self, config: CogVideoXTransformerConfig, *, dtype: DType):
        self.norm = nnx.data(
            LayerNorm(config.width, eps=config.eps, dtype=dtype) if config.norm_weights else None
        )
        self.eps = config.eps

    def __call__(
        self,
        x: jax.Array,
        scale: jax.Array | None = None,
        shift: jax.Array | None = None,
        first: int = 0,
    ) -> jax.Array:
        """``norm(x) (1 + scale) + shift``; `scale`, `shift` and `first` as for `modulated_norm`."""
        if scale is None or shift is None:
            scale = shift = jnp.zeros((x.shape[0], 1, x.shape[2]), jnp.float32)
        scale, shift = 1.0 + scale.astype(jnp.float32), shift.astype(jnp.float32)
        if self.norm is not None:
            own_scale, own_shift = (
                y[...].astype(jnp.float32)[None, None] for y in (self.norm.scale, self.norm.bias)
            )
            scale, shift = own_scale * scale, own_shift * scale + shift
        return modulated_norm(x, scale, shift, eps=self.eps, first=first)


class Modulation(nnx.Module):
    """A norm that the time shifts and scales, and the gates of what follows it.

    ``time [b, n, E]`` is of the video's tokens; those of the text have the mean over a clip's
    frames, where these have times of their own.
    """

    def __init__(self, config: CogVideoXTransformerConfig, *, dtype: DType, rngs: nnx.Rngs):
        self.linear = Linear(config.time_features, 6 * config.width, dtype=dtype, rngs=rngs)
        self.norm = Norm(config, dtype=dtype)

    def __call__(self, x: jax.Array, time: jax.Array, text: int) -> tuple[jax.Array, jax.Array]:
        """``x [b, T, C]``, of which the first `text` tokens are text -> normed x and gates."""
        values = self.linear(jax.nn.silu(time))
        of_video = jnp.split(values[..., : values.shape[-1] // 2], 3, axis=-1)
        mean = self.linear(jax.nn.silu(time.mean(axis=1, keepdims=True)))
        of_text = jnp.split(mean[..., mean.shape[-1] // 2 :], 3, axis=-1)
        count, first = x.shape[1] - text, 0
        if values.shape[1] == 1:
            first = text
        else:
            of_text = [_over(y, text) for y in of_text]
            of_video = [_over(z, count) for z in of_video]
        shift, scale, gate = (
            jnp.concatenate([y, z], axis=1) for y, z in zip(of_text, of_video, strict=True)
        )
        return self.norm(x, scale, shift, first), over_tokens(gate, x.shape[1], first)


def _over(values: jax.Array, tokens: int) -> jax.Array:
    """``[b, n, C] -> [b, tokens, C]``: each of the n for as many tokens."""
    b, n, C = values.shape
    return jnp.broadcast_to(values[:, :, None], (b, n, tokens // n, C)).reshape(b, tokens, C)


class Attention(nnx.Module):
    """Multi-head attention among all tokens, ``[b, T, C] -> [b, T, C]``, heads normed."""

    def __init__(self, config: CogVideoXTransformerConfig, *, dtype: DType, rngs: nnx.Rngs):
        width, kw = config.width, dict[str, Any](dtype=dtype, rngs=rngs)
        self.heads = config.heads
        self.to_q = Linear(width, width, bias=config.attention_bias, **kw)
        self.to_k = Linear(width, width, bias=config.attention_bias, **kw)
        self.to_v = Linear(width, width, bias=config.attention_bias, **kw)
        self.to_out = nnx.List([Linear(width, width, **kw)])
        self.norm_q = LayerNorm(config.head_size, eps=1e-6, dtype=dtype)
        self.norm_k = LayerNorm(config.head_size, eps=1e-6, dtype=dtype)

    def __call__(self, x: jax.Array, angle: Turn | None) -> jax.Array:
        q, k = (
            head_norm(
                layer(x), norm.scale[...], norm.bias[...], angle, heads=self.heads, eps=norm.eps
            )
            for layer, norm in ((self.to_q, self.norm_q), (self.to_k, self.norm_k))
        )
        q, k, v = (y.reshape(*x.shape[:2], self.heads, -1) for y in (q, k, self.to_v(x)))
        return self.to_out[0](attention(q, k, v).reshape(x.shape))


class FeedForward(nnx.Module):
    """GELU between two dense layers, four times as wide in between."""

    def __init__(self, config: CogVideoXTransformerConfig, *, dtype: DType, rngs: nnx.Rngs):
        self.proj = Linear(config.width, 4 * config.width, dtype=dtype, rngs=rngs)
        self.out = Linear(4 * config.width, config.width, dtype=dtype, rngs=rngs)
        self.approximate = config.activation == "gelu_tanh"

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(jax.nn.gelu(self.proj(x), approximate=self.approximate))


class Block(nnx.Module):
    """Attention and feed-forward, each after a modulated norm, gated and added to its input."""

    def __init__(self, config: CogVideoXTransformerConfig, *, dtype: DType, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.norm1 = Modulation(config, **kw)
        self.attn1 = Attention(config, **kw)
        self.norm2 = Modulation(config, **kw)
        self.ff = FeedForward(config, **kw)

    def __call__(
        self, x: jax.Array, time: jax.Array, angle: Turn | None, *, text: int
    ) -> jax.Array:
        with jax.named_scope("attention"):
            y, gate = self.norm1(x, time, text)
            x = x + gate * self.attn1(y, angle)
        with jax.named_scope("feed_forward"):
            y, gate = self.norm2(x, time, text)
            return x + gate * self.ff(y)


class PatchEmbed(nnx.Module):
    """Latents and text to tokens of one width."""

    def __init__(self, config: CogVideoXTransformerConfig, *, dtype: DType, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.config = config
        # 1.5's has a bias whatever the configuration says, as in diffusers.
        bias = config.patch_bias or config.patch_frames is not None
        values = config.patch_values(config.in_channels)
        self.proj = Linear(values, config.width, bias=bias, **kw)
        self.text_proj = Linear(config.text_features, config.width, **kw)
        self.positions = nnx.data(None)
        if config.positions == "rotary+learned":
            tokens = config.sample_frames
            for side in (config.sample_height, config.sample_width):
                tokens *= side // config.patch
            shape = (1, config.text_tokens + tokens, config.width)
            self.positions = nnx.Param(jnp.zeros(shape, dtype))

    def __call__(self, x: jax.Array, text: jax.Array, grid: Grid) -> jax.Array:
        """``x [b, f, h, w, C], text [b, S, D] -> [b, S + T, C]``."""
        words, tokens = self.text_proj(text), self.proj(self._patches(x, grid))
        if self.config.positions == "sincos":
            tokens = tokens + sincos_positions(self.config, grid)[None].astype(tokens.dtype)
        y = jnp.concatenate([words, tokens], axis=1)
        if self.positions is None:
            return y
        known, config = self.positions.shape[1], self.config
        whole = text.shape[1] == config.text_tokens and grid[1:] == (
            config.sample_height // config.patch,
            config.sample_width // config.patch,
        )
        # Of a shorter clip the first frames', as in the original code.
        if y.shape[1] > known or not whole:
            raise InputError(
                f"the model has learned positions of {known} tokens and cannot be given "
                f"{text.shape[1]} of text and {tokens.shape[1]} of video"
            )
        return y + self.positions[...][:, : y.shape[1]]

    def _patches(self, x: jax.Array, grid: Grid) -> jax.Array:
        """``[b, f, h, w, C] -> [b, T, pf ph pw C]``."""
        (pf, ph, pw), (f, h, w) = self.config.patches, grid
        x = x.reshape(x.shape[0], f, pf, h, ph, w, pw, x.shape[-1])
        return x.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(x.shape[0], f * h * w, -1)


class OutputNorm(nnx.Module):
    """The last norm, shifted and scaled by the time: ``[b, T, C], [b, n, E] -> [b, T, C]``."""

    def __init__(self, config: CogVideoXTransformerConfig, *, dtype: DType, rngs: nnx.Rngs):
        self.linear = Linear(config.time_features, 2 * config.width, dtype=dtype, rngs=rngs)
        self.norm = Norm(config, dtype=dtype)

    def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
        shift, scale = jnp.split(self.linear(jax.nn.silu(time)), 2, axis=-1)
        if scale.shape[1] > 1:
            scale, shift = _over(scale, x.shape[1]), _over(shift, x.shape[1])
        return self.norm(x, scale, shift)


class CogVideoXTransformer(nnx.Module):
    """The denoiser of CogVideoX; 2B and 5B predict ``v``.

    Args:
        config: sizes.
        dtype: of weights and computation (statistics of norms and attention in float32).
    """

    def __init__(
        self, config: CogVideoXTransformerConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs
    ):
        self.config, self.dtype = config, jnp.dtype(dtype)
        kw: dict[str, Any] = {"dtype": self.dtype, "rngs": rngs}
        self.patch_embed = PatchEmbed(config, **kw)
        self.time_embedding = TimestepEmbedding(config.width, config.time_features, **kw)
        self.ofs_embedding = nnx.data(
            None
            if config.offset_features is None
            else TimestepEmbedding(config.offset_features, config.offset_features, **kw)
        )
        self.transformer_blocks = nnx.List([Block(config, **kw) for _ in range(config.layers)])
        self.norm_final = Norm(config, dtype=self.dtype)
        self.norm_out = OutputNorm(config, **kw)
        self.proj_out = Linear(config.width, config.patch_values(config.out_channels), **kw)

    def __call__(
        self, x: jax.Array, t: jax.Array, text: jax.Array, offset: jax.Array | None = None
    ) -> jax.Array:
        """Predicts.

        Args:
            x: noisy latents ``[b, f, h, w, C]``.
            t: timesteps ``[b]``, or of each latent frame ``[b, f]`` (diagonal denoising, for which
                the text's tokens see the mean).
            text: the prompts' features ``[b, S, D]``, of padding too (226 tokens in training).
            offset: ``[b]``, for models that embed one; 2 by default.

        Returns:
            ``[b, f, h, w, out_channels]`` float32.

        Raises:
            InputError: an argument of another shape, or latents that cannot be divided into
                patches.
        """
        check_denoiser_inputs(
            x, t, text, channels=self.config.in_channels, features=self.config.text_features
        )
        config, grid = self.config, self._grid(*x.shape[1:4])
        times = t if t.ndim == 2 else t[:, None]
        if times.shape[1] > 1:
            times = times[:, :: config.patches[0]]
        time = self.time_embedding(self._features(times, config.width))
        if self.ofs_embedding is not None:
            if offset is None:
                offset = jnp.full(x.shape[:1], OFFSET, jnp.float32)
            features = self._features(offset[:, None], config.offset_features)
            time = time + self.ofs_embedding(features)
        y = self.patch_embed(x.astype(self.dtype), text.astype(self.dtype), grid)
        count = text.shape[1]
        angle = None if config.positions == "sincos" else turn(rotation(config, grid, count))
        for block in self.transformer_blocks:
            y = call_block(block, y, time, angle, text=count)
        y = self.proj_out(self.norm_out(self.norm_final(y[:, count:]), time))
        pf, ph, pw = config.patches
        y = y.reshape(x.shape[0], *grid, -1, pf, ph, pw).transpose(0, 1, 5, 2, 6, 3, 7, 4)
        return y.reshape(*x.shape[:4], -1).astype(jnp.float32)

    def _features(self, t: jax.Array, channels: int | None) -> jax.Array:
        """Sinusoidal features ``[..., channels]`` of ``t`` ``[...]``."""
        assert channels is not None
        config, half = self.config, channels // 2
        steps = np.arange(half, dtype=np.float32) / np.float32(half - config.time_shift)
        rates = jnp.asarray(np.exp(np.float32(-math.log(10000.0)) * steps))
        angles = t.astype(jnp.float32)[..., None] * rates.reshape((1,) * t.ndim + (-1,))
        features = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)
        if not config.flip_sin_to_cos:
            features = jnp.concatenate([features[..., half:], features[..., :half]], axis=-1)
        return features.astype(self.dtype)

    def _grid(self, f: int, h: int, w: int) -> Grid:
        pf, ph, pw = self.config.patches
        if f % pf or h % ph or w % pw:
            raise InputError(
                f"latents of {f} frames, {h} x {w} cells cannot be divided into patches of "
                f"{pf} x {ph} x {pw}"
            )
        return f // pf, h // ph, w // pw
