"""What families share whose model is some networks, each a Flax module, and a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.family import Model
from syncos_jax.models.few_steps import FewSteps
from syncos_jax.models.quantize import quantized
from syncos_jax.models.saved import TOKENIZER
from syncos_jax.sampling.placement import Placement
from syncos_jax.sampling.schedule import NoiseSchedule

_FRAMES_PER_CALL = 4
"""Frames that an autoencoder of single frames encodes together."""


class MissingPart(InputError, AttributeError):
    """A network, or the tokenizer, that a model was converted without."""


@dataclass(frozen=True)
class TextDenoiser:
    """A network ``(x, t, text, **others)`` as a function. Two of the same architecture are equal:
    traced once. ``channels [b, f, h, w, C']`` of the conditioning stand beside those of ``x``."""

    graphdef: Any

    def __call__(self, params: Any, x: jax.Array, t: jax.Array, cond: Any) -> jax.Array:
        others = {name: value for name, value in cond.items() if name not in ("text", "channels")}
        if "channels" in cond:
            x = jnp.concatenate([x, cond["channels"].astype(x.dtype)], axis=-1)
        prediction: jax.Array = nnx.merge(self.graphdef, params)(x, t, cond["text"], **others)
        return prediction


@partial(jax.jit, static_argnums=0)
def run_network(graphdef: Any, params: Any, *arrays: jax.Array) -> jax.Array:
    """A network's output for arrays with leading axis ``n``."""
    output: jax.Array = nnx.merge(graphdef, params)(*arrays)
    return output


@partial(jax.jit, static_argnums=0, donate_argnums=3)
def _decode_piece(
    graphdef: Any, params: Any, latents: jax.Array, state: Any
) -> tuple[jax.Array, Any]:
    """Frames uint8 ``[F, H, W, 3]`` of a piece of a stream of unscaled latents ``[f, h, w, C]``."""
    frames, state = nnx.merge(graphdef, params).decode_piece(latents[None], state)
    return to_uint8(frames[0]), state


@partial(jax.jit, static_argnums=0)
def _encode(graphdef: Any, params: Any, pixels: jax.Array) -> jax.Array:
    """Unscaled latents of pixels, uint8 or float32 in [-1, 1], with the leading axes that the
    autoencoder takes."""
    images = pixels if pixels.dtype == jnp.float32 else pixels.astype(jnp.float32) / 127.5 - 1.0
    mean: jax.Array = nnx.merge(graphdef, params).encode(images)[0]
    return mean


@partial(jax.jit, static_argnums=0)
def encode_moments(graphdef: Any, params: Any, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and log variance of the unscaled latents of pixels float32 in [-1, 1]."""
    mean, logvar = nnx.merge(graphdef, params).encode(pixels)
    return mean, logvar


@partial(jax.jit, static_argnums=0, donate_argnums=5)
def _decode_ahead(
    graphdef: Any, params: Any, latents: jax.Array, start: jax.Array, length: jax.Array, state: Any
) -> tuple[jax.Array, Any]:
    """As `_decode_piece`, for a decoder whose frames lag behind its latents."""
    frames, state = nnx.merge(graphdef, params).decode_piece(latents[None], start, length, state)
    return to_uint8(frames[0]), state


def to_uint8(frames: jax.Array) -> jax.Array:
    """Pixels from -1..1 to 0..255."""
    return jnp.round((jnp.clip(frames, -1.0, 1.0) + 1.0) * 127.5).astype(jnp.uint8)


class NetworkModel(Model):
    """A model of networks that can be used alone.

    A model of which only one network was converted (``only``) has that one: reading another part
    raises `MissingPart`, an InputError that says so, and ``hasattr`` is False.

    Attributes:
        shardable: the networks whose weights may be divided among devices; the first is the
            denoiser.
        denoisers: the networks that `quantize` quantizes, those that are called at every step.
        config: sizes and sampling defaults; of `config_class`.
    """

    shardable: ClassVar[tuple[str, ...]]
    denoisers: ClassVar[tuple[str, ...]]
    vae: Any

    def __init__(self, config: Any, schedule: NoiseSchedule, parts: Mapping[str, Any]) -> None:
        self.config = config
        self.name = config.name
        self.schedule = schedule
        self.geometry = config.geometry()
        self.steps, self.guidance = config.steps, config.guidance
        self.few_steps = FewSteps.of(getattr(config, "few_steps", {}))
        for part, value in parts.items():
            if value is not None:  # of the others, __getattr__ says that they are missing
                setattr(self, part, value)
        self._placed: dict[str, tuple[Any, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        networks = type(self).config_class.networks
        if name in (*networks, TOKENIZER):
            held = ", ".join(part for part in networks if part in vars(self))
            raise MissingPart(
                f"model {self.config.name!r} has no {name}: it was converted with only its {held}; "
                "convert the whole checkpoint"
            )
        raise AttributeError(name)

    @property
    def _networks(self) -> tuple[str, ...]:
        """Those that a whole model of this configuration has."""
        return tuple(self.config_class.networks)

    def _split(self, name: str) -> tuple[Any, Any]:
        """A network as its structure and its weights, on the devices that `place` was given."""
        if name not in self._placed:
            self._placed[name] = nnx.split(getattr(self, name))
        return self._placed[name]

    def _encode_text(self, *arrays: np.ndarray, batch: int) -> jax.Array:
        """The text encoder's output for arrays ``[n, S]``, `batch` rows per call."""
        count = len(arrays[0])
        rows = -(-count // batch) * batch
        padded = [np.pad(a, ((0, rows - count), (0, 0)), mode="edge") for a in arrays]
        split = self._split("text_encoder")
        calls = [tuple(a[i : i + batch] for a in padded) for i in range(0, rows, batch)]
        return jnp.concatenate([run_network(*split, *call) for call in calls])[:count]

    def scaled(self, latents: np.ndarray) -> np.ndarray:
        """Latents of the autoencoder as the denoiser has them, float32 ``[..., C]``."""
        return np.asarray(latents, np.float32) * np.float32(self.config.latent_scale)

    def encode_frames(self, frames: np.ndarray, placement: Placement) -> np.ndarray:
        split = self._split("vae")
        if self.geometry.temporal > 1:
            return self.scaled(np.asarray(_encode(*split, placement.place(frames[None])))[0])
        count = -(-len(frames) // _FRAMES_PER_CALL) * _FRAMES_PER_CALL
        padded = np.pad(frames, ((0, count - len(frames)), (0, 0), (0, 0), (0, 0)), mode="edge")
        calls = [
            np.asarray(_encode(*split, placement.place(padded[i : i + _FRAMES_PER_CALL])))
            for i in range(0, count, _FRAMES_PER_CALL)
        ]
        return self.scaled(np.concatenate(calls)[: len(frames)])

    def _decode_pieces(
        self, unscaled: np.ndarray, bounds: Iterator[tuple[int, int]], placement: Placement
    ) -> Iterator[np.ndarray]:
        """Decodes latent frames ``[f, h, w, C]`` piece by piece, carrying the decoder's state."""
        split, state = self._split("vae"), None
        for start, stop in bounds:
            with placement.compiling():
                frames, state = _decode_piece(*split, placement.place(unscaled[start:stop]), state)
            yield np.asarray(frames)

    def _piece_decoding(self, frames: int, frame_shape: tuple[int, int, int]) -> tuple[Any, tuple]:
        """The jitted function that decodes so many latent frames in mid-video, and abstract
        arguments of it; for plans."""
        piece = jax.ShapeDtypeStruct((frames, *frame_shape), jnp.float32)
        split = self._split("vae")
        state = jax.eval_shape(partial(_decode_piece, split[0]), split[1], piece, None)[1]
        return _decode_piece, (*split, piece, state)

    def replace_network(self, name: str, network: Any) -> None:
        """Puts another network of the same kind in the place of the one that is called `name`."""
        setattr(self, name, network)
        self._placed.pop(name, None)

    def _decode_ahead(
        self, unscaled: np.ndarray, piece: int, placement: Placement
    ) -> Iterator[np.ndarray]:
        """Decodes latent frames ``[f, h, w, C]``, `piece` at a time, with a decoder that looks
        ahead: what comes out of a piece is numbered by ``vae.frame_numbers``."""
        split, length = self._split("vae"), len(unscaled)
        state, start, stop, count = None, 0, 0, 1
        while stop < count:
            first, count = self.vae.frame_numbers(start, length)
            rows = np.minimum(np.arange(start, start + piece), length - 1)
            given = placement.place(unscaled[rows])
            numbers = placement.place([np.asarray(n, np.int32) for n in (start, length)])
            if state is None:
                shapes = self._state_ahead(given)
                state = placement.place(
                    jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
                )
            with placement.compiling():
                frames, state = _decode_ahead(*split, given, *numbers, state)
            begin, stop = max(first, 0), min(first + len(frames), count)
            if begin < stop:
                yield np.asarray(frames[begin - first : stop - first])
            start += piece

    def _state_ahead(self, latents: Any) -> Any:
        """Shapes of the state of `_decode_ahead`, for pieces like `latents`."""
        split, number = self._split("vae"), jax.ShapeDtypeStruct((), jnp.int32)
        call = partial(_decode_ahead, split[0])
        return jax.eval_shape(call, split[1], latents, number, number, None)[1]

    def _ahead_decoding(self, frame_shape: tuple[int, int, int]) -> tuple[Any, tuple]:
        """The jitted function that decodes one latent frame in mid-video, and abstract arguments
        of it; for plans."""
        piece = jax.ShapeDtypeStruct((1, *frame_shape), jnp.float32)
        numbers = np.int32(64), np.int32(128)  # neither end of the video is near
        return _decode_ahead, (*self._split("vae"), piece, *numbers, self._state_ahead(piece))

    def quantize(self, how: str) -> None:
        for name in self.denoisers:
            network = vars(self).get(name)
            if network is not None:
                self.replace_network(name, quantized(network, how))
        self.name = f"{self.name}@{how}"

    def place(self, placement: Placement) -> None:
        for name in self._networks:
            graphdef, weights = self._split(name)
            where = placement.place_weights if name in self.shardable else placement.place
            self._placed[name] = graphdef, where(weights)

    @property
    def params(self) -> Any:  # type: ignore[override]
        return self._split(self.shardable[0])[1]

    @property
    def weights(self) -> dict[str, Any]:
        return {name: self._split(name)[1] for name in self._networks}

    def denoise(self, params: Any, x: jax.Array, t: jax.Array, cond: Any) -> jax.Array:
        return self.denoiser(params, x, t, cond)
