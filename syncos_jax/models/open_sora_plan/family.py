"""The family of Open-Sora Plan v1.3, text-to-video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.models.family import Model
from syncos_jax.models.networks import NetworkModel, TextDenoiser
from syncos_jax.models.open_sora_plan.settings import OpenSoraPlanConfig
from syncos_jax.models.open_sora_plan.transformer import OpenSoraPlanTransformer
from syncos_jax.models.open_sora_plan.vae import WFVAE
from syncos_jax.models.saved import TOKENIZER
from syncos_jax.models.t5 import T5Encoder
from syncos_jax.models.t5_tokenizer import T5Tokenizer
from syncos_jax.sampling.placement import Placement

_PROMPTS_PER_CALL = 4


class OpenSoraPlan(NetworkModel):
    """Open-Sora Plan v1.3, whose parts can be used alone.

    A model of which only one network was converted (``only``) has that one: reading another part
    raises `MissingPart`, an InputError that says so, and ``hasattr`` is False.

    Attributes:
        config: sizes and sampling defaults.
        transformer: ``transformer(x [b, f, h, w, C], t [b] or [b, f], text [b, S, D],
            mask [b, S])`` -> like ``x``; predicts ``v``.
        vae: ``encode`` and ``decode`` unscaled latents, ``[n, f, h, w, C]``.
        text_encoder: ``ids [b, S], mask [b, S] -> [b, S, D]``.
        tokenizer: list of prompts -> ids and mask, each ``[n, S]``.
    """

    family = "open_sora_plan"
    config_class = OpenSoraPlanConfig
    shardable = ("transformer", "text_encoder")
    denoisers = ("transformer",)
    config: OpenSoraPlanConfig
    transformer: OpenSoraPlanTransformer
    vae: WFVAE
    text_encoder: T5Encoder
    tokenizer: T5Tokenizer

    def __init__(
        self, config: OpenSoraPlanConfig, *, tokenizer: Any = None, **networks: Any
    ) -> None:
        super().__init__(config, config.noise_schedule(), {**networks, TOKENIZER: tokenizer})

    @classmethod
    def from_networks(
        cls, config: OpenSoraPlanConfig, networks: Mapping[str, Any], folder: Path
    ) -> Model:
        """The model of a folder; arguments as in `Model.from_networks`."""
        tokenizer = None
        if "text_encoder" in networks and (folder / TOKENIZER).is_dir():
            tokenizer = T5Tokenizer(folder / TOKENIZER, config.text_tokens)
        return cls(config, **networks, tokenizer=tokenizer)

    @property
    def denoiser(self) -> TextDenoiser:
        return TextDenoiser(self._split("transformer")[0])

    @property
    def dtype(self) -> str:  # the first of its weights, of the time embedding, is float32
        return str(self.transformer.dtype)

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, jax.Array]:
        """``text [n, S, D]`` and ``mask [n, S]``; S is ``config.text_tokens`` (512)."""
        ids, mask = self.tokenizer(list(prompts))
        text = self._encode_text(ids, mask, batch=_PROMPTS_PER_CALL)
        return {"text": text, "mask": jnp.asarray(mask)}

    def conditioning_shapes(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        shape = (count, self.config.text_tokens)
        features = (*shape, self.config.text.features)
        return {
            "text": jax.ShapeDtypeStruct(features, self.dtype),
            "mask": jax.ShapeDtypeStruct(shape, jnp.int32),
        }

    def scaled(self, latents: np.ndarray) -> np.ndarray:
        """The transformer's latents of what the autoencoder encodes."""
        vae = self.config.vae
        shifted = np.asarray(latents, np.float32) - np.asarray(vae.shift, np.float32)
        return shifted * np.asarray(vae.scale, np.float32)

    def unscaled(self, latents: np.ndarray) -> np.ndarray:
        """What the autoencoder decodes: the inverse of `scaled`."""
        vae = self.config.vae
        whole = np.asarray(latents, np.float32) / np.asarray(vae.scale, np.float32)
        return whole + np.asarray(vae.shift, np.float32)

    def decode_stream(
        self, latents: np.ndarray, placement: Placement, batch: int | None = None
    ) -> Iterator[np.ndarray]:
        piece = max(1, (batch or 1) // self.geometry.temporal)
        return self._decode_ahead(self.unscaled(latents), piece, placement)

    def decoding(self, frame_shape: tuple[int, int, int]) -> tuple[Any, tuple]:
        return self._ahead_decoding(frame_shape)
