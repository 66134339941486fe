"""A text-to-video pipeline in diffusers' folder layout: read it into a model, write a model to it.

``unet/ vae/ text_encoder/ tokenizer/ scheduler/``, with what diffusers has no place for (clip
length, frame rate, sampling defaults) in ``syncos.json``.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from syncos_jax.errors import InputError
from syncos_jax.models.clip_text import CLIPTextConfig, CLIPTextEncoder
from syncos_jax.models.config import ModelConfig
from syncos_jax.models.layers import DType
from syncos_jax.models.load import Model
from syncos_jax.models.tokenizer import PromptTokenizer
from syncos_jax.models.unet3d import UNet3D, UNet3DConfig
from syncos_jax.models.vae import AutoencoderKL, VAEConfig
from syncos_jax.weights_convert import diffusers_tables as tables
from syncos_jax.weights_convert.table import Network, Table, fill

WEIGHTS = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
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
_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
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
        prediction_type=tuple(_PREDICTIONS),
        beta_schedule=("linear", *_BETAS),
        timestep_spacing=("leading", "trailing", "linspace"),
        trained_betas=None,
    )
    return {
        "betas": _BETAS[config.get("beta_schedule", "linear")],
        "beta_start": config.get("beta_start", 1e-4),
        "beta_end": config.get("beta_end", 0.02),
        "train_steps": config.get("num_train_timesteps", 1000),
        "prediction": _PREDICTIONS[config.get("prediction_type", "epsilon")],
        "spacing": config.get("timestep_spacing", "leading"),
        "offset": config.get("steps_offset", 0),
        "final_timestep": None if config.get("set_alpha_to_one", True) else 0,
        "zero_terminal_snr": config.get("rescale_betas_zero_snr", False),
    }


def _read_network(folder: Path, part: str, build: Callable[[], Network], table: Table) -> Network:
    path = folder / part / WEIGHTS[part]
    if not path.is_file():
        raise InputError(f"{path}: missing")
    try:
        with safe_open(path, framework="numpy") as tensors:
            abstract = nnx.eval_shape(build)
            return fill(abstract, table, tensors.keys(), tensors.get_tensor, what=str(path))
    except SafetensorError as error:
        raise InputError(f"{path}: not a readable safetensors file: {error}") from error


def read_config(folder: Path) -> ModelConfig:
    """The configuration of a diffusers folder, without its weights."""
    extra = read_json(folder / "syncos.json") if (folder / "syncos.json").is_file() else {}
    vae = read_json(folder / "vae" / "config.json")
    return ModelConfig(
        unet=unet_config(read_json(folder / "unet" / "config.json")),
        vae=vae_config(vae),
        text=text_config(read_json(folder / "text_encoder" / "config.json")),
        schedule=schedule_settings(read_json(folder / "scheduler" / "scheduler_config.json")),
        latent_scale=vae.get("scaling_factor", 0.18215),
        **{"name": folder.name, "source": str(folder), **FAMILY_DEFAULTS, **extra},
    )


def read_folder(folder: Path, dtype: DType) -> Model:
    """Read a whole pipeline.

    Raises:
        InputError: a missing or broken file, or one that does not fit; says which and why.
    """
    config = read_config(folder)
    rngs = nnx.Rngs(0)
    unet = _read_network(
        folder, "unet", lambda: UNet3D(config.unet, dtype=dtype, rngs=rngs), tables.UNET
    )
    vae = _read_network(
        folder, "vae", lambda: AutoencoderKL(config.vae, dtype=dtype, rngs=rngs), tables.VAE
    )
    text = _read_network(
        folder,
        "text_encoder",
        lambda: CLIPTextEncoder(config.text, dtype=dtype, rngs=rngs),
        tables.CLIP_TEXT,
    )
    tokenizer = PromptTokenizer(folder / "tokenizer", config.text.tokens)
    return Model(config, config.noise_schedule(), unet, vae, text, tokenizer)


def write_networks(folder: Path, config: ModelConfig, networks: Mapping[str, nnx.Module]) -> None:
    """Write ``unet``, ``vae`` and ``text_encoder`` with their configurations and the scheduler's.

    The tokenizer's files are the caller's to copy. Weights are stored as float32.
    """
    unet, vae, text = config.unet, config.vae, config.text
    schedule = config.schedule
    inverse = {ours: theirs for theirs, ours in _PREDICTIONS.items()}
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
            **{key: getattr(config, key) for key in FAMILY_DEFAULTS},
            "notes": config.notes,
        },
    }
    for name, value in values.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    table = {"unet": tables.UNET, "vae": tables.VAE, "text_encoder": tables.CLIP_TEXT}
    for part, module in networks.items():
        weights = tables.to_diffusers(module, table[part])
        arrays = {key: array.astype(np.float32) for key, array in weights.items()}
        save_file(arrays, folder / part / WEIGHTS[part], metadata={"format": "pt"})
