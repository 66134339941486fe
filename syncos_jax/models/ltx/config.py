"""Sizes of the networks of LTX-2."""

import dataclasses
import math
from typing import Literal

from syncos_jax.errors import InputError

Change = Literal["none", "spatial", "temporal", "spatiotemporal"]
"""How a level of the autoencoder changes the size: by 2 in space, in time, or in both."""


def strides(change: Change) -> tuple[int, int]:
    """Factors in time and in space."""
    time = 2 if change in ("temporal", "spatiotemporal") else 1
    return time, 2 if change in ("spatial", "spatiotemporal") else 1


@dataclasses.dataclass(frozen=True)
class RotaryConfig:
    """Rotary position embedding over the whole width (not per head).

    Attributes:
        split: feature ``i`` of a head pairs with ``i + D/2``; False: pairs are neighbours.
        double: frequencies are computed in float64, then rounded to float32.
        theta: base of the frequencies.
    """

    split: bool = True
    double: bool = True
    theta: float = 10000.0


@dataclasses.dataclass(frozen=True)
class LTXTransformerConfig:
    """Sizes of the video stream's transformer. The defaults are LTX-2.3's.

    Attributes:
        in_channels, out_channels: of a latent.
        layers: number of blocks.
        heads, head_size: of every attention; the width is their product.
        text_features: ``D`` of the text.
        text_projection: features of the text before a projection to ``D`` (LTX-2.0); None for
            text that arrives with ``D`` features.
        gated: every head's output is scaled by a gate (LTX-2.3).
        text_modulated: the text and its queries are modulated (LTX-2.3).
        text_by_time: the modulation of the text depends on the noise level.
        bias, out_bias, inner_bias: whether attention inputs, outputs and the feed-forward have one.
        time_features: sinusoidal features of the timestep.
        eps: of the norms.
        rotary: of the positions.
        span: seconds, pixel rows and pixel columns that positions are divided by.
        cell: video frames, pixel rows and pixel columns of a latent cell.
        causal_offset: frames that the first latent stands for.
    """

    in_channels: int = 128
    out_channels: int = 128
    layers: int = 48
    heads: int = 32
    head_size: int = 128
    text_features: int = 4096
    text_projection: int | None = None
    gated: bool = True
    text_modulated: bool = True
    text_by_time: bool = True
    bias: bool = True
    out_bias: bool = True
    inner_bias: bool = True
    time_features: int = 256
    eps: float = 1e-6
    rotary: RotaryConfig = RotaryConfig()
    span: tuple[int, int, int] = (20, 2048, 2048)
    cell: tuple[int, int, int] = (8, 32, 32)
    causal_offset: int = 1

    def __post_init__(self) -> None:
        if self.head_size % 2 or self.width < 6:
            raise InputError(
                f"LTX transformer: head_size must be even and the width at least 6, not "
                f"{self.head_size} and {self.width}"
            )

    @property
    def width(self) -> int:
        """Features of a token."""
        return self.heads * self.head_size

    @property
    def modulations(self) -> int:
        """Shifts, scales and gates of a block."""
        return 9 if self.text_modulated else 6

    @classmethod
    def ltx_2_3(cls) -> "LTXTransformerConfig":
        """LTX-2.3 (22B), 13,124,316,288 parameters of the video stream."""
        return cls()

    @classmethod
    def ltx_2_0(cls) -> "LTXTransformerConfig":
        """LTX-2.0 (19B)."""
        return cls(gated=False, text_modulated=False, text_projection=3840)


@dataclasses.dataclass(frozen=True)
class LTXConnectorConfig:
    """Sizes of what turns the text encoder's hidden states into text features.

    Attributes:
        features: of a hidden state of the text encoder.
        states: number of hidden states.
        out: features after the projection.
        per_token: hidden states are normalised per token (LTX-2.3); False: by the range of all
            valid tokens (LTX-2.0).
        bias: whether the projection has one.
        layers, heads, head_size: of the transformer behind it; its width is ``out``.
        gated: see `LTXTransformerConfig`.
        registers: learned tokens that replace padding.
        positions: that token positions are divided by.
        eps: of the norms.
        rotary: of the positions.
    """

    features: int = 3840
    states: int = 49
    out: int = 4096
    per_token: bool = True
    bias: bool = True
    layers: int = 8
    heads: int = 32
    head_size: int = 128
    gated: bool = True
    registers: int = 128
    positions: int = 4096
    eps: float = 1e-6
    rotary: RotaryConfig = RotaryConfig()

    def __post_init__(self) -> None:
        if self.heads * self.head_size != self.out:
            raise InputError(
                f"LTX connectors: {self.heads} heads of {self.head_size} are not the "
                f"{self.out} features of the projection"
            )

    @classmethod
    def ltx_2_3(cls) -> "LTXConnectorConfig":
        """LTX-2.3's, 2,383,253,760 parameters of the video stream."""
        return cls()

    @classmethod
    def ltx_2_0(cls) -> "LTXConnectorConfig":
        """LTX-2.0's."""
        return cls(out=3840, per_token=False, bias=False, layers=2, heads=30, gated=False)


