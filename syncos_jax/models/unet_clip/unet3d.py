"""The text-to-video UNet of ModelScope, ZeroScope and VideoCrafter2.

Structure and names follow diffusers' ``UNet3DConditionModel``; VideoCrafter2 is the same network
plus an embedding of the frame rate. Each level runs, per layer: a 2-D residual block, four temporal
convolutions, and where the level has attention a spatial and a temporal transformer.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.kernels.temporal_conv import Weights, norm_conv
from syncos_jax.models.arguments import check_denoiser_inputs
from syncos_jax.models.attention import SpatialTransformer, TemporalTransformer
from syncos_jax.models.layers import (
    Conv,
    DType,
    GroupNorm,
    Linear,
    TemporalConv,
    TimestepEmbedding,
    timestep_features,
    upsample_nearest,
)


@dataclasses.dataclass(frozen=True)
class UNet3DConfig:
    """Sizes of the UNet.

    Attributes:
        in_channels, out_channels: channels of the latent and of the prediction.
        block_out_channels: channels of each level, finest first.
        attention: for each level, whether it has transformers. The middle always has.
        layers_per_block: residual blocks of a level on the way down (one more on the way up).
        head_size: channels of an attention head; a level has ``channels / head_size`` heads.
        text_features: features ``D`` of a text token.
        norm_groups: groups of every group norm.
        norm_eps: of the residual blocks and the output norm (1e-6 in transformers, 1e-5 in temporal
            convolutions, whatever is set here).
        fps_embedding: whether the frame rate is embedded beside the timestep (VideoCrafter2).
        first_transformer: whether a temporal transformer, eight heads wide whatever the width,
            stands before the first level. A small network is better off without: at every cell of
            the latent, it is as much work there as all of the rest.
    """

    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    attention: tuple[bool, ...] = (True, True, True, False)
    layers_per_block: int = 2
    head_size: int = 64
    text_features: int = 1024
    norm_groups: int = 32
    norm_eps: float = 1e-5
    fps_embedding: bool = False
    first_transformer: bool = True

    def __post_init__(self) -> None:
        if len(self.attention) != len(self.block_out_channels):
            raise InputError(
                f"UNet configuration: {len(self.block_out_channels)} levels of channels but "
                f"{len(self.attention)} of attention; give one of each per level"
            )
        for channels in self.block_out_channels:
            if channels % self.norm_groups or channels % self.head_size:
                raise InputError(
                    f"UNet configuration: {channels} channels are not divisible by norm_groups="
                    f"{self.norm_groups} and head_size={self.head_size}"
                )

    @classmethod
    def modelscope(cls) -> "UNet3DConfig":
        """ModelScope's text-to-video 1.7B and ZeroScope (1,411,233,860 parameters)."""
        return cls()

    @classmethod
    def videocrafter2(cls) -> "UNet3DConfig":
        """VideoCrafter2 (1,413,284,420 parameters)."""
        return cls(fps_embedding=True)


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """What every block needs to know, handed down once."""

    config: UNet3DConfig
    dtype: DType
    rngs: nnx.Rngs

    @property
    def kw(self) -> dict:
        return {"dtype": self.dtype, "rngs": self.rngs}

    def norm(self, channels: int) -> GroupNorm:
        return GroupNorm(
            channels, self.config.norm_groups, eps=self.config.norm_eps, dtype=self.dtype
        )

    def spatial(self, channels: int) -> SpatialTransformer:
        c = self.config
        heads = channels // c.head_size
        return SpatialTransformer(
            channels, heads, c.head_size, context=c.text_features, groups=c.norm_groups, **self.kw
        )

    def temporal(self, channels: int, heads: int | None = None) -> TemporalTransformer:
        c = self.config
        heads = channels // c.head_size if heads is None else heads
        return TemporalTransformer(channels, heads, c.head_size, groups=c.norm_groups, **self.kw)


class ResnetBlock(nnx.Module):
    """Residual block on single frames: ``x [B, F, H, W, C], time embedding [B, F or 1, E]``."""

    def __init__(self, channels_in: int, channels_out: int, sizes: _Sizes):
        embedding = 4 * sizes.config.block_out_channels[0]
        self.norm1 = sizes.norm(channels_in)
        self.conv1 = Conv(channels_in, channels_out, **sizes.kw)
        self.time_emb_proj = Linear(embedding, channels_out, **sizes.kw)
        self.norm2 = sizes.norm(channels_out)
        self.conv2 = Conv(channels_out, channels_out, **sizes.kw)
        self.conv_shortcut = nnx.data(
            Conv(channels_in, channels_out, 1, **sizes.kw) if channels_in != channels_out else None
        )

    def __call__(self, x: jax.Array, emb: jax.Array) -> jax.Array:
        B, F, *HW, C = x.shape
        x = x.reshape(B * F, *HW, C)
        y = self.conv1(jax.nn.silu(self.norm1(x)))
        time = self.time_emb_proj(jax.nn.silu(emb))[:, :, None, None, :]
        y = (y.reshape(B, F, *HW, -1) + time).reshape(B * F, *HW, -1)
        y = self.conv2(jax.nn.silu(self.norm2(y)))
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)
        return (x + y).reshape(B, F, *HW, -1)


