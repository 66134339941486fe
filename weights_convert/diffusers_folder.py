"""A text-to-video pipeline in diffusers' folder layout: read it into a model, write a model to it.

``unet/ vae/ text_encoder/ tokenizer/ scheduler/``, with what diffusers has no place for (clip
length, frame rate, sampling defaults) in ``syncos.json``.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from syncos_jax.errors import Argument, InputError
from syncos_jax.models import identity, saved
from syncos_jax.models.family import Model, family_named
from syncos_jax.models.layers import DType
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.models.unet_clip.unet3d import UNet3D, UNet3DConfig
from syncos_jax.models.weights import leaves
from syncos_jax.weights_convert import animatediff, cogvideox, ltx, open_sora_plan, wan
from syncos_jax.weights_convert import diffusers_tables as tables
from syncos_jax.weights_convert.checkpoint import Checkpoint, Part
from syncos_jax.weights_convert.diffusers_config import (
    FAMILY,
    FAMILY_DEFAULTS,
    PREDICTIONS,
    clip_defaults,
    read_json,
    schedule_settings,
    solver_settings,
    text_config,
    unet_config,
    vae_config,
)
from syncos_jax.weights_convert.state_dict import Choice, unwrapped
from syncos_jax.weights_convert.table import Table, fill
from syncos_jax.weights_convert.weight_files import open_folder

TABLES = {"vae": tables.VAE, "text_encoder": tables.CLIP_TEXT}
WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


def _table(name: str, config: ModelConfig) -> Table:
    """Of one network of a model."""
    return tables.unet_table(config.unet) if name == "unet" else TABLES[name]


def _config_path(folder: Path, part: str, only: str | None) -> Path:
    """A network's configuration; with `only`, the network may lie in the folder itself."""
    path = folder / part / "config.json"
    if only is not None and not path.is_file():
        return folder / "config.json"
    return path


def read_config(folder: Path, only: str | None = None) -> ModelConfig:
    """As `read_whole_config`, the configuration alone."""
    return read_whole_config(folder, only)[0]


def read_whole_config(
    folder: Path, only: str | None = None, source: str = ""
) -> tuple[ModelConfig, list[str], list[str]]:
    """As `_read_whole_config`; InputError for unusable values."""
    try:
        return _read_whole_config(folder, only, source)
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder}: a value that cannot be: {error}") from error


def _read_whole_config(
    folder: Path, only: str | None = None, source: str = ""
) -> tuple[ModelConfig, list[str], list[str]]:
    """The configuration of a diffusers folder without its weights, what its reader should know,
    and what was assumed of the clip length.

    Args:
        folder: the pipeline's; with `only`, it may be that network's own.
        only: the one network that has to be there. What belongs to the others is then as in
            ModelScope's model where the folder does not say.
        source: as the user named it, which may be known for its clip length.
    """
    extra = read_json(folder / "syncos.json") if (folder / "syncos.json").is_file() else {}

    def read(part: str, name: str = "config.json") -> dict[str, Any]:
        path = folder / part / name
        if only is None or path.is_file():
            return read_json(path)
        return read_json(_config_path(folder, part, only)) if part == only else FAMILY[part]

    unet, vae, scheduler = read("unet"), read("vae"), read("scheduler", "scheduler_config.json")
    unet_sizes, vae_sizes = unet_config(unet), vae_config(vae)
    schedule, notes = schedule_settings(scheduler)
    index = (
        read_json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}
    )
    names = [source, folder.name, index.get("_name_or_path"), unet.get("_name_or_path")]
    clip, assumed = clip_defaults(unet, vae_sizes, [str(name) for name in names if name])
    said = {"sampling": "; ".join(notes)} if notes else {}
    values: dict[str, Any] = {"name": folder.name, "source": str(folder)}
    values |= {**FAMILY_DEFAULTS, **clip, **extra}
    if said:
        values["notes"] = {**values.get("notes", {}), **said}
    try:
        config = ModelConfig(
            unet=unet_sizes,
            vae=vae_sizes,
            text=text_config(read("text_encoder")),
            schedule=schedule,
            **solver_settings(scheduler, schedule),
            latent_scale=vae.get("scaling_factor", 0.18215),
            **values,
        )
    except TypeError as error:  # a key that is none
        raise InputError(f"{folder / 'syncos.json'}: {error}") from error
    return config, notes, [] if "window" in extra else assumed


