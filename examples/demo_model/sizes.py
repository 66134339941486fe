"""Sizes of the demo model's networks and of their training."""

import dataclasses

from demo_model.world import DRAWN_OBJECTS, LARGE_SUBJECTS, Subjects
from syncos_jax.models.clip_text import CLIPTextConfig
from syncos_jax.models.unet_clip.unet3d import UNet3DConfig
from syncos_jax.models.unet_clip.vae import VAEConfig

TOKENS = 24  # longest caption of the world is well below


@dataclasses.dataclass(frozen=True)
class Stage:
    """How long and how fast one network is trained.

    Attributes:
        steps: length.
        batch: frames or clips in a step.
        rate: peak learning rate.
    """

    steps: int
    batch: int
    rate: float


@dataclasses.dataclass(frozen=True)
class DemoSizes:
    """One size of the demo model.

    Attributes:
        vae, unet: configurations of the networks.
        text_inner, text_layers, text_heads: of the text encoder (its width is the UNet's text
            features).
        autoencoder, decoder: the autoencoder's training, and that of its decoder alone after it.
        frames, clips: the UNet's training on single frames, and on clips.
        stills, bank: frames, and clips, that are drawn and encoded before the UNet's training.
        subjects: of the world that is drawn.
    """

    vae: VAEConfig
    unet: UNet3DConfig
    text_inner: int
    text_layers: int
    text_heads: int
    autoencoder: Stage
    decoder: Stage
    frames: Stage
    clips: Stage
    stills: int
    bank: int
    subjects: Subjects = LARGE_SUBJECTS

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
    # About 4.4 M parameters: what one CPU core trains in hours.
    "cpu": DemoSizes(
        vae=VAEConfig(block_out_channels=(8, 16, 32), layers_per_block=1, norm_groups=4),
        unet=UNet3DConfig(
            block_out_channels=(32, 64, 96),
            attention=(False, True, True),
            layers_per_block=1,
            head_size=16,
            first_transformer=False,
            text_features=64,
            norm_groups=8,
        ),
        text_inner=128,
        text_layers=2,
        text_heads=4,
        autoencoder=Stage(steps=2400, batch=16, rate=2e-3),
        decoder=Stage(steps=800, batch=16, rate=2e-3),
        frames=Stage(steps=7000, batch=32, rate=1e-3),
        clips=Stage(steps=3000, batch=8, rate=1e-3),
        stills=32_000,
        bank=8000,
    ),
    # Drawn objects in six places: ten times as many subjects, so more of everything.
    "objects": DemoSizes(
        vae=VAEConfig(block_out_channels=(12, 24, 48), layers_per_block=1, norm_groups=4),
        unet=UNet3DConfig(
            block_out_channels=(48, 80, 112),
            attention=(False, True, True),
            layers_per_block=1,
            head_size=16,
            first_transformer=False,
            text_features=96,
            norm_groups=8,
        ),
        text_inner=256,
        text_layers=2,
        text_heads=4,
        autoencoder=Stage(steps=6000, batch=16, rate=2e-3),
        decoder=Stage(steps=2000, batch=16, rate=2e-3),
        frames=Stage(steps=30_000, batch=32, rate=1e-3),
        clips=Stage(steps=6000, batch=8, rate=1e-3),
        stills=48_000,
        bank=12_000,
        subjects=DRAWN_OBJECTS,
    ),
    # For a GPU: everything wider, and far larger batches.
    "gpu": DemoSizes(
        vae=VAEConfig(block_out_channels=(24, 48, 96), layers_per_block=1, norm_groups=8),
        unet=UNet3DConfig(
            block_out_channels=(64, 96, 128),
            attention=(False, True, True),
            layers_per_block=1,
            head_size=16,
            first_transformer=False,
            text_features=96,
            norm_groups=8,
        ),
        text_inner=384,
        text_layers=3,
        text_heads=4,
        autoencoder=Stage(steps=4000, batch=128, rate=2e-3),
        decoder=Stage(steps=1500, batch=128, rate=2e-3),
        frames=Stage(steps=12_000, batch=256, rate=1e-3),
        clips=Stage(steps=8000, batch=128, rate=1e-3),
        stills=200_000,
        bank=100_000,
    ),
}
