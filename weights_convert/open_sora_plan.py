"""Open-Sora Plan v1.3: transformer and ``vae/`` as published, with mT5 next to them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.models.open_sora_plan.config import OpenSoraPlanTransformerConfig, WFVAEConfig
from syncos_jax.models.open_sora_plan.settings import OpenSoraPlanConfig
from syncos_jax.weights_convert import open_sora_plan_tables
from syncos_jax.weights_convert.checkpoint import Checkpoint, Part
from syncos_jax.weights_convert.diffusers_config import read_json, require
from syncos_jax.weights_convert.t5 import t5_config, t5_table
from syncos_jax.weights_convert.weight_files import open_folder

TRANSFORMER, VAE, INPAINT = "OpenSoraT2V_v1_3", "WFVAEModel", "OpenSoraInpaint_v1_3"
"""Classes of ``config.json``."""


def recognises(path: Path) -> bool:
    """Whether a folder is a model of Open-Sora Plan v1.3, or one of its networks (any mT5 encoder
    among them)."""
    if not path.is_dir() or (path / "model_index.json").is_file():
        return False
    places = [path, *(place for place in sorted(path.iterdir()) if place.is_dir())]
    configs = [_json_if(place / "config.json") for place in places]
    return any(c.get("_class_name") in (TRANSFORMER, VAE, INPAINT) for c in configs) or any(
        c.get("model_type") == "mt5" for c in configs
    )


def open_model(folder: Path, only: str | None = None) -> Checkpoint:
    """Opens what `recognises` has recognised, or with `only` one network of it.

    Raises:
        InputError: a missing or broken file, or networks that do not fit one another; says which
            and why.
    """
    if only is not None and only not in OpenSoraPlanConfig.networks:
        known = ", ".join(OpenSoraPlanConfig.networks)
        raise InputError(f"`only={only}`: Open-Sora Plan has no such network; one of {known}")
    parts: dict[str, Part] = {}
    values: dict[str, Any] = {}
    for name in OpenSoraPlanConfig.networks if only is None else (only,):
        place = _place(folder, name)
        settings, tensors = read_json(place / "config.json"), open_folder(place)
        where = str(place / "config.json")
        if name == "text_encoder":
            require(settings, where, model_type="mt5")
            values["text"] = t5_config(settings)
            parts[name] = Part(str(place), tensors, t5_table(values["text"], tensors))
            continue
        read = transformer_config if name == "transformer" else vae_config
        values[name] = read(settings, where)
        table = getattr(open_sora_plan_tables, name.upper())
        parts[name] = Part(str(place), tensors, table)
    extra = _json_if(folder / "syncos.json")
    config = OpenSoraPlanConfig(**{"name": folder.name, "source": str(folder), **values, **extra})
    _check(config, parts)
    tokenizer = [folder / "tokenizer", folder / "text_encoder"]
    found = [place for place in tokenizer if (place / "tokenizer.json").is_file()]
    return Checkpoint(config, parts, found[0] if found else None)


def _place(folder: Path, name: str) -> Path:
    """The folder of a network: by its name, else by its class."""
    own = folder / name
    if (own / "config.json").is_file():
        return own
    kinds: dict[str, tuple[str, ...]] = {"transformer": (TRANSFORMER, INPAINT), "vae": (VAE,)}
    for place in (folder, *sorted(place for place in folder.iterdir() if place.is_dir())):
        config = _json_if(place / "config.json")
        if config.get("_class_name") in kinds.get(name, ()):
            return place
        if name == "text_encoder" and config.get("model_type") == "mt5":
            return place
    raise InputError(
        f"{folder}: has no {name}",
        remedy="put google/mt5-xxl there as text_encoder/" if name == "text_encoder" else "",
    )


def transformer_config(config: Mapping[str, Any], where: str) -> OpenSoraPlanTransformerConfig:
    """Our sizes from the configuration of ``OpenSoraT2V_v1_3``.

    Raises:
        InputError: the model of images, or settings that the transformer here does not have.
    """
    if config.get("_class_name") == INPAINT:
        raise InputError(f"{where}: is the model of images; only text-to-video can be converted")
    require(
        config,
        where,
        _class_name=TRANSFORMER,
        patch_size_t=1,
        activation_fn="gelu-approximate",
        attention_bias=True,
        norm_elementwise_affine=False,
        only_cross_attention=False,
        double_self_attention=False,
    )
    if config.get("activation_fn", "geglu") != "gelu-approximate":
        raise InputError(f"{where}: activation_fn is missing; it must be gelu-approximate")
    heads, size = config.get("num_attention_heads", 16), config.get("attention_head_dim", 88)
    channels = config.get("in_channels", 8)
    if config.get("cross_attention_dim", heads * size) != heads * size:
        raise InputError(f"{where}: cross_attention_dim is not the width, {heads * size}")
    return OpenSoraPlanTransformerConfig(
        in_channels=channels,
        out_channels=config.get("out_channels") or channels,
        patch=config.get("patch_size", 2),
        layers=config.get("num_layers", 1),
        heads=heads,
        head_size=size,
        text_features=config.get("caption_channels", 4096),
        eps=config.get("norm_eps", 1e-6),
        sparse=config.get("sparse_n", 2) if config.get("sparse1d", False) else 1,
        scales=tuple(config.get(f"interpolation_scale_{axis}", 1.0) for axis in "thw"),
    )


def vae_config(config: Mapping[str, Any], where: str) -> WFVAEConfig:
    """Our sizes from the configuration of ``WFVAEModel``.

    Raises:
        InputError: settings that the autoencoder here does not have.
    """
    if config.get("norm_type", "groupnorm") != "layernorm":
        raise InputError(f"{where}: norm_type must be layernorm")
    require(
        config,
        where,
        _class_name=VAE,
        attention_type="AttnBlock3DFix",
        t_interpolation=("nearest", "trilinear"),
        l1_dowmsample_block="Downsample",
        l1_downsample_wavelet="HaarWaveletTransform2D",
        l2_dowmsample_block="Spatial2xTime2x3DDownsample",
        l2_downsample_wavelet="HaarWaveletTransform3D",
        l1_upsample_block="Upsample",
        l1_upsample_wavelet="InverseHaarWaveletTransform2D",
        l2_upsample_block="Spatial2xTime2x3DUpsample",
        l2_upsample_wavelet="InverseHaarWaveletTransform3D",
    )
    channels = config.get("latent_dim", 8)
    return WFVAEConfig(
        latent_channels=channels,
        base=config.get("base_channels", 128),
        encoder_blocks=config.get("encoder_num_resblocks", 2),
        decoder_blocks=config.get("decoder_num_resblocks", 2),
        encoder_flow=config.get("encoder_energy_flow_hidden_size", 64),
        decoder_flow=config.get("decoder_energy_flow_hidden_size", 128),
        flow_blocks=config.get("connect_res_layer_num", 1),
        attention=config.get("use_attention", True),
        linear_time=config.get("t_interpolation", "nearest") == "trilinear",
        scale=tuple(config.get("scale", [0.18215] * channels)),
        shift=tuple(float(value) for value in config.get("shift", [0.0] * channels)),
    )


def _check(config: OpenSoraPlanConfig, parts: Mapping[str, Part]) -> None:
    """InputError where the networks do not fit one another."""
    transformer = config.transformer
    pairs = (
        ("vae", "latent channels", transformer.in_channels, config.vae.latent_channels),
        ("text_encoder", "text features", transformer.text_features, config.text.features),
    )
    for other, what, mine, theirs in pairs:
        if {"transformer", other} <= set(parts) and mine != theirs:
            raise InputError(
                f"the networks do not fit: transformer takes {mine} {what}, {other} has {theirs}"
            )


def _json_if(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
