"""The family of Wan: Wan2.1-T2V (1.3B, 14B) and Wan2.2-T2V-A14B."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.models.family import Model
from syncos_jax.models.networks import NetworkModel
from syncos_jax.models.saved import TOKENIZER
from syncos_jax.models.wan.denoiser import WanDenoiser
from syncos_jax.models.wan.settings import WanConfig
from syncos_jax.sampling.placement import Placement

_PROMPTS_PER_CALL = 4


@partial(jax.jit, static_argnums=0)
def _encode(graphdef: Any, params: Any, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """Features ``[n, S, D]``, zero behind each prompt's end."""
    features = nnx.merge(graphdef, params)(ids, mask)
    return features * (mask > 0)[..., None].astype(features.dtype)


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def _decode(graphdef: Any, params: Any, latents: jax.Array, kept: Any) -> tuple[jax.Array, Any]:
    """Frames uint8 ``[F, H, W, 3]`` of a piece of a stream of unscaled latents ``[f, h, w, C]``."""
    frames, kept = nnx.merge(graphdef, params).decode_piece(latents[None], kept)
    return jnp.round((frames[0] + 1.0) * 127.5).astype(jnp.uint8), kept


class Wan(NetworkModel):
    """A text-to-video model of Wan's, whose parts can be used alone.

    A model of which only one network was converted (``only``) has that one: reading another part
    raises `MissingPart`, an InputError that says so, and ``hasattr`` is False.

    Attributes:
        config: sizes and sampling defaults.
        transformer: ``transformer(x [b, f, h, w, C], t [b] or [b, f], text [b, S, D])`` -> like
            ``x``; predicts the flow.
        transformer_2: for little noise, where there are two (Wan2.2-A14B).
        vae: ``encode`` and ``decode`` unscaled latents, ``[n, f, h, w, C]``.
        text_encoder: ``ids [b, S], mask [b, S] -> [b, S, D]``.
        tokenizer: list of prompts -> ids and mask, each ``[n, S]``.
    """

    family = "wan"
    config_class = WanConfig
    shardable = ("transformer", "transformer_2", "text_encoder")
    denoisers = ("transformer", "transformer_2")
    config: WanConfig

    def __init__(self, config: WanConfig, *, tokenizer: Any = None, **networks: Any) -> None:
        super().__init__(config, config.noise_schedule(), {**networks, TOKENIZER: tokenizer})

    @classmethod
    def from_networks(cls, config: WanConfig, networks: Mapping[str, Any], folder: Path) -> Model:
        """The model of a folder; arguments as in `Model.from_networks`."""
        tokenizer = None
        if "text_encoder" in networks and (folder / TOKENIZER).is_dir():
            from syncos_jax.models.t5_tokenizer import T5Tokenizer

            tokenizer = T5Tokenizer(folder / TOKENIZER, config.text_tokens)
        return cls(config, **networks, tokenizer=tokenizer)

    @property
    def _networks(self) -> tuple[str, ...]:
        two = self.config.boundary is not None
        return tuple(name for name in self.config_class.networks if two or name != "transformer_2")

    @property
    def params(self) -> Any:  # type: ignore[override]
        high = self._split("transformer")[1]
        if self.config.boundary is None:
            return high
        return {"high": high, "low": self._split("transformer_2")[1]}

    @property
    def denoiser(self) -> WanDenoiser:
        graphdef, boundary = self._split("transformer")[0], self.config.boundary
        if boundary is None:
            return WanDenoiser(graphdef)
        return WanDenoiser(graphdef, self._split("transformer_2")[0], 1000.0 * boundary)

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, jax.Array]:
        """``text [n, S, D]``: S is ``config.text_tokens`` (512), and behind a prompt's end all
        features are zero, as they were in training."""
        ids, mask = self.tokenizer(list(prompts))
        rows = -(-len(ids) // _PROMPTS_PER_CALL) * _PROMPTS_PER_CALL
        ids, mask = (np.pad(y, ((0, rows - len(y)), (0, 0)), mode="edge") for y in (ids, mask))
        split, parts = self._split("text_encoder"), []
        for first in range(0, rows, _PROMPTS_PER_CALL):
            few = slice(first, first + _PROMPTS_PER_CALL)
            parts.append(_encode(*split, ids[few], mask[few]))
        return {"text": jnp.concatenate(parts)[: len(prompts)]}

    def conditioning_shapes(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        shape = (count, self.config.text_tokens, self.config.text.features)
        return {"text": jax.ShapeDtypeStruct(shape, self.dtype)}

    def unscaled(self, latents: np.ndarray) -> np.ndarray:
        """What the autoencoder decodes: each channel of ``[..., C]`` with its mean and standard
        deviation again; float32."""
        vae = self.config.vae
        mean, std = (np.asarray(v, np.float32) for v in (vae.latents_mean, vae.latents_std))
        return np.asarray(latents, np.float32) * std + mean

    def decode_stream(
        self, latents: np.ndarray, placement: Placement, batch: int | None = None
    ) -> Iterator[np.ndarray]:
        piece = max(1, (batch or 1) // self.geometry.temporal)
        unscaled, split, kept = self.unscaled(latents), self._split("vae"), None
        ends = [1, *range(1 + piece, len(unscaled), piece), len(unscaled)]
        for first, end in zip([0, *ends], ends, strict=False):
            if first < end:
                with placement.compiling():
                    frames, kept = _decode(*split, placement.place(unscaled[first:end]), kept)
                yield np.asarray(frames)

    def decoding(self, frame_shape: tuple[int, int, int]) -> tuple[Any, tuple]:
        """The jitted function that decodes a latent frame in mid-video, and abstract arguments of
        it; for plans."""
        one, split = jax.ShapeDtypeStruct((1, *frame_shape), jnp.float32), self._split("vae")
        kept = jax.eval_shape(partial(_decode, split[0]), split[1], one, None)[1]
        return _decode, (*split, one, kept)
