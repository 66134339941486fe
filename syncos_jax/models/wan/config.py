"""Sizes of Wan's networks."""

import dataclasses
import math

from syncos_jax.errors import InputError

# Of the autoencoder of Wan 2.1 (and 2.2-A14B): mean and standard deviation of each channel.
LATENTS_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
LATENTS_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)


@dataclasses.dataclass(frozen=True)
class WanTransformerConfig:
    """Sizes of the transformer.

    Attributes:
        in_channels, out_channels: of a latent.
        patch: latent frames, rows and columns that make one token.
        layers: blocks.
        heads, head_size: of every attention; the width is their product.
        inner: width within the feed-forward.
        text_features: of the text encoder.
        time_features: sinusoidal features of the timestep.
        cross_attn_norm: whether a norm stands before the attention to the text.
        eps: of all norms.
        positions: most tokens along an axis.
        image_features: of the image encoder (Wan 2.1 I2V); None where the network sees no image's
            features.
        image_positions: learned positions of the features of a first and a last image together
            (FLF2V), or None.
    """

    in_channels: int = 16
    out_channels: int = 16
    patch: tuple[int, int, int] = (1, 2, 2)
    layers: int = 30
    heads: int = 12
    head_size: int = 128
    inner: int = 8960
    text_features: int = 4096
    time_features: int = 256
    cross_attn_norm: bool = True
    eps: float = 1e-6
    positions: int = 1024
    image_features: int | None = None
    image_positions: int | None = None

    def __post_init__(self) -> None:
        if self.head_size % 2 or self.head_size < 6:
            raise InputError(
                f"Wan transformer: head_size must be even and at least 6, not {self.head_size}"
            )
        if self.time_features % 2:
            raise InputError(
                f"Wan transformer: time_features must be even, not {self.time_features}"
            )
        if len(self.patch) != 3 or min(self.patch) < 1:
            raise InputError(f"Wan transformer: patch must be three sizes, not {self.patch}")

    @property
    def width(self) -> int:
        """Features of a token."""
        return self.heads * self.head_size

    @property
    def rotary(self) -> tuple[int, int, int]:
        """Features of a head that turn with frame, row and column: 44, 42, 42 of 128."""
        side = 2 * (self.head_size // 6)
        return self.head_size - 2 * side, side, side

    @property
    def patch_channels(self) -> int:
        """Values of one patch of the input."""
        return math.prod(self.patch) * self.in_channels

    @classmethod
    def wan_1_3b(cls) -> "WanTransformerConfig":
        """Wan2.1-T2V-1.3B."""
        return cls()

    @classmethod
    def wan_14b(cls) -> "WanTransformerConfig":
        """Wan2.1-T2V-14B; each of Wan2.2-T2V-A14B's two."""
        return cls(layers=40, heads=40, inner=13824)


@dataclasses.dataclass(frozen=True)
class WanVAEConfig:
    """Sizes of the autoencoder.

    Attributes:
        base: channels of the finest level of the encoder.
        decoder_base: of the decoder; None for the same.
        latent_channels: of a latent.
        multipliers: channels of each level over `base`; all but the last halve height and width.
        blocks: residual blocks of an encoder level (the decoder has one more).
        time_halved: for each level but the last, whether it halves the frames too.
        residual: whether levels have shortcuts around them (Wan2.2-TI2V-5B).
        patch: pixels that are folded into channels, along each side (2 in Wan2.2-TI2V-5B).
        image_channels: of a frame.
        latents_mean, latents_std: of each channel of a latent; the transformer sees normed latents.
    """

    base: int = 96
    decoder_base: int | None = None
    latent_channels: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    time_halved: tuple[bool, ...] = (False, True, True)
    residual: bool = False
    patch: int = 1
    image_channels: int = 3
    latents_mean: tuple[float, ...] = LATENTS_MEAN
    latents_std: tuple[float, ...] = LATENTS_STD

    def __post_init__(self) -> None:
        levels = len(self.multipliers)
        if len(self.time_halved) != levels - 1:
            raise InputError(
                f"Wan VAE: {levels} levels need {levels - 1} entries of time_halved "
                f"(temperal_downsample), not {len(self.time_halved)}"
            )
        found = (len(self.latents_mean), len(self.latents_std))
        if found != (self.latent_channels,) * 2:
            raise InputError(
                f"Wan VAE: {self.latent_channels} latent channels need as many means and standard "
                f"deviations, not {found[0]} and {found[1]}"
            )

    @property
    def factor(self) -> int:
        """Pixels per latent cell, along each side."""
        return int(2 ** (len(self.multipliers) - 1)) * self.patch

    @property
    def time_factor(self) -> int:
        """Frames per latent frame, after the first one."""
        return int(2 ** sum(self.time_halved))

    def frames(self, latents: int) -> int:
        """Frames that so many latent frames stand for: the first is one, the others are four."""
        return self.time_factor * (latents - 1) + 1

    def latents(self, frames: int) -> int:
        """Latent frames of a video.

        Raises:
            InputError: the number of frames is not one more than a multiple of four.
        """
        if frames < 1 or (frames - 1) % self.time_factor:
            raise InputError(
                f"{frames} frames do not make whole latents; take one more than a multiple of "
                f"{self.time_factor}"
            )
        return (frames - 1) // self.time_factor + 1
