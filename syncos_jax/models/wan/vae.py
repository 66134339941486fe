"""Wan's autoencoder: causal in time, four frames a latent after the first, read as a stream.

Names follow diffusers' ``AutoencoderKLWan``. A video goes through in pieces, the first frame alone
and then as many frames as make one latent, so the memory that is needed does not depend on the
video's length. The partition does not show in the result: each layer that looks back is given its
last frames of the piece before.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.layers import DType
from syncos_jax.models.wan.causal import (
    CausalConv,
    ChannelNorm,
    Downsample,
    FrameAttention,
    Kept,
    ResidualBlock,
    Stream,
    Upsample,
    averaged,
    repeated,
)
from syncos_jax.models.wan.config import WanVAEConfig


class Middle(nnx.Module):
    """Residual block, attention within each frame, residual block."""

    def __init__(self, channels: int, **kw: Any):
        self.resnets = nnx.List([ResidualBlock(channels, channels, **kw) for _ in range(2)])
        self.attentions = nnx.List([FrameAttention(channels, **kw)])

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        return self.resnets[1](self.attentions[0](self.resnets[0](x, stream)), stream)


class DownLevel(nnx.Module):
    """A level of the encoder with a shortcut around it (Wan2.2-TI2V-5B)."""

    def __init__(self, channels_in: int, channels: int, blocks: int, time: bool | None, **kw: Any):
        pairs = [(channels_in if i == 0 else channels, channels) for i in range(blocks)]
        self.resnets = nnx.List([ResidualBlock(i, o, **kw) for i, o in pairs])
        self.downsampler = nnx.data(None if time is None else Downsample(channels, time=time, **kw))
        self.channels = channels
        self.factors = (2 if time else 1, 1 if time is None else 2)

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        y = x
        for block in self.resnets:
            y = block(y, stream)
        if self.downsampler is not None:
            y = self.downsampler(y, stream)
        return y + averaged(x, self.channels, self.factors)


class UpLevel(nnx.Module):
    """A level of the decoder.

    Args:
        channels_in, channels: channels.
        blocks: residual blocks.
        time: whether the frames double as height and width do; None for no change of size.
        residual: whether there is a shortcut around the level.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        blocks: int,
        time: bool | None,
        residual: bool,
        **kw: Any,
    ):
        pairs = [(channels_in if i == 0 else channels, channels) for i in range(blocks)]
        self.resnets = nnx.List([ResidualBlock(i, o, **kw) for i, o in pairs])
        self.upsamplers: nnx.List[Upsample] = nnx.List([])
        self.upsampler: Any = nnx.data(None)
        self.channels, self.factors = channels, (2 if time else 1, 2)
        self.shortcut = residual and time is not None
        if time is not None and residual:
            self.upsampler = nnx.data(Upsample(channels, channels, time=time, **kw))
        elif time is not None:
            self.upsamplers.append(Upsample(channels, channels // 2, time=time, **kw))

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        y = x
        for layer in (*self.resnets, *self.upsamplers):
            y = layer(y, stream)
        if not self.shortcut:
            return y
        y = self.upsampler(y, stream)
        return y + repeated(x, self.channels, self.factors, stream.first)


class Encoder(nnx.Module):
    """Frames ``[n, f, H, W, C]`` to moments."""

    def __init__(self, config: WanVAEConfig, **kw: Any):
        widths = [config.base * m for m in (1, *config.multipliers)]
        times: list[bool | None] = [*config.time_halved, None]
        channels_in = config.image_channels * config.patch**2
        self.conv_in = CausalConv(channels_in, widths[0], **kw)
        layers: list[Any] = []
        for before, width, time in zip(widths[:-1], widths[1:], times, strict=True):
            if config.residual:
                layers.append(DownLevel(before, width, config.blocks, time, **kw))
                continue
            for i in range(config.blocks):
                layers.append(ResidualBlock(before if i == 0 else width, width, **kw))
            if time is not None:
                layers.append(Downsample(width, time=time, **kw))
        self.down_blocks = nnx.List(layers)
        self.mid_block = Middle(widths[-1], **kw)
        self.norm_out = ChannelNorm(widths[-1], dtype=kw["dtype"])
        self.conv_out = CausalConv(widths[-1], 2 * config.latent_channels, **kw)

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        x = self.conv_in(x, stream)
        for layer in self.down_blocks:
            x = layer(x, stream)
        x = self.mid_block(x, stream)
        return self.conv_out(jax.nn.silu(self.norm_out(x)), stream)


class Decoder(nnx.Module):
    """Latents ``[n, f, h, w, C]`` to frames."""

    def __init__(self, config: WanVAEConfig, **kw: Any):
        base = config.base if config.decoder_base is None else config.decoder_base
        widths = [base * m for m in (config.multipliers[-1], *config.multipliers[::-1])]
        times: list[bool | None] = [*config.time_halved[::-1], None]
        self.conv_in = CausalConv(config.latent_channels, widths[0], **kw)
        self.mid_block = Middle(widths[0], **kw)
        levels = []
        for i, time in enumerate(times):
            # Without shortcuts, the change of size before has halved the channels.
            before = widths[i] if i == 0 or config.residual else widths[i] // 2
            levels.append(
                UpLevel(before, widths[i + 1], config.blocks + 1, time, config.residual, **kw)
            )
        self.up_blocks = nnx.List(levels)
        self.norm_out = ChannelNorm(widths[-1], dtype=kw["dtype"])
        self.conv_out = CausalConv(widths[-1], config.image_channels * config.patch**2, **kw)

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        x = self.mid_block(self.conv_in(x, stream), stream)
        for level in self.up_blocks:
            x = level(x, stream)
        return self.conv_out(jax.nn.silu(self.norm_out(x)), stream)


class WanVAE(nnx.Module):
    """Videos to latents and back. Latents here are unscaled: mean and standard deviation of the
    diffusion's latents are the caller's (``config.latents_mean``, ``config.latents_std``).

    Args:
        config: sizes.
        dtype: of weights and computation (norm statistics are float32).
    """

    def __init__(self, config: WanVAEConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, jnp.dtype(dtype)
        kw: dict[str, Any] = {"dtype": self.dtype, "rngs": rngs}
        channels = config.latent_channels
        self.encoder = Encoder(config, **kw)
        self.decoder = Decoder(config, **kw)
        self.quant_conv = CausalConv(2 * channels, 2 * channels, 1, 1, **kw)
        self.post_quant_conv = CausalConv(channels, channels, 1, 1, **kw)

    def encode(self, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log-variance of the latents.

        Args:
            video: ``[n, F, H, W, 3]`` in [-1, 1]; F one more than a multiple of
                ``config.time_factor``, H and W divisible by ``config.factor``.

        Returns:
            ``mean, logvar``, each ``[n, f, H/8, W/8, C]`` float32; logvar within [-30, 20].

        Raises:
            InputError: the video's sizes do not fit.
        """
        n, F, H, W, _ = video.shape
        factor, piece = self.config.factor, self.config.time_factor
        self.config.latents(F)  # or an error
        if H % factor or W % factor:
            raise InputError(f"frames of {H} x {W} pixels: both must be divisible by {factor}")
        moments, kept = self.encode_piece(video[:, :1], None)
        if F > 1:
            rest = video[:, 1:].reshape(n, -1, piece, H, W, video.shape[-1])

            def step(kept: Kept, part: jax.Array) -> tuple[Kept, jax.Array]:
                out, kept = self.encode_piece(part, kept)
                return kept, out

            _, later = jax.lax.scan(step, kept, jnp.moveaxis(rest, 1, 0))
            moments = jnp.concatenate([moments, _joined(later)], axis=1)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def decode(self, latents: jax.Array) -> jax.Array:
        """Frames of latents, ``[n, f, h, w, C] -> [n, F, 8 h, 8 w, 3]`` float32 within [-1, 1]."""
        frames, kept = self.decode_piece(latents[:, :1], None)
        if latents.shape[1] == 1:
            return frames

        def step(kept: Kept, latent: jax.Array) -> tuple[Kept, jax.Array]:
            out, kept = self.decode_piece(latent[:, None], kept)
            return kept, out

        _, later = jax.lax.scan(step, kept, jnp.moveaxis(latents[:, 1:], 1, 0))
        return jnp.concatenate([frames, _joined(later)], axis=1)

    def encode_piece(self, video: jax.Array, kept: Kept | None) -> tuple[jax.Array, Kept]:
        """One piece of a video's stream to moments ``[n, f, h, w, 2 C]``.

        Args:
            video: the first frame alone, ``[n, 1, H, W, 3]``; later a multiple of
                ``config.time_factor`` frames.
            kept: what the piece before returned; None for the first.
        """
        stream = Stream(kept)
        y = self.encoder(self._folded(video.astype(self.dtype)), stream)
        return self.quant_conv(y, stream).astype(jnp.float32), stream.kept

    def decode_piece(self, latents: jax.Array, kept: Kept | None) -> tuple[jax.Array, Kept]:
        """One piece of a stream of latents to frames ``[n, F, 8 h, 8 w, 3]`` within [-1, 1].

        Args:
            latents: the first alone, ``[n, 1, h, w, C]``; later any number.
            kept: what the piece before returned; None for the first.
        """
        stream = Stream(kept)
        y = self.post_quant_conv(latents.astype(self.dtype), stream)
        frames = self._unfolded(self.decoder(y, stream)).astype(jnp.float32)
        return jnp.clip(frames, -1.0, 1.0), stream.kept

    def _folded(self, x: jax.Array) -> jax.Array:
        """Pixels of each patch to channels (colour, column, row)."""
        p, (n, f, h, w, C) = self.config.patch, x.shape
        x = x.reshape(n, f, h // p, p, w // p, p, C).transpose(0, 1, 2, 4, 6, 5, 3)
        return x.reshape(n, f, h // p, w // p, -1)

    def _unfolded(self, x: jax.Array) -> jax.Array:
        p, (n, f, h, w, C) = self.config.patch, x.shape
        x = x.reshape(n, f, h, w, C // p**2, p, p).transpose(0, 1, 2, 6, 3, 5, 4)
        return x.reshape(n, f, h * p, w * p, -1)


def _joined(pieces: jax.Array) -> jax.Array:
    """``[pieces, n, f, ...] -> [n, pieces f, ...]``."""
    pieces = jnp.moveaxis(pieces, 0, 1)
    return pieces.reshape(pieces.shape[0], -1, *pieces.shape[3:])
