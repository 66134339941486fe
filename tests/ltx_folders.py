"""Tiny networks of LTX-2 with random weights, and a pipeline of them in diffusers' layout."""

import json
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import Gemma3Config as TheirGemma3
from transformers import Gemma3ForConditionalGeneration, PreTrainedTokenizerFast

from syncos_jax.models.gemma3 import Gemma3Config
from syncos_jax.models.ltx.config import LTXConnectorConfig, LTXTransformerConfig, LTXVAEConfig

TRANSFORMER = LTXTransformerConfig(
    in_channels=6,
    out_channels=6,
    layers=2,
    heads=2,
    head_size=16,
    text_features=32,
    cell=(4, 16, 16),
)
GEMMA = Gemma3Config(
    vocabulary=24,
    features=20,
    inner=32,
    full=(False, True, False),
    heads=4,
    key_heads=2,
    head_size=8,
    window=4,
    query_scale=11.0,
)
CONNECTORS = LTXConnectorConfig(
    features=20, states=4, out=32, layers=2, heads=2, head_size=16, registers=4, positions=64
)
VAE = LTXVAEConfig(
    latent_channels=6,
    encoder_widths=(8, 16),
    encoder_blocks=(1, 2, 1),
    down=("spatiotemporal", "spatiotemporal"),
    decoder_widths=(8, 16),
    decoder_blocks=(1, 1, 2),
    up=("spatiotemporal", "spatiotemporal"),
    up_factors=(1, 2),
    up_residual=(False, False),
)


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Random weights, none of them zero or one."""
    generator = torch.Generator().manual_seed(0)
    for name, p in model.named_parameters():
        scale = 1.0 / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1
        centre = 1.0 if "norm" in name and name.endswith("weight") and p.ndim == 1 else 0.0
        if not name.endswith("timestep_scale_multiplier"):
            p.data = centre + scale * torch.randn(p.shape, generator=generator)
    return model.eval()


def torch_transformer(
    config: LTXTransformerConfig, perturbed: bool = False
) -> LTX2VideoTransformer3DModel:
    return randomised(
        LTX2VideoTransformer3DModel(
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            num_attention_heads=config.heads,
            attention_head_dim=config.head_size,
            cross_attention_dim=config.text_features,
            vae_scale_factors=config.cell,
            pos_embed_max_pos=config.span[0],
            base_height=config.span[1],
            base_width=config.span[2],
            gated_attn=config.gated,
            cross_attn_mod=config.text_modulated,
            audio_in_channels=4,
            audio_out_channels=4,
            audio_num_attention_heads=config.heads,
            audio_attention_head_dim=config.head_size,
            audio_cross_attention_dim=config.text_features,
            audio_gated_attn=config.gated,
            audio_cross_attn_mod=config.text_modulated,
            num_layers=config.layers,
            norm_eps=config.eps,
            caption_channels=config.text_projection or 8,
            attention_bias=config.bias,
            attention_out_bias=config.out_bias,
            rope_theta=config.rotary.theta,
            rope_double_precision=config.rotary.double,
            causal_offset=config.causal_offset,
            rope_type="split" if config.rotary.split else "interleaved",
            use_prompt_embeddings=config.text_projection is not None,
            perturbed_attn=perturbed,
            ff_bias=config.inner_bias,
            use_prompt_adaln_single=config.text_by_time,
        )
    )


def torch_connectors(config: LTXConnectorConfig) -> LTX2TextConnectors:
    of = {
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_size,
        "num_layers": config.layers,
        "num_learnable_registers": config.registers,
    }
    both = {f"{part}_connector_{k}": v for part in ("video", "audio") for k, v in of.items()}
    return randomised(
        LTX2TextConnectors(
            caption_channels=config.features if config.per_token else config.out,
            text_proj_in_factor=config.states,
            connector_rope_base_seq_len=config.positions,
            rope_theta=config.rotary.theta,
            rope_type="split" if config.rotary.split else "interleaved",
            per_modality_projections=config.per_token,
            video_hidden_dim=config.out,
            audio_hidden_dim=config.out,
            video_gated_attn=config.gated,
            audio_gated_attn=config.gated,
            proj_bias=config.bias,
            **both,
        )
    )


def torch_gemma(config: Gemma3Config) -> Gemma3ForConditionalGeneration:
    kinds = {True: "full_attention", False: "sliding_attention"}
    text = {
        "vocab_size": config.vocabulary,
        "hidden_size": config.features,
        "intermediate_size": config.inner,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.key_heads,
        "head_dim": config.head_size,
        "sliding_window": config.window,
        "query_pre_attn_scalar": int(config.query_scale),
        "layer_types": [kinds[full] for full in config.full],
        "rms_norm_eps": config.eps,
        "rope_parameters": {
            "full_attention": {
                "rope_type": "linear",
                "factor": config.factor,
                "rope_theta": config.theta,
            },
            "sliding_attention": {"rope_type": "default", "rope_theta": config.sliding_theta},
        },
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    whole = TheirGemma3(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=22
    )
    return randomised(Gemma3ForConditionalGeneration(whole))


def torch_vae(config: LTXVAEConfig) -> AutoencoderKLLTX2Video:
    model = AutoencoderKLLTX2Video(
        latent_channels=config.latent_channels,
        block_out_channels=config.encoder_widths,
        down_block_types=("LTX2VideoDownBlock3D",) * len(config.encoder_widths),
        decoder_block_out_channels=config.decoder_widths,
        layers_per_block=config.encoder_blocks,
        decoder_layers_per_block=config.decoder_blocks,
        spatio_temporal_scaling=tuple(change != "none" for change in config.down),
        decoder_spatio_temporal_scaling=tuple(change != "none" for change in config.up[::-1]),
        decoder_inject_noise=(False,) * len(config.decoder_blocks),
        downsample_type=config.down,
        upsample_type=config.up,
        upsample_residual=config.up_residual,
        upsample_factor=config.up_factors,
        timestep_conditioning=config.time_conditioned,
        patch_size=config.patch,
        resnet_norm_eps=config.eps,
        encoder_causal=config.encoder_causal,
        decoder_causal=config.decoder_causal,
        decoder_spatial_padding_mode="reflect" if config.decoder_reflect else "zeros",
        spatial_compression_ratio=config.factor,
        temporal_compression_ratio=config.time_factor,
    )
    randomised(model)
    generator = torch.Generator().manual_seed(1)
    model.latents_mean = 0.5 * torch.randn(config.latent_channels, generator=generator)
    model.latents_std = 0.5 + torch.rand(config.latent_channels, generator=generator)
    return model


WORDS = ("a", "cat", "in", "kitchen", "sleeps", "wakes", "up", "drinks", "milk", "rain")


def tokenizer() -> PreTrainedTokenizerFast:
    """Of a few words; a beginning token comes first, as in Gemma's."""
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3}
    vocabulary |= {word: 4 + index for index, word in enumerate(WORDS)}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 2)]
    )
    names = {f"{kind}_token": f"<{kind}>" for kind in ("pad", "eos", "bos", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=made, padding_side="left", **names)


def scheduler(**changes) -> FlowMatchEulerDiscreteScheduler:
    own = {
        "use_dynamic_shifting": True,
        "base_shift": 0.95,
        "max_shift": 2.05,
        "base_image_seq_len": 1024,
        "max_image_seq_len": 4096,
        "shift_terminal": 0.1,
    }
    return FlowMatchEulerDiscreteScheduler(**{**own, **changes})


def tiny_pipeline(**changes) -> LTX2Pipeline:
    """A whole pipeline; what makes sound is there, but tiny."""
    audio_vae = AutoencoderKLLTX2Audio(
        base_channels=4,
        ch_mult=(1,),
        num_res_blocks=1,
        latent_channels=2,
        mel_bins=8,
        resolution=8,
    )
    vocoder = LTX2Vocoder(
        in_channels=16,
        hidden_channels=8,
        out_channels=2,
        upsample_kernel_sizes=[4, 4],
        upsample_factors=[2, 2],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
    )
    made = LTX2Pipeline(
        **{
            "scheduler": scheduler(),
            "vae": torch_vae(VAE),
            "audio_vae": audio_vae,
            "text_encoder": torch_gemma(GEMMA),
            "tokenizer": tokenizer(),
            "connectors": torch_connectors(CONNECTORS),
            "transformer": torch_transformer(TRANSFORMER, perturbed=True),
            "vocoder": vocoder,
            **changes,
        }
    )
    made.set_progress_bar_config(disable=True)
    return made


SETTINGS = {"window": 3, "stride": 2, "fps": 4, "height": 32, "width": 64, "text_tokens": 8}
"""Of ``syncos.json``: a clip that a CPU can make."""


def save(folder: Path, pipeline: LTX2Pipeline, **settings) -> Path:
    pipeline.save_pretrained(folder)
    (folder / "syncos.json").write_text(json.dumps({**SETTINGS, **settings}))
    return folder
