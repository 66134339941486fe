"""Wan's models: a folder of diffusers', Wan's own folder, or one file of one network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import Argument, InputError
from syncos_jax.models.t5 import T5Config
from syncos_jax.models.wan.config import WanTransformerConfig, WanVAEConfig
from syncos_jax.models.wan.settings import WanConfig
from syncos_jax.weights_convert import scheduler_config, wan_config, wan_tables
from syncos_jax.weights_convert.checkpoint import Checkpoint, Part
from syncos_jax.weights_convert.diffusers_config import read_json
from syncos_jax.weights_convert.stored import Tensors
from syncos_jax.weights_convert.t5 import t5_config, t5_table
from syncos_jax.weights_convert.weight_files import open_file, open_folder

CLASSES = ("WanTransformer3DModel", "AutoencoderKLWan", "WanModel")
"""Of ``config.json``."""
SCHEDULE = {"rule": "unipc", "shift": 3.0}
SOLVER = {"name": "unipc", "variant": "bh2"}
"""What Wan is sampled with where a folder does not say (as at 480p)."""
BOUNDARY = 0.875
"""Of Wan2.2-T2V-A14B's two transformers."""

_EXPERTS = {"transformer": "high_noise_model", "transformer_2": "low_noise_model"}
_OWN_VAE = ("Wan2.1_VAE.pth", "Wan2.1_VAE.safetensors", "wan_2.1_vae.safetensors")
_OWN_TEXT = ("models_t5_umt5-xxl-enc-bf16.pth", "models_t5_umt5-xxl-enc-bf16.safetensors")
_OWN_TOKENIZER = "google/umt5-xxl"


def recognises(path: Path) -> bool:
    """Whether a folder is one of Wan's models, or of one of its networks, or a file of Wan's own
    layout."""
    if path.is_file():
        return path.name in (*_OWN_VAE, *_OWN_TEXT) or _file_part(open_file(path)) is not None
    if not path.is_dir():
        return False
    if any((path / name).is_file() for name in _OWN_VAE):
        return True
    if (path / "model_index.json").is_file():
        return str(read_json(path / "model_index.json").get("_class_name", "")).startswith("Wan")
    parts = [path / name for name in ("", "transformer", "vae", *_EXPERTS.values())]
    configs = [part / "config.json" for part in parts if (part / "config.json").is_file()]
    text = [path / name / "config.json" for name in ("", "text_encoder")]
    return any(read_json(config).get("_class_name") in CLASSES for config in configs) or any(
        read_json(config).get("model_type") == "umt5" for config in text if config.is_file()
    )


def open_model(path: Path, only: str | None = None) -> Checkpoint:
    """Opens what `recognises` has recognised, or with `only` one network of it.

    Raises:
        InputError: a missing or broken file; says which and why.
    """
    if only is not None and only not in WanConfig.networks:
        raise InputError(
            argument="only", expected=f"one of {', '.join(WanConfig.networks)} for Wan", value=only
        )
    if path.is_file():
        return _open_single(path, only)
    own = any((path / name).is_file() for name in (*_OWN_VAE, *_OWN_TEXT)) or any(
        _class_of(path / name) == "WanModel" for name in ("", *_EXPERTS.values())
    )
    return _open_own(path, only) if own else _open_diffusers(path, only)


def _open_diffusers(folder: Path, only: str | None) -> Checkpoint:
    index = _json_if(folder / "model_index.json")
    boundary = index.get("boundary_ratio")
    wanted = [n for n in WanConfig.networks if boundary is not None or n != "transformer_2"]
    found: dict[str, Any] = {}
    parts = {}
    for name in wanted if only is None else (only,):
        place = folder / name
        if only is not None and not (place / "config.json").is_file():
            place = folder  # the network's own folder
        settings, tensors = read_json(place / "config.json"), open_folder(place)
        where = str(place / "config.json")
        if name == "vae":
            found["vae"] = wan_config.vae_config(settings, where, only is not None)
            table: Any = wan_tables.vae_table()
        elif name == "text_encoder":
            found["text"] = t5_config(settings)
            table = t5_table(found["text"], tensors)
        else:
            sizes = wan_config.transformer_config(settings, where)
            if found.get("transformer", sizes) != sizes:
                raise InputError(f"{where}: has other sizes than transformer/config.json")
            found["transformer"] = sizes
            table = wan_tables.TRANSFORMER
        names = (wan_tables.ORIGINAL_TRANSFORMER,) if name.startswith("transformer") else ()
        parts[name] = Part(str(place), tensors, table, names)
    scheduler = _json_if(folder / "scheduler" / "scheduler_config.json")
    if only is None and not scheduler:
        read_json(folder / "scheduler" / "scheduler_config.json")  # says that it is missing
    if scheduler:
        found["schedule"] = scheduler_config.flow_settings(scheduler)
        found["solver"] = scheduler_config.solver_values(scheduler)
    extra = _json_if(folder / "syncos.json")
    config = _config(folder, boundary if only is None else None, {**found, **extra})
    return _checked(Checkpoint(config, parts, _folder_if(folder / "tokenizer")))


