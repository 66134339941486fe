"""CogVideoX models in diffusers' folder layout: ``transformer/ vae/ text_encoder/ tokenizer/
scheduler/``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.models.cogvideox.config import CogVideoXTransformerConfig, CogVideoXVAEConfig
from syncos_jax.models.cogvideox.settings import CogVideoXConfig
from syncos_jax.models.t5 import T5Config
from syncos_jax.weights_convert import cogvideox_config, cogvideox_tables, scheduler_config
from syncos_jax.weights_convert.checkpoint import Checkpoint, Part
from syncos_jax.weights_convert.diffusers_config import (
    read_json,
    schedule_settings,
    solver_settings,
)
from syncos_jax.weights_convert.recognise import find_network
from syncos_jax.weights_convert.state_dict import Choice
from syncos_jax.weights_convert.stored import Tensors
from syncos_jax.weights_convert.t5 import from_llama, t5_config, t5_config_of, t5_table
from syncos_jax.weights_convert.weight_files import open_folder

CLASSES = ("CogVideoXTransformer3DModel", "AutoencoderKLCogVideoX")
"""Of ``config.json``."""
SCHEDULER = {
    "_class_name": "CogVideoXDDIMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "rescale_betas_zero_snr": True,
    "snr_shift_scale": 3.0,
}
"""CogVideoX-2B's, where a network is converted alone."""
_CLASS_DEFAULTS = {
    key: SCHEDULER[key] for key in ("beta_schedule", "beta_start", "beta_end", "snr_shift_scale")
}
"""What diffusers' scheduler classes of CogVideoX take where the file does not say."""


def recognises(path: Path) -> bool:
    """Whether a folder is one of CogVideoX's models, or of one of its networks (any T5 encoder
    among them)."""
    if not path.is_dir():
        return False
    if (path / "model_index.json").is_file():
        name = str(read_json(path / "model_index.json").get("_class_name", ""))
        return name.startswith("CogVideoX")
    configs = [_json_if(path / part / "config.json") for part in ("", "transformer", "vae")]
    texts = [_json_if(path / part / "config.json") for part in ("", "text_encoder")]
    return any(config.get("_class_name") in CLASSES for config in configs) or any(
        text.get("model_type") == "t5" for text in texts
    )


def open_model(folder: Path, only: str | None = None) -> Checkpoint:
    """Opens a folder of diffusers', or with `only` one network of it.

    Raises:
        InputError: a missing or broken file, or networks that do not fit one another; says which
            and why.
    """
    if only is not None and only not in CogVideoXConfig.networks:
        known = ", ".join(CogVideoXConfig.networks)
        raise InputError(argument="only", expected=f"one of {known} for CogVideoX", value=only)
    parts: dict[str, Part] = {}
    sizes: dict[str, Any] = {
        "transformer": CogVideoXTransformerConfig(),
        "vae": CogVideoXVAEConfig(),
        "text_encoder": T5Config.t5_xxl(),
    }
    for name in CogVideoXConfig.networks if only is None else (only,):
        place = folder / name
        if only is not None and not (place / "config.json").is_file():
            place = folder  # the network's own folder
        settings, tensors = read_json(place / "config.json"), open_folder(place)
        sizes[name], parts[name] = _network(name, place, settings, tensors)
    path = folder / "scheduler" / "scheduler_config.json"
    scheduler = SCHEDULER if only is not None and not path.is_file() else read_json(path)
    tokenizer = folder / "tokenizer"
    config = _config(folder, sizes, scheduler, _json_if(folder / "syncos.json"))
    _check(config, parts)
    return Checkpoint(config, parts, tokenizer if tokenizer.is_dir() else None)


