"""Open-Sora Plan's autoencoder, WF-VAE (Li et al., arXiv 2411.17459): causal in time, with the
video's wavelets on a path next to its levels.

Names follow the original ``WFVAEModel``. A video is decoded in pieces that give the same frames as
the whole (`syncos_jax.models.ltx.stream`); one latent frame of look-ahead is all that they lag.

Sizes: ``n`` videos, ``f h w`` frames, rows and columns, ``C`` channels.
"""

from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.kernels.attention import attention
from syncos_jax.models.layers import Conv, DType, LayerNorm, Linear, upsample_nearest
from syncos_jax.models.ltx.stream import Piece
from syncos_jax.models.open_sora_plan.config import WFVAEConfig
from syncos_jax.models.wan.causal import CausalConv

_HAAR = (0.3536, 0.5)
"""Factors of the wavelets in three dimensions and in two, as trained: not 8 ** -0.5."""
_Norm = partial(LayerNorm, eps=1e-6)


def _signs(axes: int) -> np.ndarray:
    """``[bands, cells]``: cells of ``2^axes`` in the order (frame, row, column)."""
    cells = list(product((0, 1), repeat=axes))
    return np.asarray(
        [
            [(-1.0) ** sum(b * c for b, c in zip(band, cell, strict=True)) for cell in cells]
            for band in cells
        ],
        np.float32,
    )


_CUBE = _HAAR[0] * _signs(3)
_SQUARE = _HAAR[1] * _signs(2)[[0, 2, 1, 3]]  # the band of rows comes first


def _bands(x: jax.Array, table: np.ndarray) -> jax.Array:
    """Cells ``[..., cells, C] -> [..., bands C]``."""
    y = jnp.einsum("...kc,bk->...bc", x, jnp.asarray(table, x.dtype))
    return y.reshape(*y.shape[:-2], -1)


