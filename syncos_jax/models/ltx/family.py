"""The family of LTX-2: LTX-2.0 and LTX-2.3, whole or distilled, video stream only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.models.decoder_tokenizer import DecoderTokenizer
from syncos_jax.models.family import Model
from syncos_jax.models.few_steps import FewSteps
from syncos_jax.models.gemma3 import Gemma3Encoder
from syncos_jax.models.ltx.connectors import LTXConnectors
from syncos_jax.models.ltx.settings import LTXConfig
from syncos_jax.models.ltx.transformer import LTXTransformer
from syncos_jax.models.ltx.vae import LTXVAE
from syncos_jax.models.networks import NetworkModel
from syncos_jax.models.saved import TOKENIZER
from syncos_jax.sampling.placement import Placement
from syncos_jax.sampling.schedule import NoiseSchedule


@dataclass(frozen=True)
class LTXDenoiser:
    """The transformer as a function. Two of the same architecture are equal: traced once.

    ``cond`` has ``text``, and may have ``fps`` and ``perturbed`` (see `LTX.complete_conditioning`).
    """

    graphdef: Any
    perturbed_block: int

    def __call__(self, params: Any, x: jax.Array, t: jax.Array, cond: Any) -> jax.Array:
        others: dict[str, Any] = {}
        if "fps" in cond:
            others["fps"] = cond["fps"][0]  # one video's
        if "perturbed" in cond:
            others["perturbed"] = cond["perturbed"] > 0
            others["perturbed_blocks"] = (self.perturbed_block,)
        network = nnx.merge(self.graphdef, params)
        prediction: jax.Array = network(x, t, cond["text"], **others)
        return prediction


@partial(jax.jit, static_argnums=0)
def _encode(graphdefs: Any, params: Any, ids: jax.Array, mask: jax.Array) -> jax.Array:
    text_encoder, connectors = map(nnx.merge, graphdefs, params)
    features: jax.Array = connectors(text_encoder(ids, mask), mask)
    return features


class LTX(NetworkModel):
    """A text-to-video model of LTX-2, whose parts can be used alone. It makes no sound.

    A model of which only one network was converted (``only``) has that one: reading another part
    raises `MissingPart`, an InputError that says so, and ``hasattr`` is False.

    Attributes:
        config: sizes and sampling defaults.
        transformer: ``transformer(x [b, f, h, w, C], t [b] or [b, f], text [b, S, D], fps)`` ->
            like ``x``; predicts the flow.
        connectors: ``states [L, b, S, D'], mask [b, S] -> [b, S, D]``.
        vae: ``encode`` and ``decode`` unscaled latents, ``[n, f, h, w, C]``.
        text_encoder: ``ids [b, S], mask [b, S] -> [L, b, S, D']``.
        tokenizer: list of prompts -> ids and mask, each ``[n, S]``.
    """

    family = "ltx"
    config_class = LTXConfig
    shardable = ("transformer", "connectors", "text_encoder")
    denoisers = ("transformer",)
    known_rule = "timestep"
    config: LTXConfig
    transformer: LTXTransformer
    connectors: LTXConnectors
    vae: LTXVAE
    text_encoder: Gemma3Encoder
    tokenizer: DecoderTokenizer

    def __init__(self, config: LTXConfig, *, tokenizer: Any = None, **networks: Any) -> None:
        super().__init__(config, config.noise_schedule(), {**networks, TOKENIZER: tokenizer})
        self.perturbed_guidance = config.perturbed_guidance
        if config.sigmas:
            count = len(config.sigmas)
            self.few_steps = FewSteps("LTX, distilled", count, sigmas=config.sigmas)
        self.guidance_rescale = config.guidance_rescale
        self.picture_crf = config.picture_crf

    @classmethod
    def from_networks(cls, config: LTXConfig, networks: Mapping[str, Any], folder: Path) -> Model:
        """The model of a folder; arguments as in `Model.from_networks`."""
        tokenizer = None
        if "text_encoder" in networks and (folder / TOKENIZER).is_dir():
            tokenizer = DecoderTokenizer(folder / TOKENIZER, config.text_tokens)
        return cls(config, **networks, tokenizer=tokenizer)

    @property
    def denoiser(self) -> LTXDenoiser:
        return LTXDenoiser(self._split("transformer")[0], self.config.perturbed_block)

    def schedule_for(self, latent_shape: tuple[int, int, int]) -> NoiseSchedule:
        return self.config.noise_schedule(int(np.prod(latent_shape)))

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, jax.Array]:
        """``text [n, S, D]``: the connectors' features, none of which is padding; one prompt at a
        time, since the text encoder's hidden states of one are 386 MB."""
        split = [self._split(name) for name in ("text_encoder", "connectors")]
        graphdefs, params = zip(*split, strict=True)
        rows = zip(*self.tokenizer(list(prompts)), strict=True)
        text = [_encode(graphdefs, params, ids[None], mask[None]) for ids, mask in rows]
        return {"text": jnp.concatenate(text)}

    def complete_conditioning(self, cond: Any, fps: float, perturbed: np.ndarray) -> Any:
        """With ``fps [n]`` and ``perturbed [n]``, float32."""
        rates = jnp.full(len(perturbed), fps, jnp.float32)
        return {**cond, "fps": rates, "perturbed": jnp.asarray(perturbed, jnp.float32)}

    def conditioning_shapes(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        shape = (count, self.config.text_tokens, self.config.connectors.out)
        each = jax.ShapeDtypeStruct((count,), jnp.float32)
        return {"text": jax.ShapeDtypeStruct(shape, self.dtype), "fps": each, "perturbed": each}

    def scaled(self, latents: np.ndarray) -> np.ndarray:
        """The transformer's latents of what the autoencoder encodes: the inverse of `unscaled`."""
        vae, latents = self.config.vae, np.asarray(latents, np.float32)
        if vae.latents_mean:
            latents = latents - np.asarray(vae.latents_mean, np.float32)
        return latents / np.asarray(vae.latents_std, np.float32) if vae.latents_std else latents

    def unscaled(self, latents: np.ndarray) -> np.ndarray:
        """What the autoencoder decodes: each channel of ``[..., C]`` with its mean and standard
        deviation again; float32."""
        vae, latents = self.config.vae, np.asarray(latents, np.float32)
        if vae.latents_std:
            latents = latents * np.asarray(vae.latents_std, np.float32)
        return latents + np.asarray(vae.latents_mean, np.float32) if vae.latents_mean else latents

    def decode_stream(
        self, latents: np.ndarray, placement: Placement, batch: int | None = None
    ) -> Iterator[np.ndarray]:
        piece = max(1, (batch or 1) // self.geometry.temporal)
        return self._decode_ahead(self.unscaled(latents), piece, placement)

    def decoding(self, frame_shape: tuple[int, int, int]) -> tuple[Any, tuple]:
        return self._ahead_decoding(frame_shape)