class TemporalConvStage(nnx.Module):
    """Norm, SiLU and a temporal convolution."""

    def __init__(self, channels: int, sizes: _Sizes):
        # Its epsilon does not follow the configuration's in the reference either.
        self.norm = GroupNorm(channels, sizes.config.norm_groups, eps=1e-5, dtype=sizes.dtype)
        self.conv = TemporalConv(channels, channels, **sizes.kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        norm, conv = self.norm, self.conv
        if not isinstance(conv, TemporalConv):  # it was quantized
            return conv(jax.nn.silu(norm(x)))
        weights = Weights(norm.scale[...], norm.bias[...], conv.kernel[...], conv.bias[...])
        return norm_conv(x, weights, groups=norm.groups, eps=norm.eps)


class TemporalConvLayer(nnx.Module):
    """Four temporal convolutions around a skip; group statistics are over all frames."""

    def __init__(self, channels: int, sizes: _Sizes):
        self.conv1 = TemporalConvStage(channels, sizes)
        self.conv2 = TemporalConvStage(channels, sizes)
        self.conv3 = TemporalConvStage(channels, sizes)
        self.conv4 = TemporalConvStage(channels, sizes)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.conv4(self.conv3(self.conv2(self.conv1(x))))


class Downsample(nnx.Module):
    """Halve height and width of ``[B, F, H, W, C]``."""

    def __init__(self, channels: int, sizes: _Sizes):
        self.conv = Conv(channels, channels, stride=2, **sizes.kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(x.reshape(-1, *x.shape[2:]))
        return y.reshape(*x.shape[:2], *y.shape[1:])


class Upsample(nnx.Module):
    """Double height and width of ``[B, F, H, W, C]`` to a given size."""

    def __init__(self, channels: int, sizes: _Sizes):
        self.conv = Conv(channels, channels, **sizes.kw)

    def __call__(self, x: jax.Array, height: int, width: int) -> jax.Array:
        y = self.conv(upsample_nearest(x.reshape(-1, *x.shape[2:]), height, width))
        return y.reshape(*x.shape[:2], *y.shape[1:])


class Level(nnx.Module):
    """One resolution of the UNet, going down, up, or in the middle."""

    def __init__(self, channels: list[tuple[int, int]], sizes: _Sizes, *, attention: int):
        """``channels``: (in, out) of each residual block; ``attention``: how many transformers."""
        outs = [out for _, out in channels]
        self.resnets = nnx.List([ResnetBlock(i, o, sizes) for i, o in channels])
        self.temp_convs = nnx.List([TemporalConvLayer(o, sizes) for o in outs])
        self.attentions = nnx.List([sizes.spatial(o) for o in outs[:attention]])
        self.temp_attentions = nnx.List([sizes.temporal(o) for o in outs[:attention]])
        self.downsamplers: nnx.List[Downsample] = nnx.List([])
        self.upsamplers: nnx.List[Upsample] = nnx.List([])

    def layer(self, index: int, x: jax.Array, emb: jax.Array) -> jax.Array:
        return self.temp_convs[index](self.resnets[index](x, emb))

    def attend(self, index: int, x: jax.Array, text: jax.Array) -> jax.Array:
        if index >= len(self.attentions):
            return x
        return self.temp_attentions[index](self.attentions[index](x, text))


class UNet3D(nnx.Module):
    """Predicts noise (or v, or x0) from noisy latents of a clip and its text.

    Args:
        config: sizes.
        dtype: of weights and computation (norm statistics stay in float32).
    """

    def __init__(self, config: UNet3DConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, jnp.dtype(dtype)
        sizes = _Sizes(config, self.dtype, rngs)
        widths = config.block_out_channels
        first, last = widths[0], widths[-1]
        layers = config.layers_per_block

        self.conv_in = Conv(config.in_channels, first, **sizes.kw)
        self.time_embedding = TimestepEmbedding(first, 4 * first, **sizes.kw)
        self.fps_embedding = nnx.data(
            TimestepEmbedding(first, 4 * first, **sizes.kw) if config.fps_embedding else None
        )
        self.transformer_in = nnx.data(
            sizes.temporal(first, heads=8) if config.first_transformer else None
        )

        down, up = [], []
        skips, channels = [first], first
        for i, width in enumerate(widths):
            pairs = [(channels if j == 0 else width, width) for j in range(layers)]
            level = Level(pairs, sizes, attention=layers if config.attention[i] else 0)
            skips += [width] * layers
            if i < len(widths) - 1:
                level.downsamplers.append(Downsample(width, sizes))
                skips.append(width)
            down.append(level)
            channels = width
        self.down_blocks = nnx.List(down)
        self.mid_block = Level([(last, last)] * 2, sizes, attention=1)
        for i, width in reversed(list(enumerate(widths))):
            pairs = []
            for _ in range(layers + 1):
                pairs.append((channels + skips.pop(), width))
                channels = width
            level = Level(pairs, sizes, attention=layers + 1 if config.attention[i] else 0)
            if i > 0:
                level.upsamplers.append(Upsample(width, sizes))
            up.append(level)
        self.up_blocks = nnx.List(up)
        self.conv_norm_out = sizes.norm(first)
        self.conv_out = Conv(first, config.out_channels, **sizes.kw)

    def embed_time(self, t: jax.Array, fps: jax.Array | None) -> jax.Array:
        """``t [B] or [B, F]``, ``fps [B]`` -> ``[B, 1 or F, E]``."""
        width = self.config.block_out_channels[0]
        t = t if t.ndim == 2 else t[:, None]
        emb = self.time_embedding(timestep_features(t, width).astype(self.dtype))
        if self.fps_embedding is not None:
            assert fps is not None  # checked by the caller
            features = timestep_features(fps[:, None], width).astype(self.dtype)
            emb = emb + self.fps_embedding(features)
        return emb

    def __call__(
        self, x: jax.Array, t: jax.Array, text: jax.Array, *, fps: jax.Array | None = None
    ) -> jax.Array:
        """Predict.

        Args:
            x: noisy latents ``[B, F, H, W, C]``; any number of frames.
            t: timesteps ``[B]``, or ``[B, F]`` where every frame has its own (diagonal denoising).
            text: ``[B, S, D]``.
            fps: frames per second ``[B]``; required where the network embeds it, else refused.

        Returns:
            The prediction, like ``x``.

        Raises:
            InputError: an argument of another shape; ``fps`` given to a network without it, or
                missing.
        """
        check_denoiser_inputs(
            x, t, text, channels=self.config.in_channels, features=self.config.text_features
        )
        if (fps is None) == self.config.fps_embedding:
            need = "needs fps [B]" if self.config.fps_embedding else "takes no fps"
            raise InputError(f"this UNet {need} (fps_embedding={self.config.fps_embedding})")
        out_dtype = x.dtype
        x, text = x.astype(self.dtype), text.astype(self.dtype)
        emb = self.embed_time(t, fps)
        with jax.named_scope("in"):
            x = self._per_frame(self.conv_in, x)
            if self.transformer_in is not None:
                x = self.transformer_in(x)
        skips = [x]
        for level in self.down_blocks:
            with jax.named_scope("down"):
                for i in range(len(level.resnets)):
                    x = level.attend(i, level.layer(i, x, emb), text)
                    skips.append(x)
                for downsample in level.downsamplers:
                    x = downsample(x)
                    skips.append(x)
        with jax.named_scope("mid"):
            x = self.mid_block.attend(0, self.mid_block.layer(0, x, emb), text)
            x = self.mid_block.layer(1, x, emb)
        for level in self.up_blocks:
            with jax.named_scope("up"):
                for i in range(len(level.resnets)):
                    x = jnp.concatenate([x, skips.pop()], axis=-1)
                    x = level.attend(i, level.layer(i, x, emb), text)
                for upsample in level.upsamplers:
                    x = upsample(x, *skips[-1].shape[2:4])
        with jax.named_scope("out"):
            flat = x.reshape(-1, *x.shape[2:])
            y = self.conv_out(jax.nn.silu(self.conv_norm_out(flat)))
        return y.reshape(*x.shape[:2], *y.shape[1:]).astype(out_dtype)

    @staticmethod
    def _per_frame(layer: nnx.Conv, x: jax.Array) -> jax.Array:
        y = layer(x.reshape(-1, *x.shape[2:]))
        return y.reshape(*x.shape[:2], *y.shape[1:])