def wavelets(x: jax.Array) -> jax.Array:
    """``[n, f, h, w, C] -> [n, (f + 1) / 2, h/2, w/2, 8 C]``; the first frame counts twice."""
    x = jnp.concatenate([x[:, :1], x], axis=1)
    n, f, h, w, C = x.shape
    x = x.reshape(n, f // 2, 2, h // 2, 2, w // 2, 2, C).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return _bands(x.reshape(n, f // 2, h // 2, w // 2, 8, C), _CUBE)


def wavelets_of_frames(x: jax.Array) -> jax.Array:
    """``[n, f, h, w, C] -> [n, f, h/2, w/2, 4 C]``."""
    n, f, h, w, C = x.shape
    x = x.reshape(n, f, h // 2, 2, w // 2, 2, C).transpose(0, 1, 2, 4, 3, 5, 6)
    return _bands(x.reshape(n, f, h // 2, w // 2, 4, C), _SQUARE)


def _cells(x: jax.Array, table: np.ndarray) -> jax.Array:
    """Bands ``[..., bands C] -> [..., cells, C]``."""
    bands = len(table)
    y = x.reshape(*x.shape[:-1], bands, -1)
    return jnp.einsum("...bc,bk->...kc", y, jnp.asarray(table, x.dtype))


def from_wavelets(x: jax.Array) -> jax.Array:
    """``[n, f, h, w, 8 C] -> [n, 2 f, 2 h, 2 w, C]``; the first frame is to be dropped."""
    n, f, h, w, _ = x.shape
    y = _cells(x, _CUBE).reshape(n, f, h, w, 2, 2, 2, -1).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return y.reshape(n, 2 * f, 2 * h, 2 * w, -1)


def from_wavelets_of_frames(x: jax.Array) -> jax.Array:
    """``[n, f, h, w, 4 C] -> [n, f, 2 h, 2 w, C]``."""
    n, f, h, w, _ = x.shape
    y = _cells(x, _SQUARE).reshape(n, f, h, w, 2, 2, -1).transpose(0, 1, 2, 4, 3, 5, 6)
    return y.reshape(n, f, 2 * h, 2 * w, -1)


def _per_frame(layer: Any, x: jax.Array) -> jax.Array:
    """A layer on images, over the frames of videos."""
    y = layer(x.reshape(-1, *x.shape[2:]))
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _causal(conv: CausalConv, x: jax.Array, piece: Piece) -> jax.Array:
    """A convolution over this frame and those before; the first frame stands for those before."""
    return conv.over(piece.surrounded(x, conv.taps - 1, 0))


class ResidualBlock(nnx.Module):
    """Two convolutions behind norms, and a shortcut; over frames, or (`flat`) of each frame."""

    def __init__(self, channels_in: int, channels_out: int, *, flat: bool = False, **kw: Any):
        make: Any = Conv if flat else CausalConv
        self.norm1 = _Norm(channels_in, dtype=kw["dtype"])
        self.conv1 = make(channels_in, channels_out, **kw)
        self.norm2 = _Norm(channels_out, dtype=kw["dtype"])
        self.conv2 = make(channels_out, channels_out, **kw)
        other = channels_in != channels_out
        self.nin_shortcut = nnx.data(Linear(channels_in, channels_out, **kw) if other else None)
        self.flat = flat

    def __call__(self, x: jax.Array, piece: Piece) -> jax.Array:
        y = x
        for norm, conv in ((self.norm1, self.conv1), (self.norm2, self.conv2)):
            y = jax.nn.silu(norm(y))
            y = _per_frame(conv, y) if self.flat else _causal(conv, y, piece)
        return y + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class FrameAttention(nnx.Module):
    """Single-head attention among the pixels of each frame."""

    def __init__(self, channels: int, **kw: Any):
        self.norm = _Norm(channels, dtype=kw["dtype"])
        self.q, self.k, self.v, self.proj_out = (Linear(channels, channels, **kw) for _ in range(4))

    def __call__(self, x: jax.Array, piece: Piece) -> jax.Array:
        n, f, h, w, C = x.shape
        y = self.norm(x).reshape(n * f, h * w, 1, C)
        y = attention(self.q(y), self.k(y), self.v(y))
        return x + self.proj_out(y.reshape(x.shape))


class Flat(nnx.Module):
    """A convolution of each frame; with `stride`, of half the size."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1, **kw: Any):
        padding = None if stride == 1 else ((0, 1), (0, 1))
        self.conv = Conv(channels_in, channels_out, stride=stride, padding=padding, **kw)

    def __call__(self, x: jax.Array, piece: Piece) -> jax.Array:
        return _per_frame(self.conv, x)


class UpsampleFrames(Flat):
    """Twice the height and width, then a convolution of each frame."""

    def __call__(self, x: jax.Array, piece: Piece) -> jax.Array:
        large = _per_frame(lambda y: upsample_nearest(y, 2 * y.shape[1], 2 * y.shape[2]), x)
        return _per_frame(self.conv, large)


class Downsample(nnx.Module):
    """A causal convolution to half the frames, height and width."""

    def __init__(self, channels: int, **kw: Any):
        self.conv = CausalConv(channels, channels, **kw)

    def __call__(self, x: jax.Array, piece: Piece) -> jax.Array:
        return self.conv.over(piece.surrounded(x, 2, 0), stride=2, space=2)


class Upsample(nnx.Module):
    """Twice the height and width, and two frames of each but the video's first."""

    def __init__(self, channels: int, linear: bool, **kw: Any):
        self.linear = linear
        self.conv = CausalConv(channels, channels, **kw)

    def __call__(self, x: jax.Array, piece: Piece) -> jax.Array:
        y = piece.surrounded(x, 1, 1)
        before, own, behind = y[:, :-2], y[:, 1:-1], y[:, 2:]
        # The first frame has no part in the others, nor they in it.
        number = jnp.arange(own.shape[1]) + (0 if piece.start is None else piece.start)
        number = number.reshape(1, -1, 1, 1, 1)
        before = jnp.where(number <= 1, own, before)
        behind = jnp.where(number <= 0, own, behind)
        if self.linear:
            pair = [0.75 * own + 0.25 * other for other in (before, behind)]
        else:
            pair = [own, own]
        y = jnp.stack(pair, axis=2).reshape(x.shape[0], -1, *x.shape[2:])
        if piece.start is None:
            y = y[:, 1:]
        else:
            piece.start, piece.length = 2 * piece.start - 1, 2 * piece.length - 1
        return _causal(self.conv, _doubled(_doubled(y, 2), 3), piece)


def _doubled(x: jax.Array, axis: int) -> jax.Array:
    """Twice the size along an axis, interpolated between the centres of cells."""
    x = jnp.moveaxis(x, axis, 0)
    before = jnp.concatenate([x[:1], x[:-1]])
    behind = jnp.concatenate([x[1:], x[-1:]])
    pair = [0.75 * x + 0.25 * other for other in (before, behind)]
    y = jnp.stack(pair, axis=1).reshape(-1, *x.shape[1:])
    return jnp.moveaxis(y, 0, axis)


def _through(layers: Any, x: jax.Array, piece: Piece) -> jax.Array:
    for layer in layers:
        x = _per_frame(layer, x) if isinstance(layer, nnx.Conv) else layer(x, piece)
    return x


def _middle(first: tuple[int, int], last: tuple[int, int], attends: bool, **kw: Any) -> nnx.List:
    attend = [FrameAttention(first[1], **kw)] if attends else []
    return nnx.List([ResidualBlock(*first, **kw), *attend, ResidualBlock(*last, **kw)])


class Encoder(nnx.Module):
    """Frames ``[n, F, H, W, 3]`` to moments ``[n, f, h, w, 2 C]``."""

    def __init__(self, config: WFVAEConfig, **kw: Any):
        base, flow, colours = config.base, config.encoder_flow, config.image_channels
        count = config.encoder_blocks
        self.colours = colours
        flat = [ResidualBlock(base, base, flat=True, **kw) for _ in range(count)]
        self.down1 = nnx.List(
            [Conv(8 * colours, base, **kw), *flat, Flat(base, base, stride=2, **kw)]
        )
        blocks = [ResidualBlock(2 * base, 2 * base, **kw) for _ in range(count)]
        self.down2 = nnx.List(
            [Conv(base + flow, 2 * base, **kw), *blocks, Downsample(2 * base, **kw)]
        )
        self.connect_l1 = Conv(4 * colours, flow, **kw)
        self.connect_l2 = Conv(8 * colours, flow, **kw)
        wide = (2 * base + flow, 4 * base), (4 * base, 4 * base)
        self.mid = _middle(*wide, config.attention, **kw)
        self.norm_out = _Norm(4 * base, dtype=kw["dtype"])
        self.conv_out = CausalConv(4 * base, 2 * config.latent_channels, **kw)

    def __call__(self, x: jax.Array) -> jax.Array:
        piece = Piece()
        bands = wavelets(x)
        fine = wavelets_of_frames(bands[..., : self.colours])
        coarse = wavelets(fine[..., : self.colours])
        y = _through(self.down1, bands, piece)
        y = jnp.concatenate([y, _per_frame(self.connect_l1, fine)], axis=-1)
        y = _through(self.down2, y, piece)
        y = jnp.concatenate([y, _per_frame(self.connect_l2, coarse)], axis=-1)
        y = _through(self.mid, y, piece)
        return _causal(self.conv_out, jax.nn.silu(self.norm_out(y)), piece)


class Decoder(nnx.Module):
    """Latents ``[n, f, h, w, C]`` to frames ``[n, F, H, W, 3]``."""

    def __init__(self, config: WFVAEConfig, **kw: Any):
        base, flow, colours = config.base, config.decoder_flow, config.image_channels
        count, wide = config.decoder_blocks, 4 * config.base
        self.colours, self.flow = colours, flow
        self.conv_in = CausalConv(config.latent_channels, wide, **kw)
        self.mid = _middle((wide, wide), (wide, wide + flow), config.attention, **kw)
        blocks = [ResidualBlock(wide, wide, **kw) for _ in range(count)]
        self.up2 = nnx.List(
            [
                *blocks,
                Upsample(wide, config.linear_time, **kw),
                ResidualBlock(wide, wide + flow, **kw),
            ]
        )
        widths = [wide, *[2 * base] * count]
        blocks = [ResidualBlock(i, o, **kw) for i, o in zip(widths[:-1], widths[1:], strict=True)]
        self.up1 = nnx.List(
            [
                *blocks,
                UpsampleFrames(2 * base, 2 * base, **kw),
                ResidualBlock(2 * base, 2 * base, **kw),
            ]
        )
        self.layer = nnx.List(
            [ResidualBlock(2 * base, base, **kw), ResidualBlock(base, base, **kw)]
        )

        def connection(bands: int) -> nnx.List:
            blocks = [ResidualBlock(flow, flow, **kw) for _ in range(config.flow_blocks)]
            return nnx.List([*blocks, Conv(flow, bands * colours, **kw)])

        self.connect_l1, self.connect_l2 = connection(4), connection(8)
        self.norm_out = _Norm(base, dtype=kw["dtype"])
        self.conv_out = Conv(base, 8 * colours, **kw)

    def __call__(self, z: jax.Array, piece: Piece) -> jax.Array:
        whole, colours = piece.start is None, self.colours
        y = _causal(self.conv_in, z, piece)
        y = _through(self.mid, y, piece)
        y, flow = y[..., : -self.flow], y[..., -self.flow :]
        coarse = from_wavelets(_through(self.connect_l2, flow, piece))
        coarse = coarse[:, 1:] if whole else piece.delayed(coarse, 2)
        y = _through(self.up2, y, piece)
        y, flow = y[..., : -self.flow], y[..., -self.flow :]
        fine = _through(self.connect_l1, flow, piece)
        fine = from_wavelets_of_frames(fine.at[..., :colours].add(coarse))
        y = _through(self.layer, _through(self.up1, y, piece), piece)
        y = _per_frame(self.conv_out, jax.nn.silu(self.norm_out(y)))
        y = from_wavelets(y.at[..., :colours].add(fine))
        return y[:, 1:] if whole else y


class WFVAE(nnx.Module):
    """Videos to latents and back. Latents here are unscaled: scale and shift of the diffusion's
    are the caller's (``config.scale``, ``config.shift``).

    Args:
        config: sizes.
        dtype: of weights and computation (norm statistics are float32).
    """

    factor, time_factor = 8, 4
    """Pixels per latent cell along each side, and frames per latent frame after the first."""

    def __init__(self, config: WFVAEConfig, *, dtype: DType = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, jnp.dtype(dtype)
        kw: dict[str, Any] = {"dtype": self.dtype, "rngs": rngs}
        self.encoder, self.decoder = Encoder(config, **kw), Decoder(config, **kw)

    def encode(self, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and log-variance of the latents.

        Args:
            video: ``[n, F, H, W, 3]`` in [-1, 1]; F one more than a multiple of 4, H and W
                divisible by 8.

        Returns:
            ``mean, logvar``, each ``[n, f, H/8, W/8, C]`` float32; logvar within [-30, 20].

        Raises:
            InputError: the video's sizes do not fit.
        """
        _, F, H, W, _ = video.shape
        if (F - 1) % 4 or H % 8 or W % 8:
            raise InputError(
                f"a video of {F} frames of {H} x {W} pixels: frames must be one more than a "
                "multiple of 4, height and width divisible by 8"
            )
        moments = self.encoder(video.astype(self.dtype)).astype(jnp.float32)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(logvar, -30.0, 20.0)

    def decode(self, latents: jax.Array) -> jax.Array:
        """Frames ``[n, 4 (f - 1) + 1, 8 h, 8 w, 3]`` float32, about [-1, 1], of unscaled latents
        ``[n, f, h, w, C]``."""
        return self.decoder(latents.astype(self.dtype), Piece()).astype(jnp.float32)

    def decode_piece(
        self, latents: jax.Array, start: jax.Array, length: jax.Array, kept: Any
    ) -> tuple[jax.Array, Any]:
        """A piece of a stream of latents to frames; arguments as of ``LTXVAE.decode_piece``."""
        piece = Piece(start, length, kept)
        frames = self.decoder(latents.astype(self.dtype), piece)
        return frames.astype(jnp.float32), piece.kept

    def frame_numbers(self, start: int, length: int) -> tuple[int, int]:
        """Number of the first frame that `decode_piece` returns (negative at first: what is outside
        of the video is to be dropped), and frames of the whole video."""
        return 4 * start - 7, 4 * length - 3
