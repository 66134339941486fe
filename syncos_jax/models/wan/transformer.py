"""Wan's transformer: a video's tokens attend to one another, then to the text.

Names follow diffusers' ``WanTransformer3DModel``. The time embedding, the modulation and the
statistics of all norms are float32 whatever the weights are. Wan 2.1's image-to-video also attends
to the features of an image.

Sizes in comments: ``b`` clips, ``f h w`` latent frames, rows and columns, ``T`` tokens, ``C``
width, ``S`` text tokens, ``N`` heads, ``D`` head size.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.kernels.attention import attention
from syncos_jax.kernels.head_norm import Turn, rms_norm
from syncos_jax.kernels.modulated_norm import modulated_norm as scaled_norm
from syncos_jax.models.arguments import check_denoiser_inputs
from syncos_jax.models.blocks import call_block
from syncos_jax.models.layers import (
    DType,
    LayerNorm,
    Linear,
    TimestepEmbedding,
    timestep_features,
)
from syncos_jax.models.rotary import Rotation, turn
from syncos_jax.models.wan.config import WanTransformerConfig

THETA = 10000.0
"""Base of the rotary frequencies."""


class RMSNorm(nnx.Module):
    """``x / rms(x) * scale`` over the last axis of queries or keys, then rotary positions."""

    def __init__(self, channels: int, *, heads: int, eps: float, dtype: DType):
        self.scale = nnx.Param(jnp.ones((channels,), dtype))
        self.heads, self.eps = heads, eps

    def __call__(self, x: jax.Array, angle: Turn | None) -> jax.Array:
        return rms_norm(x, self.scale[...], angle, heads=self.heads, eps=self.eps)


def modulated_norm(x: jax.Array, shift: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """Layer norm of ``x [b, T, C]`` without weights, then ``(1 + scale) y + shift``, float32."""
    return scaled_norm(x, 1.0 + scale, shift, eps=eps)


def weighted_norm(norm: LayerNorm, x: jax.Array) -> jax.Array:
    """`norm` of ``x [b, T, C]``."""
    shape = (x.shape[0], 1, x.shape[2])
    scale, shift = (jnp.broadcast_to(y[...], shape) for y in (norm.scale, norm.bias))
    return scaled_norm(x, scale, shift, eps=norm.eps)


def rotation(config: WanTransformerConfig, f: int, h: int, w: int) -> Rotation:
    """Cosines and sines ``[1, f h w, 1, D / 2]`` of the tokens' angles, float32.

    Pairs of features turn with the frame, the row or the column of their token; which pairs with
    which is ``config.rotary``.
    """
    angles = []
    for axis, (length, features) in enumerate(zip((f, h, w), config.rotary, strict=True)):
        frequencies = THETA ** (-np.arange(0, features, 2) / features)
        table = np.outer(np.arange(length), frequencies)  # float64
        shape = [1, 1, 1, features // 2]
        shape[axis] = length
        angles.append(table.reshape(shape))

    def over_tokens(function: Any) -> jax.Array:
        parts = [jnp.asarray(function(table), jnp.float32) for table in angles]
        parts = [jnp.broadcast_to(part, (f, h, w, part.shape[-1])) for part in parts]
        return jnp.concatenate(parts, axis=-1).reshape(1, f * h * w, 1, -1)

    return over_tokens(np.cos), over_tokens(np.sin)


class Attention(nnx.Module):
    """Multi-head attention ``x [b, T, C], context [b, S, C] -> [b, T, C]``.

    Queries and keys are normed across all heads, then turned. With `image` the same queries also
    read the features of an image, and both results are added.
    """

    def __init__(
        self, config: WanTransformerConfig, *, image: bool = False, dtype: DType, rngs: nnx.Rngs
    ):
        width, kw = config.width, dict[str, Any](dtype=dtype, rngs=rngs)
        self.heads = config.heads
        self.to_q = Linear(width, width, **kw)
        self.to_k = Linear(width, width, **kw)
        self.to_v = Linear(width, width, **kw)
        self.to_out = nnx.List([Linear(width, width, **kw)])
        self.norm_q = RMSNorm(width, heads=config.heads, eps=config.eps, dtype=dtype)
        self.norm_k = RMSNorm(width, heads=config.heads, eps=config.eps, dtype=dtype)
        if image:
            self.add_k_proj = Linear(width, width, **kw)
            self.add_v_proj = Linear(width, width, **kw)
            self.norm_added_k = RMSNorm(width, heads=config.heads, eps=config.eps, dtype=dtype)

    def __call__(
        self,
        x: jax.Array,
        context: jax.Array | None = None,
        angle: Turn | None = None,
        image: jax.Array | None = None,
    ) -> jax.Array:
        context = x if context is None else context
        q, k = self.norm_q(self.to_q(x), angle), self.norm_k(self.to_k(context), angle)
        q, k, v = (y.reshape(*y.shape[:2], self.heads, -1) for y in (q, k, self.to_v(context)))
        y = attention(q, k, v)
        if image is not None:
            k, v = self.norm_added_k(self.add_k_proj(image), None), self.add_v_proj(image)
            k, v = (z.reshape(*z.shape[:2], self.heads, -1) for z in (k, v))
            y = y + attention(q, k, v)
        return self.to_out[0](y.reshape(x.shape))


class FeedForward(nnx.Module):
    """GELU (tanh form) between two dense layers."""

    def __init__(self, width: int, inner: int, *, dtype: DType, rngs: nnx.Rngs):
        self.proj = Linear(width, inner, dtype=dtype, rngs=rngs)
        self.out = Linear(inner, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(jax.nn.gelu(self.proj(x), approximate=True))


class Block(nnx.Module):
    """Self-attention and feed-forward, shifted, scaled and gated by the time; text in between."""

    def __init__(self, config: WanTransformerConfig, *, dtype: DType, rngs: nnx.Rngs):
        kw: dict[str, Any] = {"dtype": dtype, "rngs": rngs}
        self.eps = config.eps
        self.attn1 = Attention(config, **kw)
        self.attn2 = Attention(config, image=config.image_features is not None, **kw)
        self.norm2 = nnx.data(
            LayerNorm(config.width, eps=config.eps, dtype=jnp.float32)
            if config.cross_attn_norm
            else None
        )
        self.ffn = FeedForward(config.width, config.inner, **kw)
        self.scale_shift_table = nnx.Param(jnp.zeros((6, config.width), jnp.float32))

    def __call__(
        self,
        x: jax.Array,
        text: jax.Array,
        time: jax.Array,
        angle: Turn,
        image: jax.Array | None = None,
    ) -> jax.Array:
        """``x [b, T, C], text [b, S, C], time [b, 1 or T, 6, C], image [b, n, C] -> [b, T, C]``."""
        modulation = self.scale_shift_table[...][None, None] + time
        shift, scale, gate, ff_shift, ff_scale, ff_gate = jnp.moveaxis(modulation, 2, 0)
        with jax.named_scope("self_attention"):
            y = self.attn1(modulated_norm(x, shift, scale, self.eps), angle=angle)
            x = (x.astype(jnp.float32) + y.astype(jnp.float32) * gate).astype(x.dtype)
        with jax.named_scope("cross_attention"):
            y = x if self.norm2 is None else weighted_norm(self.norm2, x)
            x = x + self.attn2(y, text, image=image)
        with jax.named_scope("feed_forward"):
            y = self.ffn(modulated_norm(x, ff_shift, ff_scale, self.eps))
            return (x.astype(jnp.float32) + y.astype(jnp.float32) * ff_gate).astype(x.dtype)


class TextProjection(nnx.Module):
    """The text's features to the transformer's width."""

    def __init__(self, features: int, width: int, *, dtype: DType, rngs: nnx.Rngs):
        self.linear_1 = Linear(features, width, dtype=dtype, rngs=rngs)
        self.linear_2 = Linear(width, width, dtype=dtype, rngs=rngs)

    def __call__(self, text: jax.Array) -> jax.Array:
        return self.linear_2(jax.nn.gelu(self.linear_1(text), approximate=True))


class ImageEmbedder(nnx.Module):
    """An image's features ``[b, n, D]`` to the transformer's width ``[b, n, C]``."""

    def __init__(self, config: WanTransformerConfig, *, dtype: DType, rngs: nnx.Rngs):
        features = config.image_features
        assert features is not None
        self.norm1 = LayerNorm(features, dtype=jnp.float32)
        self.proj = Linear(features, features, dtype=dtype, rngs=rngs)
        self.out = Linear(features, config.width, dtype=dtype, rngs=rngs)
        self.norm2 = LayerNorm(config.width, dtype=jnp.float32)
        self.positions = nnx.data(None)
        if config.image_positions is not None:
            self.positions = nnx.Param(jnp.zeros((config.image_positions, features), dtype))

    def __call__(self, image: jax.Array) -> jax.Array:
        if self.positions is not None:
            known = self.positions.shape[0]
            if image.shape[1] != known:
                raise InputError(
                    f"the features of a first and a last image are {known} together, not "
                    f"{image.shape[1]}"
                )
            image = image + self.positions[...][None]
        return self.norm2(self.out(jax.nn.gelu(self.proj(self.norm1(image)), approximate=False)))


class ConditionEmbedder(nnx.Module):
    """Time, text and, where the transformer has it, an image."""

    def __init__(self, config: WanTransformerConfig, *, dtype: DType, rngs: nnx.Rngs):
        width = config.width
        self.time_features = config.time_features
        self.time_embedder = TimestepEmbedding(
            config.time_features, width, dtype=jnp.float32, rngs=rngs
        )
        self.time_proj = Linear(width, 6 * width, dtype=dtype, rngs=rngs)
        self.text_embedder = TextProjection(config.text_features, width, dtype=dtype, rngs=rngs)
        self.image_embedder = nnx.data(
            None if config.image_features is None else ImageEmbedder(config, dtype=dtype, rngs=rngs)
        )

    def time(self, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """``t [b, n] -> [b, n, C]`` and the blocks' modulation ``[b, n, 6, C]``, float32."""
        embedded = self.time_embedder(timestep_features(t, self.time_features))
        y = jax.nn.silu(embedded)
        if isinstance(self.time_proj, nnx.Linear):
            kernel, bias = self.time_proj.kernel[...], self.time_proj.bias
            assert bias is not None  # it was asked for
            y = y @ kernel.astype(jnp.float32) + bias[...].astype(jnp.float32)[None, None]
        else:  # it was quantized
            y = self.time_proj(y).astype(jnp.float32)
        return embedded, y.reshape(*t.shape, 6, -1)


