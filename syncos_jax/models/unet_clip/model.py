"""The family of 3-D UNets with a CLIP text encoder and an image autoencoder: VideoCrafter2,
ModelScope, ZeroScope, the demo model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.clip_text import CLIPTextEncoder
from syncos_jax.models.family import Model
from syncos_jax.models.networks import NetworkModel, TextDenoiser, to_uint8
from syncos_jax.models.saved import TOKENIZER
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.models.unet_clip.unet3d import UNet3D
from syncos_jax.models.unet_clip.vae import AutoencoderKL
from syncos_jax.sampling.placement import Placement
from syncos_jax.sampling.schedule import NoiseSchedule

_PROMPTS_PER_CALL = 8
_DECODED_PIXELS_PER_CALL = 2**20


def unet_clip(model: Model) -> UNetClip:
    """`model`, whose networks are about to be used one by one; InputError for another family."""
    if not isinstance(model, UNetClip):
        raise InputError(f"{model.name}: is of the family {model.family!r}; expected unet_clip")
    return model


@partial(jax.jit, static_argnums=0)
def _decode(graphdef: Any, params: Any, latents: jax.Array) -> jax.Array:
    return to_uint8(nnx.merge(graphdef, params).decode(latents))


class UNetClip(NetworkModel):
    """A text-to-video model whose parts can be used alone.

    A model of which only one network was converted (``only``) has that one: reading another part
    raises `MissingPart`, an InputError that says so, and ``hasattr`` is False.

    Attributes:
        config: sizes and sampling defaults.
        schedule: the diffusion process.
        unet: ``unet(x [b, F, H, W, C], t [b] or [b, F], text [b, S, D], fps=[b])`` -> like ``x``.
        vae: ``encode`` and ``decode`` unscaled latents; the UNet's are times
            ``config.latent_scale``.
        text_encoder: ``ids [b, S] -> [b, S, D]``.
        tokenizer: list of prompts -> ids ``[n, S]``.
    """

    family = "unet_clip"
    config_class = ModelConfig
    shardable = ("unet",)
    denoisers = ("unet",)
    config: ModelConfig
    unet: UNet3D
    vae: AutoencoderKL
    text_encoder: CLIPTextEncoder
    tokenizer: PromptTokenizer

    def __init__(
        self,
        config: ModelConfig,
        schedule: NoiseSchedule,
        *,
        unet: Any = None,
        vae: Any = None,
        text_encoder: Any = None,
        tokenizer: Any = None,
    ) -> None:
        parts = {"unet": unet, "vae": vae, "text_encoder": text_encoder, TOKENIZER: tokenizer}
        super().__init__(config, schedule, parts)
        self.known_rule = config.known_rule
        self.known_reference = config.known_rule == "timestep"

    @classmethod
    def from_networks(
        cls, config: ModelConfig, networks: Mapping[str, Any], folder: Path
    ) -> UNetClip:
        """The model of a folder; arguments as in `Model.from_networks`."""
        tokenizer = None
        if "text_encoder" in networks and (folder / TOKENIZER).is_dir():
            tokenizer = PromptTokenizer(
                folder / TOKENIZER, config.text.tokens, openclip=config.openclip_tokens
            )
        return cls(config, config.noise_schedule(), **networks, tokenizer=tokenizer)

    @property
    def weights(self) -> dict[str, Any]:
        names = {"unet": "unet", "text": "text_encoder", "vae": "vae"}
        return {name: self._split(network)[1] for name, network in names.items()}

    @property
    def denoiser(self) -> TextDenoiser:
        return TextDenoiser(self._split("unet")[0])

    @property
    def embeds_fps(self) -> bool:
        """Whether the UNet is conditioned on the frame rate."""
        return getattr(getattr(self.unet, "config", None), "fps_embedding", False)

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, jax.Array]:
        """``text [n, S, D]`` and, where the UNet embeds the frame rate, ``fps [n]``."""
        ids = np.asarray(self.tokenizer(list(prompts)), np.int32)
        cond = {"text": self._encode_text(ids, batch=_PROMPTS_PER_CALL)}
        if self.embeds_fps:
            cond["fps"] = jnp.full(len(prompts), self.geometry.fps, jnp.float32)
        return cond

    def conditioning_shapes(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        text = self.config.text
        shapes = {"text": jax.ShapeDtypeStruct((count, text.tokens, text.features), self.dtype)}
        if self.embeds_fps:
            shapes["fps"] = jax.ShapeDtypeStruct((count,), jnp.float32)
        return shapes

    def decode_stream(
        self, latents: np.ndarray, placement: Placement, batch: int | None = None
    ) -> Iterator[np.ndarray]:
        devices = placement.devices_here
        height, width = (side * self.geometry.cell for side in latents.shape[1:3])
        if batch is None:  # of each device about a million pixels
            batch = devices * max(1, _DECODED_PIXELS_PER_CALL // (height * width))
        batch = -(-min(batch, len(latents)) // devices) * devices
        unscaled = np.asarray(latents) / np.float32(self.config.latent_scale)
        for first in range(0, len(unscaled), batch):
            part = unscaled[first : first + batch]
            count = len(part)  # the last part is filled up, so that one shape is compiled
            part = np.pad(part, ((0, batch - count), (0, 0), (0, 0), (0, 0)), mode="edge")
            with placement.compiling():
                images = _decode(*self._split("vae"), placement.divide(part))
            yield np.asarray(placement.gathered(images))[:count]

    def decoding(self, frame_shape: tuple[int, int, int]) -> tuple[Any, tuple]:
        """The jitted function that decodes a frame, and abstract arguments of it; for plans."""
        one = jax.ShapeDtypeStruct((1, *frame_shape), jnp.float32)
        return _decode, (*self._split("vae"), one)