def open_pipeline(
    folder: Path, only: str | None = None, choice: Choice | None = None, source: str = ""
) -> Checkpoint:
    """Opens a diffusers folder, or with `only` one network of it.

    Args:
        folder: the pipeline's; with `only`, it may be that network's own.
        only: the one network that is wanted.
        choice: of several sets of weights in a file, which one.
        source: as the user named it.

    Raises:
        InputError: a missing or broken file; says which and why.
    """
    if cogvideox.recognises(folder):
        return cogvideox.open_model(folder, only)
    if animatediff.recognises(folder):
        return animatediff.open_model(folder, only=only)
    choice = choice or Choice()
    config, notes, assumed = read_whole_config(folder, only, source)
    parts = {}
    for name in ModelConfig.networks if only is None else (only,):
        place = _config_path(folder, name, only).parent
        if choice.averaged and name == "unet" and (folder / "unet_ema").is_dir():
            place = folder / "unet_ema"
        elif choice.averaged and name == "unet":
            _check_averaged(place, choice)
        table = _table(name, config)
        tensors, said = unwrapped(
            open_folder(place, dataclasses.replace(choice, network=name)),
            table.targets,
            str(place),
            dataclasses.replace(choice, network=name),
        )
        notes += [said] if said else []
        parts[name] = Part(str(place), tensors, table)
    for name in ("pytorch_lora_weights.safetensors", "pytorch_lora_weights.bin"):
        notes += [
            f"{p} is left out" for p in (folder / name, folder / "unet" / name) if p.is_file()
        ]
    tokenizer = folder / saved.TOKENIZER
    return Checkpoint(
        config,
        parts,
        tokenizer if tokenizer.is_dir() else None,
        warnings=tuple(notes),
        assumed=tuple(assumed),
    )


def _check_averaged(place: Path, choice: Choice) -> None:
    """InputError where a network has no averaged copy."""
    try:
        plain = open_folder(place, dataclasses.replace(choice, averaged=False, network="unet"))
    except InputError:  # holds several sets of weights
        return
    if plain == open_folder(place, choice) and not any("ema" in key for key in plain):
        raise InputError(
            "has no averaged weights (EMA)", place=place, remedy=("omit ", Argument("ema", True))
        )


def read_folder(
    folder: Path, dtype: DType, where: Callable[[type[Model], str], saved.Where]
) -> Model:
    """Reads a whole pipeline, each tensor straight onto the devices that `where` names.

    Args:
        folder: the pipeline's.
        dtype: of weights and computation.
        where: for the family and the name of a network, where a weight of some shape goes.

    Raises:
        InputError: a missing or broken file, or one that does not fit; says which and why.
    """
    family_of = next((one for one in (wan, ltx, open_sora_plan) if one.recognises(folder)), None)
    source = open_pipeline(folder) if family_of is None else family_of.open_model(folder)
    config, family = source.config, family_named(source.config.family)
    networks: dict[str, Any] = {}
    hashes: dict[str, str] = {}
    for name, part in source.parts.items():
        of_shape = where(family, name)
        hashed: dict[int, identity.Leaf] = {}  # of weights split over hosts, by the array's id

        def put(
            array: np.ndarray,
            like: Any,
            of_shape: saved.Where = of_shape,
            hashed: dict[int, identity.Leaf] = hashed,
        ) -> jax.Array:
            sharding = of_shape(like.shape)
            host = np.ascontiguousarray(array, like.dtype)
            if sharding.is_fully_addressable:
                return jax.device_put(host, sharding)
            # `device_put` would compare the whole tensor among the hosts.
            made = jax.make_array_from_callback(host.shape, sharding, host.__getitem__)
            hashed[id(made)] = identity.leaf_hash(host)
            return made

        networks[name] = fill(
            saved.build(name, config, dtype),
            part.table,
            part.tensors,
            part.tensors.__getitem__,
            what=part.where,
            put=put,
        )
        if hashed:
            found = {path: hashed[id(leaf)] for path, leaf in leaves(networks[name]).items()}
            hashes[name] = identity.network_hash(found)
    model = family.from_networks(config, networks, folder)
    model.hashes = hashes
    return model


def read_network(folder: Path, name: str, config: ModelConfig) -> Any:
    """One network of a folder, float32, on JAX's default device.

    Raises:
        InputError: a missing or broken file, or one that does not fit; says which and why.
    """
    tensors = open_folder(folder / name)
    return fill(
        saved.build(name, config, jnp.float32),
        _table(name, config),
        tensors,
        tensors.__getitem__,
        what=str(folder / name),
        put=lambda array, like: jnp.asarray(array, like.dtype),
    )


