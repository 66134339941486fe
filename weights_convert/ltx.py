"""LTX-2's models: a folder of diffusers', or the original single file with Gemma 3 next to it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.models.ltx.settings import DISTILLED_SIGMAS, LTXConfig
from syncos_jax.weights_convert import ltx_config, ltx_original, ltx_tables
from syncos_jax.weights_convert.checkpoint import Checkpoint, Part
from syncos_jax.weights_convert.diffusers_config import read_json
from syncos_jax.weights_convert.stored import Tensors
from syncos_jax.weights_convert.weight_files import open_file, open_folder

CLASSES = ("LTX2VideoTransformer3DModel", "AutoencoderKLLTX2Video", "LTX2TextConnectors")
"""Of ``config.json``."""
_SOUND = ("audio_vae", "vocoder")
"""Networks of diffusers' folder that only make sound."""
_FIELDS = {"text_encoder": "text"}
"""What `LTXConfig` calls a network's sizes, where that is not its name."""


def recognises(path: Path) -> bool:
    """Whether a folder is one of LTX-2's models, or of one of its networks, or a file (perhaps the
    only one of a folder) of the original layout."""
    if path.is_file():
        return path.suffix == ".safetensors" and ltx_original.recognises(open_file(path))
    if not path.is_dir():
        return False
    if (path / "model_index.json").is_file():
        return str(read_json(path / "model_index.json").get("_class_name", "")).startswith("LTX2")
    places = [path, *(path / name for name in LTXConfig.networks)]
    configs = [read_json(p / "config.json") for p in places if (p / "config.json").is_file()]
    if any(config.get("_class_name") in CLASSES for config in configs):
        return True
    if any(config.get("model_type") in ("gemma3", "gemma3_text") for config in configs):
        return True
    return _single_file(path) is not None


def open_model(path: Path, only: str | None = None) -> Checkpoint:
    """Opens what `recognises` has recognised, or with `only` one network of it.

    Raises:
        InputError: a missing or broken file, or networks that do not fit one another; says which
            and why.
    """
    if only is not None and only not in LTXConfig.networks:
        known = ", ".join(LTXConfig.networks)
        raise InputError(f"`only={only}`: LTX has no such network; one of {known}")
    original = path if path.is_file() else _single_file(path)
    folder = path.parent if path.is_file() else path
    found: dict[str, tuple[Part, Any]] = {}
    values: dict[str, Any] = {}
    skipped = 0
    if original is not None and only != "text_encoder":
        found, skipped = _original_networks(original, only)
        skipped = _sound(found, None) + (skipped if only is None else 0)
    else:
        for name in LTXConfig.networks if only is None else (only,):
            if name != "text_encoder":
                found[name] = _network(folder, name, only)
        values |= _sampling(folder, only)
        skipped = _sound(found, folder if only is None else None)
    if only in (None, "text_encoder"):
        found["text_encoder"] = _network(folder, "text_encoder", only)
    values |= {_FIELDS.get(name, name): sizes for name, (_, sizes) in found.items()}
    named = original if original is not None else folder
    config = _config(named, values, _json_if(folder / "syncos.json"))
    parts = {name: found[name][0] for name in LTXConfig.networks if name in found}
    _check(config, parts)
    said = f"{skipped} tensors of the audio stream are skipped: LTX makes no sound here"
    tokenizers = [folder / name for name in ("tokenizer", "text_encoder")]
    tokenizer = [place for place in tokenizers if (place / "tokenizer.json").is_file()]
    return Checkpoint(
        config, parts, tokenizer[0] if tokenizer else None, warnings=(said,) if skipped else ()
    )


def _network(folder: Path, name: str, only: str | None) -> tuple[Part, Any]:
    """A network of a folder of diffusers', and its sizes."""
    place = folder / name
    if only is not None and not (place / "config.json").is_file():
        place = folder  # the network's own folder
    settings, tensors = read_json(place / "config.json"), open_folder(place)
    where = str(place / "config.json")
    if name == "text_encoder":
        return Part(str(place), tensors, ltx_tables.GEMMA3), ltx_config.gemma_config(
            settings, where
        )
    return _part(name, settings, tensors, str(place), where)


