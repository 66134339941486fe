"""What describes a model of Wan's beside its weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar

from flax import nnx

from syncos_jax.models.family import Geometry
from syncos_jax.models.few_steps import configured
from syncos_jax.models.from_mapping import from_mapping
from syncos_jax.models.image_processing import ImageProcessing
from syncos_jax.models.layers import AbstractRngs, DType
from syncos_jax.models.t5 import T5Config, T5Encoder
from syncos_jax.models.vit import VisionTransformer, ViTConfig
from syncos_jax.models.wan.config import WanTransformerConfig, WanVAEConfig
from syncos_jax.models.wan.transformer import WanTransformer
from syncos_jax.models.wan.vae import WanVAE
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.solvers import Solver


@dataclasses.dataclass(frozen=True)
class WanConfig:
    """A model of Wan's: its networks' sizes, and how it is meant to be sampled.

    Attributes:
        name: for people.
        transformer, vae, text: sizes of the networks; both transformers have the same.
        image: sizes of the image encoder (Wan 2.1 I2V), without the layer whose output is not used;
            None where there is none.
        image_processing: of the pictures that it sees.
        clean_frames: whether known frames are given clean, at timestep 0 (TI2V-5B).
        schedule: arguments of `syncos_jax.sampling.sigmas.flow_sigmas`, its ``rule`` among them.
        solver: arguments of `syncos_jax.sampling.solvers.Solver`.
        boundary: share of the timesteps above which the first of two transformers is used, and
            below it the second; None where there is but one.
        text_tokens: to which prompts are padded, with zeros.
        window: latent frames of a clip, the length of a window (21 are 81 frames).
        stride: default distance in latent frames between the starts of two windows.
        fps: frames per second of a clip.
        height, width: of a frame, pixels.
        steps, guidance: default number of denoising steps and guidance scale.
        guidance_2: guidance scale of the second transformer; None for `guidance`.
        few_steps: of distilled weights, how they are sampled: fields of
            `syncos_jax.models.few_steps.FewSteps`.
        source: where the weights are from.
        notes: anything worth knowing, shown by ``syncos info``.
    """

    family: ClassVar[str] = "wan"
    networks: ClassVar[tuple[str, ...]] = (
        "transformer",
        "transformer_2",
        "vae",
        "text_encoder",
        "image_encoder",
    )

    name: str
    transformer: WanTransformerConfig
    vae: WanVAEConfig
    text: T5Config
    schedule: Mapping[str, Any]
    solver: Mapping[str, Any]
    boundary: float | None = None
    text_tokens: int = 512
    window: int = 21
    stride: int = 6
    fps: int = 16
    height: int = 480
    width: int = 832
    steps: int = 50
    guidance: float = 5.0
    guidance_2: float | None = None
    few_steps: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: str = ""
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    image: ViTConfig | None = None
    image_processing: ImageProcessing = ImageProcessing()
    clean_frames: bool = False

    @property
    def on_images(self) -> bool:
        """Whether the transformer has channels for what is known of a window's frames."""
        return self.transformer.in_channels > self.transformer.out_channels

    def build(self, network: str, dtype: DType) -> Any:
        """A network without weights (``nnx.eval_shape``)."""
        rngs: Any = AbstractRngs()
        makers: dict[str, Any] = {
            "transformer": lambda: WanTransformer(self.transformer, dtype=dtype, rngs=rngs),
            "vae": lambda: WanVAE(self.vae, dtype=dtype, rngs=rngs),
            "text_encoder": lambda: T5Encoder(self.text, dtype=dtype, rngs=rngs),
            "image_encoder": lambda: VisionTransformer(
                self.image or ViTConfig.clip_vith14(), dtype=dtype, rngs=rngs
            ),
        }
        return nnx.eval_shape(makers["transformer" if network == "transformer_2" else network])

    def geometry(self) -> Geometry:
        """Sizes of a clip."""
        return Geometry(
            window=self.window,
            stride=self.stride,
            channels=self.vae.latent_channels,
            cell=self.vae.factor,
            multiple=math.lcm(*self.transformer.patch[1:]),
            height=self.height,
            width=self.width,
            fps=self.fps,
            temporal=self.vae.time_factor,
            causal=True,
        )

    def noise_schedule(self) -> NoiseSchedule:
        """The diffusion process, a flow, with the model's own solver."""
        schedule = NoiseSchedule.flow(shift=self.schedule.get("shift", 1.0))
        others = {k: v for k, v in self.schedule.items() if k not in ("shift", "rule")}
        own = self.default_solver()
        schedule = dataclasses.replace(schedule, solver=own, flow_settings=others)
        return configured(schedule, self.few_steps)

    def default_solver(self) -> Solver:
        """The model's own solver."""
        return from_mapping(Solver, self.solver, "solver")

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WanConfig:
        """The inverse of ``to_dict``.

        Raises:
            InputError: missing or unknown entries, by name.
        """
        values = dict(values)
        kinds: dict[str, Any] = {
            "transformer": WanTransformerConfig,
            "vae": WanVAEConfig,
            "text": T5Config,
            "image": ViTConfig,
            "image_processing": ImageProcessing,
        }
        for key, kind in kinds.items():
            if isinstance(values.get(key), Mapping):
                values[key] = from_mapping(kind, values[key], key)
        return from_mapping(cls, values, "model")
