"""Our configurations from those of diffusers' and transformers' folders."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.models.clip_text import CLIPTextConfig
from syncos_jax.models.unet_clip.unet3d import UNet3DConfig
from syncos_jax.models.unet_clip.vae import VAEConfig

# How the ModelScope family is meant to be sampled, where ``syncos.json`` says nothing.
FAMILY_DEFAULTS = {
    "window": 16,
    "stride": 4,
    "fps": 8,
    "height": 256,
    "width": 256,
    "steps": 50,
    "guidance": 7.5,
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
    "scheduler": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
}
_BETAS = {"scaled_linear": "scaled_linear", "linear": "linear", "squaredcos_cap_v2": "squaredcos"}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: missing, unreadable, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; is {path.parent} a folder of diffusers'?") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: a JSON object was expected")
    return value


def _require(config: Mapping[str, Any], path: str, **allowed: Any) -> None:
    """Refuse settings that our networks do not have, rather than compute something else."""
    for key, expected in allowed.items():
        values = expected if isinstance(expected, tuple) else (expected,)
        if config.get(key, values[0]) not in values:
            raise InputError(
                f"{path}: {key} is {config[key]!r}; only {' or '.join(map(repr, values))} can be "
                "converted"
            )


def unet_config(config: Mapping[str, Any]) -> UNet3DConfig:
    """Our sizes from diffusers' ``unet/config.json``."""
    _require(
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
    )


def vae_config(config: Mapping[str, Any]) -> VAEConfig:
    """Our sizes from diffusers' ``vae/config.json``."""
    _require(
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
    _require(
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


def schedule_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``NoiseSchedule.from_betas`` from diffusers' ``scheduler_config.json``.

    ``set_alpha_to_one: false`` (DDIM's last step goes to timestep 0's rates) becomes
    ``final_timestep=0``.
    """
    where = "scheduler/scheduler_config.json"
    _require(
        config,
        where,
        prediction_type=tuple(PREDICTIONS),
        beta_schedule=("linear", *_BETAS),
        timestep_spacing=("leading", "trailing", "linspace"),
        trained_betas=None,
    )
    return {
        "betas": _BETAS[config.get("beta_schedule", "linear")],
        "beta_start": config.get("beta_start", 1e-4),
        "beta_end": config.get("beta_end", 0.02),
        "train_steps": config.get("num_train_timesteps", 1000),
        "prediction": PREDICTIONS[config.get("prediction_type", "epsilon")],
        "spacing": config.get("timestep_spacing", "leading"),
        "offset": config.get("steps_offset", 0),
        "final_timestep": None if config.get("set_alpha_to_one", True) else 0,
        "zero_terminal_snr": config.get("rescale_betas_zero_snr", False),
    }
