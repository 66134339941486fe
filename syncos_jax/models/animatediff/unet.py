"""AnimateDiff's UNet (Guo et al., arXiv 2307.04725): Stable Diffusion 1.5's, frame by frame, and
after each of its layers a motion module, a transformer over the frames at each pixel.

Names follow diffusers' ``UNetMotionModel``. Frames know their place from sines and cosines, of
which there are `positions`, so a clip is at most so long.

Sizes: ``B`` clips, ``F`` frames, ``H W`` height and width, ``C`` channels, ``E`` time embedding,
``S`` text tokens, ``D`` text features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.arguments import check_denoiser_inputs
from syncos_jax.models.attention import SpatialTransformer, TransformerBlock
from syncos_jax.models.layers import (
    Conv,
    DType,
    GroupNorm,
    Linear,
    TimestepEmbedding,
    timestep_features,
)
from syncos_jax.models.unet_clip.unet3d import Downsample, ResnetBlock, Upsample


@dataclasses.dataclass(frozen=True)
class MotionUNetConfig:
    """Sizes of the UNet; the defaults are Stable Diffusion 1.5's with AnimateDiff's modules.

    Attributes:
        in_channels, out_channels: channels of the latent and of the prediction.
        block_out_channels: channels of each level, finest first.
        attention: for each level, whether its layers read the text. The middle always does.
        layers_per_block: residual blocks of a level on the way down (one more on the way up).
        heads: of the attentions within a frame and to the text, for each level.
        motion_heads: of the attentions over frames, for each level.
        positions: frames of a clip, at most.
        motion_mid: whether there is a motion module in the middle.
        text_features: features ``D`` of a text token.
        norm_groups: groups of every group norm.
        norm_eps: of the residual blocks and the output norm (1e-6 in transformers).
    """

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention: tuple[bool, ...] = (True, True, True, False)
    layers_per_block: int = 2
    heads: tuple[int, ...] = (8, 8, 8, 8)
    motion_heads: tuple[int, ...] = (8, 8, 8, 8)
    positions: int = 32
    motion_mid: bool = True
    text_features: int = 768
    norm_groups: int = 32
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        for name in ("attention", "heads", "motion_heads"):
            if len(getattr(self, name)) != levels:
                raise InputError(
                    f"UNet configuration: {levels} levels of channels but "
                    f"{len(getattr(self, name))} of {name}; give one of each per level"
                )
        for channels, *heads in zip(
            self.block_out_channels, self.heads, self.motion_heads, strict=True
        ):
            if any(channels % count for count in (self.norm_groups, *heads)) or channels % 2:
                raise InputError(
                    f"UNet configuration: {channels} channels must be even and divisible by "
                    f"norm_groups={self.norm_groups} and heads {heads[0]} and {heads[1]}"
                )

    @property
    def fps_embedding(self) -> bool:
        """Whether the frame rate is embedded: never."""
        return False


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """What every block needs to know, handed down once."""

    config: MotionUNetConfig
    dtype: DType
    rngs: nnx.Rngs

    @property
    def kw(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "rngs": self.rngs}

    def norm(self, channels: int) -> GroupNorm:
        return GroupNorm(
            channels, self.config.norm_groups, eps=self.config.norm_eps, dtype=self.dtype
        )

    def spatial(self, channels: int, heads: int) -> SpatialTransformer:
        c = self.config
        return SpatialTransformer(
            channels,
            heads,
            channels // heads,
            context=c.text_features,
            groups=c.norm_groups,
            **self.kw,
        )


def frame_positions(frames: int, channels: int) -> jax.Array:
    """What tells frames apart: ``[1, F, C]`` float32, sines and cosines in turn."""
    rates = np.exp(np.arange(0, channels, 2) * (-np.log(10000.0) / channels))
    angles = np.outer(np.arange(frames), rates)
    return jnp.asarray(np.stack([np.sin(angles), np.cos(angles)], axis=-1), jnp.float32).reshape(
        1, frames, channels
    )


class MotionBlock(TransformerBlock):
    """Two attentions over frames and a feed-forward; both attentions receive the positions."""

    def __init__(self, channels: int, heads: int, **kw: Any):
        super().__init__(channels, heads, channels // heads, context=None, **kw)

    def over_frames(self, x: jax.Array) -> jax.Array:
        """``[n, F, C] -> [n, F, C]``."""
        place = frame_positions(*x.shape[1:]).astype(x.dtype)
        x = x + self.attn1(self.norm1(x) + place)
        x = x + self.attn2(self.norm2(x) + place)
        return self.feed_forward(x)


class MotionModule(nnx.Module):
    """Attention over the frames at each pixel: ``[B, F, H, W, C] -> [B, F, H, W, C]``."""

    def __init__(self, channels: int, heads: int, sizes: _Sizes):
        self.norm = GroupNorm(channels, sizes.config.norm_groups, eps=1e-6, dtype=sizes.dtype)
        self.proj_in = Linear(channels, channels, **sizes.kw)
        self.transformer_blocks = nnx.List([MotionBlock(channels, heads, **sizes.kw)])
        self.proj_out = Linear(channels, channels, **sizes.kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        B, F, H, W, C = x.shape
        with jax.named_scope("temporal_attention"):
            y = self.norm(x).reshape(B, F, H * W, C).swapaxes(1, 2).reshape(B * H * W, F, C)
            y = self.proj_in(y)
            for block in self.transformer_blocks:
                y = block.over_frames(y)
            y = self.proj_out(y)
            return x + y.reshape(B, H * W, F, C).swapaxes(1, 2).reshape(x.shape)


class Level(nnx.Module):
    """One resolution of the UNet, going down, up, or in the middle.

    Args:
        channels: (in, out) of each residual block.
        heads: of the attentions within frames.
        motion_heads: of those over frames.
        attention: how many layers read the text.
        motion: how many have a motion module.
    """

    def __init__(
        self,
        channels: Sequence[tuple[int, int]],
        sizes: _Sizes,
        *,
        heads: int,
        motion_heads: int,
        attention: int,
        motion: int,
    ):
        outs = [out for _, out in channels]
        blocks: Any = [ResnetBlock(i, o, sizes) for i, o in channels]  # type: ignore[arg-type]
        self.resnets = nnx.List(blocks)
        self.attentions = nnx.List([sizes.spatial(o, heads) for o in outs[:attention]])
        self.motion_modules = nnx.List(
            [MotionModule(o, motion_heads, sizes) for o in outs[:motion]]
        )
        self.downsamplers: nnx.List[Downsample] = nnx.List([])
        self.upsamplers: nnx.List[Upsample] = nnx.List([])

    def attend(self, index: int, x: jax.Array, text: jax.Array) -> jax.Array:
        """What follows a residual block."""
        if index < len(self.attentions):
            x = self.attentions[index](x, text)
        if index < len(self.motion_modules):
            x = self.motion_modules[index](x)
        return x

    def layer(self, index: int, x: jax.Array, emb: jax.Array, text: jax.Array) -> jax.Array:
        return self.attend(index, self.resnets[index](x, emb), text)


class MotionUNet(nnx.Module):
    """Predicts noise (or v, or x0) from noisy latents of a clip and its text.

    Args:
        config: sizes.
        dtype: of weights and computation (norm statistics stay in float32).
    """

    def __init__(self, config: MotionUNetConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, jnp.dtype(dtype)
        sizes = _Sizes(config, self.dtype, rngs)
        widths, layers = config.block_out_channels, config.layers_per_block
        first, last = widths[0], widths[-1]
        self.conv_in = Conv(config.in_channels, first, **sizes.kw)
        self.time_embedding = TimestepEmbedding(first, 4 * first, **sizes.kw)

        def level(index: int, pairs: list[tuple[int, int]], reads: bool) -> Level:
            return Level(
                pairs,
                sizes,
                heads=config.heads[index],
                motion_heads=config.motion_heads[index],
                attention=len(pairs) if reads else 0,
                motion=len(pairs),
            )

        down, up = [], []
        skips, channels = [first], first
        for i, width in enumerate(widths):
            pairs = [(channels if j == 0 else width, width) for j in range(layers)]
            one = level(i, pairs, config.attention[i])
            skips += [width] * layers
            if i < len(widths) - 1:
                one.downsamplers.append(Downsample(width, sizes))  # type: ignore[arg-type]
                skips.append(width)
            down.append(one)
            channels = width
        self.down_blocks = nnx.List(down)
        self.mid_block = Level(
            [(last, last)] * 2,
            sizes,
            heads=config.heads[-1],
            motion_heads=config.motion_heads[-1],
            attention=1,
            motion=int(config.motion_mid),
        )
        for i, width in reversed(list(enumerate(widths))):
            pairs = []
            for _ in range(layers + 1):
                pairs.append((channels + skips.pop(), width))
                channels = width
            one = level(i, pairs, config.attention[i])
            if i > 0:
                one.upsamplers.append(Upsample(width, sizes))  # type: ignore[arg-type]
            up.append(one)
        self.up_blocks = nnx.List(up)
        self.conv_norm_out = sizes.norm(first)
        self.conv_out = Conv(first, config.out_channels, **sizes.kw)

    def __call__(
        self, x: jax.Array, t: jax.Array, text: jax.Array, *, fps: jax.Array | None = None
    ) -> jax.Array:
        """Predict.

        Args:
            x: noisy latents ``[B, F, H, W, C]``.
            t: timesteps ``[B]``, or ``[B, F]`` where every frame has its own (diagonal denoising).
            text: ``[B, S, D]``.
            fps: None; there for the likeness with `UNet3D`.

        Returns:
            The prediction, like ``x``.

        Raises:
            InputError: an argument of another shape, more frames than there are positions, or
                ``fps`` given.
        """
        check_denoiser_inputs(
            x, t, text, channels=self.config.in_channels, features=self.config.text_features
        )
        if fps is not None:
            raise InputError("this UNet takes no fps (fps_embedding=False)")
        if x.shape[1] > self.config.positions:
            raise InputError(
                f"clips of {x.shape[1]} frames: the motion modules know {self.config.positions}"
            )
        out_dtype = x.dtype
        x, text = x.astype(self.dtype), text.astype(self.dtype)
        times = timestep_features(
            t if t.ndim == 2 else t[:, None], self.config.block_out_channels[0]
        )
        emb = self.time_embedding(times.astype(self.dtype))
        with jax.named_scope("in"):
            x = _per_frame(self.conv_in, x)
        skips = [x]
        for level in self.down_blocks:
            with jax.named_scope("down"):
                for i in range(len(level.resnets)):
                    x = level.layer(i, x, emb, text)
                    skips.append(x)
                for downsample in level.downsamplers:
                    x = downsample(x)
                    skips.append(x)
        with jax.named_scope("mid"):
            x = self.mid_block.layer(0, x, emb, text)
            x = self.mid_block.resnets[1](x, emb)
        for level in self.up_blocks:
            with jax.named_scope("up"):
                for i in range(len(level.resnets)):
                    x = jnp.concatenate([x, skips.pop()], axis=-1)
                    x = level.layer(i, x, emb, text)
                for upsample in level.upsamplers:
                    x = upsample(x, *skips[-1].shape[2:4])
        with jax.named_scope("out"):
            flat = x.reshape(-1, *x.shape[2:])
            y = self.conv_out(jax.nn.silu(self.conv_norm_out(flat)))
        return y.reshape(*x.shape[:2], *y.shape[1:]).astype(out_dtype)


def _per_frame(layer: nnx.Conv, x: jax.Array) -> jax.Array:
    y = layer(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])
