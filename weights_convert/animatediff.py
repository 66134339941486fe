"""AnimateDiff: a folder of Stable Diffusion 1.5 with a motion adapter, or one of diffusers'
``AnimateDiffPipeline``, whose UNet holds both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import Argument, InputError
from syncos_jax.models.animatediff.family import AnimateDiffConfig
from syncos_jax.models.animatediff.unet import MotionUNetConfig
from syncos_jax.models.few_steps import FewSteps
from syncos_jax.weights_convert import diffusers_tables as tables
from syncos_jax.weights_convert import lvdm_tables, stable_diffusion
from syncos_jax.weights_convert.checkpoint import Checkpoint, Part
from syncos_jax.weights_convert.diffusers_config import (
    read_json,
    require,
    schedule_settings,
    solver_settings,
    text_config,
    vae_config,
)
from syncos_jax.weights_convert.stored import Tensors
from syncos_jax.weights_convert.table import AnyTable, Kind, Row, Table
from syncos_jax.weights_convert.weight_files import open_file, open_folder

UNET_CLASSES = ("UNet2DConditionModel", "UNetMotionModel")
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
"""What motion adapters are trained with, whatever scheduler the folder of Stable Diffusion has."""
DEFAULTS = {
    "window": 16,
    "stride": 4,
    "fps": 8,
    "steps": 50,
    "guidance": 7.5,
    "height": 512,
    "width": 512,
}
ADAPTER = {
    "motion_num_attention_heads": 8,
    "motion_max_seq_length": 32,
    "use_motion_mid_block": True,
    "motion_layers_per_block": 2,
    "motion_transformer_layers_per_block": 1,
    "motion_transformer_layers_per_mid_block": 1,
    "motion_mid_block_layers_per_block": 1,
}
"""What diffusers' ``MotionAdapter`` takes where its file is silent."""

_MODULE = r"(?:down_blocks\.\d+|mid_block|up_blocks\.\d+)\.motion_modules\.\d+"
_BLOCK = rf"{_MODULE}\.transformer_blocks\.\d+"
UNET = Table(
    (
        *tables.UNET.rows,
        Row(rf"({_MODULE}\.norm)", r"\1", Kind.NORM),
        Row(rf"({_MODULE}\.proj_(?:in|out))", r"\1", Kind.LINEAR),
        Row(rf"({_BLOCK}\.norm[123])", r"\1", Kind.NORM),
        Row(rf"({_BLOCK}\.attn[12]\.(?:to_[qkv]|to_out\.0))", r"\1", Kind.LINEAR),
        Row(rf"({_BLOCK}\.ff)\.net\.0\.proj", r"\1.gate.proj", Kind.LINEAR),
        Row(rf"({_BLOCK}\.ff)\.net\.2", r"\1.out", Kind.LINEAR),
    ),
    ignored=(rf"{_BLOCK}\.pos_embed\.pe",),  # computed
    renames=tables.UNET.renames,
)

_ORIGINAL = (
    (r"^module\.", ""),
    (r"\.temporal_transformer\.", "."),
    (r"\.attention_blocks\.0\.", ".attn1."),
    (r"\.attention_blocks\.1\.", ".attn2."),
    (r"\.norms\.0\.", ".norm1."),
    (r"\.norms\.1\.", ".norm2."),
    (r"\.ff_norm\.", ".norm3."),
    (r"\.attn[12]\.pos_encoder\.pe$", ".pos_embed.pe"),
)
"""From the names in AnimateDiff's own files to diffusers'."""


def recognises(folder: Path) -> bool:
    """Whether `folder` is one of diffusers' ``AnimateDiffPipeline``."""
    config = folder / "unet" / "config.json"
    return config.is_file() and read_json(config).get("_class_name") == "UNetMotionModel"


def open_model(folder: Path, motion: Path | None = None, only: str | None = None) -> Checkpoint:
    """Opens a model.

    Args:
        folder: of Stable Diffusion 1.5, or of diffusers' ``AnimateDiffPipeline``.
        motion: the motion adapter, a folder of diffusers' or a file in either layout; None where
            `folder` has one in its UNet.
        only: the one network that is wanted.

    Raises:
        InputError: a missing or broken file, or parts that do not fit; says which and why.
    """
    if only is not None and only not in AnimateDiffConfig.networks:
        known = ", ".join(AnimateDiffConfig.networks)
        raise InputError(argument="only", expected=f"one of {known} for AnimateDiff", value=only)
    unet = read_json(folder / "unet" / "config.json")
    adapter, tensors = _adapter(motion)
    whole = unet.get("_class_name") == "UNetMotionModel"
    if whole == (motion is not None):
        argument = Argument("motion")
        raise InputError(
            "its UNet already has motion modules" if whole else "its UNet has no motion modules",
            place=folder,
            remedy=("omit ", argument) if whole else ("pass a motion adapter as ", argument),
        )
    parts: dict[str, Part] = {}
    of_parts = {"unet": UNET, "vae": tables.VAE, "text_encoder": tables.CLIP_TEXT}
    for name in AnimateDiffConfig.networks if only is None else (only,):
        held = open_folder(folder / name)
        if name == "unet":
            held = {**held, **tensors}
        parts[name] = Part(str(folder / name), held, of_parts[name])
    config, notes = _config(folder, unet, adapter, whole, motion)
    tokenizer = folder / "tokenizer"
    return Checkpoint(config, parts, tokenizer if tokenizer.is_dir() else None, tuple(notes))


