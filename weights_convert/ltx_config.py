"""Sizes of LTX-2's networks and of Gemma 3, from the JSON of diffusers and transformers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.models.gemma3 import Gemma3Config
from syncos_jax.models.ltx.config import (
    Change,
    LTXConnectorConfig,
    LTXTransformerConfig,
    LTXVAEConfig,
    RotaryConfig,
)
from syncos_jax.models.ltx.settings import ShiftByTokens
from syncos_jax.weights_convert.diffusers_config import require


def _rotary(config: Mapping[str, Any]) -> RotaryConfig:
    return RotaryConfig(
        split=config.get("rope_type", "interleaved") == "split",
        double=config.get("rope_double_precision", True),
        theta=config.get("rope_theta", 10000.0),
    )


def transformer_config(config: Mapping[str, Any], where: str) -> LTXTransformerConfig:
    """Our sizes from the configuration of diffusers' ``LTX2VideoTransformer3DModel``.

    Raises:
        InputError: settings that the transformer here does not have.
    """
    modulated = config.get("cross_attn_mod", False)
    require(
        config,
        where,
        _class_name="LTX2VideoTransformer3DModel",
        patch_size=1,
        patch_size_t=1,
        activation_fn="gelu-approximate",
        norm_elementwise_affine=False,
        timestep_scale_multiplier=1000,
        rope_type=("interleaved", "split"),
    )
    if config.get("audio_cross_attn_mod", False) != modulated:
        raise InputError(f"{where}: cross_attn_mod and audio_cross_attn_mod differ")
    channels = config.get("in_channels", 128)
    height, width = config.get("base_height", 2048), config.get("base_width", 2048)
    return LTXTransformerConfig(
        in_channels=channels,
        out_channels=config.get("out_channels", 128) or channels,
        layers=config.get("num_layers", 48),
        heads=config.get("num_attention_heads", 32),
        head_size=config.get("attention_head_dim", 128),
        text_features=config.get("cross_attention_dim", 4096),
        text_projection=(
            config.get("caption_channels", 3840)
            if config.get("use_prompt_embeddings", True)
            else None
        ),
        gated=config.get("gated_attn", False),
        text_modulated=modulated,
        text_by_time=config.get("use_prompt_adaln_single", True),
        bias=config.get("attention_bias", True),
        out_bias=config.get("attention_out_bias", True),
        inner_bias=config.get("ff_bias", True),
        eps=config.get("norm_eps", 1e-6),
        rotary=_rotary(config),
        span=(config.get("pos_embed_max_pos", 20), height, width),
        cell=tuple(config.get("vae_scale_factors", (8, 32, 32))),
        causal_offset=config.get("causal_offset", 1),
    )


def connector_config(config: Mapping[str, Any], where: str) -> LTXConnectorConfig:
    """Our sizes from the configuration of diffusers' ``LTX2TextConnectors``.

    Raises:
        InputError: settings that the connectors here do not have.
    """
    require(config, where, _class_name="LTX2TextConnectors", rope_type=("interleaved", "split"))
    registers = config.get("video_connector_num_learnable_registers", 128)
    if registers is None:
        raise InputError(f"{where}: video_connector_num_learnable_registers is null")
    per_token = config.get("per_modality_projections", False)
    features = config.get("caption_channels", 3840)
    return LTXConnectorConfig(
        features=features,
        states=config.get("text_proj_in_factor", 49),
        out=config.get("video_hidden_dim", 4096) if per_token else features,
        per_token=per_token,
        bias=config.get("proj_bias", False),
        layers=config.get("video_connector_num_layers", 2),
        heads=config.get("video_connector_num_attention_heads", 30),
        head_size=config.get("video_connector_attention_head_dim", 128),
        gated=config.get("video_gated_attn", False),
        registers=registers,
        positions=config.get("connector_rope_base_seq_len", 4096),
        rotary=_rotary(config),
    )


def _each(value: Any, count: int) -> tuple[Any, ...]:
    """One value for each level, or the same for all."""
    return tuple(value) if isinstance(value, list | tuple) else (value,) * count


def vae_config(
    config: Mapping[str, Any], where: str, mean: tuple[float, ...], std: tuple[float, ...]
) -> LTXVAEConfig:
    """Our sizes from the configuration of diffusers' ``AutoencoderKLLTX2Video``.

    Args:
        config: the file's entries.
        where: names it in errors.
        mean, std: of the latents' channels, which are among the weights.

    Raises:
        InputError: settings that the autoencoder here does not have.
    """
    widths = tuple(config.get("block_out_channels", (256, 512, 1024, 2048)))
    decoder = tuple(config.get("decoder_block_out_channels", (256, 512, 1024)))
    require(
        config,
        where,
        _class_name="AutoencoderKLLTX2Video",
        patch_size_t=1,
        scaling_factor=1.0,
        encoder_spatial_padding_mode=("zeros", "reflect"),
        decoder_spatial_padding_mode=("reflect", "zeros"),
    )
    if any(_each(config.get("decoder_inject_noise", False), 1)):
        raise InputError(f"{where}: decoder_inject_noise is set; that cannot be converted")
    kinds = ("spatial", "temporal", "spatiotemporal", "spatiotemporal")
    down = tuple(config.get("downsample_type", kinds))
    up = tuple(config.get("upsample_type", ("spatiotemporal",) * 3))
    scaling = _each(config.get("spatio_temporal_scaling", True), len(widths))
    up_scaling = _each(config.get("decoder_spatio_temporal_scaling", True), len(decoder))

    def changes(kinds: tuple[str, ...], on: tuple[bool, ...]) -> tuple[Change, ...]:
        known = {"spatial", "temporal", "spatiotemporal"}
        if not set(kinds) <= known:
            raise InputError(f"{where}: downsample_type and upsample_type must be of {known}")
        return tuple(kind if use else "none" for kind, use in zip(kinds, on, strict=True))  # type: ignore[misc]

    return LTXVAEConfig(
        latent_channels=config.get("latent_channels", 128),
        encoder_widths=widths,
        encoder_blocks=tuple(config.get("layers_per_block", (4, 6, 6, 2, 2))),
        down=changes(down, scaling),
        decoder_widths=decoder,
        decoder_blocks=tuple(config.get("decoder_layers_per_block", (5, 5, 5, 5))),
        up=changes(up, up_scaling[::-1]),
        up_factors=tuple(config.get("upsample_factor", (2, 2, 2))),
        up_residual=_each(config.get("upsample_residual", True), len(decoder)),
        encoder_causal=config.get("encoder_causal", True),
        decoder_causal=config.get("decoder_causal", True),
        encoder_reflect=config.get("encoder_spatial_padding_mode", "zeros") == "reflect",
        decoder_reflect=config.get("decoder_spatial_padding_mode", "reflect") == "reflect",
        time_conditioned=config.get("timestep_conditioning", False),
        patch=config.get("patch_size", 4),
        image_channels=config.get("in_channels", 3),
        eps=config.get("resnet_norm_eps", 1e-6),
        latents_mean=mean,
        latents_std=std,
    )


def gemma_config(config: Mapping[str, Any], where: str) -> Gemma3Config:
    """Our sizes from transformers' configuration of Gemma 3, with images or without.

    Raises:
        InputError: another architecture, or settings that it does not have here.
    """
    kind = config.get("model_type", "gemma3")
    if kind not in ("gemma3", "gemma3_text"):
        raise InputError(
            f"{where}: model_type is {kind!r}; LTX-2.0 and LTX-2.3 read prompts with Gemma 3 "
            "(LTX-2.5's text encoder cannot be converted)"
        )
    text: Mapping[str, Any] = config.get("text_config", config)
    require(
        text,
        where,
        hidden_activation="gelu_pytorch_tanh",
        attention_bias=False,
        attn_logit_softcapping=None,
        use_bidirectional_attention=(False, None),
    )
    layers = text.get("num_hidden_layers", 26)
    pattern = text.get("sliding_window_pattern", 6)
    usual = ["full_attention" if i % pattern == pattern - 1 else "" for i in range(layers)]
    kinds = text.get("layer_types") or usual
    rope = text.get("rope_parameters") or {}
    own = {"rope_theta": text.get("rope_theta", 1e6), **(text.get("rope_scaling") or {})}
    full = {**own, **rope.get("full_attention", {})}
    sliding = rope.get("sliding_attention", {})
    require(full, where, rope_type=("default", "linear"))
    require(sliding, where, rope_type="default")
    local = text.get("rope_local_base_freq", 1e4)
    return Gemma3Config(
        vocabulary=text.get("vocab_size", 262208),
        features=text.get("hidden_size", 2304),
        inner=text.get("intermediate_size", 9216),
        full=tuple(name == "full_attention" for name in kinds),
        heads=text.get("num_attention_heads", 8),
        key_heads=text.get("num_key_value_heads", 4),
        head_size=text.get("head_dim", 256),
        window=text.get("sliding_window", 4096),
        theta=full["rope_theta"],
        sliding_theta=sliding.get("rope_theta", local),
        factor=full.get("factor", 1.0) if full.get("rope_type") == "linear" else 1.0,
        query_scale=text.get("query_pre_attn_scalar", 256),
        eps=text.get("rms_norm_eps", 1e-6),
    )


def sampling(scheduler: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What `LTXConfig` calls ``shift`` and ``terminal``, from a ``scheduler_config.json``: the
    shift goes by each clip's own tokens, as in diffusers.

    Raises:
        InputError: another scheduler, or settings that change the result and are not there.
    """
    require(
        scheduler,
        where,
        _class_name="FlowMatchEulerDiscreteScheduler",
        num_train_timesteps=1000,
        time_shift_type="exponential",
        **dict.fromkeys(
            (
                *("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"),
                *("invert_sigmas", "stochastic_sampling"),
            ),
            (False, None),
        ),
    )
    if scheduler.get("use_dynamic_shifting"):
        shift = ShiftByTokens(
            base_tokens=scheduler.get("base_image_seq_len", 256),
            base=scheduler.get("base_shift", 0.5),
            most_tokens=scheduler.get("max_image_seq_len", 4096),
            most=scheduler.get("max_shift", 1.15),
            tokens=None,
        )
    else:
        fixed = math.log(scheduler.get("shift", 1.0))
        shift = ShiftByTokens(base=fixed, most=fixed)
    return {"shift": shift, "terminal": scheduler.get("shift_terminal") or None}