def _part(
    name: str, settings: Mapping[str, Any], tensors: Tensors, place: str, where: str
) -> tuple[Part, Any]:
    """A network of diffusers' names, and its sizes."""
    if name == "transformer":
        sizes = ltx_config.transformer_config(settings, where)
        return Part(place, tensors, ltx_tables.TRANSFORMER), sizes
    if name == "connectors":
        config = ltx_config.connector_config(settings, where)
        return Part(place, tensors, ltx_tables.connector_table(config)), config
    statistics = [
        tuple(np.asarray(tensors[key], np.float32).tolist()) if key in tensors else ()
        for key in ("latents_mean", "latents_std")
    ]
    vae = ltx_config.vae_config(settings, where, *statistics)
    return Part(place, tensors, ltx_tables.VAE), vae


def _original_networks(path: Path, only: str | None) -> tuple[dict[str, tuple[Part, Any]], int]:
    """The networks of an original file, and how many tensors of other networks it has."""
    tensors = open_file(path)
    networks, sound = ltx_original.split(tensors, ltx_original.metadata(path))
    wanted = [name for name in LTXConfig.networks if name != "text_encoder"]
    found = {}
    for name in wanted if only is None else (only,):
        if name not in networks:
            raise InputError(f"{path}: holds no {name}; for one network alone use `only`")
        settings, own = networks[name]
        found[name] = _part(name, settings, own, str(path), str(path))
    return found, sound


def _single_file(folder: Path) -> Path | None:
    """The file of the original layout that a folder has, with ``text_encoder/`` next to it."""
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1 or not (folder / "text_encoder" / "config.json").is_file():
        return None
    return files[0] if ltx_original.recognises(open_file(files[0])) else None


def _sound(found: Mapping[str, tuple[Part, Any]], folder: Path | None) -> int:
    """How many tensors are of sound alone."""
    keys = [key for part, _ in found.values() for key in part.tensors]
    count = sum(any(re.fullmatch(pattern, key) for pattern in ltx_tables.AUDIO) for key in keys)
    places = [] if folder is None else [folder / name for name in _SOUND]
    return count + sum(len(open_folder(place)) for place in places if place.is_dir())


def _sampling(folder: Path, only: str | None) -> dict[str, Any]:
    path = folder / "scheduler" / "scheduler_config.json"
    if only is not None and not path.is_file():
        return {}
    return ltx_config.sampling(read_json(path), str(path))


def _config(named: Path, values: Mapping[str, Any], extra: Mapping[str, Any]) -> LTXConfig:
    config = LTXConfig(**{"name": named.stem, "source": str(named), **values})
    transformer, block = config.transformer, config.perturbed_block
    changes: dict[str, Any] = {}
    names = [named.name, *(part for part in named.parts if part.startswith("models--"))]
    if any("distilled" in name.lower() for name in names):
        steps = len(DISTILLED_SIGMAS)
        changes = {"sigmas": DISTILLED_SIGMAS, "steps": steps, "guidance": 1.0}
        changes["perturbed_guidance"] = 0.0
    elif not transformer.gated:  # LTX-2.0
        changes, block = {"steps": 40}, 29
    changes["perturbed_block"] = min(block, transformer.layers - 1)
    config = dataclasses.replace(config, **changes)
    return LTXConfig.from_dict({**config.to_dict(), **extra})


def _check(config: LTXConfig, parts: Mapping[str, Part]) -> None:
    """InputError where the networks do not fit one another."""
    transformer, connectors, vae = config.transformer, config.connectors, config.vae
    wanted = transformer.text_projection or transformer.text_features
    pairs = (
        ("transformer", "vae", "latent channels", transformer.in_channels, vae.latent_channels),
        (
            *("transformer", "vae", "frames and pixels per latent cell"),
            *(transformer.cell, (vae.time_factor, vae.factor, vae.factor)),
        ),
        ("transformer", "connectors", "text features", wanted, connectors.out),
        (
            *("connectors", "text_encoder", "features and hidden states"),
            *((connectors.features, connectors.states), (config.text.features, config.text.states)),
        ),
    )
    for one, other, what, mine, theirs in pairs:
        if {one, other} <= set(parts) and mine != theirs:
            raise InputError(
                f"the networks do not fit: {one} takes {mine} {what}, {other} has {theirs}"
            )


def _json_if(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
