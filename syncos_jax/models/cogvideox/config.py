"""Sizes of CogVideoX's networks."""

import dataclasses
import math
from typing import Literal, get_args

from syncos_jax.errors import InputError

Positions = Literal["sincos", "rotary", "rotary+learned"]
Activation = Literal["gelu_tanh", "gelu"]


@dataclasses.dataclass(frozen=True)
class CogVideoXTransformerConfig:
    """Sizes of the transformer; the defaults are CogVideoX-2B's.

    Attributes:
        in_channels, out_channels: of a latent.
        layers: blocks.
        heads, head_size: of every attention; the width is their product.
        patch: latent rows and columns that make one token.
        patch_frames: latent frames that make one token (2 in CogVideoX 1.5); None for one, with
            the first version's crop of rotary positions.
        text_features: of the text encoder.
        text_tokens: to which prompts are padded.
        time_features: width of the timestep's embedding.
        offset_features: width of the embedding of `CogVideoXTransformer`'s ``offset`` (1.5's
            image-to-video), or None.
        flip_sin_to_cos, time_shift: of the sinusoidal features of time.
        positions: added sines and cosines (2B), rotations of queries and keys (5B, 1.5), or these
            and a learned table beside (5B's image-to-video).
        spatial_scale, temporal_scale: by which sine-cosine positions are divided.
        sample_frames, sample_height, sample_width: of the latents in training. Frames are latent
            ones (13), unlike in diffusers' file.
        attention_bias: whether queries, keys and values have a bias.
        patch_bias: whether the patch embedding has one.
        norm_weights: whether the blocks' norms have weights.
        eps: of the blocks' norms.
        activation: of the feed-forward.
    """

    in_channels: int = 16
    out_channels: int = 16
    layers: int = 30
    heads: int = 30
    head_size: int = 64
    patch: int = 2
    patch_frames: int | None = None
    text_features: int = 4096
    text_tokens: int = 226
    time_features: int = 512
    offset_features: int | None = None
    flip_sin_to_cos: bool = True
    time_shift: float = 0.0
    positions: Positions = "sincos"
    spatial_scale: float = 1.875
    temporal_scale: float = 1.0
    sample_frames: int = 13
    sample_height: int = 60
    sample_width: int = 90
    attention_bias: bool = True
    patch_bias: bool = True
    norm_weights: bool = True
    eps: float = 1e-5
    activation: Activation = "gelu_tanh"

    def __post_init__(self) -> None:
        if self.positions not in get_args(Positions):
            raise InputError(f"CogVideoX transformer: unknown positions {self.positions!r}")
        if self.activation not in get_args(Activation):
            raise InputError(f"CogVideoX transformer: unknown activation {self.activation!r}")
        if self.positions == "sincos" and self.width % 16:
            raise InputError(
                f"CogVideoX transformer: sine-cosine positions need a width divisible by 16, not "
                f"{self.heads} x {self.head_size}"
            )
        if self.positions != "sincos" and self.head_size % 16:
            raise InputError(
                f"CogVideoX transformer: rotary positions need a head_size divisible by 16, not "
                f"{self.head_size}"
            )
        if self.positions != "rotary" and self.patch_frames not in (None, 1):
            raise InputError(
                "CogVideoX transformer: patches of several frames have rotary positions only"
            )
        if self.offset_features not in (None, self.time_features):
            raise InputError(
                f"CogVideoX transformer: offset_features {self.offset_features} must be equal to "
                f"time_features {self.time_features}"
            )

    @property
    def width(self) -> int:
        """Features of a token."""
        return self.heads * self.head_size

    @property
    def patches(self) -> tuple[int, int, int]:
        """Latent frames, rows and columns of a token."""
        return (self.patch_frames or 1, self.patch, self.patch)

    def patch_values(self, channels: int) -> int:
        """Values of one token's patch of so many channels."""
        return math.prod(self.patches) * channels

    @classmethod
    def cogvideox_2b(cls) -> "CogVideoXTransformerConfig":
        """CogVideoX-2B."""
        return cls()

    @classmethod
    def cogvideox_5b(cls) -> "CogVideoXTransformerConfig":
        """CogVideoX-5B."""
        return cls(layers=42, heads=48, positions="rotary")


@dataclasses.dataclass(frozen=True)
class CogVideoXVAEConfig:
    """Sizes of the autoencoder; the defaults are those of all CogVideoX models.

    Attributes:
        image_channels: of a frame.
        latent_channels: of a latent.
        block_out_channels: of each level, finest first; all but the last halve height and width.
        layers_per_block: residual blocks of an encoder level (the decoder has one more).
        norm_groups: groups of every group norm.
        eps: of the encoder's residual blocks; all other norms have 1e-6.
        time_factor: frames per latent frame; as many of the finest levels halve the frames as this
            has factors of two.
        latent_scale: the transformer sees latents times this.
        inverted: whether it sees those of a picture divided by it instead, as 1.5 was trained.
    """

    image_channels: int = 3
    latent_channels: int = 16
    block_out_channels: tuple[int, ...] = (128, 256, 256, 512)
    layers_per_block: int = 3
    norm_groups: int = 32
    eps: float = 1e-6
    time_factor: int = 4
    latent_scale: float = 1.15258426
    inverted: bool = False

    def __post_init__(self) -> None:
        if self.time_factor < 1 or self.time_factor & (self.time_factor - 1):
            raise InputError(
                f"CogVideoX VAE: time_factor must be a power of two, not {self.time_factor}"
            )
        if self.time_levels >= len(self.block_out_channels):
            raise InputError(
                f"CogVideoX VAE: {len(self.block_out_channels)} levels cannot shorten time by "
                f"{self.time_factor}"
            )
        if any(width % self.norm_groups for width in self.block_out_channels):
            raise InputError(
                f"CogVideoX VAE: channels {self.block_out_channels} must be divisible by the "
                f"norms' {self.norm_groups} groups"
            )

    @property
    def factor(self) -> int:
        """Pixels per latent cell, along each side."""
        return int(2 ** (len(self.block_out_channels) - 1))

    @property
    def time_levels(self) -> int:
        """Levels that halve the frames."""
        return self.time_factor.bit_length() - 1

    def frames(self, latents: int) -> int:
        """Frames that so many latent frames are decoded to: 13 to 49, but 12 to 48."""
        if latents % 2:
            return self.time_factor * (latents - 1) + 1
        return self.time_factor * latents
