"""CogVideoX's autoencoder: causal in time, four frames a latent, read as a stream of pieces.

Names follow diffusers' ``AutoencoderKLCogVideoX``. A video goes through in pieces of two latent
frames (eight frames), the first with what is left over; each convolution is handed its last frames
of the piece before. Group norms are over a piece, and the first of an odd number of frames stands
alone in changes of rate, so the partition is part of the result: 13 latents make 49 frames, 12 make
48.

Sizes: ``n`` videos, ``f h w`` frames, rows and columns, ``C`` channels.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from syncos_jax.models.cogvideox.config import CogVideoXVAEConfig
from syncos_jax.models.layers import Conv, DType, GroupNorm, Linear, upsample_nearest
from syncos_jax.models.wan.causal import CausalConv

Kept = tuple[jax.Array, ...]
"""The last input frames of every causal convolution, in the order in which they are called."""
_EPS = 1e-6
_PIECE = 2
"""Latent frames that are decoded together."""
_VIDEO_PIECE = 8
"""Frames that are encoded together, whatever the rate."""


class Stream:
    """One piece of a video on its way through the layers: hands each its last frames.

    Args:
        kept: what the piece before left; None for the first piece, before which the first frame is
            repeated.
    """

    def __init__(self, kept: Kept | None):
        self._first = kept is None
        self._old: Iterator[jax.Array] = iter(kept or ())
        self._new: list[jax.Array] = []

    def convolve(self, conv: CausalConv, x: jax.Array) -> jax.Array:
        """A convolution over this piece and what came before it."""
        before = jnp.repeat(x[:, :1], conv.taps - 1, axis=1) if self._first else next(self._old)
        x = jnp.concatenate([before, x], axis=1)
        self._new.append(x[:, 1 - conv.taps :])
        return conv.over(x)

    @property
    def kept(self) -> Kept:
        """For the next piece."""
        return tuple(self._new)


def _per_frame(layer: Any, x: jax.Array) -> jax.Array:
    """A layer on images, over the frames of videos."""
    n, f = x.shape[:2]
    y = layer(x.reshape(n * f, *x.shape[2:]))
    return y.reshape(n, f, *y.shape[1:])


class PlainNorm(nnx.Module):
    """Group norm over a piece; the encoder's."""

    def __init__(self, channels: int, config: CogVideoXVAEConfig, eps: float, **kw: Any):
        self.norm = GroupNorm(channels, config.norm_groups, eps=eps, dtype=kw["dtype"])

    def __call__(self, x: jax.Array, z: jax.Array | None) -> jax.Array:
        return self.norm(x)


class SpatialNorm(nnx.Module):
    """Group norm over a piece, scaled and shifted by the latents at each place; the decoder's.

    (Zheng et al., arXiv 2209.09002.) The latents' convolutions have size 1, so they are done before
    the latents are resized to the size of ``x``.
    """

    def __init__(self, channels: int, config: CogVideoXVAEConfig, eps: float, **kw: Any):
        self.norm = GroupNorm(channels, config.norm_groups, eps=_EPS, dtype=kw["dtype"])
        self.conv_y = Linear(config.latent_channels, channels, **kw)
        self.conv_b = Linear(config.latent_channels, channels, **kw)

    def __call__(self, x: jax.Array, z: jax.Array | None) -> jax.Array:
        assert z is not None
        return self.norm(x) * _resized(self.conv_y(z), x) + _resized(self.conv_b(z), x)


