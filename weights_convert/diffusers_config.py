"""Our configurations from those of diffusers' and transformers' folders."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import Argument, InputError, Phrase, short
from syncos_jax.models.clip_text import CLIPTextConfig
from syncos_jax.models.unet_clip.unet3d import UNet3DConfig
from syncos_jax.models.unet_clip.vae import VAEConfig
from syncos_jax.sampling.schedule import NoiseSchedule
from syncos_jax.weights_convert.scheduler_config import BETA_SOLVERS, beta_solver

# How the ModelScope family is meant to be sampled, where ``syncos.json`` says nothing: steps and
# guidance are those of diffusers' pipelines.
FAMILY_DEFAULTS = {
    "window": 16,
    "stride": 4,
    "fps": 8,
    "height": 256,
    "width": 256,
    "steps": 50,
    "guidance": 9.0,
}
PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
# The configurations that matter where a part is converted alone: ModelScope's.
FAMILY: dict[str, dict[str, Any]] = {
    "unet": {},
    "vae": {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2},
    "text_encoder": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 23,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
    },
    "scheduler": {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    },
}
_BETAS = {"scaled_linear": "scaled_linear", "linear": "linear", "squaredcos_cap_v2": "squaredcos"}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: missing, unreadable, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; is {path.parent} a folder of diffusers'?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: a JSON object was expected")
    return value


def require(config: Mapping[str, Any], path: str, **allowed: Any) -> None:
    """Refuse settings that our networks do not have, rather than compute something else."""
    for key, expected in allowed.items():
        values = expected if isinstance(expected, tuple) else (expected,)
        if config.get(key, values[0]) not in values:
            raise InputError(
                f"{path}: {key} is {short(config[key])}; only {' or '.join(map(repr, values))} can "
                "be converted"
            )


def unet_config(config: Mapping[str, Any]) -> UNet3DConfig:
    """Our sizes from diffusers' ``unet/config.json``."""
    if config.get("_class_name") == "UNet2DConditionModel":
        raise InputError(
            "UNet2DConditionModel is an image model",
            place="unet/config.json",
            remedy=(
                "to generate videos with Stable Diffusion 1.5, pass an AnimateDiff motion adapter "
                "as ",
                Argument("motion"),
            ),
        )
    require(
        config,
        "unet/config.json",
        _class_name=("UNet3DConditionModel", "UNetVideoCrafter"),
        act_fn=("silu", "swish"),
        downsample_padding=1,
        mid_block_scale_factor=1,
        time_cond_proj_dim=None,
        num_attention_heads=None,
    )
    down = config.get("down_block_types", ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",))
    up = config.get("up_block_types", ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3)
    attention = tuple(name == "CrossAttnDownBlock3D" for name in down)
    known = {"CrossAttnDownBlock3D", "DownBlock3D"}, {"CrossAttnUpBlock3D", "UpBlock3D"}
    mirrored = tuple(name == "CrossAttnUpBlock3D" for name in reversed(up)) == attention
    if not (set(down) <= known[0] and set(up) <= known[1] and mirrored):
        raise InputError(
            f"unet/config.json: blocks {list(down)} and {list(up)} are not those of a "
            "UNet3DConditionModel with the same levels on both ways"
        )
    head_size = config.get("attention_head_dim", 64)
    if not isinstance(head_size, int):
        raise InputError("unet/config.json: attention_head_dim per level cannot be converted")
    return UNet3DConfig(
        in_channels=config.get("in_channels", 4),
        out_channels=config.get("out_channels", 4),
        block_out_channels=tuple(config.get("block_out_channels", (320, 640, 1280, 1280))),
        attention=attention,
        layers_per_block=config.get("layers_per_block", 2),
        head_size=head_size,
        text_features=config.get("cross_attention_dim", 1024),
        norm_groups=config.get("norm_num_groups", 32),
        norm_eps=config.get("norm_eps", 1e-5),
        # UNetVideoCrafter is the class of those who ported VideoCrafter2 to diffusers.
        fps_embedding=config.get("fps_embedding", config.get("_class_name") == "UNetVideoCrafter"),
        first_transformer=config.get("first_transformer", True),  # of ours alone
    )


def vae_config(config: Mapping[str, Any]) -> VAEConfig:
    """Our sizes from diffusers' ``vae/config.json``."""
    require(
        config,
        "vae/config.json",
        _class_name="AutoencoderKL",
        act_fn=("silu", "swish"),
        use_quant_conv=True,
        use_post_quant_conv=True,
        mid_block_add_attention=True,
        shift_factor=None,
        latents_mean=None,
    )
    if config.get("in_channels", 3) != config.get("out_channels", 3):
        raise InputError("vae/config.json: in_channels and out_channels differ")
    return VAEConfig(
        image_channels=config.get("in_channels", 3),
        latent_channels=config.get("latent_channels", 4),
        block_out_channels=tuple(config.get("block_out_channels", (64,))),
        layers_per_block=config.get("layers_per_block", 1),
        norm_groups=config.get("norm_num_groups", 32),
    )


def text_config(config: Mapping[str, Any]) -> CLIPTextConfig:
    """Our sizes from transformers' ``text_encoder/config.json``."""
    require(
        config,
        "text_encoder/config.json",
        model_type="clip_text_model",
        hidden_act=("quick_gelu", "gelu"),
    )
    return CLIPTextConfig(
        vocabulary=config.get("vocab_size", 49408),
        tokens=config.get("max_position_embeddings", 77),
        features=config.get("hidden_size", 512),
        inner=config.get("intermediate_size", 2048),
        layers=config.get("num_hidden_layers", 12),
        heads=config.get("num_attention_heads", 8),
        activation=config.get("hidden_act", "quick_gelu"),
        eps=config.get("layer_norm_eps", 1e-5),
    )


def clip_defaults(
    unet: Mapping[str, Any], vae: VAEConfig, names: list[str]
) -> tuple[dict[str, int], list[str]]:
    """Size and length of the clips that a UNet was trained on, and which of them were assumed.

    The size is the UNet's ``sample_size`` (latent cells), as diffusers takes it; the length stands
    in no file of diffusers', so that it is known for published models alone.

    Args:
        unet: ``unet/config.json``.
        vae: its latent cells are so many pixels.
        names: what the model is called: folder, id, ``_name_or_path``.
    """
    sizes: dict[str, int] = {}
    sample: Any = unet.get("sample_size")
    if isinstance(sample, int) and not isinstance(sample, bool):
        sample = [sample, sample]
    if sample is not None:
        plain = isinstance(sample, list | tuple) and len(sample) == 2
        if not plain or not all(type(n) is int and 1 <= n <= 1024 for n in sample):
            raise InputError(
                f"unet/config.json: sample_size is {sample!r}; expected latent cells, as an "
                "integer or [height, width]"
            )
        sizes = {"height": sample[0] * vae.factor, "width": sample[1] * vae.factor}
    for pattern, (window, width, height) in _PUBLISHED.items():
        if any(re.search(pattern, name) for name in names):
            own = {"window": window, "stride": max(1, window // 4)}
            if sample is None or list(sample) == _MODELSCOPE_SAMPLE:  # left as it was in ModelScope
                sizes = {"height": height, "width": width}
            said = f"clips of {window} frames, as published for {pattern}"
            return {**own, **sizes}, [said]
    window = int(FAMILY_DEFAULTS["window"])
    said = Phrase(
        f"the folder does not state a clip length; assumed {window} frames, ModelScope's; pass ",
        Argument("window", "N"),
        " to change it",
    )
    return sizes, [said]


_MODELSCOPE_SAMPLE = [32, 32]
_PUBLISHED = {
    "zeroscope_v2_576w": (24, 576, 320),
    "zeroscope_v2_XL": (24, 1024, 576),
    "zeroscope_v2_(?:dark_)?30x448x256": (30, 448, 256),
}
"""Clip length, width and height by the model cards of what is published without them."""


def schedule_settings(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Arguments of ``NoiseSchedule.from_betas`` from diffusers' ``scheduler_config.json``, and
    what is done differently here.

    ``set_alpha_to_one: false`` (DDIM's last step goes to timestep 0's rates) becomes
    ``final_timestep=0``.

    These are for DDIM; what a folder with another solver is sampled with, `solver_settings` says.

    Raises:
        InputError: a scheduler or a setting of one that is not done here.
    """
    where = "scheduler/scheduler_config.json"
    name = config.get("_class_name", "DDIMScheduler")
    if name not in _SCHEDULERS:
        raise InputError(
            f"{where}: {name} cannot be sampled here"
            + (f": {_OTHER_SCHEDULERS[name]}" if name in _OTHER_SCHEDULERS else "")
            + f"; known are {', '.join(_SCHEDULERS)}"
        )
    defaults = _SCHEDULERS[name]
    config = {**defaults, **{key: value for key, value in config.items() if value is not None}}
    for key in ("use_flow_sigmas", "clip_sample", "thresholding"):
        if config.get(key, False) is not False:
            raise InputError(f"{where}: {key} is {config[key]!r}, {_NOT_DONE[key]}")
    require(
        config,
        where,
        prediction_type=tuple(PREDICTIONS),
        beta_schedule=("linear", *_BETAS),
        timestep_spacing=("leading", "trailing", "linspace"),
        trained_betas=None,
    )
    _check_numbers(config, where)
    zero_snr = bool(config.get("rescale_betas_zero_snr", False))
    spacing, notes = _spacing(name, config, zero_snr)
    offset = config["steps_offset"]
    if spacing != config["timestep_spacing"]:
        offset = offset or 1
    settings = {
        "betas": _BETAS[config["beta_schedule"]],
        "beta_start": config["beta_start"],
        "beta_end": config["beta_end"],
        "train_steps": config["num_train_timesteps"],
        "prediction": PREDICTIONS[config["prediction_type"]],
        "spacing": spacing,
        "offset": offset,
        "final_timestep": None if config["set_alpha_to_one"] else 0,
        "zero_terminal_snr": zero_snr,
    }
    try:
        NoiseSchedule.from_betas(**settings)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return settings, notes


def _check_numbers(config: Mapping[str, Any], where: str) -> None:
    numbers: dict[str, type] = {"beta_start": float, "beta_end": float}
    numbers |= {"num_train_timesteps": int, "steps_offset": int}
    for key, kind in numbers.items():
        value = config[key]
        whole = kind is float and type(value) is int
        good = (type(value) is kind or whole) and 0 <= value <= _MOST_STEPS
        if not good or not math.isfinite(value):
            raise InputError(f"{where}: {key} is {value!r}; expected a number")


def _spacing(name: str, config: Mapping[str, Any], zero_snr: bool) -> tuple[str, list[str]]:
    """How the timesteps of scheduler `name` are spaced here, and what is done differently."""
    spacing = config["timestep_spacing"]
    if name not in _DDIM:
        own = name in BETA_SOLVERS
        notes = []
        if not own:
            notes.append(f"the folder's sampler, {name}, is not done here: it is sampled with DDIM")
        if spacing == "linspace":  # whose last DDIM step would go from timestep 0 to itself
            spacing = "trailing" if zero_snr else "leading"
            notes += [] if own else [f"with {spacing} timesteps"]
        return spacing, notes
    if spacing == "linspace":
        notes = [
            "timestep_spacing linspace: each step goes to the next timestep of the list; diffusers "
            "goes on by num_train_timesteps // steps instead, to one that is not the next"
        ]
        if not config["set_alpha_to_one"]:
            notes.append(
                "with set_alpha_to_one false the last call, at timestep 0, changes nothing; "
                "timestep_spacing leading makes use of it"
            )
        return spacing, notes
    if spacing == "trailing":
        note = (
            "timestep_spacing trailing: where the steps do not divide num_train_timesteps, each "
            "goes to the next timestep of the list, in diffusers to one beside it"
        )
        return spacing, [note]
    return spacing, []


def solver_settings(config: Mapping[str, Any], schedule: Mapping[str, Any]) -> dict[str, Any]:
    """What `ModelConfig` calls ``solver`` and ``levels``; empty where DDIM samples the model.

    Args:
        config: ``scheduler_config.json``.
        schedule: what `schedule_settings` makes of it.

    Raises:
        InputError: a setting that changes the result and is not done here.
    """
    name = config.get("_class_name")
    if name is None or name not in BETA_SOLVERS:
        return {}
    given = {key: value for key, value in config.items() if value is not None}
    return beta_solver({**_SCHEDULERS[name], **given}, NoiseSchedule.from_betas(**schedule))


_MOST_STEPS = 100_000
_BASE = {
    "beta_start": 1e-4,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 0,
    "set_alpha_to_one": True,
    "timestep_spacing": "leading",
}
_DDIM = ("DDIMScheduler",)
_SCHEDULERS: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {**_BASE, "clip_sample": True},
    "DDPMScheduler": {**_BASE, "clip_sample": True},
    "PNDMScheduler": {**_BASE, "set_alpha_to_one": False},
    "DPMSolverMultistepScheduler": {**_BASE, "timestep_spacing": "linspace"},
    "DPMSolverSinglestepScheduler": {**_BASE, "timestep_spacing": "linspace"},
    "DPMSolverSDEScheduler": {**_BASE, "timestep_spacing": "linspace"},
    "UniPCMultistepScheduler": {**_BASE, "timestep_spacing": "linspace"},
    "DEISMultistepScheduler": {**_BASE, "timestep_spacing": "linspace"},
    "EulerDiscreteScheduler": {**_BASE, "timestep_spacing": "linspace"},
    "EulerAncestralDiscreteScheduler": {**_BASE, "timestep_spacing": "linspace"},
    "HeunDiscreteScheduler": {**_BASE, "timestep_spacing": "linspace"},
    "KDPM2DiscreteScheduler": {**_BASE, "timestep_spacing": "linspace"},
    "KDPM2AncestralDiscreteScheduler": {**_BASE, "timestep_spacing": "linspace"},
    "LMSDiscreteScheduler": {**_BASE, "timestep_spacing": "linspace"},
}
"""Schedulers of models that DDIM samples, too, with what diffusers takes where a file is silent."""

_FLOW = "a flow-matching scheduler does not belong to a UNet of this family"
_DISTILLED = "it is for distilled models of few steps"
_OTHER_SCHEDULERS = {
    "FlowMatchEulerDiscreteScheduler": _FLOW,
    "FlowMatchHeunDiscreteScheduler": _FLOW,
    "FlowMatchLCMScheduler": _FLOW,
    "LCMScheduler": _DISTILLED,
    "TCDScheduler": _DISTILLED,
}
_NOT_DONE = {
    "clip_sample": "diffusers' default, which cuts every step's clean latent to "
    "clip_sample_range; that is not done here, and latents do not lie within it: set it to false "
    "if the model is one of latents, as ModelScope's",
    "thresholding": "which is for pixels, not for latents, and not done here; set it to false",
    "use_flow_sigmas": _FLOW,
}