def open_checkpoint(path: Path, motion: Path, only: str | None = None) -> Checkpoint:
    """Opens Stable Diffusion 1.5 as one file, with a motion module; arguments and errors as
    `open_model`."""
    if only is not None and only not in AnimateDiffConfig.networks:
        known = ", ".join(AnimateDiffConfig.networks)
        raise InputError(argument="only", expected=f"one of {known} for AnimateDiff", value=only)
    where = str(path)
    held = stable_diffusion.networks(path)
    adapter, motions = _adapter(motion)
    unet = stable_diffusion.unet_settings(held["unet"], where)
    vae = stable_diffusion.vae_sizes(held["vae"], where)
    schedule, notes = schedule_settings(_schedule_of(motion))
    sizes = unet_config(unet, adapter)
    window = min(DEFAULTS["window"], sizes.positions)
    config = AnimateDiffConfig(
        **{
            "name": path.stem,
            "source": where,
            **DEFAULTS,
            "window": window,
            "stride": max(1, window // 4),
            "unet": sizes,
            "vae": vae,
            "text": stable_diffusion.text_sizes(held["text_encoder"], where),
            "schedule": schedule,
            **_sampling(motion, schedule),
            "latent_scale": 0.18215,
        }
    )
    of_parts: dict[str, AnyTable] = {
        "unet": UNET,
        "vae": lvdm_tables.vae_table(vae),
        "text_encoder": tables.CLIP_TEXT,
    }
    held["unet"] |= motions
    wanted = AnimateDiffConfig.networks if only is None else (only,)
    parts = {name: Part(f"{path} ({name})", held[name], of_parts[name]) for name in wanted}
    return Checkpoint(config, parts, warnings=tuple(notes))


_DISTILLED = re.compile(r"lightning[_-]?(\d+)[_-]?step", re.IGNORECASE)


def _schedule_of(motion: Path | None) -> dict[str, Any]:
    """The scheduler of a motion module: of AnimateDiff-Lightning's, trailing timesteps."""
    if motion is not None and _DISTILLED.search(motion.name):
        lightning = {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"}
        kept = ("beta_schedule", "beta_start", "beta_end")
        return {**lightning, **{name: SCHEDULER[name] for name in kept}}
    return SCHEDULER


def _sampling(motion: Path | None, schedule: Mapping[str, Any]) -> dict[str, Any]:
    """Steps, guidance and solver that a distilled motion module was made for; empty for others."""
    match = None if motion is None else _DISTILLED.search(motion.name)
    if match is None:
        return {}
    steps = max(2, int(match[1]))
    return {
        "steps": steps,
        "guidance": 1.0,
        "few_steps": FewSteps("AnimateDiff-Lightning", steps).to_dict(),
        **solver_settings(_schedule_of(motion), schedule),
    }


def _config(
    folder: Path,
    unet: Mapping[str, Any],
    adapter: Mapping[str, Any],
    whole: bool,
    motion: Path | None = None,
) -> tuple[AnimateDiffConfig, list[str]]:
    sizes = unet_config(unet, adapter)
    vae = vae_config(read_json(folder / "vae" / "config.json"))
    scheduler: Mapping[str, Any] = _schedule_of(motion)
    notes: list[str] = []
    if whole:
        scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    elif scheduler is SCHEDULER:
        notes.append("sampled with DDIM and linear betas, as motion adapters are trained")
    schedule, said = schedule_settings(scheduler)
    notes += said
    sample = unet.get("sample_size")
    values: dict[str, Any] = {**DEFAULTS, "window": min(16, sizes.positions)}
    values["stride"] = max(1, values["window"] // 4)
    if isinstance(sample, int):
        values |= {"height": sample * vae.factor, "width": sample * vae.factor}
    extra = folder / "syncos.json"
    config = AnimateDiffConfig(
        **{
            "name": folder.name,
            "source": str(folder),
            **values,
            "unet": sizes,
            "vae": vae,
            "text": text_config(read_json(folder / "text_encoder" / "config.json")),
            "schedule": schedule,
            **solver_settings(scheduler, schedule),
            **_sampling(motion, schedule),
            "latent_scale": read_json(folder / "vae" / "config.json").get(
                "scaling_factor", 0.18215
            ),
            "notes": {"sampling": "; ".join(notes)} if notes else {},
            **(read_json(extra) if extra.is_file() else {}),
        }
    )
    return config, notes


def unet_config(unet: Mapping[str, Any], adapter: Mapping[str, Any]) -> MotionUNetConfig:
    """Our sizes from those of a UNet, of either class, and of a motion adapter.

    Args:
        unet: ``unet/config.json``.
        adapter: the adapter's ``config.json``; empty where the UNet's has its entries.

    Raises:
        InputError: unsupported settings.
    """
    where = "unet/config.json"
    require(
        unet,
        where,
        _class_name=UNET_CLASSES,
        act_fn=("silu", "swish"),
        downsample_padding=1,
        mid_block_scale_factor=1,
        transformer_layers_per_block=1,
        transformer_layers_per_mid_block=(None, 1),
        temporal_transformer_layers_per_block=1,
        temporal_transformer_layers_per_mid_block=1,
        dual_cross_attention=False,
        only_cross_attention=False,
        resnet_time_scale_shift="default",
        center_input_sample=False,
        freq_shift=0,
        flip_sin_to_cos=True,
        **dict.fromkeys(_NONE),
    )
    require(
        adapter,
        "the motion adapter",
        motion_transformer_layers_per_block=1,
        motion_transformer_layers_per_mid_block=1,
        motion_mid_block_layers_per_block=1,
        conv_in_channels=None,
    )
    widths = tuple(unet.get("block_out_channels", (320, 640, 1280, 1280)))
    blocks = unet.get("down_block_types", ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",))
    attention = tuple("CrossAttn" in name for name in blocks)
    up = unet.get("up_block_types", ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3)
    if tuple("CrossAttn" in name for name in reversed(up)) != attention:
        raise InputError(f"{where}: blocks {list(blocks)} and {list(up)} do not mirror each other")
    layers = unet.get("layers_per_block", 2)
    if adapter and adapter.get("motion_layers_per_block", 2) != layers:
        raise InputError(
            f"the motion adapter has {adapter.get('motion_layers_per_block', 2)} layers a level, "
            f"the UNet {layers}"
        )
    motion = {**ADAPTER, **unet, **adapter}
    # What the first configurations called attention_head_dim is the number of heads.
    heads = unet.get("num_attention_heads") or unet.get("attention_head_dim", 8)
    return MotionUNetConfig(
        in_channels=unet.get("in_channels", 4),
        out_channels=unet.get("out_channels", 4),
        block_out_channels=widths,
        attention=attention,
        layers_per_block=layers,
        heads=_each(heads, len(widths)),
        motion_heads=_each(motion["motion_num_attention_heads"], len(widths)),
        positions=motion["motion_max_seq_length"],
        motion_mid=motion["use_motion_mid_block"],
        text_features=unet.get("cross_attention_dim", 1280),
        norm_groups=unet.get("norm_num_groups", 32),
        norm_eps=unet.get("norm_eps", 1e-5),
    )


_NONE: tuple[str, ...] = (
    "class_embed_type",
    "addition_embed_type",
    "encoder_hid_dim",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
    "num_class_embeds",
    "reverse_transformer_layers_per_block",
)
"""Entries that a UNet of Stable Diffusion 1.5 leaves empty."""


def _each(value: Any, levels: int) -> tuple[int, ...]:
    return (value,) * levels if isinstance(value, int) else tuple(value)


def _adapter(motion: Path | None) -> tuple[dict[str, Any], Tensors]:
    """An adapter's configuration and tensors, under diffusers' names."""
    if motion is None:
        return {}, {}
    if motion.is_file():
        tensors, config = open_file(motion), dict(ADAPTER)
    else:
        tensors, config = open_folder(motion), read_json(motion / "config.json")
        require(config, str(motion / "config.json"), _class_name="MotionAdapter")
    named = {_renamed(key): tensor for key, tensor in tensors.items()}
    if not any(".motion_modules." in key for key in named):
        raise InputError(f"{motion}: holds no motion modules")
    if motion.is_file():  # which says no more than its tensors do
        config["use_motion_mid_block"] = any(key.startswith("mid_block.") for key in named)
        places = [tensor.shape for key, tensor in tensors.items() if key.endswith(".pe")]
        config["motion_max_seq_length"] = max((shape[-2] for shape in places), default=32)
        layers = [re.match(r"down_blocks\.0\.motion_modules\.(\d+)\.", key) for key in named]
        config["motion_layers_per_block"] = len({match[1] for match in layers if match})
    return {**ADAPTER, **config}, named


def _renamed(key: str) -> str:
    for pattern, replacement in _ORIGINAL:
        key = re.sub(pattern, replacement, key)
    return key
