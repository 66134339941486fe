"""Original VideoCrafter (LVDM) checkpoints: one file that holds all networks, or one of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.errors import InputError
from syncos_jax.files.documents import read_mapping
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.weights_convert import lvdm_config, lvdm_tables
from syncos_jax.weights_convert.checkpoint import Checkpoint, Part
from syncos_jax.weights_convert.lvdm_tables import PREFIXES, SCHEDULE_BUFFERS
from syncos_jax.weights_convert.stored import Stored, Tensors, open_file

_LATENT_SCALE = "scale_factor"
"""A buffer that stands in the checkpoint where the scale was measured (``scale_by_std``)."""


def open_checkpoint(
    path: Path, config_files: list[Path], only: str | None, name: str
) -> Checkpoint:
    """Opens a checkpoint.

    Args:
        path: torch's format or safetensors.
        config_files: the original configuration, in one file or several; none for VideoCrafter2's
            published one.
        only: the one network to take; the file may then hold just its tensors, with or without
            their prefix.
        name: for the model.

    Raises:
        InputError: a file that cannot be read, or that holds no such network.
    """
    documents: list[Mapping[str, Any]] = [read_mapping(file) for file in config_files]
    config = lvdm_config.read(documents, name, source=str(path))
    tensors = open_file(path)
    groups, rest = split(tensors)
    if only is not None and not groups[only]:
        if any(groups.values()):
            held = ", ".join(network for network, group in groups.items() if group)
            raise InputError(f"{path}: has no tensors of the {only}, but of {held}")
        groups[only], rest = rest, {}  # a file of one network, without prefixes
    wanted = ModelConfig.networks if only is None else (only,)
    absent = [network for network in wanted if not groups[network]]
    if len(absent) == len(wanted):
        raise InputError(
            f"{path}: no VideoCrafter checkpoint: no name in it begins with "
            f"{', '.join(PREFIXES.values())} (but {', '.join(list(tensors)[:3])}); a file with one "
            "network's tensors needs `only=unet`, vae or text_encoder"
        )
    if absent:
        held = ", ".join(network for network in wanted if network not in absent)
        raise InputError(
            f"{path}: holds only {held}, no tensors of {', '.join(absent)}; for one network alone "
            "use `only`"
        )
    model = config.model
    tables = {
        "unet": lambda: lvdm_tables.unet_table(model.unet),
        "vae": lambda: lvdm_tables.vae_table(model.vae),
        "text_encoder": lambda: lvdm_tables.text_table(model.text, config.skipped_text_layers),
    }
    parts = {name: Part(f"{path} ({name})", groups[name], tables[name]()) for name in wanted}
    known = (*SCHEDULE_BUFFERS, _LATENT_SCALE)
    unknown = tuple(f"unknown {key}" for key in rest if key not in known)
    hint = "" if documents else "; VideoCrafter2's published sizes are assumed: give `config=FILE`"
    return Checkpoint(
        model, parts, warnings=tuple(_compare(rest, model)), problems=unknown, hint=hint
    )


def split(tensors: Tensors) -> tuple[dict[str, Tensors], Tensors]:
    """The tensors of each network without their prefix, and those of none."""
    groups: dict[str, Tensors] = {network: {} for network in PREFIXES}
    rest: Tensors = {}
    for key, tensor in tensors.items():
        for network, prefix in PREFIXES.items():
            if key.startswith(prefix):
                groups[network][key.removeprefix(prefix)] = tensor
                break
        else:
            rest[key] = tensor
    return groups, rest


def _compare(buffers: Mapping[str, Stored], config: ModelConfig) -> list[str]:
    """Warnings where the checkpoint's own buffers say something else than the configuration."""
    schedule = config.noise_schedule()
    ours = {"sqrt_one_minus_alphas_cumprod": schedule.noise}
    ours["scale_arr"] = schedule.signal / np.sqrt(1.0 - schedule.noise**2)
    if _LATENT_SCALE in buffers:
        ours[_LATENT_SCALE] = np.asarray(config.latent_scale)
    warnings = []
    for key, expected in ours.items():
        if key not in buffers:
            continue
        found = np.asarray(buffers[key], np.float64)
        count = len(expected) if expected.ndim else 1
        agrees = found.size >= count and np.allclose(found.ravel()[:count], expected, atol=1e-5)
        if not agrees:
            warnings.append(f"{key} in the checkpoint is not what the configuration gives")
    if "scale_arr" not in buffers and len(buffers) > 1 and config.schedule["signal_scale"]:
        warnings.append("the configuration scales the signal, the checkpoint has no scale_arr")
    return warnings
