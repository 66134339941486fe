"""Floating-point operations of the networks, counted by hand from their configurations.

Two for each multiplication with its addition, in convolutions, dense layers and the two products of
attention; convolutions count all their taps, at the border as well. Norms, activations and sums are
left out: they are a few per cent, and no device's peak is meant for them.
"""

from __future__ import annotations

import math

from syncos_jax.models.clip_text import CLIPTextConfig
from syncos_jax.models.unet_clip.unet3d import UNet3DConfig
from syncos_jax.models.unet_clip.vae import VAEConfig


def dense(rows: int, features_in: int, features_out: int) -> int:
    """A dense layer on `rows` vectors, or a convolution with ``features_in`` = taps times
    channels on as many positions."""
    return 2 * rows * features_in * features_out


def attention(rows: int, keys: int, inner: int) -> int:
    """Both products of attention: each of `rows` queries against `keys` keys, all heads together
    ``inner`` wide."""
    return 4 * rows * keys * inner


def unet(
    config: UNet3DConfig, *, batch: int, frames: int, height: int, width: int, tokens: int
) -> int:
    """One forward of the UNet.

    Args:
        config: its sizes.
        batch: clips.
        frames: of a clip.
        height, width: of the latent.
        tokens: of the text.
    """
    widths, layers = config.block_out_channels, config.layers_per_block
    first, last = widths[0], widths[-1]
    embedding = 4 * first
    clips = batch * frames

    def transformer(channels: int, inner: int, pixels: int, *, spatial: bool) -> int:
        rows = clips * pixels
        total = 2 * dense(rows, channels, inner)  # into and out of the transformer
        keys = pixels if spatial else frames
        total += 4 * dense(rows, inner, inner) + attention(rows, keys, inner)
        if spatial:  # from every pixel to the text, whose keys and values serve all frames
            total += 2 * dense(rows, inner, inner) + attention(rows, tokens, inner)
            total += 2 * dense(batch * tokens, config.text_features, inner)
        else:
            total += 4 * dense(rows, inner, inner) + attention(rows, keys, inner)
        return total + dense(rows, inner, 8 * inner) + dense(rows, 4 * inner, inner)

    def layer(channels_in: int, channels: int, pixels: int, attends: bool) -> int:
        rows = clips * pixels
        total = dense(rows, 9 * channels_in, channels) + dense(rows, 9 * channels, channels)
        total += dense(batch, embedding, channels)
        if channels_in != channels:
            total += dense(rows, channels_in, channels)
        total += 4 * dense(rows, 3 * channels, channels)  # the temporal convolutions
        if attends:
            total += transformer(channels, channels, pixels, spatial=True)
            total += transformer(channels, channels, pixels, spatial=False)
        return total

    sizes = [(height, width)]
    for _ in widths[1:]:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    pixels = [h * w for h, w in sizes]
    embeddings = 2 if config.fps_embedding else 1
    total = embeddings * (dense(batch, first, embedding) + dense(batch, embedding, embedding))
    total += dense(clips * pixels[0], 9 * config.in_channels, first)
    total += transformer(first, 8 * config.head_size, pixels[0], spatial=False)
    skips, channels = [first], first
    for i, width_ in enumerate(widths):
        for _ in range(layers):
            total += layer(channels, width_, pixels[i], config.attention[i])
            channels = width_
            skips.append(width_)
        if i < len(widths) - 1:
            total += dense(clips * pixels[i + 1], 9 * width_, width_)
            skips.append(width_)
    total += layer(last, last, pixels[-1], True) + layer(last, last, pixels[-1], False)
    for i in reversed(range(len(widths))):
        for _ in range(layers + 1):
            total += layer(channels + skips.pop(), widths[i], pixels[i], config.attention[i])
            channels = widths[i]
        if i > 0:
            total += dense(clips * pixels[i - 1], 9 * channels, channels)
    return total + dense(clips * pixels[0], 9 * first, config.out_channels)


def vae_decode(config: VAEConfig, *, frames: int, height: int, width: int) -> int:
    """Decoding `frames` latents of ``height`` by ``width``."""
    widths = config.block_out_channels[::-1]
    pixels = frames * height * width

    def block(channels_in: int, channels: int, rows: int) -> int:
        total = dense(rows, 9 * channels_in, channels) + dense(rows, 9 * channels, channels)
        return total + (dense(rows, channels_in, channels) if channels_in != channels else 0)

    first, latent = widths[0], config.latent_channels
    total = dense(pixels, latent, latent) + dense(pixels, 9 * latent, first)
    total += 2 * block(first, first, pixels)
    total += 4 * dense(pixels, first, first) + attention(pixels, height * width, first)
    channels = first
    for i, width_ in enumerate(widths):
        for _ in range(config.layers_per_block + 1):
            total += block(channels, width_, pixels)
            channels = width_
        if i < len(widths) - 1:
            pixels *= 4
            total += dense(pixels, 9 * channels, channels)
    return total + dense(pixels, 9 * channels, config.image_channels)


def text(config: CLIPTextConfig, *, prompts: int) -> int:
    """Encoding `prompts` prompts."""
    rows = prompts * config.tokens
    layer = 4 * dense(rows, config.features, config.features)
    layer += attention(rows, config.tokens, config.features)
    layer += 2 * dense(rows, config.features, config.inner)
    return config.layers * layer


def readable(count: float, unit: str = "FLOP") -> str:
    """``12_600_000_000_000`` -> ``12.6 TFLOP``."""
    step = min(int(math.log10(count)) // 3, 5) if count >= 1 else 0
    return f"{count / 1000**step:.3g} {['', 'k', 'M', 'G', 'T', 'P'][step]}{unit}"
