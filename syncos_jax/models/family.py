"""What a model is to all that stands above it, and the families of models there are.

A family says what a clip is (`Geometry`), how it is noised (`NoiseSchedule`), and how prompts,
latents and frames are turned into one another. Everything else, from the pipeline to the records,
reads a `Model` and nothing of its networks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.models.given_frames import GivenFrames
from syncos_jax.models.identity import hash_weights
from syncos_jax.models.merged_lora import MergedLora
from syncos_jax.sampling.known import KnownRule
from syncos_jax.sampling.schedule import NoiseSchedule

if TYPE_CHECKING:
    from syncos_jax.models.few_steps import FewSteps
    from syncos_jax.sampling.placement import Placement
    from syncos_jax.sampling.windows import WindowLayout


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Sizes of a clip, in latent frames and cells, and of what they are decoded to.

    Attributes:
        window: latent frames of a clip, the length of a window.
        stride: latent frames between the starts of two windows, where the scenario does not say.
        channels: of a latent.
        cell: pixels per latent cell, along each side.
        multiple: latent height and width must be divisible by this.
        height, width: of a frame where the scenario does not say, pixels.
        fps: decoded frames per second.
        temporal: decoded frames per latent frame.
        causal: whether the first latent frame of a video stands for one decoded frame, and the
            others for `temporal` each: ``F = temporal (f - 1) + 1``.
    """

    window: int
    stride: int
    channels: int
    cell: int
    multiple: int = 1
    height: int
    width: int
    fps: float
    temporal: int = 1
    causal: bool = False

    def frames(self, latents: int) -> int:
        """Decoded frames of a video of so many latent frames."""
        return self.temporal * (latents - 1) + 1 if self.causal else self.temporal * latents

    def latents(self, frames: int) -> int:
        """The fewest latent frames that are decoded to at least so many frames."""
        if frames < 1:
            return 0
        if self.causal:
            return -(-(frames - 1) // self.temporal) + 1
        return -(-frames // self.temporal)

    def first_frame(self, latent: np.ndarray) -> np.ndarray:
        """The first decoded frame that each of some latent frames (from 0) stands for."""
        latent = np.asarray(latent)
        if self.causal:
            return np.where(latent == 0, 0, self.temporal * (latent - 1) + 1)
        return self.temporal * latent

    def latent_size(self, height: int, width: int, exact: bool = False) -> tuple[int, int]:
        """Latent height and width that cover a frame of so many pixels, divisible by `multiple`;
        with `exact`, just as many cells as the frame has."""
        if exact:
            return height // self.cell, width // self.cell
        step = self.cell * self.multiple
        return -(-height // step) * self.multiple, -(-width // step) * self.multiple


class Denoiser(Protocol):
    """A denoising network alone: ``model.unet`` or ``model.transformer``."""

    def __call__(self, x: jax.Array, t: jax.Array, text: jax.Array, /) -> jax.Array:
        """Latents ``[b, f, h, w, C]``, timesteps ``[b]``, text features ``[b, S, D]``."""


class Autoencoder(Protocol):
    """A video autoencoder alone: ``model.vae``."""

    def encode(self, video: jax.Array, /) -> Any:
        """Mean and log variance of the latents of a video ``[n, F, H, W, 3]``."""

    def decode(self, latents: jax.Array, /) -> jax.Array:
        """The video ``[n, F, H, W, 3]`` of unscaled latents ``[n, f, h, w, C]``."""


class Model:
    """A text-to-video model. A family is a subclass.

    Attributes:
        family: the family's name, ``"family"`` in a folder's config.json.
        config_class: what is read from the rest of that file: it has ``family``, ``networks``
            (their names), ``from_dict``, ``to_dict`` and ``build(network, dtype)``.
        name: for people.
        geometry: sizes of a clip.
        schedule: timesteps, rates, prediction type.
        steps, guidance: default number of denoising steps and scale of guidance.
        perturbed_guidance: default scale of guidance away from the perturbed denoiser; None where
            the family has no such denoiser.
        few_steps: of distilled weights, how they are sampled; None for others.
        guidance_2: default scale of guidance below `boundary`; None for `guidance`.
        boundary: share of the timesteps below which the second of two denoising networks predicts;
            None where there is but one.
        guidance_rescale: default share of the rescaling of guided latents; None for none.
        picture_crf: H.264 quality at which pictures were compressed in training, as given ones then
            are, too; 0: not at all.
        params: weights of the denoiser, a pytree.
        loras: LoRAs that were merged into the weights after loading.
        hashes: of networks whose hash is known from their folder, by name.
        unet, transformer, vae, text_encoder: the networks alone, as far as the family and the
            model's folder have them.
    """

    unet: Denoiser
    transformer: Denoiser
    vae: Autoencoder
    text_encoder: Callable[..., jax.Array]

    family: ClassVar[str]
    config_class: ClassVar[Any]
    name: str
    geometry: Geometry
    schedule: NoiseSchedule
    steps: int
    guidance: float
    perturbed_guidance: float | None = None
    few_steps: FewSteps | None = None
    guidance_2: float | None = None
    boundary: float | None = None
    guidance_rescale: float | None = None
    picture_crf: int = 0
    params: Any
    loras: tuple[MergedLora, ...] = ()
    hashes: Mapping[str, str] = MappingProxyType({})
    known_rule: KnownRule = "replace"
    """How the denoiser receives known frames (`syncos_jax.sampling.known.KnownFrames`)."""
    known_reference: bool = False
    """Whether windows without known frames receive references unless the scenario says otherwise:
    where clips were trained whose first frame another motion follows."""

    @classmethod
    def from_networks(cls, config: Any, networks: Mapping[str, Any], folder: Path) -> Model:
        """The model of a folder.

        Args:
            config: of `config_class`.
            networks: those that the folder has, restored.
            folder: where its tokenizer is.

        Raises:
            InputError: the networks do not make a model of this family.
        """
        raise InputError(f"the family {cls.family!r} cannot be read from a folder")

    def denoise(self, params: Any, x: jax.Array, t: jax.Array, cond: Any) -> jax.Array:
        """The prediction for clips.

        Args:
            params: as `params`.
            x: noisy latents, float32 ``[b, w, h, w, C]``.
            t: timesteps, float32 ``[b]`` (``[b, w]`` for diagonal denoising).
            cond: what `encode_prompts` gives, leading axis ``b``.

        Returns:
            An array shaped like `x`.

        Raises:
            InputError: the family has no denoiser.
        """
        raise InputError(f"the family {self.family!r} has no denoiser")

    @property
    def denoiser(self) -> Callable[..., jax.Array]:
        """`denoise` as a hashable function. Where two models' are equal, they share compiled
        programs."""
        return self.denoise

    def denoiser_at(self, boundary: float | None) -> Callable[..., jax.Array]:
        """`denoiser` with another boundary between its two networks: a function of latents
        ``[b, w, h, w, C]`` as `denoise`."""
        return self.denoiser

    def encode_prompts(self, prompts: Sequence[str]) -> Any:
        """Encodes prompts.

        Args:
            prompts: ``n`` texts.

        Returns:
            What the denoiser is conditioned on: a pytree of arrays with leading axis ``n``, floats
            such as ``[n, S, D]`` and, where the family has one, a mask of bool or integers.

        Raises:
            InputError: the family, or this folder, has no text encoder.
        """
        raise InputError(f"the family {self.family!r} has no text encoder")

    def complete_conditioning(self, cond: Any, fps: float, perturbed: np.ndarray) -> Any:
        """What the denoiser is given, from prompts' features and what else it depends on.

        Args:
            cond: as of `encode_prompts`, leading axis ``n``.
            fps: frames per second of the video.
            perturbed: rows for the perturbed denoiser (`perturbed_guidance`), bool ``[n]``.
        """
        return cond

    def schedule_for(self, latent_shape: tuple[int, int, int]) -> NoiseSchedule:
        """The noise schedule of clips of `latent_shape`: latent frames, rows and columns."""
        return self.schedule

    def window_conditioning(
        self, given: GivenFrames, layout: WindowLayout, placement: Placement, key: jax.Array
    ) -> dict[str, np.ndarray] | None:
        """What the denoiser receives of each window's known frames, in addition to its prompt;
        for families whose `known_rule` is "condition".

        Args:
            given: frames of the whole video, padded to the size of its latents.
            layout: the windows.
            placement: the devices.
            key: of the run's noise.

        Returns:
            Arrays ``[N, ...]`` of the windows, by names that `complete_conditioning` does not use;
            None where the denoiser takes none.
        """
        return None

    def window_conditioning_shapes(
        self, count: int, window: int, frame_shape: tuple[int, int, int]
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """Shapes and dtypes of `window_conditioning` for `count` windows of `window` latent frames
        of `frame_shape` ``(h, w, C)``."""
        return {}

    def held_frames(self, mask: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """Of known latent frames, those that the sampler itself has to keep; bool ``[F]``.

        Args:
            mask: which are known, bool ``[F]``.
            pictures: which of them are pictures, not frames of a clip; bool ``[F]``.
        """
        return mask

    def conditioning_shapes(self, count: int) -> Any:
        """Shapes and dtypes of what `complete_conditioning` gives for `count` prompts, without a
        tokenizer; for plans."""
        return jax.eval_shape(lambda: self.encode_prompts([""] * count))

    def interpolate_conditioning(self, cond: Any, weights: np.ndarray) -> Any:
        """Weighted means of conditionings, as in a cross-fade.

        Args:
            cond: a pytree with leading axis ``P``.
            weights: float32 ``[n, P]``; rows sum to 1. One that is 1 gives that row bit for bit.

        Returns:
            A pytree with leading axis ``n``: floats are averaged, a mask is on where any is.
        """
        return jax.tree.map(lambda leaf: _mixed(leaf, weights), cond)

    def encode_frames(self, frames: np.ndarray, placement: Placement) -> np.ndarray:
        """Scaled latents of a video's beginning: the means of the autoencoder's posteriors.

        Args:
            frames: uint8 ``[F, H, W, 3]``, of which ``geometry.frames(geometry.latents(F)) == F``;
                H and W divisible by ``geometry.cell``. Where the geometry is not temporal, any
                frames, which are encoded one by one.
            placement: the devices.

        Returns:
            float32 ``[f, h, w, C]``.

        Raises:
            InputError: the family has no encoder.
        """
        raise InputError(f"the family {self.family!r} has no encoder, so it takes no pictures")

    def decode_stream(
        self, latents: np.ndarray, placement: Placement, batch: int | None = None
    ) -> Iterator[np.ndarray]:
        """Decodes a whole video, some frames at a time.

        Args:
            latents: scaled latents of the whole video ``[f, h, w, C]``.
            placement: the devices.
            batch: frames decoded together; None for as many as suit.

        Yields:
            Frames uint8 ``[n, H, W, 3]``; ``geometry.frames(f)`` together.

        Raises:
            InputError: the family, or this folder, has no autoencoder.
        """
        raise InputError(f"the family {self.family!r} has no autoencoder")

    def decoding(self, frame_shape: tuple[int, int, int]) -> tuple[Any, tuple] | None:
        """A jitted function that decodes one latent frame of `frame_shape` ``(h, w, C)``, and its
        abstract arguments, for plans; None where that says nothing."""
        return None

    def quantize(self, how: str) -> None:
        """Quantizes the denoiser, permanently; `name` then says so.

        Args:
            how: a suffix such as ``"int8"`` (`syncos_jax.models.quantize`).

        Raises:
            InputError: the family cannot be quantized.
        """
        raise InputError(f"the family {self.family!r} cannot be quantized")

    def place(self, placement: Placement) -> None:
        """Places the weights as `placement` specifies."""
        self.params = placement.place_weights(self.params)

    @property
    def weights(self) -> Mapping[str, Any]:
        """The weights of all networks, pytrees by name."""
        return {"denoiser": self.params}

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of all networks (`hash_weights`), by its folder's hashes if it has them."""
        return hash_weights(self.weights, self.hashes)

    @property
    def dtype(self) -> str:
        """In which the denoiser computes, but for the products of a quantized one."""
        dtypes = (leaf.dtype for leaf in jax.tree.leaves(self.params))
        return str(next(dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)))


def _mixed(leaf: jax.Array, weights: np.ndarray) -> jax.Array:
    mixed = leaf[weights.argmax(axis=1)]
    for row in np.flatnonzero((weights > 0).sum(axis=1) > 1):
        parts = np.flatnonzero(weights[row])
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            mixed = mixed.at[row].set(leaf[parts].max(axis=0))
            continue
        total = jnp.zeros(leaf.shape[1:], jnp.float32)
        for part in parts:
            total += jnp.float32(weights[row, part]) * leaf[part].astype(jnp.float32)
        mixed = mixed.at[row].set(total.astype(mixed.dtype))
    return mixed


_FAMILIES: dict[str, str | type[Model]] = {
    "unet_clip": "syncos_jax.models.unet_clip.model:UNetClip",
    "animatediff": "syncos_jax.models.animatediff.family:AnimateDiff",
    "cogvideox": "syncos_jax.models.cogvideox.family:CogVideoX",
    "wan": "syncos_jax.models.wan.family:Wan",
    "ltx": "syncos_jax.models.ltx.family:LTX",
    "open_sora_plan": "syncos_jax.models.open_sora_plan.family:OpenSoraPlan",
}
"""The families, by the name that stands in config.json; a class, or where it is."""

DEFAULT_FAMILY = "unet_clip"
"""Of folders that do not say."""


def register(name: str, family: type[Model]) -> None:
    """Registers a family of your own under `name`."""
    _FAMILIES[name] = family


def family_named(name: str) -> type[Model]:
    """The family; InputError where there is none of that name."""
    found = _FAMILIES.get(name) if isinstance(name, str) else None  # a file may say anything
    if found is None:
        raise InputError(f"unknown family of models {name!r}; known: {', '.join(_FAMILIES)}")
    if isinstance(found, str):
        module, _, attribute = found.partition(":")
        return getattr(import_module(module), attribute)
    return found
