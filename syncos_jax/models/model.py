"""A loaded model: its networks, its schedule, its tokenizer."""

import dataclasses
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.models import saved
from syncos_jax.models.clip_text import CLIPTextEncoder
from syncos_jax.models.config import ModelConfig
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet3d import UNet3D
from syncos_jax.models.vae import AutoencoderKL
from syncos_jax.sampling.schedule import NoiseSchedule


class MissingPart(InputError, AttributeError):
    """A network, or the tokenizer, that a model was converted without."""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Model:
    """A text-to-video model whose parts can be used alone.

    A model of which only one network was converted (``syncos convert --only``) has that one:
    reading another part raises `MissingPart`, an InputError that says so, and ``hasattr`` is False.

    Attributes:
        config: sizes and sampling defaults.
        schedule: the diffusion process.
        unet: ``unet(x [b, F, H, W, C], t [b] or [b, F], text [b, S, D], fps=[b])`` -> like ``x``.
        vae: ``encode`` and ``decode`` unscaled latents; the UNet's are times
            ``config.latent_scale``.
        text_encoder: ``ids [b, S] -> [b, S, D]``.
        tokenizer: list of prompts -> ids ``[n, S]``.
    """

    config: ModelConfig
    schedule: NoiseSchedule
    unet: UNet3D
    vae: AutoencoderKL
    text_encoder: CLIPTextEncoder
    tokenizer: PromptTokenizer

    def __post_init__(self) -> None:
        for name in (*saved.NETWORKS, saved.TOKENIZER):
            if vars(self)[name] is None:  # from here on, __getattr__ answers for it
                object.__delattr__(self, name)

    def __getattr__(self, name: str) -> Any:
        if name in (*saved.NETWORKS, saved.TOKENIZER):
            held = ", ".join(part for part in saved.NETWORKS if part in vars(self))
            raise MissingPart(
                f"model {self.config.name!r} has no {name}: it was converted with only its {held}; "
                "convert the whole checkpoint"
            )
        raise AttributeError(name)
