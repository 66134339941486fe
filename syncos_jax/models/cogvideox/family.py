"""The family of CogVideoX: text-to-video models of 2B, 5B and 1.5."""

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

from syncos_jax.models.cogvideox.settings import CogVideoXConfig, CogVideoXGeometry
from syncos_jax.models.cogvideox.vae import pieces
from syncos_jax.models.family import Model
from syncos_jax.models.networks import NetworkModel
from syncos_jax.models.saved import TOKENIZER
from syncos_jax.sampling.placement import Placement

_PROMPTS_PER_CALL = 4


@dataclass(frozen=True)
class _Denoiser:
    """The transformer as a function. Two of the same architecture are equal: traced once."""

    graphdef: Any

    def __call__(self, params: Any, x: jax.Array, t: jax.Array, cond: Any) -> jax.Array:
        return nnx.merge(self.graphdef, params)(x, t, cond["text"])


@partial(jax.jit, static_argnums=0)
def _encode(graphdef: Any, params: Any, ids: jax.Array) -> jax.Array:
    return nnx.merge(graphdef, params)(ids)


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def _decode(graphdef: Any, params: Any, latents: jax.Array, kept: Any) -> tuple[jax.Array, Any]:
    """Frames uint8 ``[F, H, W, 3]`` of a piece of a stream of unscaled latents ``[f, h, w, C]``."""
    frames, kept = nnx.merge(graphdef, params).decode_piece(latents[None], kept)
    frames = jnp.round((jnp.clip(frames[0], -1.0, 1.0) + 1.0) * 127.5)
    return frames.astype(jnp.uint8), kept


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
            from syncos_jax.models.t5_tokenizer import T5Tokenizer

            tokenizer = T5Tokenizer(folder / TOKENIZER, config.text_tokens, clean=False)
        return cls(config, **networks, tokenizer=tokenizer)

    @property
    def denoiser(self) -> _Denoiser:
        return _Denoiser(self._split("transformer")[0])

    def encode_prompts(self, prompts: Sequence[str]) -> dict[str, jax.Array]:
        """``text [n, S, D]``: S is ``config.text_tokens`` (226), and padding has features like all
        else, as it had in training."""
        ids = np.asarray(self.tokenizer(list(prompts))[0], np.int32)
        rows = -(-len(ids) // _PROMPTS_PER_CALL) * _PROMPTS_PER_CALL
        ids = np.pad(ids, ((0, rows - len(ids)), (0, 0)), mode="edge")
        split = self._split("text_encoder")
        parts = [_encode(*split, part) for part in np.split(ids, rows // _PROMPTS_PER_CALL)]
        return {"text": jnp.concatenate(parts)[: len(prompts)]}

    def conditioning_shapes(self, count: int) -> dict[str, jax.ShapeDtypeStruct]:
        shape = (count, self.config.text_tokens, self.config.text.features)
        return {"text": jax.ShapeDtypeStruct(shape, self.dtype)}

    def decode_stream(
        self, latents: np.ndarray, placement: Placement, batch: int | None = None
    ) -> Iterator[np.ndarray]:
        """As `Model.decode_stream`; two latent frames together whatever `batch` says, since that is
        part of the result."""
        kept_latents = np.asarray(latents, np.float32)[self.geometry.dropped :]
        unscaled = kept_latents / np.float32(self.config.latent_scale)
        split, kept = self._split("vae"), None
        for start, stop in pieces(len(unscaled)):
            with placement.compiling():
                frames, kept = _decode(*split, placement.place(unscaled[start:stop]), kept)
            yield np.asarray(frames)

    def decoding(self, frame_shape: tuple[int, int, int]) -> tuple[Any, tuple]:
        """The jitted function that decodes two latent frames in mid-video, and abstract arguments
        of it; for plans."""
        two, split = jax.ShapeDtypeStruct((2, *frame_shape), jnp.float32), self._split("vae")
        kept = jax.eval_shape(partial(_decode, split[0]), split[1], two, None)[1]
        return _decode, (*split, two, kept)
