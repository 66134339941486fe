"""Sizes of CogVideoX's networks from diffusers' configuration files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.models.cogvideox.config import (
    Activation,
    CogVideoXTransformerConfig,
    CogVideoXVAEConfig,
    Positions,
)
from syncos_jax.weights_convert.diffusers_config import require

_ACTIVATIONS: dict[str, Activation] = {"gelu-approximate": "gelu_tanh", "gelu": "gelu"}


def transformer_config(
    config: Mapping[str, Any], where: str = "transformer/config.json"
) -> CogVideoXTransformerConfig:
    """Our sizes from diffusers' ``transformer/config.json``.

    Args:
        config: the file's entries.
        where: names it in errors.

    Raises:
        InputError: an unsupported setting.
    """
    require(
        config,
        where,
        _class_name="CogVideoXTransformer3DModel",
        activation_fn=tuple(_ACTIVATIONS),
        timestep_activation_fn=("silu", "swish"),
    )
    rotary = config.get("use_rotary_positional_embeddings", False)
    learned = config.get("use_learned_positional_embeddings", False)
    if learned and not rotary:
        raise InputError(f"{where}: learned positions without rotary ones cannot be converted")
    positions: Positions = "sincos"
    if rotary:
        positions = "rotary+learned" if learned else "rotary"
    frames = config.get("sample_frames", 49) - 1
    channels = config.get("in_channels", 16)
    return CogVideoXTransformerConfig(
        in_channels=channels,
        out_channels=config.get("out_channels", 16) or channels,
        layers=config.get("num_layers", 30),
        heads=config.get("num_attention_heads", 30),
        head_size=config.get("attention_head_dim", 64),
        patch=config.get("patch_size", 2),
        patch_frames=config.get("patch_size_t"),
        text_features=config.get("text_embed_dim", 4096),
        text_tokens=config.get("max_text_seq_length", 226),
        time_features=config.get("time_embed_dim", 512),
        offset_features=config.get("ofs_embed_dim") or None,
        flip_sin_to_cos=config.get("flip_sin_to_cos", True),
        time_shift=config.get("freq_shift", 0),
        positions=positions,
        spatial_scale=config.get("spatial_interpolation_scale", 1.875),
        temporal_scale=config.get("temporal_interpolation_scale", 1.0),
        sample_frames=frames // config.get("temporal_compression_ratio", 4) + 1,
        sample_height=config.get("sample_height", 60),
        sample_width=config.get("sample_width", 90),
        attention_bias=config.get("attention_bias", True),
        patch_bias=config.get("patch_bias", True),
        norm_weights=config.get("norm_elementwise_affine", True),
        eps=config.get("norm_eps", 1e-5),
        activation=_ACTIVATIONS[config.get("activation_fn", "gelu-approximate")],
    )


def vae_config(config: Mapping[str, Any], where: str = "vae/config.json") -> CogVideoXVAEConfig:
    """Our sizes from diffusers' ``vae/config.json``; arguments and errors as above."""
    require(
        config,
        where,
        _class_name="AutoencoderKLCogVideoX",
        act_fn=("silu", "swish"),
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=None,
        latents_mean=None,
        latents_std=None,
    )
    widths = tuple(config.get("block_out_channels", (128, 256, 256, 512)))
    for key, kind in (("down_block_types", "Down"), ("up_block_types", "Up")):
        found = tuple(config.get(key, (f"CogVideoX{kind}Block3D",) * 4))
        if found != (f"CogVideoX{kind}Block3D",) * len(widths):
            raise InputError(
                f"{where}: {key} are {list(found)}; only one CogVideoX{kind}Block3D for each of "
                "block_out_channels can be converted"
            )
    if config.get("in_channels", 3) != config.get("out_channels", 3):
        raise InputError(f"{where}: in_channels and out_channels differ")
    # diffusers counts whole factors of two, and the last level changes nothing.
    halved = min(int(math.log2(config.get("temporal_compression_ratio", 4))), len(widths) - 1)
    return CogVideoXVAEConfig(
        image_channels=config.get("in_channels", 3),
        latent_channels=config.get("latent_channels", 16),
        block_out_channels=widths,
        layers_per_block=config.get("layers_per_block", 3),
        norm_groups=config.get("norm_num_groups", 32),
        eps=config.get("norm_eps", 1e-6),
        time_factor=2**halved,
        latent_scale=config.get("scaling_factor", 1.15258426),
        inverted=bool(config.get("invert_scale_latents", False)),
    )