@dataclasses.dataclass(frozen=True)
class LTXVAEConfig:
    """Sizes of the autoencoder. The defaults are LTX-2.3's.

    Attributes:
        latent_channels: of a latent.
        encoder_widths: channels behind each level of the encoder.
        encoder_blocks: residual blocks of each level and, last, of the middle.
        down: change of size behind each level.
        decoder_widths: channels of the decoder's levels, finest first.
        decoder_blocks: residual blocks of its levels, finest first and the middle last.
        up: change of size in front of each level, coarsest first.
        up_factors: by which each change of size divides the channels, finest first.
        up_residual: whether each change of size has a shortcut, finest first.
        encoder_causal, decoder_causal: whether convolutions see no later frames.
        encoder_reflect, decoder_reflect: whether borders are mirrored; False for zeros.
        time_conditioned: the decoder is given a noise level (0 here).
        patch: pixels folded into channels, along each side.
        image_channels: of a frame.
        eps: of the layer norm in front of a shortcut with other channels.
        latents_mean, latents_std: of each channel of a latent; the transformer sees normed latents.
            Empty for 0 and 1.
    """

    latent_channels: int = 128
    encoder_widths: tuple[int, ...] = (256, 512, 1024, 1024)
    encoder_blocks: tuple[int, ...] = (4, 6, 4, 2, 2)
    down: tuple[Change, ...] = ("spatial", "temporal", "spatiotemporal", "spatiotemporal")
    decoder_widths: tuple[int, ...] = (256, 512, 512, 1024)
    decoder_blocks: tuple[int, ...] = (4, 6, 4, 2, 2)
    up: tuple[Change, ...] = ("spatiotemporal", "spatiotemporal", "temporal", "spatial")
    up_factors: tuple[int, ...] = (2, 2, 1, 2)
    up_residual: tuple[bool, ...] = (False, False, False, False)
    encoder_causal: bool = True
    decoder_causal: bool = False
    encoder_reflect: bool = False
    decoder_reflect: bool = False
    time_conditioned: bool = False
    patch: int = 4
    image_channels: int = 3
    eps: float = 1e-6
    latents_mean: tuple[float, ...] = ()
    latents_std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for values in (self.latents_mean, self.latents_std):
            if values and len(values) != self.latent_channels:
                raise InputError(
                    f"LTX VAE: {self.latent_channels} latent channels need the same number of "
                    f"means and standard deviations, not {len(values)}"
                )
        lengths = {
            "encoder_blocks": (len(self.encoder_blocks) - 1, len(self.encoder_widths)),
            "down": (len(self.down), len(self.encoder_widths)),
            "decoder_blocks": (len(self.decoder_blocks) - 1, len(self.decoder_widths)),
            "up": (len(self.up), len(self.decoder_widths)),
            "up_factors": (len(self.up_factors), len(self.decoder_widths)),
            "up_residual": (len(self.up_residual), len(self.decoder_widths)),
        }
        for name, (found, levels) in lengths.items():
            if found != levels:
                raise InputError(f"LTX VAE: {name} is for {found} levels, but there are {levels}")
        factors = [
            tuple(math.prod(c) for c in zip(*map(strides, changes), strict=True))
            for changes in (self.down, self.up)
        ]
        if factors[0] != factors[1]:
            raise InputError(
                f"LTX VAE: the encoder divides time and space by {factors[0]}, the decoder "
                f"multiplies them by {factors[1]}"
            )

    @property
    def factor(self) -> int:
        """Pixels per latent cell, along each side."""
        return self.patch * math.prod(strides(change)[1] for change in self.down)

    @property
    def time_factor(self) -> int:
        """Frames per latent frame, after the first one."""
        return math.prod(strides(change)[0] for change in self.down)

    @classmethod
    def ltx_2_3(cls) -> "LTXVAEConfig":
        """LTX-2.3's, 726,105,969 parameters."""
        return cls()

    @classmethod
    def ltx_2_0(cls) -> "LTXVAEConfig":
        """LTX-2.0's, 1,222,479,601 parameters."""
        return cls(
            encoder_widths=(256, 512, 1024, 2048),
            encoder_blocks=(4, 6, 6, 2, 2),
            decoder_widths=(256, 512, 1024),
            decoder_blocks=(5, 5, 5, 5),
            up=("spatiotemporal",) * 3,
            up_factors=(2, 2, 2),
            up_residual=(True, True, True),
            decoder_reflect=True,
        )
