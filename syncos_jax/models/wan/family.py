"""The family of Wan: Wan 2.1 and 2.2, from text and from pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import jax
import numpy as np

from syncos_jax.models.family import Model
from syncos_jax.models.given_frames import GivenFrames
from syncos_jax.models.networks import NetworkModel, run_network
from syncos_jax.models.saved import TOKENIZER
from syncos_jax.models.t5 import T5Encoder
from syncos_jax.models.t5_tokenizer import T5Tokenizer
from syncos_jax.models.vit import VisionTransformer
from syncos_jax.models.wan.denoiser import WanDenoiser
from syncos_jax.models.wan.image import window_channels, window_features
from syncos_jax.models.wan.settings import WanConfig
from syncos_jax.models.wan.transformer import WanTransformer
from syncos_jax.models.wan.vae import WanVAE
from syncos_jax.sampling.placement import Placement
from syncos_jax.sampling.windows import WindowLayout

_PROMPTS_PER_CALL = 4


class Wan(NetworkModel):
    """A model of Wan's, whose parts can be used alone.

    A model of which only one network was converted (``only``) has that one: reading another part
    raises `MissingPart`, an InputError that says so, and ``hasattr`` is False.

    Attributes:
        config: sizes and sampling defaults.
        transformer: ``transformer(x [b, f, h, w, C], t [b] or [b, f], text [b, S, D], image)`` ->
            ``[b, f, h, w, C']``; predicts the flow.
        transformer_2: for little noise, where there are two (Wan2.2-A14B).
        vae: ``encode`` and ``decode`` unscaled latents, ``[n, f, h, w, C]``.
        text_encoder: ``ids [b, S], mask [b, S] -> [b, S, D]``.
        image_encoder: prepared pictures ``[n, H, W, 3]`` -> features ``[n, 257, D]`` (Wan 2.1
            I2V).
        tokenizer: list of prompts -> ids and mask, each ``[n, S]``.
    """

    family = "wan"
    config_class = WanConfig
    shardable = ("transformer", "transformer_2", "text_encoder", "image_encoder")
    denoisers = ("transformer", "transformer_2")
    config: WanConfig
    transformer: WanTransformer
    transformer_2: WanTransformer
    vae: WanVAE
    text_encoder: T5Encoder
    image_encoder: VisionTransformer
    tokenizer: T5Tokenizer

    def __init__(self, config: WanConfig, *, tokenizer: Any = None, **networks: Any) -> None:
        super().__init__(config, config.noise_schedule(), {**networks, TOKENIZER: tokenizer})
        self.guidance_2, self.boundary = config.guidance_2, config.boundary
        if config.on_images:
            self.known_rule = "condition"
        elif config.clean_frames:
            self.known_rule = "timestep"

    @classmethod
    def from_networks(cls, config: WanConfig, networks: Mapping[str, Any], folder: Path) -> Model:
        """The model of a folder; arguments as in `Model.from_networks`."""
        tokenizer = None
        if "text_encoder" in networks and (folder / TOKENIZER).is_dir():
            tokenizer = T5Tokenizer(folder / TOKENIZER, config.text_tokens)
        return cls(config, **networks, tokenizer=tokenizer)

    @property
    def _networks(self) -> tuple[str, ...]:
        absent = set()
        if self.config.boundary is None:
            absent.add("transformer_2")
        if self.config.image is None:
            absent.add("image_encoder")
        return tuple(name for name in self.config_class.networks if name not in absent)

    @property
    def params(self) -> Any:  # type: ignore[override]
        high = self._split("transformer")[1]
        if self.config.boundary is None:
            return high
        return {"high": high, "low": self._split("transformer_2")[1]}

    @property
    def denoiser(self) -> WanDenoiser:
        return self.denoiser_at(None)

    def denoiser_at(self, boundary: float | None) -> WanDenoiser:
        graphdef, own = self._split("transformer")[0], self.config.boundary
        if own is None:
            return WanDenoiser(graphdef)
        share = own if boundary is None else boundary
        return WanDenoiser(graphdef, self._split("transformer_2")[0], 1000.0 * share)

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, jax.Array]:
        """``text [n, S, D]``: S is ``config.text_tokens`` (512), and behind a prompt's end all
        features are zero, as they were in training."""
        ids, mask = self.tokenizer(list(prompts))
        features = self._encode_text(ids, mask, batch=_PROMPTS_PER_CALL)
        return {"text": features * (mask > 0)[..., None].astype(features.dtype)}

    def conditioning_shapes(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        shape = (count, self.config.text_tokens, self.config.text.features)
        return {"text": jax.ShapeDtypeStruct(shape, self.dtype)}

    def window_conditioning(
        self, given: GivenFrames, layout: WindowLayout, placement: Placement, key: jax.Array
    ) -> dict[str, np.ndarray] | None:
        """``channels [N, f, h, w, temporal + C]`` and, with an image encoder, ``image [N, n, D]``;
        `wan.image`."""
        if not self.config.on_images:
            return None
        temporal = self.geometry.temporal
        starts = temporal * layout.starts
        frames = self.geometry.frames(layout.window)

        def latents(pixels: np.ndarray) -> np.ndarray:
            return self.encode_frames(pixels, placement)

        made = {"channels": window_channels(given, starts, frames, temporal, latents)}
        sizes = self.config.transformer
        if sizes.image_features is not None:
            two = sizes.image_positions is not None
            made["image"] = window_features(given, starts, two, self.encode_picture)
        return made

    def encode_picture(self, picture: np.ndarray) -> np.ndarray:
        """The image encoder's features ``[n, D]``, float32, of a picture uint8 ``[H, W, 3]`` of any
        size."""
        graphdef, weights = self._split("image_encoder")
        pixels = self.config.image_processing(picture)[None].astype(self.dtype)
        return np.asarray(run_network(graphdef, weights, pixels), np.float32)[0]

    def window_conditioning_shapes(
        self, count: int, window: int, frame_shape: tuple[int, int, int]
    ) -> dict[str, jax.ShapeDtypeStruct]:
        sizes, image = self.config.transformer, self.config.image
        if not self.config.on_images:
            return {}
        more = sizes.in_channels - sizes.out_channels
        shapes: dict[str, tuple[int, ...]] = {"channels": (count, window, *frame_shape[:2], more)}
        if sizes.image_features is not None and image is not None:
            tokens = sizes.image_positions or 1 + image.side**2
            shapes["image"] = (count, tokens, sizes.image_features)
        return {name: jax.ShapeDtypeStruct(v, np.dtype(np.float32)) for name, v in shapes.items()}

    def held_frames(self, mask: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """Pictures are drawn by the network; clips are kept as they are."""
        return mask & ~pictures if self.config.on_images else mask

    def unscaled(self, latents: np.ndarray) -> np.ndarray:
        """What the autoencoder decodes: each channel of ``[..., C]`` with its mean and standard
        deviation again; float32."""
        vae = self.config.vae
        mean, std = (np.asarray(v, np.float32) for v in (vae.latents_mean, vae.latents_std))
        return np.asarray(latents, np.float32) * std + mean

    def scaled(self, latents: np.ndarray) -> np.ndarray:
        """The inverse of `unscaled`."""
        vae = self.config.vae
        mean, std = (np.asarray(v, np.float32) for v in (vae.latents_mean, vae.latents_std))
        return (np.asarray(latents, np.float32) - mean) / std

    def decode_stream(
        self, latents: np.ndarray, placement: Placement, batch: int | None = None
    ) -> Iterator[np.ndarray]:
        piece = max(1, (batch or 1) // self.geometry.temporal)
        unscaled = self.unscaled(latents)
        ends = [1, *range(1 + piece, len(unscaled), piece), len(unscaled)]
        bounds = ((start, stop) for start, stop in pairwise([0, *ends]) if start < stop)
        return self._decode_pieces(unscaled, bounds, placement)

    def decoding(self, frame_shape: tuple[int, int, int]) -> tuple[Any, tuple]:
        return self._piece_decoding(1, frame_shape)
