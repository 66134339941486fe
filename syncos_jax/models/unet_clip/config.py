"""What describes a model beside its weights."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.files.text import short
from syncos_jax.models.clip_text import CLIPTextConfig, CLIPTextEncoder
from syncos_jax.models.family import Geometry
from syncos_jax.models.few_steps import configured
from syncos_jax.models.from_mapping import from_mapping
from syncos_jax.models.layers import AbstractRngs, DType
from syncos_jax.models.unet_clip.unet3d import UNet3D, UNet3DConfig
from syncos_jax.models.unet_clip.vae import AutoencoderKL, VAEConfig
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.sampling.solvers import Solver


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A text-to-video model: its networks' sizes, and how it is meant to be sampled.

    Attributes:
        name: for people.
        unet, vae, text: sizes of the networks.
        schedule: arguments of ``NoiseSchedule.from_betas``; ``signal_scale`` may be
            ``{start, end, steps}``: linear over the first ``steps`` timesteps, constant after.
        solver: arguments of `syncos_jax.sampling.solvers.Solver`; empty for DDIM.
        levels: arguments of `syncos_jax.sampling.sigmas.beta_sigmas` for that solver.
        latent_scale: the UNet sees latents times this.
        window: frames of a clip, the length of a window.
        stride: default distance in frames between the starts of two windows.
        fps: frames per second of a clip; also what is embedded where the UNet embeds it.
        height, width: of a frame, pixels.
        steps, guidance: default number of denoising steps and guidance scale.
        openclip_tokens: whether prompts are cleaned and padded as OpenCLIP does it, not as
            transformers does (see ``PromptTokenizer``).
        known_rule: how the UNet receives known frames: ``"replace"`` (noised like the others) or,
            if it was trained with a timestep for each frame, ``"timestep"`` (clean, at 0).
        few_steps: of distilled weights, how they are sampled: fields of
            `syncos_jax.models.few_steps.FewSteps`, with a list of ``timesteps`` or ``sigmas``.
        source: where the weights are from.
        notes: anything worth knowing, shown by ``syncos info`` (how it was trained, say).
    """

    family: ClassVar[str] = "unet_clip"
    networks: ClassVar[tuple[str, ...]] = ("unet", "vae", "text_encoder")
    unet_config: ClassVar[Any] = UNet3DConfig

    name: str
    unet: Any
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
    solver: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    levels: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    known_rule: Literal["replace", "timestep"] = "replace"
    few_steps: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    source: str = ""
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for where, part in (("unet", self.unet), ("vae", self.vae), ("text", self.text)):
            _check_values(where, part)
        _check_values("model", self)
        if not math.isfinite(self.latent_scale) or self.latent_scale <= 0:
            raise InputError(f"model.latent_scale: is {self.latent_scale!r}; it must be above 0")
        if not math.isfinite(self.guidance) or self.fps <= 0:
            raise InputError("model: guidance must be finite and fps above 0")
        if self.known_rule not in ("replace", "timestep"):
            raise InputError(
                f"model.known_rule: is {short(self.known_rule)}; expected replace or timestep"
            )

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
        rngs: Any = AbstractRngs()
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
        """The diffusion process, with the model's own solver."""
        settings = dict(self.schedule)
        scale = settings.get("signal_scale")
        if isinstance(scale, Mapping):
            ramp = np.linspace(scale["start"], scale["end"], scale["steps"])
            rest = np.full(settings["train_steps"], scale["end"])
            settings["signal_scale"] = np.concatenate([ramp, rest])
        schedule = NoiseSchedule.from_betas(**settings)
        if not self.solver:
            return configured(schedule, self.few_steps)
        own = from_mapping(Solver, self.solver, "solver")
        schedule = dataclasses.replace(schedule, solver=own, beta_settings=self.levels)
        schedule.solver_steps(own, self.steps)  # or an error
        return configured(schedule, self.few_steps)

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
        for key, kind in (("unet", cls.unet_config), ("vae", VAEConfig), ("text", CLIPTextConfig)):
            entry = values.get(key)
            if isinstance(entry, Mapping):
                values[key] = _build(kind, entry, key)
        return _build(cls, values, "model")


_MOST = 1_000_000
_DEEPEST = 256
_COUNTS = ("layers_per_block", "layers")


def _check_values(where: str, config: Any) -> None:
    """InputError for values that are not of their field's type, or that no network could have."""
    for field in dataclasses.fields(config):
        value, place = getattr(config, field.name), f"{where}.{field.name}"
        wanted = str(field.type)
        if isinstance(field.type, type):
            wanted = field.type.__name__
        if wanted == "int" and (type(value) is not int or not 1 <= value <= _MOST):
            if not (field.name == "fps" and type(value) is float and 0 < value <= _MOST):
                raise InputError(f"{place}: is {short(value)}; expected an integer from 1")
        elif wanted == "float" and type(value) not in (int, float):
            raise InputError(f"{place}: is {short(value)}; expected a number")
        elif wanted in ("bool", "str") and type(value).__name__ != wanted:
            raise InputError(f"{place}: is {short(value)}; expected {wanted}")
        elif wanted.startswith("tuple"):
            kind = bool if "bool" in wanted else int
            good = isinstance(value, tuple) and 1 <= len(value) <= 16
            if not good or any(type(v) is not kind or not v <= _MOST for v in value):
                raise InputError(f"{place}: is {short(value)}; expected a short list")
            if kind is int and min(value) < 1:
                raise InputError(f"{place}: is {short(value)}; expected numbers from 1")
        elif wanted.startswith("Mapping") and not isinstance(value, Mapping):
            raise InputError(f"{place}: is {short(value)}; expected a mapping")
        if field.name in _COUNTS and value > _DEEPEST:
            raise InputError(f"{place}: is {short(value)}; expected at most {_DEEPEST}")


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
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where} configuration: has a value that cannot be: {error}") from error
