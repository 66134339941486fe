"""The family of CogVideoX: 2B, 5B and 1.5, from text and from a picture."""

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
from syncos_jax.models.given_frames import GivenFrames
from syncos_jax.models.networks import NetworkModel, TextDenoiser, encode_moments
from syncos_jax.models.saved import TOKENIZER
from syncos_jax.models.t5 import T5Encoder
from syncos_jax.models.t5_tokenizer import T5Tokenizer
from syncos_jax.sampling.placement import Placement
from syncos_jax.sampling.windows import WindowLayout

_PROMPTS_PER_CALL = 4
_PICTURE_NOISE = 0x50494354
"""Number of the draw that makes a sample of a picture's latents."""


class CogVideoX(NetworkModel):
    """A model of CogVideoX's, whose parts can be used alone.

    A model of which only one network was converted (``only``) has that one:
    reading another part raises `MissingPart`, an InputError that says so, and ``hasattr`` is False.

    Attributes:
        config: sizes and sampling defaults.
        transformer: ``transformer(x [b, f, h, w, C], t [b] or [b, f], text [b, S, D])`` ->
            ``[b, f, h, w, C']``.
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
        if config.on_images:
            self.known_rule = "condition"

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

    def window_conditioning(
        self, given: GivenFrames, layout: WindowLayout, placement: Placement, key: jax.Array
    ) -> dict[str, np.ndarray] | None:
        """``channels [N, f, h, w, C]``: the picture at a window's beginning in its first latent
        frame, 0 in the others."""
        if not self.config.on_images:
            return None
        made: dict[bytes, np.ndarray] = {}
        windows = []
        starts = self.geometry.first_frame(layout.starts)
        for name, (pixels, known) in given.clips(starts, 1):
            if name not in made:
                latent = self.encode_picture(pixels, placement, key) if known[0] else None
                size = self.geometry.cell
                shape = (pixels.shape[1] // size, pixels.shape[2] // size, self.geometry.channels)
                channels = np.zeros((layout.window, *shape), np.float32)
                channels[0] = 0.0 if latent is None else latent
                made[name] = channels
            windows.append(made[name])
        return {"channels": np.stack(windows)}

    def encode_picture(
        self, pixels: np.ndarray, placement: Placement, key: jax.Array
    ) -> np.ndarray:
        """Scaled latents ``[h, w, C]``, float32, of a picture, as the transformer is given them.

        Args:
            pixels: float32 ``[1, H, W, 3]`` in [-1, 1].
            placement: the devices.
            key: where the latents are a sample (`config.image_sampled`), of its noise.
        """
        config = self.config
        mean, logvar = encode_moments(*self._split("vae"), placement.place(pixels[None]))
        latent = np.asarray(mean)[0, 0]
        if config.image_sampled:
            drawn = jax.random.normal(jax.random.fold_in(key, _PICTURE_NOISE), latent.shape)
            latent = latent + np.exp(0.5 * np.asarray(logvar)[0, 0]) * np.asarray(drawn)
        return np.asarray(latent * np.float32(config.image_scale), np.float32)

    def window_conditioning_shapes(
        self, count: int, window: int, frame_shape: tuple[int, int, int]
    ) -> dict[str, jax.ShapeDtypeStruct]:
        if not self.config.on_images:
            return {}
        shape = (count, window, *frame_shape)
        return {"channels": jax.ShapeDtypeStruct(shape, np.dtype(np.float32))}

    def held_frames(self, mask: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """All but a picture at the beginning, which the network draws."""
        if not self.config.on_images:
            return mask
        beginning = np.arange(len(mask)) <= self.geometry.dropped
        return mask & ~(beginning & pictures)

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
