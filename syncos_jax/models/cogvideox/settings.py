"""What describes a model of CogVideoX's beside its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from flax import nnx

from syncos_jax.models.cogvideox.config import CogVideoXTransformerConfig, CogVideoXVAEConfig
from syncos_jax.models.cogvideox.transformer import CogVideoXTransformer
from syncos_jax.models.cogvideox.vae import CogVideoXVAE
from syncos_jax.models.family import Geometry
from syncos_jax.models.from_mapping import from_mapping
from syncos_jax.models.layers import AbstractRngs, DType
from syncos_jax.models.t5 import T5Config, T5Encoder
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.solvers import Solver


@dataclasses.dataclass(frozen=True, kw_only=True)
class CogVideoXGeometry(Geometry):
    """As `Geometry`, for an autoencoder that reads latent frames two by two: an odd number stands
    for ``4 (f - 1) + 1`` frames, an even one for ``4 f``.

    Attributes:
        dropped: latent frames at the beginning that are not decoded. (CogVideoX 1.5 makes 22 for
            the 21 of its 81 frames, as its tokens have two each.)
    """

    dropped: int = 0

    def frames(self, latents: int) -> int:
        """Decoded frames of a video of so many latent frames."""
        kept = max(0, latents - self.dropped)
        return self.temporal * (kept - 1) + 1 if kept % 2 else self.temporal * kept

    def latents(self, frames: int) -> int:
        """The fewest latent frames that are decoded to at least so many frames."""
        if frames < 1:
            return 0
        pair = 2 * self.temporal
        even, odd = 2 * -(-frames // pair), 2 * -(-(frames - 1) // pair) + 1
        return min(even, odd) + self.dropped

    def first_frame(self, latent: np.ndarray) -> np.ndarray:
        """The first decoded frame of each latent frame, in an even number of them; in an odd number
        it is up to three frames earlier."""
        return self.temporal * np.maximum(np.asarray(latent) - self.dropped, 0)


@dataclasses.dataclass(frozen=True)
class CogVideoXConfig:
    """A model of CogVideoX's: its networks' sizes, and how it is meant to be sampled.

    Attributes:
        name: for people.
        transformer, vae, text: sizes of the networks.
        schedule: arguments of ``NoiseSchedule.from_betas``.
        solver: arguments of `syncos_jax.sampling.solvers.Solver`.
        levels: arguments of `syncos_jax.sampling.sigmas.beta_sigmas` for that solver; empty for the
            timesteps of the schedule.
        window: latent frames of a clip, the length of a window (13 are 49 frames).
        stride: default distance in latent frames between the starts of two windows.
        fps: frames per second of a clip.
        height, width: of a frame, pixels.
        steps, guidance: default number of denoising steps and guidance scale.
        dropped: see `CogVideoXGeometry`.
        image_sampled: whether these latents are a sample of the autoencoder's posterior, as in
            training, or its mean.
        source: where the weights are from.
        notes: anything worth knowing, shown by ``syncos info``.
    """

    family: ClassVar[str] = "cogvideox"
    networks: ClassVar[tuple[str, ...]] = ("transformer", "vae", "text_encoder")

    name: str
    transformer: CogVideoXTransformerConfig
    vae: CogVideoXVAEConfig
    text: T5Config
    schedule: Mapping[str, Any]
    solver: Mapping[str, Any]
    window: int = 13
    stride: int = 4
    fps: int = 8
    height: int = 480
    width: int = 720
    steps: int = 50
    guidance: float = 6.0
    dropped: int = 0
    levels: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    image_sampled: bool = False
    source: str = ""
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def text_tokens(self) -> int:
        """To which prompts are padded."""
        return self.transformer.text_tokens

    @property
    def latent_scale(self) -> float:
        """The transformer sees latents times this."""
        return self.vae.latent_scale

    @property
    def image_scale(self) -> float:
        """The transformer sees the latents of a picture times this."""
        return 1.0 / self.latent_scale if self.vae.inverted else self.latent_scale

    @property
    def on_images(self) -> bool:
        """Whether the transformer has channels for the latents of a picture."""
        return self.transformer.in_channels > self.transformer.out_channels

    def build(self, network: str, dtype: DType) -> Any:
        """A network without weights (``nnx.eval_shape``)."""
        rngs: Any = AbstractRngs()
        makers: dict[str, Any] = {
            "transformer": lambda: CogVideoXTransformer(self.transformer, dtype=dtype, rngs=rngs),
            "vae": lambda: CogVideoXVAE(self.vae, dtype=dtype, rngs=rngs),
            "text_encoder": lambda: T5Encoder(self.text, dtype=dtype, rngs=rngs),
        }
        return nnx.eval_shape(makers[network])

    def geometry(self) -> CogVideoXGeometry:
        """Sizes of a clip."""
        return CogVideoXGeometry(
            window=self.window,
            stride=self.stride,
            channels=self.vae.latent_channels,
            cell=self.vae.factor,
            multiple=self.transformer.patch,
            height=self.height,
            width=self.width,
            fps=self.fps,
            temporal=self.vae.time_factor,
            causal=True,
            dropped=self.dropped,
        )

    def noise_schedule(self) -> NoiseSchedule:
        """The diffusion process, with the model's own solver."""
        schedule = NoiseSchedule.from_betas(**self.schedule)
        own = self.default_solver()
        return dataclasses.replace(schedule, solver=own, beta_settings=self.levels)

    def default_solver(self) -> Solver:
        """The model's own solver."""
        return from_mapping(Solver, self.solver, "solver")

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CogVideoXConfig:
        """The inverse of ``to_dict``.

        Raises:
            InputError: missing or unknown entries, by name.
        """
        values = dict(values)
        kinds = {
            "transformer": CogVideoXTransformerConfig,
            "vae": CogVideoXVAEConfig,
            "text": T5Config,
        }
        for key, kind in kinds.items():
            if isinstance(values.get(key), Mapping):
                values[key] = from_mapping(kind, values[key], key)
        return from_mapping(cls, values, "model")
