"""What describes a model beside its weights."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.clip_text import CLIPTextConfig, CLIPTextEncoder
from syncos_jax.models.family import Geometry
from syncos_jax.models.layers import DType, NoWeights
from syncos_jax.models.unet_clip.unet3d import UNet3D, UNet3DConfig
from syncos_jax.models.unet_clip.vae import AutoencoderKL, VAEConfig
from syncos_jax.sampling.schedule import NoiseSchedule


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A text-to-video model: its networks' sizes, and how it is meant to be sampled.

    Attributes:
        name: for people.
        unet, vae, text: sizes of the networks.
        schedule: arguments of ``NoiseSchedule.from_betas``; ``signal_scale`` may be
            ``{start, end, steps}``: linear over the first ``steps`` timesteps, constant after.
        latent_scale: the UNet sees latents times this.
        window: frames of a clip, the length of a window.
        stride: default distance in frames between the starts of two windows.
        fps: frames per second of a clip; also what is embedded where the UNet embeds it.
        height, width: of a frame, pixels.
        steps, guidance: default number of denoising steps and guidance scale.
        openclip_tokens: whether prompts are cleaned and padded as OpenCLIP does it, not as
            transformers does (see ``PromptTokenizer``).
        source: where the weights are from.
        notes: anything worth knowing, shown by ``syncos info`` (how it was trained, say).
    """

    family: ClassVar[str] = "unet_clip"
    networks: ClassVar[tuple[str, ...]] = ("unet", "vae", "text_encoder")

    name: str
    unet: UNet3DConfig
    vae: VAEConfig
    text: CLIPTextConfig
    schedule: Mapping[str, Any]
    latent_scale: float
    window: int
    stride: int
    fps: int
    height: int
    width: int
    steps: int
    guidance: float
    openclip_tokens: bool = False
    source: str = ""
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return self.vae.latent_channels

    @property
    def latent_factor(self) -> int:
        """Pixels per latent cell, along each side."""
        return self.vae.factor

    def build(self, network: str, dtype: DType) -> Any:
        """A network without weights (``nnx.eval_shape``)."""
        rngs: Any = NoWeights()
        makers: dict[str, Any] = {
            "unet": lambda: UNet3D(self.unet, dtype=dtype, rngs=rngs),
            "vae": lambda: AutoencoderKL(self.vae, dtype=dtype, rngs=rngs),
            "text_encoder": lambda: CLIPTextEncoder(self.text, dtype=dtype, rngs=rngs),
        }
        return nnx.eval_shape(makers[network])

    def geometry(self) -> Geometry:
        """Sizes of a clip."""
        return Geometry(
            window=self.window,
            stride=self.stride,
            channels=self.latent_channels,
            cell=self.latent_factor,
            multiple=2 ** (len(self.unet.block_out_channels) - 1),
            height=self.height,
            width=self.width,
            fps=self.fps,
        )

    def noise_schedule(self) -> NoiseSchedule:
        """The diffusion process."""
        settings = dict(self.schedule)
        scale = settings.get("signal_scale")
        if isinstance(scale, Mapping):
            ramp = np.linspace(scale["start"], scale["end"], scale["steps"])
            rest = np.full(settings["train_steps"], scale["end"])
            settings["signal_scale"] = np.concatenate([ramp, rest])
        return NoiseSchedule.from_betas(**settings)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelConfig":
        """The inverse of ``to_dict``.

        Raises:
            InputError: missing or unknown entries, by name.
        """
        values = dict(values)
        for key, kind in (("unet", UNet3DConfig), ("vae", VAEConfig), ("text", CLIPTextConfig)):
            entry = values.get(key)
            if isinstance(entry, Mapping):
                values[key] = _build(kind, entry, key)
        return _build(cls, values, "model")


def _build(kind: type, values: Mapping[str, Any], where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(values) - set(fields))
    missing = sorted(
        name
        for name, field in fields.items()
        if name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    )
    if unknown or missing:
        raise InputError(
            f"{where} configuration: "
            + "; ".join(
                f"{what} {', '.join(names)}"
                for what, names in (("unknown", unknown), ("missing", missing))
                if names
            )
        )
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
