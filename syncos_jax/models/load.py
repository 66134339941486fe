"""Loading a model: ``load_model("demo")`` or a folder."""

import dataclasses
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from syncos_jax.errors import InputError
from syncos_jax.models import saved
from syncos_jax.models.clip_text import CLIPTextEncoder
from syncos_jax.models.config import ModelConfig
from syncos_jax.models.layers import DType
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet3d import UNet3D
from syncos_jax.models.vae import AutoencoderKL
from syncos_jax.schedule import NoiseSchedule

BUILT_IN = ("demo",)


class MissingPart(InputError, AttributeError):
    """A network, or the tokenizer, that a model was converted without."""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Model:
    """A text-to-video model whose parts can be used alone.

    A model of which only one network was converted (``syncos convert --only``) has that one:
    reading another part raises `MissingPart`, an InputError that says so, and ``hasattr`` is False.

    Attributes:
        config: sizes and sampling defaults.
        schedule: the diffusion process.
        unet: ``unet(x [b, F, H, W, C], t [b] or [b, F], text [b, S, D], fps=[b])`` -> like ``x``.
        vae: ``encode`` and ``decode`` unscaled latents; the UNet's are times
            ``config.latent_scale``.
        text_encoder: ``ids [b, S] -> [b, S, D]``.
        tokenizer: list of prompts -> ids ``[n, S]``.
    """

    config: ModelConfig
    schedule: NoiseSchedule
    unet: UNet3D
    vae: AutoencoderKL
    text_encoder: CLIPTextEncoder
    tokenizer: PromptTokenizer

    def __post_init__(self) -> None:
        for name in (*saved.NETWORKS, saved.TOKENIZER):
            if vars(self)[name] is None:  # from here on, __getattr__ answers for it
                object.__delattr__(self, name)

    def __getattr__(self, name: str) -> Any:
        if name in (*saved.NETWORKS, saved.TOKENIZER):
            held = ", ".join(part for part in saved.NETWORKS if part in vars(self))
            raise MissingPart(
                f"model {self.config.name!r} has no {name}: it was converted with only its {held}; "
                "convert the whole checkpoint"
            )
        raise AttributeError(name)


def default_dtype() -> DType:
    """bfloat16 on accelerators, float32 on CPU."""
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def model_folder(name_or_dir: str | os.PathLike[str]) -> Path:
    """The folder of a built-in model, or the given one.

    Raises:
        InputError: there is none.
    """
    if str(name_or_dir) in BUILT_IN:
        return Path(str(files("syncos_jax"))) / "data" / str(name_or_dir)
    folder = Path(name_or_dir)
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no such model; give {' or '.join(map(repr, BUILT_IN))}, or the folder of a "
            "model"
        )
    return folder


def placement(mesh: jax.sharding.Mesh | None) -> Sharding:
    """Where weights go: on every device of `mesh`, or on JAX's default device."""
    if mesh is not None:
        return NamedSharding(mesh, PartitionSpec())
    return jnp.zeros(()).sharding


def load_model(
    name_or_dir: str | os.PathLike[str] = "demo",
    dtype: DType | None = None,
    *,
    mesh: jax.sharding.Mesh | None = None,
) -> Model:
    """Load a model.

    Args:
        name_or_dir: ``"demo"``, a folder that ``syncos convert`` wrote, or a folder in diffusers'
            layout (``unet/ vae/ text_encoder/ tokenizer/ scheduler/``).
        dtype: of weights and computation; default bfloat16 on accelerators, float32 on CPU.
        mesh: devices that each get a copy of the weights, read straight onto them; default: JAX's
            default device.

    Raises:
        InputError: no model there, or one that does not fit; says what and why.
    """
    folder = model_folder(name_or_dir)
    dtype = default_dtype() if dtype is None else dtype
    sharding = placement(mesh)
    if not saved.is_saved(folder):
        from syncos_jax.weights_convert.diffusers_folder import read_folder

        return read_folder(folder, dtype, sharding)
    config, networks = saved.read_config(folder)
    parts: dict[str, Any] = dict.fromkeys((*saved.NETWORKS, saved.TOKENIZER))
    for name in networks:
        parts[name] = saved.read_network(folder, name, config, dtype, sharding)
    if "text_encoder" in networks and (folder / saved.TOKENIZER).is_dir():
        parts[saved.TOKENIZER] = PromptTokenizer(
            folder / saved.TOKENIZER, config.text.tokens, openclip=config.openclip_tokens
        )
    return Model(config, config.noise_schedule(), **parts)