def open_files(places: Mapping[str, Path], choice: Choice | None = None) -> Checkpoint:
    """Opens a model of which each network lies in a folder of its own with its ``config.json``, or
    in a file next to it; a text encoder needs none.

    Args:
        places: by the network's name.
        choice: of several sets of weights in a file, which one.

    Raises:
        InputError: as `open_model`.
    """
    parts: dict[str, Part] = {}
    sizes: dict[str, Any] = {
        "transformer": CogVideoXTransformerConfig(),
        "vae": CogVideoXVAEConfig(),
        "text_encoder": T5Config.t5_xxl(),
    }
    warnings: list[str] = []
    for name, place in places.items():
        found = find_network(place, choice or Choice(), name)
        tensors = from_llama(found.tensors) if found.layout.key == "t5_gguf" else found.tensors
        path = place / "config.json" if place.is_dir() else place.with_name("config.json")
        settings = _json_if(path)
        warnings += found.warnings
        if name == "text_encoder" and settings.get("model_type") != "t5":
            sizes[name] = t5_config_of(tensors, str(place))
            table = t5_table(sizes[name], tensors)
            parts[name] = Part(str(place), tensors, table, metadata=found.metadata)
            continue
        if settings.get("_class_name", settings.get("model_type")) not in (*CLASSES, "t5"):
            raise InputError(
                f"{found.layout.name} without its config.json",
                place=place,
                remedy="put the config.json of diffusers' folder next to it",
            )
        sizes[name], parts[name] = _network(name, path.parent, settings, tensors)
    config = _config(next(iter(places.values())), sizes, SCHEDULER, {})
    _check(config, parts)
    return Checkpoint(config, parts, warnings=tuple(warnings))


def _network(
    name: str, place: Path, settings: Mapping[str, Any], tensors: Tensors
) -> tuple[Any, Part]:
    """A network's sizes and tensors."""
    where = str(place / "config.json")
    if name == "text_encoder":
        text = t5_config(settings)
        return text, Part(str(place), tensors, t5_table(text, tensors))
    if name == "vae":
        return cogvideox_config.vae_config(settings, where), Part(
            str(place), tensors, cogvideox_tables.VAE
        )
    sizes = cogvideox_config.transformer_config(settings, where)
    return sizes, Part(str(place), tensors, cogvideox_tables.transformer_table(sizes))


def _config(
    folder: Path, sizes: Mapping[str, Any], scheduler: Mapping[str, Any], extra: Mapping[str, Any]
) -> CogVideoXConfig:
    transformer, vae = sizes["transformer"], sizes["vae"]
    # Tokens of two frames need a window of whole pairs; what is too much is not decoded.
    dropped = -transformer.sample_frames % transformer.patches[0]
    values: dict[str, Any] = {
        "name": folder.name,
        "source": str(folder),
        "transformer": transformer,
        "vae": vae,
        "text": sizes["text_encoder"],
        **_sampling(scheduler),
        "window": transformer.sample_frames + dropped,
        "stride": min(4, max(1, transformer.sample_frames // 2)),
        "dropped": dropped,
        "fps": 8 if transformer.patch_frames is None else 16,
        "height": transformer.sample_height * vae.factor,
        "width": transformer.sample_width * vae.factor,
    }
    return CogVideoXConfig(**{**values, **extra})


def _sampling(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """What `CogVideoXConfig` calls ``schedule``, ``solver`` and ``levels``."""
    betas = schedule(scheduler)
    own = solver_settings(scheduler, betas)
    return {"schedule": betas, **(own or {"solver": scheduler_config.solver_values(scheduler)})}


def schedule(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``NoiseSchedule.from_betas`` from a ``scheduler_config.json`` of CogVideoX's.

    Another class of diffusers' (DDIM, say) knows no shift of the signal-to-noise ratio and ignores
    the entry.
    """
    own = str(config.get("_class_name", "")).startswith("CogVideoX")
    values = {**(_CLASS_DEFAULTS if own else {}), **config}
    if own:  # DDIM's settings; their ``step`` reads no ``clip_sample``
        values |= {"_class_name": "DDIMScheduler", "clip_sample": False}
    settings, _ = schedule_settings(values)
    return {**settings, "snr_shift": float(values["snr_shift_scale"]) if own else 1.0}


def _check(config: CogVideoXConfig, parts: Mapping[str, Part]) -> None:
    """InputError where the networks do not fit one another."""
    transformer = config.transformer
    if {"transformer", "vae"} <= set(parts):
        channels, out = transformer.in_channels, transformer.out_channels
        latent = config.vae.latent_channels
        if out != latent or channels not in (latent, 2 * latent):
            raise InputError(
                f"the networks do not fit: the transformer takes {channels} latent channels and "
                f"predicts {out}, the autoencoder has {latent}",
                expected=f"{latent}, or {2 * latent} of a network for pictures, to {latent}",
            )
    if {"transformer", "text_encoder"} <= set(parts):
        features, other = transformer.text_features, config.text.features
        if features != other:
            raise InputError(
                f"the networks do not fit: the transformer takes {features} text features, the "
                f"text encoder has {other}"
            )


def _json_if(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
