"""What describes a model of Open-Sora Plan v1.3 besides its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from flax import nnx

from syncos_jax.models.family import Geometry
from syncos_jax.models.from_mapping import from_mapping
from syncos_jax.models.layers import AbstractRngs, DType
from syncos_jax.models.open_sora_plan.config import OpenSoraPlanTransformerConfig, WFVAEConfig
from syncos_jax.models.open_sora_plan.transformer import OpenSoraPlanTransformer
from syncos_jax.models.open_sora_plan.vae import WFVAE
from syncos_jax.models.t5 import T5Config, T5Encoder
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.sigmas import LEAST_SIGNAL


@dataclasses.dataclass(frozen=True)
class OpenSoraPlanConfig:
    """Open-Sora Plan v1.3, text-to-video: its networks' sizes, and how it is meant to be sampled.

    Attributes:
        name: for people.
        transformer, vae, text: sizes of the networks.
        text_tokens: to which prompts are padded.
        window: latent frames of a clip, the length of a window (24 are 93 frames).
        stride: default distance in latent frames between the starts of two windows.
        fps: frames per second of a clip.
        height, width: of a frame, pixels.
        steps, guidance: default number of denoising steps and guidance scale.
        source: where the weights are from.
        notes: anything worth knowing, shown by ``syncos info``.
    """

    family: ClassVar[str] = "open_sora_plan"
    networks: ClassVar[tuple[str, ...]] = ("transformer", "vae", "text_encoder")

    name: str
    transformer: OpenSoraPlanTransformerConfig = OpenSoraPlanTransformerConfig()
    vae: WFVAEConfig = WFVAEConfig()
    text: T5Config = T5Config(vocabulary=250112)
    text_tokens: int = 512
    window: int = 24
    stride: int = 6
    fps: int = 18
    height: int = 352
    width: int = 640
    steps: int = 100
    guidance: float = 7.5
    source: str = ""
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def build(self, network: str, dtype: DType) -> Any:
        """A network without weights (``nnx.eval_shape``)."""
        rngs: Any = AbstractRngs()
        makers: dict[str, Any] = {
            "transformer": lambda: OpenSoraPlanTransformer(
                self.transformer, dtype=dtype, rngs=rngs
            ),
            "vae": lambda: WFVAE(self.vae, dtype=dtype, rngs=rngs),
            "text_encoder": lambda: T5Encoder(self.text, dtype=dtype, rngs=rngs),
        }
        return nnx.eval_shape(makers[network])

    def geometry(self) -> Geometry:
        """Sizes of a clip."""
        return Geometry(
            window=self.window,
            stride=self.stride,
            channels=self.vae.latent_channels,
            cell=WFVAE.factor,
            multiple=self.transformer.patch,
            height=self.height,
            width=self.width,
            fps=self.fps,
            temporal=WFVAE.time_factor,
            causal=True,
        )

    def noise_schedule(self) -> NoiseSchedule:
        """The diffusion process: v-prediction, with (almost) no signal at the last timestep.

        DDIM with ``eta=1`` takes the steps of the original's sampler, ancestral Euler.
        """
        made = NoiseSchedule.from_betas(
            "linear",
            beta_start=0.0001,
            beta_end=0.02,
            prediction="v",
            spacing="trailing",
            zero_terminal_snr=True,
        )
        signal, noise = made.signal.copy(), made.noise.copy()
        signal[-1], noise[-1] = LEAST_SIGNAL, (1.0 - LEAST_SIGNAL**2) ** 0.5
        return dataclasses.replace(made, signal=signal, noise=noise)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OpenSoraPlanConfig:
        """The inverse of ``to_dict``.

        Raises:
            InputError: missing or unknown entries, by name.
        """
        values = dict(values)
        kinds = {
            "transformer": OpenSoraPlanTransformerConfig,
            "vae": WFVAEConfig,
            "text": T5Config,
        }
        for key, kind in kinds.items():
            if isinstance(values.get(key), Mapping):
                values[key] = from_mapping(kind, values[key], key)
        return from_mapping(cls, values, "model")
