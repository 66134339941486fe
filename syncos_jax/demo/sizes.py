"""Sizes of the demo model's networks and of their training."""

import dataclasses

from syncos_jax.models.clip_text import CLIPTextConfig
from syncos_jax.models.unet_clip.unet3d import UNet3DConfig
from syncos_jax.models.unet_clip.vae import VAEConfig

TOKENS = 24  # longest caption of the world is well below


@dataclasses.dataclass(frozen=True)
class DemoSizes:
    """One size of the demo model.

    Attributes:
        vae, unet: configurations of the networks.
        text_inner, text_layers, text_heads: of the text encoder (its width is the UNet's text
            features).
        vae_batch: frames in a step of the autoencoder's training.
        batch: clips in a step of the diffusion training.
        bank: clips that are drawn and encoded before the diffusion training.
        vae_rate, rate: peak learning rates.
    """

    vae: VAEConfig
    unet: UNet3DConfig
    text_inner: int
    text_layers: int
    text_heads: int
    vae_batch: int
    batch: int
    bank: int
    vae_rate: float
    rate: float

    def text(self, vocabulary: int) -> CLIPTextConfig:
        """Configuration of the text encoder for a tokenizer of this many tokens."""
        return CLIPTextConfig(
            vocabulary=vocabulary,
            tokens=TOKENS,
            features=self.unet.text_features,
            inner=self.text_inner,
            layers=self.text_layers,
            heads=self.text_heads,
        )


SIZES = {
    # About 1.9 M parameters: what two CPU cores train in two hours and run in a minute.
    "cpu": DemoSizes(
        vae=VAEConfig(block_out_channels=(8, 16, 32, 64), layers_per_block=1, norm_groups=4),
        unet=UNet3DConfig(
            block_out_channels=(32, 64),
            attention=(True, True),
            layers_per_block=1,
            head_size=16,
            text_features=64,
            norm_groups=8,
        ),
        text_inner=128,
        text_layers=2,
        text_heads=4,
        vae_batch=16,
        batch=16,
        bank=16_000,
        vae_rate=3e-3,
        rate=1e-3,
    ),
    # For a GPU: everything wider, attention at both levels.
    "gpu": DemoSizes(
        vae=VAEConfig(block_out_channels=(24, 48, 64, 96), layers_per_block=1, norm_groups=8),
        unet=UNet3DConfig(
            block_out_channels=(64, 96),
            attention=(True, True),
            layers_per_block=1,
            head_size=8,
            text_features=96,
            norm_groups=8,
        ),
        text_inner=384,
        text_layers=3,
        text_heads=4,
        vae_batch=256,
        batch=256,
        bank=400_000,
        vae_rate=2e-3,
        rate=1e-3,
    ),
}