def _open_own(folder: Path, only: str | None) -> Checkpoint:
    two = any((folder / name).is_dir() for name in _EXPERTS.values())
    wanted = [n for n in WanConfig.networks if two or n != "transformer_2"]
    found: dict[str, Any] = {}
    parts = {}
    for name in wanted if only is None else (only,):
        if name == "vae":
            path = _file_of(folder, _OWN_VAE)
            parts[name], found["vae"] = _own_vae(open_file(path), str(path))
        elif name == "text_encoder":
            path = _file_of(folder, _OWN_TEXT)
            parts[name], found["text"] = _own_text(open_file(path), str(path))
        else:
            place = folder / _EXPERTS[name] if two else folder
            settings = read_json(place / "config.json")
            parts[name], sizes = _own_transformer(open_folder(place), str(place), settings)
            if found.get("transformer", sizes) != sizes:
                raise InputError(f"{place}: has other sizes than {_EXPERTS['transformer']}")
            found["transformer"] = sizes
    extra = _json_if(folder / "syncos.json")
    config = _config(folder, BOUNDARY if two and only is None else None, {**found, **extra})
    return _checked(Checkpoint(config, parts, _folder_if(folder / _OWN_TOKENIZER)))


def _open_single(path: Path, only: str | None) -> Checkpoint:
    tensors = open_file(path)
    holds = _file_part(tensors)
    if holds is None or only is not None and only.removesuffix("_2") != holds:
        raise InputError(f"{path}: holds no {only or 'network of Wan'}'s tensors")
    if only is None:
        raise InputError(
            f"holds only a {holds}", place=path, remedy=("pass ", Argument("only", holds))
        )
    readers: dict[str, Any] = {
        "vae": _own_vae,
        "text_encoder": _own_text,
        "transformer": _own_transformer,
    }
    part, sizes = readers[holds](tensors, str(path))
    key = {"text_encoder": "text"}.get(holds, holds)
    return Checkpoint(_config(path, None, {key: sizes}), {only: part})


def _file_part(tensors: Tensors) -> str | None:
    """Which of Wan's networks these tensors are of, in the original layout."""
    names = {key.removeprefix("model.diffusion_model.") for key in tensors}
    if "head.modulation" in names:
        return "transformer"
    if "encoder.downsamples.0.residual.0.gamma" in names:
        return "vae"
    return "text_encoder" if "blocks.0.ffn.gate.0.weight" in names else None


def _own_transformer(
    tensors: Tensors, where: str, settings: Mapping[str, Any] | None = None
) -> tuple[Part, WanTransformerConfig]:
    config = wan_config.original_transformer_config(settings or {}, tensors, where)
    names = (wan_tables.TRANSFORMER,)
    return Part(where, tensors, wan_tables.ORIGINAL_TRANSFORMER, names), config


def _own_vae(tensors: Tensors, where: str) -> tuple[Part, WanVAEConfig]:
    config = wan_config.original_vae_config(tensors, where)
    return Part(where, tensors, wan_tables.original_vae_table(config)), config


def _own_text(tensors: Tensors, where: str) -> tuple[Part, T5Config]:
    config = wan_config.original_text_config(tensors, where)
    return Part(where, tensors, wan_tables.ORIGINAL_TEXT), config


def _config(place: Path, boundary: float | None, values: Mapping[str, Any]) -> WanConfig:
    default: dict[str, Any] = {
        "name": place.stem,
        "source": str(place),
        "transformer": WanTransformerConfig(),
        "vae": WanVAEConfig(),
        "text": T5Config.umt5_xxl(),
        "schedule": SCHEDULE,
        "solver": SOLVER,
        "boundary": boundary,
    }
    return WanConfig(**{**default, **values})


def _checked(opened: Checkpoint) -> Checkpoint:
    """InputError where the networks do not fit one another."""
    config: WanConfig = opened.config
    if "transformer" in opened.parts and "vae" in opened.parts:
        channels, out, latent = (
            config.transformer.in_channels,
            config.transformer.out_channels,
            config.vae.latent_channels,
        )
        if channels != out:
            raise InputError(
                f"the transformer has {channels} input and {out} output channels, so it is "
                "conditioned on images (Wan I2V); only text-to-video is supported",
                remedy=("to convert the transformer alone, pass ", Argument("only")),
            )
        if channels != latent:
            raise InputError(
                f"the networks do not fit: the transformer takes {channels} latent channels, the "
                f"autoencoder has {latent}"
            )
    if {"transformer", "text_encoder"} <= set(opened.parts):
        features, other = config.transformer.text_features, config.text.features
        if features != other:
            raise InputError(
                f"the networks do not fit: the transformer takes {features} text features, the "
                f"text encoder has {other}"
            )
    return opened


def _class_of(folder: Path) -> str:
    return str(_json_if(folder / "config.json").get("_class_name", ""))


def _json_if(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _folder_if(path: Path) -> Path | None:
    return path if path.is_dir() else None


def _file_of(folder: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"missing {names[0]}",
        place=folder,
        remedy=("for one network alone pass ", Argument("only")),
    )
