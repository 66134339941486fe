"""Original VideoCrafter (LVDM) checkpoints: one file that holds all networks, or one of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from syncos_jax.errors import Argument, InputError, Phrase
from syncos_jax.files.documents import read_mapping
from syncos_jax.models.unet_clip.config import ModelConfig
from syncos_jax.weights_convert import lvdm_config, lvdm_tables
from syncos_jax.weights_convert.checkpoint import Checkpoint, Part
from syncos_jax.weights_convert.lvdm_tables import PREFIXES, SCHEDULE_BUFFERS
from syncos_jax.weights_convert.state_dict import Choice, unwrapped, without_common_prefix
from syncos_jax.weights_convert.stored import AnyTensor, Tensors
from syncos_jax.weights_convert.weight_files import open_file

_AVERAGED = "model_ema."
_BUFFERS = ("logvar", "lvlb_weights", "ddim_sigmas", "use_scale")
"""What training keeps beside the schedule's buffers; nothing of it is needed."""
_LATENT_SCALE = "scale_factor"
"""A buffer that stands in the checkpoint where the scale was measured (``scale_by_std``)."""


def open_checkpoint(path: Path, config_files: list[Path], choice: Choice, name: str) -> Checkpoint:
    """Opens a checkpoint.

    Args:
        path: torch's format or safetensors.
        config_files: the original configuration, in one file or several; none for VideoCrafter2's
            published one.
        choice: what to take. Where that is one network, the file may hold just its tensors, with
            or without their prefix.
        name: for the model.

    Raises:
        InputError: a file that cannot be read, or that holds no such network.
    """
    documents: list[Mapping[str, Any]] = [read_mapping(file) for file in config_files]
    config = lvdm_config.read(documents, name, source=str(path))
    only = choice.network
    tensors = without_common_prefix(open_file(path, choice), (*PREFIXES.values(), _AVERAGED))
    tensors, averaged, warnings = _averaged(path, tensors, choice)
    model = config.model
    tables = {
        "unet": lambda: lvdm_tables.unet_table(model.unet),
        "vae": lambda: lvdm_tables.vae_table(model.vae),
        "text_encoder": lambda: lvdm_tables.text_table(model.text, config.skipped_text_layers),
    }
    groups, rest = split(tensors)
    if only is not None and not groups[only]:
        if any(groups.values()):
            held = ", ".join(network for network, group in groups.items() if group)
            raise InputError(f"{path}: has no tensors of the {only}, but of {held}")
        table = tables[only]()
        bare, said = unwrapped(tensors, lambda key: bool(table.targets(key)), str(path), choice)
        groups[only], rest = bare, {}  # a file of one network, without prefixes
        warnings += [said] if said else []
    wanted = ModelConfig.networks if only is None else (only,)
    absent = [network for network in wanted if not groups[network]]
    if len(absent) == len(wanted):
        raise _not_videocrafter(path, tensors)
    if absent:
        held = ", ".join(network for network in wanted if network not in absent)
        raise InputError(
            f"holds only {held}, no tensors of {', '.join(absent)}",
            place=path,
            remedy=("for one network alone pass ", Argument("only")),
        )
    for network, group in groups.items():
        groups[network] = averaged.get(network, group)
    parts = {name: Part(f"{path} ({name})", groups[name], tables[name]()) for name in wanted}
    known = (*SCHEDULE_BUFFERS, *_BUFFERS, _LATENT_SCALE)
    unknown = tuple(f"unknown {key}" for key in rest if key not in known)
    assumed = Phrase(
        "VideoCrafter2's published sizes were assumed; pass ", Argument("config", "FILE")
    )
    return Checkpoint(
        model,
        parts,
        warnings=(*warnings, *_compare(rest, model)),
        problems=unknown,
        hint="" if documents else assumed,
    )


def _not_videocrafter(path: Path, tensors: Tensors) -> InputError:
    """The error for a file that has no tensor of any network."""
    if looks_like_modelscope(tensors):
        return InputError(
            "looks like ModelScope's original UNet, which cannot be converted",
            place=path,
            remedy=(
                "use the same weights as a diffusers folder, damo-vilab/text-to-video-ms-1.7b; "
                "for VideoCrafter's UNet alone pass ",
                Argument("only", "unet"),
            ),
        )
    return InputError(
        f"not a VideoCrafter checkpoint: no tensor name starts with "
        f"{', '.join(PREFIXES.values())} (it holds {', '.join(list(tensors)[:3])}, ...)",
        place=path,
        remedy=(
            "for a file with one network's tensors pass ",
            Argument("only", "unet"),
            ", vae or text_encoder",
        ),
    )


def has_prefixes(tensors: Tensors) -> bool:
    """Whether names begin as those of a whole checkpoint."""
    begin = (*PREFIXES.values(), _AVERAGED)
    inner = without_common_prefix(tensors, begin)
    return any(name.startswith(begin) for name in inner)


def looks_like_modelscope(tensors: Tensors) -> bool:
    """Whether these could be ModelScope's UNet under its original names, which are like LVDM's."""
    has = {"time_embed.0.weight", "input_blocks.0.0.weight"} <= set(tensors)
    return has and not any(key.startswith(("init_attn.", "fps_embedding.")) for key in tensors)


def _averaged(
    path: Path, tensors: Tensors, choice: Choice
) -> tuple[Tensors, dict[str, Tensors], list[str]]:
    """The tensors without the averaged copies that training keeps, these by network, warnings.

    LVDM's ``LitEma`` keeps them of all that is trained below ``model``, under names whose dots are
    left out.
    """
    copies = {k.removeprefix(_AVERAGED): t for k, t in tensors.items() if k.startswith(_AVERAGED)}
    rest = {key: tensor for key, tensor in tensors.items() if not key.startswith(_AVERAGED)}
    copies = {key: t for key, t in copies.items() if key not in ("decay", "num_updates")}
    if not choice.averaged:
        said = Phrase(
            f"{len(copies)} averaged weights ({_AVERAGED}*) were skipped; pass ",
            Argument("ema", True),
            " to convert them",
        )
        return rest, {}, [said] if copies else []
    if not copies:
        raise InputError(
            f"has no averaged weights ({_AVERAGED}*)",
            place=path,
            remedy=("omit ", Argument("ema", True)),
        )
    group, prefix = {}, PREFIXES["unet"]
    for key in rest:
        if key.startswith(prefix):
            flat = key.removeprefix("model.").replace(".", "")
            group[key.removeprefix(prefix)] = copies.pop(flat, rest[key])
    if copies:
        raise InputError(
            f"{len(copies)} averaged weights have no matching weight, such as "
            f"{_AVERAGED}{next(iter(copies))}",
            place=path,
            remedy=("omit ", Argument("ema", True)),
        )
    return rest, {"unet": group}, []


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


def _compare(buffers: Mapping[str, AnyTensor], config: ModelConfig) -> list[str]:
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