def write_networks(
    folder: Path,
    config: ModelConfig,
    networks: Mapping[str, nnx.Module],
    dtype: np.typing.DTypeLike = np.float32,
) -> None:
    """Write ``unet``, ``vae`` and ``text_encoder`` with their configurations and the scheduler's.

    The tokenizer's files are the caller's to copy. Weights are stored as `dtype`.
    """
    unet, vae, text = config.unet, config.vae, config.text
    schedule = config.schedule
    inverse = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    values = {
        "unet/config.json": {
            "_class_name": "UNet3DConditionModel",
            "in_channels": unet.in_channels,
            "out_channels": unet.out_channels,
            "block_out_channels": unet.block_out_channels,
            "down_block_types": [
                "CrossAttnDownBlock3D" if a else "DownBlock3D" for a in unet.attention
            ],
            "up_block_types": [
                "CrossAttnUpBlock3D" if a else "UpBlock3D" for a in reversed(unet.attention)
            ],
            "layers_per_block": unet.layers_per_block,
            "attention_head_dim": unet.head_size,
            "cross_attention_dim": unet.text_features,
            "norm_num_groups": unet.norm_groups,
            "norm_eps": unet.norm_eps,
            **({"fps_embedding": True} if unet.fps_embedding else {}),
            **({} if unet.first_transformer else {"first_transformer": False}),
            "sample_size": config.height // vae.factor,
        },
        "vae/config.json": {
            "_class_name": "AutoencoderKL",
            "in_channels": vae.image_channels,
            "out_channels": vae.image_channels,
            "latent_channels": vae.latent_channels,
            "block_out_channels": vae.block_out_channels,
            "down_block_types": ["DownEncoderBlock2D"] * len(vae.block_out_channels),
            "up_block_types": ["UpDecoderBlock2D"] * len(vae.block_out_channels),
            "layers_per_block": vae.layers_per_block,
            "norm_num_groups": vae.norm_groups,
            "sample_size": config.height,
            "scaling_factor": config.latent_scale,
        },
        "text_encoder/config.json": {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "vocab_size": text.vocabulary,
            "hidden_size": text.features,
            "intermediate_size": text.inner,
            "projection_dim": text.features,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "max_position_embeddings": text.tokens,
            "hidden_act": text.activation,
            "layer_norm_eps": text.eps,
            "bos_token_id": text.vocabulary - 2,
            "eos_token_id": text.vocabulary - 1,
            "pad_token_id": text.vocabulary - 1,
        },
        "scheduler/scheduler_config.json": {
            "_class_name": "DDIMScheduler",
            "num_train_timesteps": schedule["train_steps"],
            "beta_schedule": schedule["betas"],
            "beta_start": schedule["beta_start"],
            "beta_end": schedule["beta_end"],
            "prediction_type": inverse[schedule["prediction"]],
            "timestep_spacing": schedule["spacing"],
            "steps_offset": schedule["offset"],
            "set_alpha_to_one": schedule["final_timestep"] is None,
            "rescale_betas_zero_snr": schedule["zero_terminal_snr"],
            "clip_sample": False,
        },
        "model_index.json": {
            "_class_name": "TextToVideoSDPipeline",
            "scheduler": ["diffusers", "DDIMScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet3DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
        "syncos.json": {
            "name": config.name,
            "source": config.source,
            **({} if config.known_rule == "replace" else {"known_rule": config.known_rule}),
            **{key: getattr(config, key) for key in FAMILY_DEFAULTS},
            **({"few_steps": config.few_steps} if config.few_steps else {}),
            "notes": config.notes,
        },
    }
    for name, value in values.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for part, module in networks.items():
        weights = tables.to_diffusers(module, _table(part, config))
        if part == "unet" and not unet.first_transformer:
            weights |= _first_transformer(unet)
        arrays = {key: array.astype(dtype) for key, array in weights.items()}
        save_file(arrays, folder / part / WEIGHTS[part], metadata={"format": "pt"})


def _first_transformer(config: UNet3DConfig) -> dict[str, np.ndarray]:
    """What stands in diffusers' folder for the first transformer that a network is without: zeros,
    with which it adds nothing."""
    whole = dataclasses.replace(config, first_transformer=True)
    graph, shapes = nnx.split(nnx.eval_shape(lambda: UNet3D(whole, rngs=nnx.Rngs(0))))
    zeros = nnx.merge(graph, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes))
    weights = tables.to_diffusers(zeros, tables.UNET)
    return {k: v for k, v in weights.items() if re.fullmatch(tables.FIRST_TRANSFORMER, k)}
