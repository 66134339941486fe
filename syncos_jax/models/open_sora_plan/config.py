"""Sizes of the networks of Open-Sora Plan v1.3."""

import dataclasses

from syncos_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class OpenSoraPlanTransformerConfig:
    """Sizes of the transformer. The defaults are the published model's.

    Attributes:
        in_channels, out_channels: of a latent.
        patch: rows and columns of a token.
        layers: number of blocks.
        heads, head_size: of every attention; the width is their product.
        text_features: of the text encoder.
        time_features: sinusoidal features of the timestep.
        eps: of the blocks' norms.
        sparse: ``k``: in sparse blocks a token attends to one of ``k``; 1 for none.
        sparse_from, sparse_to: blocks from the one up to the other are sparse.
        scales: frames, rows and columns are divided by these for the rotary embedding.
    """

    in_channels: int = 8
    out_channels: int = 8
    patch: int = 2
    layers: int = 32
    heads: int = 24
    head_size: int = 96
    text_features: int = 4096
    time_features: int = 256
    eps: float = 1e-6
    sparse: int = 4
    sparse_from: int = 2
    sparse_to: int = 30
    scales: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.head_size % 6:
            raise InputError(argument="head_size", expected="a multiple of 6", value=self.head_size)

    @property
    def width(self) -> int:
        """Features of a token."""
        return self.heads * self.head_size


@dataclasses.dataclass(frozen=True)
class WFVAEConfig:
    """Sizes of the autoencoder. The defaults are the published model's.

    Attributes:
        latent_channels: of a latent.
        base: channels of the finest level.
        encoder_blocks, decoder_blocks: residual blocks of a level.
        encoder_flow, decoder_flow: channels of the wavelets' path next to the levels.
        flow_blocks: residual blocks on that path in the decoder.
        attention: whether the middle attends among the pixels of each frame.
        linear_time: frames in between are interpolated; False: repeated.
        image_channels: of a frame.
        scale, shift: of each channel: the transformer's latents are ``(latent - shift) scale``.
    """

    latent_channels: int = 8
    base: int = 128
    encoder_blocks: int = 2
    decoder_blocks: int = 2
    encoder_flow: int = 128
    decoder_flow: int = 128
    flow_blocks: int = 1
    attention: bool = True
    linear_time: bool = True
    image_channels: int = 3
    scale: tuple[float, ...] = (0.18215,) * 8
    shift: tuple[float, ...] = (0.0,) * 8

    def __post_init__(self) -> None:
        found = (len(self.scale), len(self.shift))
        if found != (self.latent_channels,) * 2:
            raise InputError(
                f"WF-VAE: {self.latent_channels} latent channels need the same number of scales "
                f"and shifts, not {found[0]} and {found[1]}"
            )