def _resized(z: jax.Array, x: jax.Array) -> jax.Array:
    """``z`` repeated to the frames, rows and columns of ``x``; the first of an odd number of frames
    stands alone."""
    frames, alone = x.shape[1], x.shape[1] % 2
    first, rest = z[:, :alone], z[:, alone:]
    if rest.shape[1]:
        rest = jnp.repeat(rest, (frames - alone) // rest.shape[1], axis=1)
    z = jnp.concatenate([first, rest], axis=1)
    return jnp.repeat(
        jnp.repeat(z, x.shape[2] // z.shape[2], axis=2), x.shape[3] // z.shape[3], axis=3
    )


class ResnetBlock(nnx.Module):
    """Two causal convolutions beside a shortcut: ``[n, f, h, w, C] -> [n, f, h, w, O]``."""

    def __init__(
        self, channels_in: int, channels_out: int, config: CogVideoXVAEConfig, norm: Any, **kw: Any
    ):
        self.norm1 = norm(channels_in, config, config.eps, **kw)
        self.conv1 = CausalConv(channels_in, channels_out, **kw)
        self.norm2 = norm(channels_out, config, config.eps, **kw)
        self.conv2 = CausalConv(channels_out, channels_out, **kw)
        self.conv_shortcut = nnx.data(
            Linear(channels_in, channels_out, **kw) if channels_in != channels_out else None
        )

    def __call__(self, x: jax.Array, z: jax.Array | None, stream: Stream) -> jax.Array:
        y = stream.convolve(self.conv1, jax.nn.silu(self.norm1(x, z)))
        y = stream.convolve(self.conv2, jax.nn.silu(self.norm2(y, z)))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nnx.Module):
    """Half the height and width, and perhaps half the frames: the mean of two."""

    def __init__(self, channels: int, *, time: bool, **kw: Any):
        self.conv = Conv(channels, channels, stride=2, padding=((0, 1), (0, 1)), **kw)
        self.time = time

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.time and x.shape[1] > 1:
            alone = x.shape[1] % 2
            pairs = x[:, alone:].reshape(x.shape[0], -1, 2, *x.shape[2:])
            pairs = pairs.astype(jnp.float32).mean(axis=2).astype(x.dtype)
            x = jnp.concatenate([x[:, :alone], pairs], axis=1)
        return _per_frame(self.conv, x)


class Upsample(nnx.Module):
    """Twice the height and width, and perhaps twice the frames (the first of an odd number stays
    one). Frames are doubled after the convolution, which would do the same to both."""

    def __init__(self, channels: int, *, time: bool, **kw: Any):
        self.conv = Conv(channels, channels, **kw)
        self.time = time

    def __call__(self, x: jax.Array) -> jax.Array:
        y = _per_frame(lambda y: self.conv(upsample_nearest(y, 2 * y.shape[1], 2 * y.shape[2])), x)
        if not self.time or y.shape[1] == 1:
            return y
        alone = y.shape[1] % 2
        return jnp.concatenate([y[:, :alone], jnp.repeat(y[:, alone:], 2, axis=1)], axis=1)


class Level(nnx.Module):
    """Residual blocks of one size, and the change to the next."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        blocks: int,
        config: CogVideoXVAEConfig,
        norm: Any,
        **kw: Any,
    ):
        pairs = [(channels_in if i == 0 else channels, channels) for i in range(blocks)]
        self.resnets = nnx.List([ResnetBlock(i, o, config, norm, **kw) for i, o in pairs])
        self.downsamplers: nnx.List[Downsample] = nnx.List([])
        self.upsamplers: nnx.List[Upsample] = nnx.List([])

    def __call__(self, x: jax.Array, z: jax.Array | None, stream: Stream) -> jax.Array:
        for block in self.resnets:
            x = block(x, z, stream)
        for change in (*self.downsamplers, *self.upsamplers):
            x = change(x)
        return x


class Encoder(nnx.Module):
    """A piece of frames ``[n, f, H, W, 3]`` to moments ``[n, f', h, w, 2 C]``."""

    def __init__(self, config: CogVideoXVAEConfig, **kw: Any):
        widths = config.block_out_channels
        self.conv_in = CausalConv(config.image_channels, widths[0], **kw)
        levels = []
        for i, width in enumerate(widths):
            before = widths[max(0, i - 1)]
            level = Level(before, width, config.layers_per_block, config, PlainNorm, **kw)
            if i < len(widths) - 1:
                level.downsamplers.append(Downsample(width, time=i < config.time_levels, **kw))
            levels.append(level)
        self.down_blocks = nnx.List(levels)
        self.mid_block = Level(widths[-1], widths[-1], 2, config, PlainNorm, **kw)
        self.norm_out = PlainNorm(widths[-1], config, _EPS, **kw)
        self.conv_out = CausalConv(widths[-1], 2 * config.latent_channels, **kw)

    def __call__(self, x: jax.Array, stream: Stream) -> jax.Array:
        x = stream.convolve(self.conv_in, x)
        for level in (*self.down_blocks, self.mid_block):
            x = level(x, None, stream)
        return stream.convolve(self.conv_out, jax.nn.silu(self.norm_out(x, None)))


class Decoder(nnx.Module):
    """A piece of latents ``[n, f, h, w, C]`` to frames ``[n, F, H, W, 3]``."""

    def __init__(self, config: CogVideoXVAEConfig, **kw: Any):
        widths = config.block_out_channels[::-1]
        self.conv_in = CausalConv(config.latent_channels, widths[0], **kw)
        self.mid_block = Level(widths[0], widths[0], 2, config, SpatialNorm, **kw)
        levels = []
        for i, width in enumerate(widths):
            before = widths[max(0, i - 1)]
            level = Level(before, width, config.layers_per_block + 1, config, SpatialNorm, **kw)
            if i < len(widths) - 1:
                level.upsamplers.append(Upsample(width, time=i < config.time_levels, **kw))
            levels.append(level)
        self.up_blocks = nnx.List(levels)
        self.norm_out = SpatialNorm(widths[-1], config, _EPS, **kw)
        self.conv_out = CausalConv(widths[-1], config.image_channels, **kw)

    def __call__(self, z: jax.Array, stream: Stream) -> jax.Array:
        x = stream.convolve(self.conv_in, z)
        for level in (self.mid_block, *self.up_blocks):
            x = level(x, z, stream)
        return stream.convolve(self.conv_out, jax.nn.silu(self.norm_out(x, z)))


class CogVideoXVAE(nnx.Module):
    """Videos to latents and back. Latents here are unscaled: the diffusion's scale is the caller's.

    Args:
        config: sizes.
        dtype: of weights and computation (norm statistics in float32).
    """

    def __init__(self, config: CogVideoXVAEConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, jnp.dtype(dtype)
        kw: dict[str, Any] = {"dtype": self.dtype, "rngs": rngs}
        self.encoder = Encoder(config, **kw)
        self.decoder = Decoder(config, **kw)

    def encode(self, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log-variance of the latents.

        Args:
            video: ``[n, F, H, W, 3]`` in [-1, 1]; H and W divisible by ``config.factor``. Made for
                1, 8 k or 8 k + 1 frames.

        Returns:
            ``mean, logvar``, each ``[n, f, H/8, W/8, C]`` float32; logvar within [-30, 20].
        """
        moments = _in_pieces(self.encode_piece, video, _VIDEO_PIECE)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def encode_piece(self, video: jax.Array, kept: Kept | None) -> tuple[jax.Array, Kept]:
        """Moments ``[n, f', h, w, 2 C]`` float32 of the next frames, and what the piece after them
        has to be given; None before the first."""
        stream = Stream(kept)
        moments = self.encoder(video.astype(self.dtype), stream)
        return moments.astype(jnp.float32), stream.kept

    def decode(self, latents: jax.Array) -> jax.Array:
        """Frames ``[n, config.frames(f), H, W, 3]`` float32, about [-1, 1], of unscaled latents
        ``[n, f, h, w, C]``."""
        return _in_pieces(self.decode_piece, latents, _PIECE)

    def decode_piece(self, latents: jax.Array, kept: Kept | None) -> tuple[jax.Array, Kept]:
        """Frames ``[n, F, H, W, 3]`` float32 of the next latents (see `pieces`), and what the piece
        after them has to be given; None before the first."""
        stream = Stream(kept)
        frames = self.decoder(latents.astype(self.dtype), stream)
        return frames.astype(jnp.float32), stream.kept


def pieces(frames: int, size: int = _PIECE) -> list[tuple[int, int]]:
    """Where the pieces of a stream begin and end: each `size` long, the first with the rest."""
    first = min(frames, size + frames % size)
    starts = [0, *range(first, frames, size)]
    return list(zip(starts, [*starts[1:], frames], strict=True))


def _in_pieces(step: Any, x: jax.Array, size: int) -> jax.Array:
    """A whole stream ``[n, f, ...]``: the first piece, then the others in one loop, so that there
    are two copies of the network in the program and one piece's activations in memory."""
    _, first = pieces(x.shape[1], size)[0]
    y, kept = step(x[:, :first], None)
    if first == x.shape[1]:
        return y
    rest = x[:, first:].reshape(x.shape[0], -1, size, *x.shape[2:])

    def one(kept: Kept, part: jax.Array) -> tuple[Kept, jax.Array]:
        out, kept = step(part, kept)
        return kept, out

    _, parts = jax.lax.scan(one, kept, jnp.moveaxis(rest, 1, 0))
    parts = jnp.moveaxis(parts, 0, 1)
    return jnp.concatenate([y, parts.reshape(x.shape[0], -1, *parts.shape[3:])], axis=1)