class WanTransformer(nnx.Module):
    """The denoiser of Wan 2.1 and 2.2: predicts the flow ``eps - x0``.

    Args:
        config: sizes.
        dtype: of weights and computation.
    """

    def __init__(self, config: WanTransformerConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, jnp.dtype(dtype)
        kw: dict[str, Any] = {"dtype": self.dtype, "rngs": rngs}
        patch_out = config.patch_channels // config.in_channels * config.out_channels
        self.patch_embedding = Linear(config.patch_channels, config.width, **kw)
        self.condition_embedder = ConditionEmbedder(config, **kw)
        self.blocks = nnx.List([Block(config, **kw) for _ in range(config.layers)])
        self.proj_out = Linear(config.width, patch_out, **kw)
        self.scale_shift_table = nnx.Param(jnp.zeros((2, config.width), jnp.float32))

    def __call__(
        self, x: jax.Array, t: jax.Array, text: jax.Array, image: jax.Array | None = None
    ) -> jax.Array:
        """Predicts the flow.

        Args:
            x: noisy latents ``[b, f, h, w, C]``; of image-to-video networks with their mask and
                the condition's latents as further channels.
            t: timesteps (1000 at pure noise) ``[b]``, or of each latent frame ``[b, f]``.
            text: the prompts' features ``[b, S, D]``, padded with zeros as in training (to 512).
            image: the image encoder's features ``[b, n, D']`` (257 an image), where the network
                has `image_features`.

        Returns:
            ``[b, f, h, w, out_channels]`` float32.

        Raises:
            InputError: an argument of another shape, or latents that cannot be divided into
                patches or are too large.
        """
        check_denoiser_inputs(
            x, t, text, channels=self.config.in_channels, features=self.config.text_features
        )
        b, f, h, w = x.shape[:4]
        tokens = self._tokens(f, h, w)
        per_frame = (t if t.ndim == 2 else t[:, None]).astype(jnp.float32)
        if per_frame.shape[1] > 1:
            per_frame = per_frame[:, :: self.config.patch[0]]
        embedded, time = self.condition_embedder.time(per_frame)
        if per_frame.shape[1] > 1:
            repeats = tokens[1] * tokens[2]
            embedded, time = (jnp.repeat(y, repeats, axis=1) for y in (embedded, time))
        words = self.condition_embedder.text_embedder(text.astype(self.dtype))
        seen = self._embedded(image)
        angle = turn(rotation(self.config, *tokens))
        y = self.patch_embedding(self._patches(x.astype(self.dtype), tokens))
        for block in self.blocks:
            y = call_block(block, y, words, time, angle, seen)
        shift, scale = jnp.moveaxis(
            self.scale_shift_table[...][None, None] + embedded[:, :, None], 2, 0
        )
        y = self.proj_out(modulated_norm(y, shift, scale, self.config.eps))
        pf, ph, pw = self.config.patch
        y = y.reshape(b, *tokens, pf, ph, pw, -1).transpose(0, 1, 4, 2, 5, 3, 6, 7)
        return y.reshape(b, f, h, w, -1).astype(jnp.float32)

    def _embedded(self, image: jax.Array | None) -> jax.Array | None:
        """What the blocks attend to of an image, ``[b, n, C]``."""
        features = self.config.image_features
        if features is None:
            return None
        if image is None or image.ndim != 3 or image.shape[-1] != features:
            raise InputError(
                argument="image",
                expected=f"the image encoder's features [b, n, {features}]",
                value=None if image is None else tuple(image.shape),
            )
        embedder = self.condition_embedder.image_embedder
        assert embedder is not None  # as the sizes have image_features
        made: jax.Array = embedder(image.astype(self.dtype))
        return made.astype(self.dtype)

    def _tokens(self, f: int, h: int, w: int) -> tuple[int, int, int]:
        patch = self.config.patch
        if f % patch[0] or h % patch[1] or w % patch[2]:
            raise InputError(
                f"latents of {f} frames, {h} x {w} cells cannot be divided into patches of "
                f"{patch[0]} x {patch[1]} x {patch[2]}"
            )
        tokens = f // patch[0], h // patch[1], w // patch[2]
        if max(tokens) > self.config.positions:
            raise InputError(
                f"latents of {f} frames, {h} x {w} cells have more than {self.config.positions} "
                "tokens along an axis"
            )
        return tokens

    def _patches(self, x: jax.Array, tokens: tuple[int, int, int]) -> jax.Array:
        """``[b, f, h, w, C] -> [b, T, pf ph pw C]``."""
        (pf, ph, pw), (f, h, w) = self.config.patch, tokens
        x = x.reshape(x.shape[0], f, pf, h, ph, w, pw, x.shape[-1])
        return x.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(x.shape[0], f * h * w, -1)
