"""The family of CogVideoX: text-to-video models of 2B, 5B and 1.5."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from syncos_jax.models.cogvideox.settings import CogVideoXConfig, CogVideoXGeometry
from syncos_jax.models.cogvideox.transformer import CogVideoXTransformer
from syncos_jax.models.cogvideox.vae import CogVideoXVAE, pieces
from syncos_jax.models.family import Model
from syncos_jax.models.networks import NetworkModel, TextDenoiser
from syncos_jax.models.saved import TOKENIZER
from syncos_jax.models.t5 import T5Encoder
from syncos_jax.models.t5_tokenizer import T5Tokenizer
from syncos_jax.sampling.placement import Placement

_PROMPTS_PER_CALL = 4


class CogVideoX(NetworkModel):
    """A text-to-video model of CogVideoX's, whose parts can be used alone.

    A model of which only one network was converted (``only``) has that one:
    reading another part raises `MissingPart`, an InputError that says so, and ``hasattr`` is False.

    Attributes:
        config: sizes and sampling defaults.
        transformer: ``transformer(x [b, f, h, w, C], t [b] or [b, f], text [b, S, D])`` -> like
            ``x``.
        vae: ``encode`` and ``decode`` unscaled latents, ``[n, f, h, w, C]``; the transformer's are
            times ``config.latent_scale``.
        text_encoder: ``ids [b, S] -> [b, S, D]``.
        tokenizer: list of prompts -> ids and mask, each ``[n, S]``.
    """

    family = "cogvideox"
    config_class = CogVideoXConfig
    shardable = ("transformer", "text_encoder")
    denoisers = ("transformer",)
    config: CogVideoXConfig
    transformer: CogVideoXTransformer
    vae: CogVideoXVAE
    text_encoder: T5Encoder
    tokenizer: T5Tokenizer
    geometry: CogVideoXGeometry

    def __init__(self, config: CogVideoXConfig, *, tokenizer: Any = None, **networks: Any) -> None:
        super().__init__(config, config.noise_schedule(), {**networks, TOKENIZER: tokenizer})

    @classmethod
    def from_networks(
        cls, config: CogVideoXConfig, networks: Mapping[str, Any], folder: Path
    ) -> Model:
        """The model of a folder; arguments as in `Model.from_networks`."""
        tokenizer = None
        if "text_encoder" in networks and (folder / TOKENIZER).is_dir():
            tokenizer = T5Tokenizer(folder / TOKENIZER, config.text_tokens, clean=False)
        return cls(config, **networks, tokenizer=tokenizer)

    @property
    def denoiser(self) -> TextDenoiser:
        return TextDenoiser(self._split("transformer")[0])

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, jax.Array]:
        """``text [n, S, D]``: S is ``config.text_tokens`` (226), and padding has features like all
        else, as it had in training."""
        ids = np.asarray(self.tokenizer(list(prompts))[0], np.int32)
        return {"text": self._encode_text(ids, batch=_PROMPTS_PER_CALL)}

    def conditioning_shapes(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        shape = (count, self.config.text_tokens, self.config.text.features)
        return {"text": jax.ShapeDtypeStruct(shape, self.dtype)}

    def decode_stream(
        self, latents: np.ndarray, placement: Placement, batch: int | None = None
    ) -> Iterator[np.ndarray]:
        """As `Model.decode_stream`; two latent frames together whatever `batch` says, since that is
        part of the result."""
        remaining = np.asarray(latents, np.float32)[self.geometry.dropped :]
        unscaled = remaining / np.float32(self.config.latent_scale)
        return self._decode_pieces(unscaled, iter(pieces(len(unscaled))), placement)

    def decoding(self, frame_shape: tuple[int, int, int]) -> tuple[Any, tuple]:
        return self._piece_decoding(2, frame_shape)
