"""Loads a model: ``load_model("demo")``, or a folder."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from syncos_jax.errors import InputError
from syncos_jax.models import identity, saved
from syncos_jax.models.family import Model, family_named
from syncos_jax.models.layers import DType
from syncos_jax.models.quantize import QUANTIZATIONS
from syncos_jax.models.saved import Where
from syncos_jax.models.weights import dtypes
from syncos_jax.sampling.placement import REPLICATED, Rules
from syncos_jax.sampling.sampler_config import SamplerConfig
from syncos_jax.sampling.solver_choice import timesteps_for
from syncos_jax.scenario.lora_files import LoraFile, check_lora

logger = logging.getLogger(__name__)

BUILT_IN = ("demo",)


def default_dtype() -> DType:
    """bfloat16 on accelerators, float32 on CPU."""
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16


def model_folder(name_or_dir: str | os.PathLike[str]) -> Path:
    """The folder of a built-in model, or the given one.

    Raises:
        InputError: no such model.
    """
    name_or_dir = quantization(name_or_dir)[0]
    if name_or_dir in BUILT_IN:
        return Path(str(files("syncos_jax"))) / "demo" / "model"
    if "://" in str(name_or_dir):
        raise InputError(
            "models are read from local folders, not from addresses",
            place=str(name_or_dir),
            remedy="copy it to a folder, and give that",
        )
    folder = Path(name_or_dir)
    from syncos_jax.weights_convert.meant import how_to_convert, is_pipeline, snapshot

    remedy = how_to_convert(name_or_dir)
    if remedy is not None:
        raise InputError(remedy)
    if folder.is_dir() and not is_pipeline(folder):
        folder = snapshot(folder) or folder
    if not folder.is_dir():
        raise InputError(
            "no such model",
            place=folder,
            remedy=f"give {' or '.join(map(repr, BUILT_IN))}, or a model folder",
        )
    return folder


def quantization(name_or_dir: str | os.PathLike[str]) -> tuple[str, str | None]:
    """``"models/mine@int8"`` as the model and its quantization, or None.

    Raises:
        InputError: unknown quantization, or two of them.
    """
    name, mark, how = str(name_or_dir).rpartition("@")
    if not mark or "/" in how or Path(name_or_dir).exists():
        return str(name_or_dir), None
    if how not in QUANTIZATIONS:
        raise InputError(
            f"unknown quantization {how!r}",
            place=str(name_or_dir),
            expected=f"one of {', '.join(QUANTIZATIONS)}",
        )
    if quantization(name)[1] is not None:
        raise InputError("names two quantizations", place=str(name_or_dir), expected="one")
    return name, how


def placement(mesh: jax.sharding.Mesh | None) -> Sharding:
    """Where weights go: on every device of `mesh`, or on JAX's default device."""
    if mesh is not None:
        return NamedSharding(mesh, PartitionSpec())
    return jnp.zeros(()).sharding


def load_model(
    name_or_dir: str | os.PathLike[str] = "demo",
    dtype: DType | None = None,
    *,
    lora: Sequence[str | LoraFile] = (),
    mesh: jax.sharding.Mesh | None = None,
    rules: Rules = REPLICATED,
) -> Model:
    """Load a model.

    Args:
        name_or_dir: ``"demo"``, a folder written by ``syncos convert``, or a folder in diffusers'
            layout (``unet/ vae/ text_encoder/ tokenizer/ scheduler/``). With ``@int8`` appended,
            the denoiser's weights and products are quantized (`syncos_jax.models.quantize`).
        dtype: of weights and computation; default bfloat16 on accelerators, float32 on CPU.
        lora: LoRA files to merge into the loaded weights, ``[NETWORK=]FILE[:STRENGTH]`` each; the
            folder stays as it is (`Model.loras`).
        mesh: devices that get the weights, read straight onto them; default: JAX's default device.
        rules: the mesh axis over which weights are sharded (`Rules.feature`): each device then
            reads only its part. By default each has a copy.

    Raises:
        InputError: no model there, or one that does not fit; a LoRA that does not fit the model.
    """
    files = [LoraFile.parse(one) for one in lora]
    for file in files:  # before the weights are read
        check_lora(file)
    name_or_dir, how = quantization(name_or_dir)
    model = _load(
        model_folder(name_or_dir), default_dtype() if dtype is None else dtype, mesh, rules
    )
    if files:
        from syncos_jax.weights_convert.few_steps import adopt
        from syncos_jax.weights_convert.lora_targets import merge

        for warning in merge(model, files):
            logger.warning("%s", warning)
        adopt(model, files)
    if how is not None:
        model.quantize(how)
        named = {name: f"{known} {how}" for name, known in model.hashes.items()}
        model.hashes = {n: hashlib.sha256(k.encode()).hexdigest() for n, k in named.items()}
    return model


def _load(folder: Path, dtype: DType, mesh: jax.sharding.Mesh | None, rules: Rules) -> Model:
    where = _divided(mesh, rules)
    if not saved.is_saved(folder):
        from syncos_jax.weights_convert.diffusers_folder import read_folder

        return read_folder(folder, dtype, where)
    config, names = saved.read_config(folder)
    saved.refuse_damaged(folder, saved.TOKENIZER)
    family = family_named(config.family)
    networks = {
        name: saved.read_network(folder, name, config, dtype, where(family, name)) for name in names
    }
    model = family.from_networks(config, networks, folder)
    found = {name: identity.read(folder, name, dtypes(networks[name])) for name in names}
    model.hashes = {name: known for name, known in found.items() if known is not None}
    return model


def _divided(mesh: jax.sharding.Mesh | None, rules: Rules) -> Callable[[type[Model], str], Where]:
    """For a network of a family: shape of a weight -> its sharding."""
    everywhere = placement(mesh)

    def of_network(family: type[Model], name: str) -> Where:
        if mesh is None or rules.feature is None or name not in getattr(family, "shardable", ()):
            return lambda shape: everywhere
        return lambda shape: rules.weights(mesh, shape)

    return of_network


def check_steps(
    name_or_dir: str | os.PathLike[str], settings: Sequence[SamplerConfig | None]
) -> None:
    """Checks the lists, spacings and shifts of settings against a model before its weights are
    read. (Of a folder in another layout than ours they are checked when it has been loaded.)

    Raises:
        InputError: the model has no such steps.
    """
    given = [s for s in settings if s and (s.timesteps or s.sigmas or s.spacing or s.shift)]
    folder = model_folder(name_or_dir) if given else None
    if folder is None or not (saved.is_saved(folder) or quantization(name_or_dir)[0] in BUILT_IN):
        return
    if saved.is_saved(folder):
        config = saved.read_config(folder)[0]
    else:
        from syncos_jax.weights_convert.diffusers_folder import read_config

        config = read_config(folder)
    for one in given:
        timesteps_for(config.noise_schedule(), one.resolved(config.steps, config.guidance))


def load_tokenizer(name_or_dir: str | os.PathLike[str] = "demo") -> Any:
    """Loads a model's tokenizer without its networks.

    Raises:
        InputError: no such model, or one without a tokenizer.
    """
    folder = model_folder(name_or_dir)
    if saved.is_saved(folder):
        config = saved.read_config(folder)[0]
        saved.refuse_damaged(folder, saved.TOKENIZER)
    else:
        from syncos_jax.weights_convert.diffusers_folder import read_config

        config = read_config(folder)
    model = family_named(config.family).from_networks(config, {"text_encoder": None}, folder)
    tokenizer: Any = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise InputError("has no tokenizer", place=folder, remedy="convert the whole checkpoint")
    return tokenizer
