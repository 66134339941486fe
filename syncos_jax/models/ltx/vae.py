"""LTX-2's autoencoder: a causal encoder, and a decoder whose convolutions look ahead.

Names follow diffusers' ``AutoencoderKLLTX2Video``. A long video is decoded in pieces that give the
same frames as the whole (`syncos_jax.models.ltx.stream`), so the memory that is needed does not
depend on its length.

Sizes: ``n`` videos, ``f h w`` frames, rows and columns, ``C`` channels.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.layers import DType, TimestepEmbedding
from syncos_jax.models.ltx.config import Change, LTXVAEConfig
from syncos_jax.models.ltx.stream import Kept, Piece, Stream
from syncos_jax.models.ltx.transformer import timestep_features
from syncos_jax.models.ltx.vae_layers import (
    Conv,
    Downsample,
    ResidualBlock,
    Upsample,
    activated,
    patched,
    unpatched,
)

_TIME_FEATURES = 256
_TIME_SCALE = 1000.0


class DownLevel(nnx.Module):
    """Residual blocks, then perhaps a change of size."""

    def __init__(
        self,
        width: int,
        channels: int,
        blocks: int,
        change: Change,
        config: LTXVAEConfig,
        **kw: Any,
    ):
        how = config.encoder_causal, config.encoder_reflect
        self.resnets = nnx.List(
            [ResidualBlock(width, width, *how, eps=config.eps, **kw) for _ in range(blocks)]
        )
        self.downsampler = nnx.data(
            None if change == "none" else Downsample(width, channels, change, *how, **kw)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        for block in self.resnets:
            x = block(x, Piece())
        return x if self.downsampler is None else self.downsampler(x)


class Encoder(nnx.Module):
    """Frames ``[n, F, H, W, 3]`` to means and one log-variance ``[n, f, h, w, C + 1]``."""

    def __init__(self, config: LTXVAEConfig, **kw: Any):
        how = config.encoder_causal, config.encoder_reflect
        widths = (config.latent_channels, *config.encoder_widths)
        self.conv_in = Conv(config.image_channels * config.patch**2, widths[0], *how, **kw)
        self.down_blocks = nnx.List(
            [
                DownLevel(widths[i], widths[i + 1], config.encoder_blocks[i], change, config, **kw)
                for i, change in enumerate(config.down)
            ]
        )
        last = config.encoder_blocks[-1]
        self.mid_block = DownLevel(widths[-1], widths[-1], last, "none", config, **kw)
        self.conv_out = Conv(widths[-1], config.latent_channels + 1, *how, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.conv_in(x, Piece())
        for level in (*self.down_blocks, self.mid_block):
            x = level(x)
        return self.conv_out(activated(x), Piece())


class TimeEmbedder(nnx.Module):
    """A noise level times 1000 as ``[n, count, C]``, float32."""

    def __init__(self, channels: int, count: int, rngs: nnx.Rngs):
        self.count = count
        self.embedder = TimestepEmbedding(
            _TIME_FEATURES, channels * count, dtype=jnp.float32, rngs=rngs
        )

    def __call__(self, t: jax.Array) -> jax.Array:
        return self.embedder(timestep_features(t, _TIME_FEATURES)).reshape(len(t), self.count, -1)


class Level(nnx.Module):
    """Perhaps a change of size, then residual blocks.

    Args:
        channels_in, channels: in front of the level and in it.
        blocks: residual blocks.
        change, divided, residual: of the change of size; see `LTXVAEConfig`.
        config: of the autoencoder.
    """

    def __init__(
        self,
        channels_in: int,
        channels: int,
        blocks: int,
        change: Change,
        divided: int,
        residual: bool,
        config: LTXVAEConfig,
        **kw: Any,
    ):
        how = config.decoder_causal, config.decoder_reflect
        timed, eps = config.time_conditioned, config.eps
        self.conv_in = nnx.data(
            ResidualBlock(channels_in, channels, *how, eps=eps, **kw)
            if channels_in != channels
            else None
        )
        self.time_embedder = nnx.data(TimeEmbedder(channels, 4, kw["rngs"]) if timed else None)
        self.upsampler = nnx.data(
            None
            if change == "none"
            else Upsample(channels * divided, change, divided, residual, *how, **kw)
        )
        self.resnets = nnx.List(
            [
                ResidualBlock(channels, channels, *how, timed=timed, eps=eps, **kw)
                for _ in range(blocks)
            ]
        )

    def __call__(self, x: jax.Array, t: jax.Array, stream: Stream) -> jax.Array:
        for layer in (self.conv_in, self.upsampler):
            x = x if layer is None else stream.through(layer, x)
        time = () if self.time_embedder is None else (self.time_embedder(t),)
        for block in self.resnets:
            x = stream.through(block, x, *time)
        return x


class Decoder(nnx.Module):
    """Latents ``[n, f, h, w, C]`` to frames ``[n, F, H, W, 3]``."""

    def __init__(self, config: LTXVAEConfig, **kw: Any):
        how = config.decoder_causal, config.decoder_reflect
        widths, blocks = config.decoder_widths[::-1], config.decoder_blocks[::-1]
        width = widths[0]
        self.conv_in = Conv(config.latent_channels, width, *how, **kw)
        self.mid_block = Level(width, width, blocks[0], "none", 1, False, config, **kw)
        factors, residual = config.up_factors[::-1], config.up_residual[::-1]
        levels = []
        for i, channels in enumerate(widths):
            before, width = width // factors[i], channels // factors[i]
            levels.append(
                Level(
                    before,
                    width,
                    blocks[i + 1],
                    config.up[i],
                    factors[i],
                    residual[i],
                    config,
                    **kw,
                )
            )
        self.up_blocks = nnx.List(levels)
        self.conv_out = Conv(width, config.image_channels * config.patch**2, *how, **kw)
        timed = config.time_conditioned
        self.time_embedder = nnx.data(TimeEmbedder(width, 2, kw["rngs"]) if timed else None)
        self.scale_shift_table = nnx.data(
            nnx.Param(jnp.zeros((2, width), jnp.float32)) if timed else None
        )
        self.timestep_scale_multiplier = nnx.data(
            nnx.Param(jnp.asarray(_TIME_SCALE, jnp.float32)) if timed else None
        )

    def __call__(self, x: jax.Array, t: jax.Array, stream: Stream) -> jax.Array:
        if self.timestep_scale_multiplier is not None:
            t = t * self.timestep_scale_multiplier[...]
        x = stream.through(self.conv_in, x)
        for level in (self.mid_block, *self.up_blocks):
            x = level(x, t, stream)
        changes: tuple[jax.Array, ...] = ()
        if self.time_embedder is not None and self.scale_shift_table is not None:
            table = self.scale_shift_table[...][None] + self.time_embedder(t)
            changes = tuple(table[:, i, None, None, None] for i in range(2))
        return stream.through(self.conv_out, activated(x, *changes))

    def numbers(self, start: int, length: int) -> tuple[int, int]:
        """Number of the first frame that comes out where the first latent that goes in has number
        `start`, and frames of the video, where it has `length` latents."""
        layers: list[Any] = [self.conv_in]
        for level in (self.mid_block, *self.up_blocks):
            layers += [x for x in (level.conv_in, level.upsampler) if x is not None]
            layers += list(level.resnets)
        for layer in (*layers, self.conv_out):
            start, length = layer.moved(start, length)
        return start, length


class LTXVAE(nnx.Module):
    """Videos to latents and back. Latents here are unscaled: mean and standard deviation of the
    diffusion's latents are the caller's (``config.latents_mean``, ``config.latents_std``).

    Args:
        config: sizes.
        dtype: of weights and computation (norm statistics are float32).
    """

    def __init__(self, config: LTXVAEConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, jnp.dtype(dtype)
        kw: dict[str, Any] = {"dtype": self.dtype, "rngs": rngs}
        self.encoder, self.decoder = Encoder(config, **kw), Decoder(config, **kw)

    def encode(self, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log-variance of the latents.

        Args:
            video: ``[n, F, H, W, 3]`` in [-1, 1]; F one more than a multiple of
                ``config.time_factor``, H and W divisible by ``config.factor``.

        Returns:
            ``mean, logvar``, each ``[n, f, h, w, C]`` float32; all channels have one logvar, within
            [-30, 20].

        Raises:
            InputError: the video's sizes do not fit.
        """
        _, F, H, W, _ = video.shape
        config = self.config
        if (F - 1) % config.time_factor or H % config.factor or W % config.factor:
            raise InputError(
                f"a video of {F} frames of {H} x {W} pixels: frames must be one more than a "
                f"multiple of {config.time_factor}, height and width divisible by {config.factor}"
            )
        moments = self.encoder(patched(video.astype(self.dtype), config.patch))
        moments = moments.astype(jnp.float32)
        mean, logvar = moments[..., :-1], jnp.clip(moments[..., -1:], -30.0, 20.0)
        return mean, jnp.broadcast_to(logvar, mean.shape)

    def decode(self, latents: jax.Array, t: jax.Array | None = None) -> jax.Array:
        """Frames ``[n, F, H, W, 3]`` float32, about [-1, 1], of unscaled latents
        ``[n, f, h, w, C]``; `t` ``[n]``: the noise level that a conditioned decoder is given, 0
        where None."""
        return self._decoded(latents, t, Stream())

    def decode_piece(
        self, latents: jax.Array, start: jax.Array, length: jax.Array, kept: Kept | None
    ) -> tuple[jax.Array, Kept]:
        """A piece of a stream of latents to frames; see `frame_numbers` for which.

        Args:
            latents: unscaled ``[n, f, h, w, C]``; each piece of a video has the same number. Those
                behind the last have no meaning, and push out the frames that still are to come.
            start: number of the first latent, int32 scalar.
            length: latents of the whole video, int32 scalar.
            kept: what the piece before returned; None for zeros in front of the first.
        """
        stream = Stream(start, length, kept)
        return self._decoded(latents, None, stream), stream.kept

    def frame_numbers(self, start: int, length: int) -> tuple[int, int]:
        """Number of the first frame that `decode_piece` returns (negative at first: what is outside
        of the video is to be dropped), and frames of the whole video."""
        return self.decoder.numbers(start, length)

    def _decoded(self, latents: jax.Array, t: jax.Array | None, stream: Stream) -> jax.Array:
        if t is None:
            t = jnp.zeros((latents.shape[0],), jnp.float32)
        y = self.decoder(latents.astype(self.dtype), t, stream)
        return unpatched(y, self.config.patch).astype(jnp.float32)
