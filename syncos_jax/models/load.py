"""Loading a model: ``load_model("demo")`` or a folder."""

import dataclasses
import os
from importlib.resources import files
from pathlib import Path

import jax
import jax.numpy as jnp

from syncos_jax.errors import InputError
from syncos_jax.models.clip_text import CLIPTextEncoder
from syncos_jax.models.config import ModelConfig
from syncos_jax.models.layers import DType
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet3d import UNet3D
from syncos_jax.models.vae import AutoencoderKL
from syncos_jax.schedule import NoiseSchedule

BUILT_IN = ("demo",)


@dataclasses.dataclass(frozen=True)
class Model:
    """A text-to-video model whose parts can be used alone.

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


def load_model(name_or_dir: str | os.PathLike[str] = "demo", dtype: DType | None = None) -> Model:
    """Load a model.

    Args:
        name_or_dir: ``"demo"``, or a folder in diffusers' layout (``unet/ vae/ text_encoder/
            tokenizer/ scheduler/``, safetensors).
        dtype: of weights and computation; default bfloat16 on accelerators, float32 on CPU.

    Raises:
        InputError: no model there, or one that does not fit; says what and why.
    """
    from syncos_jax.weights_convert.diffusers_folder import read_folder

    folder = model_folder(name_or_dir)
    return read_folder(folder, default_dtype() if dtype is None else dtype)
