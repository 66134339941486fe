"""The KL autoencoder of latent diffusion (Stable Diffusion's layout), frame by frame.

Names follow diffusers' ``AutoencoderKL``; the original LDM checkpoints map onto the same modules.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.models.attention import Attention
from syncos_jax.models.layers import Conv, DType, GroupNorm, upsample_nearest


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """Sizes of the autoencoder.

    Attributes:
        image_channels: channels of a frame.
        latent_channels: channels of a latent.
        block_out_channels: channels of each level, finest first; all but the last halve the size.
        layers_per_block: residual blocks of an encoder level (the decoder has one more).
        norm_groups: groups of every group norm (epsilon 1e-6).
    """

    image_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_groups: int = 32

    @property
    def factor(self) -> int:
        """Pixels per latent cell, along each side."""
        return int(2 ** (len(self.block_out_channels) - 1))


class ResnetBlock(nnx.Module):
    """Residual block ``[n, H, W, C] -> [n, H, W, O]``."""

    def __init__(self, channels_in: int, channels_out: int, groups: int, *, dtype, rngs):
        kw = {"dtype": dtype, "rngs": rngs}
        self.norm1 = GroupNorm(channels_in, groups, eps=1e-6, dtype=dtype)
        self.conv1 = Conv(channels_in, channels_out, **kw)
        self.norm2 = GroupNorm(channels_out, groups, eps=1e-6, dtype=dtype)
        self.conv2 = Conv(channels_out, channels_out, **kw)
        self.conv_shortcut = nnx.data(
            Conv(channels_in, channels_out, 1, **kw) if channels_in != channels_out else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv1(jax.nn.silu(self.norm1(x)))
        y = self.conv2(jax.nn.silu(self.norm2(y)))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class MidAttention(nnx.Module):
    """Single-head attention among all pixels of a frame: ``[n, H, W, C] -> [n, H, W, C]``."""

    def __init__(self, channels: int, groups: int, *, dtype, rngs):
        self.group_norm = GroupNorm(channels, groups, eps=1e-6, dtype=dtype)
        self.attention = Attention(channels, 1, channels, bias=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        n, H, W, C = x.shape
        y = self.group_norm(x).reshape(n, H * W, C)
        return x + self.attention(y).reshape(n, H, W, C)


class Resample(nnx.Module):
    """The convolution of a change of size."""

    def __init__(self, channels: int, *, down: bool, dtype, rngs):
        kw = {"dtype": dtype, "rngs": rngs}
        # The reference pads right and bottom only before a strided convolution without padding.
        self.conv = (
            Conv(channels, channels, stride=2, padding=((0, 1), (0, 1)), **kw)
            if down
            else Conv(channels, channels, **kw)
        )
        self.down = down

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.conv(x if self.down else upsample_nearest(x, 2 * x.shape[1], 2 * x.shape[2]))


class Level(nnx.Module):
    """Residual blocks of one resolution, and the change to the next."""

    def __init__(self, channels_in: int, channels: int, layers: int, groups: int, **kw):
        pairs = [(channels_in if i == 0 else channels, channels) for i in range(layers)]
        self.resnets = nnx.List([ResnetBlock(i, o, groups, **kw) for i, o in pairs])
        self.downsamplers: nnx.List[Resample] = nnx.List([])
        self.upsamplers: nnx.List[Resample] = nnx.List([])

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in (*self.resnets, *self.downsamplers, *self.upsamplers):
            x = layer(x)
        return x


class Middle(nnx.Module):
    """Residual block, attention, residual block."""

    def __init__(self, channels: int, groups: int, **kw):
        self.resnets = nnx.List([ResnetBlock(channels, channels, groups, **kw) for _ in range(2)])
        self.attentions = nnx.List([MidAttention(channels, groups, **kw)])

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class Encoder(nnx.Module):
    """Frame ``[n, H, W, 3]`` to moments ``[n, H/f, W/f, 2 C]``."""

    def __init__(self, config: VAEConfig, **kw):
        widths, groups = config.block_out_channels, config.norm_groups
        self.conv_in = Conv(config.image_channels, widths[0], **kw)
        levels, channels = [], widths[0]
        for i, width in enumerate(widths):
            level = Level(channels, width, config.layers_per_block, groups, **kw)
            if i < len(widths) - 1:
                level.downsamplers.append(Resample(width, down=True, **kw))
            levels.append(level)
            channels = width
        self.down_blocks = nnx.List(levels)
        self.mid_block = Middle(channels, groups, **kw)
        self.conv_norm_out = GroupNorm(channels, groups, eps=1e-6, dtype=kw["dtype"])
        self.conv_out = Conv(channels, 2 * config.latent_channels, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nnx.Module):
    """Latent ``[n, h, w, C]`` to frame ``[n, f h, f w, 3]``."""

    def __init__(self, config: VAEConfig, **kw):
        widths, groups = config.block_out_channels[::-1], config.norm_groups
        self.conv_in = Conv(config.latent_channels, widths[0], **kw)
        self.mid_block = Middle(widths[0], groups, **kw)
        levels, channels = [], widths[0]
        for i, width in enumerate(widths):
            level = Level(channels, width, config.layers_per_block + 1, groups, **kw)
            if i < len(widths) - 1:
                level.upsamplers.append(Resample(width, down=False, **kw))
            levels.append(level)
            channels = width
        self.up_blocks = nnx.List(levels)
        self.conv_norm_out = GroupNorm(channels, groups, eps=1e-6, dtype=kw["dtype"])
        self.conv_out = Conv(channels, config.image_channels, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.mid_block(self.conv_in(x))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


class AutoencoderKL(nnx.Module):
    """Frames to latents and back. Latents here are unscaled: the diffusion's scale is the caller's.

    Args:
        config: sizes.
        dtype: of weights and computation (norm statistics stay in float32).
    """

    def __init__(self, config: VAEConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, jnp.dtype(dtype)
        kw: dict[str, Any] = {"dtype": self.dtype, "rngs": rngs}
        self.encoder = Encoder(config, **kw)
        self.decoder = Decoder(config, **kw)
        self.quant_conv = Conv(2 * config.latent_channels, 2 * config.latent_channels, 1, **kw)
        self.post_quant_conv = Conv(config.latent_channels, config.latent_channels, 1, **kw)

    def encode(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log-variance of the latents.

        Args:
            images: ``[n, H, W, 3]`` in [-1, 1]; H and W divisible by ``config.factor``.

        Returns:
            ``mean, logvar``, each ``[n, H/f, W/f, C]`` float32; logvar within [-30, 20].
        """
        moments = self.quant_conv(self.encoder(images.astype(self.dtype))).astype(jnp.float32)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def decode(self, latents: jax.Array) -> jax.Array:
        """Frames ``[n, f h, f w, 3]`` float32, about [-1, 1], of latents ``[n, h, w, C]``."""
        return self.decoder(self.post_quant_conv(latents.astype(self.dtype))).astype(jnp.float32)
