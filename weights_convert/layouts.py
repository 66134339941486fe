"""What a file of weights is: one row for each layout, matched by the names of its tensors.

Nothing is read but headers. A layout matches where all its `names` stand behind one prefix,
whatever that is (``model.diffusion_model.``, ``generator.``, none), and none of its `without` does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Layout:
    """A layout of a network's tensors.

    Attributes:
        name: what it is, for people.
        family: family of the model; "" where several have such a network, or none.
        network: name of the network; "" for a checkpoint of several, or for what is none.
        names: of tensors that it has: all, behind the same prefix.
        without: of tensors that tell another layout apart, behind that prefix.
        refused: why it cannot be converted, and what to use; "" where it can.
        key: identifies the layout to readers.
    """

    key: str
    name: str
    family: str
    network: str
    names: tuple[str, ...]
    without: tuple[str, ...] = ()
    refused: str = ""


def _other(key: str, name: str, *names: str, why: str = "") -> Layout:
    refused = why or "this program has no such network"
    return Layout(key, name, "", "", names, refused=refused)


_T5_LAYER = "encoder.block.0.layer.0.SelfAttention"
LAYOUTS: tuple[Layout, ...] = (
    # Wan's relatives first: they have all the names of Wan's transformer, and more.
    _other(
        "wan_vace",
        "Wan VACE transformer",
        "head.modulation",
        "vace_blocks.0.norm3.weight",
        why="conditioned on videos; only the text-to-video transformers are supported",
    ),
    _other(
        "wan_animate",
        "Wan Animate transformer",
        "head.modulation",
        "pose_patch_embedding.weight",
        why="conditioned on poses; only the text-to-video transformers are supported",
    ),
    _other(
        "wan_s2v",
        "Wan S2V transformer",
        "head.modulation",
        "casual_audio_encoder.weights",
        why="conditioned on speech; only the text-to-video transformers are supported",
    ),
    _other(
        "wan_control",
        "Wan transformer with camera control",
        "head.modulation",
        "control_adapter.conv.weight",
        why="conditioned on camera poses; only the text-to-video transformers are supported",
    ),
    Layout(
        "wan_own",
        "Wan transformer (Wan's own layout)",
        "wan",
        "transformer",
        ("head.modulation", "blocks.0.self_attn.q.weight", "patch_embedding.weight"),
    ),
    Layout(
        "wan_diffusers",
        "Wan transformer (diffusers' layout)",
        "wan",
        "transformer",
        (
            "scale_shift_table",
            "blocks.0.attn1.to_q.weight",
            "condition_embedder.time_proj.weight",
        ),
    ),
    Layout(
        "wan_vae",
        "Wan 2.1 autoencoder (Wan's own layout)",
        "wan",
        "vae",
        ("encoder.downsamples.0.residual.0.gamma", "decoder.head.2.weight"),
    ),
    Layout(
        "wan_vae22",
        "Wan 2.2 autoencoder (Wan's own layout)",
        "wan",
        "vae",
        ("encoder.downsamples.0.downsamples.0.residual.0.gamma", "decoder.head.2.weight"),
    ),
    Layout(
        "wan_vae_diffusers",
        "Wan autoencoder (diffusers' layout)",
        "wan",
        "vae",
        ("encoder.mid_block.resnets.0.norm1.gamma", "encoder.conv_in.weight"),
    ),
    Layout(
        "umt5_own",
        "UMT5 encoder (Wan's own layout)",
        "wan",
        "text_encoder",
        ("token_embedding.weight", "blocks.0.ffn.gate.0.weight"),
    ),
    Layout(
        "umt5",
        "UMT5 encoder (transformers' layout)",
        "wan",
        "text_encoder",
        (
            f"{_T5_LAYER}.q.weight",
            "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight",
        ),
    ),
    Layout(
        "t5",
        "T5 encoder (transformers' layout)",
        "t5",
        "text_encoder",
        (f"{_T5_LAYER}.q.weight", f"{_T5_LAYER}.relative_attention_bias.weight"),
    ),
    Layout(
        "umt5_gguf",
        "UMT5 encoder (llama.cpp's layout)",
        "wan",
        "text_encoder",
        ("token_embd.weight", "enc.blk.1.attn_rel_b.weight"),
    ),
    Layout(
        "t5_gguf",
        "T5 encoder (llama.cpp's layout)",
        "t5",
        "text_encoder",
        ("token_embd.weight", "enc.blk.0.attn_rel_b.weight"),
    ),
    Layout(
        "cogvideox_diffusers",
        "CogVideoX transformer (diffusers' layout)",
        "cogvideox",
        "transformer",
        (
            "patch_embed.proj.weight",
            "patch_embed.text_proj.weight",
            "transformer_blocks.0.norm1.linear.weight",
            "norm_final.weight",
        ),
    ),
    Layout(
        "cogvideox_vae_diffusers",
        "CogVideoX autoencoder (diffusers' layout)",
        "cogvideox",
        "vae",
        ("encoder.conv_in.conv.weight", "decoder.mid_block.resnets.0.norm1.conv_y.conv.weight"),
    ),
    _other(
        "cogvideox_sat",
        "CogVideoX transformer (SAT's layout)",
        "mixins.patch_embed.proj.weight",
        why="not supported; use the folder in diffusers' layout",
    ),
    Layout(
        "ltx_own",
        "LTX-Video transformer (LTX's own layout)",
        "ltx",
        "transformer",
        ("patchify_proj.weight", "transformer_blocks.0.attn1.to_q.weight"),
    ),
    # Whole checkpoints before the networks that they hold.
    _other(
        "sdxl",
        "Stable Diffusion XL checkpoint",
        "conditioner.embedders.0.transformer.text_model.embeddings.token_embedding.weight",
        why="motion modules for Stable Diffusion XL are not supported; use Stable Diffusion 1.5",
    ),
    _other(
        "sd2",
        "Stable Diffusion 2 checkpoint",
        "cond_stage_model.model.token_embedding.weight",
        "model.diffusion_model.middle_block.1.proj_in.weight",
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
        why="motion modules are trained for Stable Diffusion 1.5",
    ),
    Layout(
        "sd15",
        "Stable Diffusion 1.5 checkpoint",
        "animatediff",
        "",
        (
            "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
            "first_stage_model.encoder.conv_in.weight",
            "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight",
        ),
        without=("model.diffusion_model.input_blocks.1.0.temopral_conv.conv1.0.weight",),
    ),
    Layout(
        "motion",
        "AnimateDiff motion module",
        "animatediff",
        "motion",
        ("down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight",),
    ),
    Layout(
        "motion_diffusers",
        "AnimateDiff motion module (diffusers' layout)",
        "animatediff",
        "motion",
        ("down_blocks.0.motion_modules.0.proj_in.weight",),
        without=("conv_in.weight",),
    ),
    Layout(
        "motion_unet_diffusers",
        "AnimateDiff UNet (diffusers' layout)",
        "animatediff",
        "unet",
        ("down_blocks.0.motion_modules.0.proj_in.weight", "conv_in.weight"),
    ),
    _other(
        "modelscope_own",
        "ModelScope UNet (ModelScope's own layout)",
        "time_embed.0.weight",
        "input_blocks.1.0.temopral_conv.conv1.0.weight",
        "input_blocks.0.1.proj_in.weight",
        why="not converted; the same weights are published as a folder in diffusers' layout, "
        "damo-vilab/text-to-video-ms-1.7b",
    ),
    Layout(
        "lvdm_unet",
        "VideoCrafter UNet",
        "unet_clip",
        "unet",
        ("time_embed.0.weight", "input_blocks.1.0.temopral_conv.conv1.0.weight"),
    ),
    Layout(
        "unet3d_diffusers",
        "3-D UNet (diffusers' layout)",
        "unet_clip",
        "unet",
        ("down_blocks.0.temp_convs.0.conv1.0.weight", "conv_in.weight"),
    ),
    _other(
        "controlnet",
        "ControlNet",
        "controlnet_cond_embedding.conv_in.weight",
    ),
    _other("controlnet_own", "ControlNet", "control_model.input_blocks.0.0.weight"),
    _other(
        "unet2d",
        "Stable Diffusion UNet",
        "down_blocks.0.resnets.0.conv1.weight",
        "conv_in.weight",
        "time_embedding.linear_1.weight",
        why="makes images; for AnimateDiff use the whole checkpoint and a motion module",
    ),
    _other(
        "unet2d_own",
        "Stable Diffusion UNet",
        "time_embed.0.weight",
        "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight",
        why="makes images; for AnimateDiff use the whole checkpoint and a motion module",
    ),
    Layout(
        "lvdm_vae",
        "image autoencoder (VideoCrafter's and Stable Diffusion's own layout)",
        "unet_clip",
        "vae",
        ("encoder.down.0.block.0.conv1.weight", "decoder.conv_in.weight"),
    ),
    Layout(
        "vae_diffusers",
        "image autoencoder (diffusers' layout)",
        "unet_clip",
        "vae",
        ("encoder.down_blocks.0.resnets.0.conv1.weight", "decoder.conv_in.weight"),
    ),
    Layout(
        "openclip_text",
        "CLIP text encoder (OpenCLIP's layout)",
        "unet_clip",
        "text_encoder",
        ("token_embedding.weight", "transformer.resblocks.0.attn.in_proj_weight"),
    ),
    Layout(
        "clip_text",
        "CLIP text encoder (transformers' layout)",
        "unet_clip",
        "text_encoder",
        ("text_model.embeddings.token_embedding.weight",),
    ),
    Layout(
        "clip_vision",
        "CLIP image encoder",
        "wan",
        "image_encoder",
        ("embeddings.class_embedding", "pre_layrnorm.weight"),
    ),
    Layout(
        "clip_vision_own",
        "CLIP image encoder (Wan's own layout)",
        "wan",
        "image_encoder",
        ("visual.cls_embedding", "visual.transformer.0.attn.to_qkv.weight"),
    ),
    _other("hunyuan", "HunyuanVideo transformer", "double_blocks.0.img_attn_qkv.weight"),
    _other("flux", "FLUX or HunyuanVideo transformer", "double_blocks.0.img_attn.qkv.weight"),
    _other(
        "flux_diffusers",
        "FLUX transformer",
        "x_embedder.weight",
        "single_transformer_blocks.0.proj_mlp.weight",
    ),
    _other("sd3", "Stable Diffusion 3 transformer", "joint_blocks.0.x_block.attn.qkv.weight"),
    _other(
        "qwen_image",
        "Qwen-Image transformer",
        "transformer_blocks.0.img_mod.1.weight",
        "img_in.weight",
    ),
    _other("mochi", "Mochi transformer", "blocks.0.attn.qkv_x.weight"),
    _other("cosmos", "Cosmos transformer", "blocks.block0.blocks.0.block.attn.to_q.0.weight"),
    _other(
        "language_model",
        "language model",
        "layers.0.self_attn.q_proj.weight",
        "layers.0.mlp.gate_proj.weight",
    ),
    _other("llama_gguf", "language model", "blk.0.attn_q.weight"),
    _other("upscaler", "image upscaler", "body.0.rdb1.conv1.weight"),
    _other("upscaler_own", "image upscaler", "model.1.sub.0.RDB1.conv1.0.weight"),
    _other("tiny_vae", "tiny autoencoder (TAESD)", "decoder.layers.0.weight"),
    _other("tiny_vae_own", "tiny autoencoder (TAESD)", "decoder.1.weight", "encoder.0.weight"),
    _other("embedding", "textual inversion", "emb_params"),
    _other("embedding_own", "textual inversion", "string_to_param.*"),
    _other("ip_adapter", "IP-Adapter", "image_proj.proj.weight"),
)
"""Every layout that is recognised; the first match wins."""


@dataclasses.dataclass(frozen=True)
class Match:
    """A layout that was found.

    Attributes:
        layout: the row.
        prefix: what stands before its names.
    """

    layout: Layout
    prefix: str


def matches(names: Mapping[str, object]) -> list[Match]:
    """The layout of a file's names, with its prefix: one, or, where other networks stand under
    other prefixes, several. Empty where no layout matches."""
    found: list[Match] = []
    taken: list[str] = []
    for layout in LAYOUTS:
        for prefix in _prefixes(names, layout):
            if any(prefix.startswith(other) for other in taken):
                continue
            found.append(Match(layout, prefix))
            taken.append(prefix)
    return found


def _prefixes(names: Mapping[str, object], layout: Layout) -> list[str]:
    first, *others = layout.names
    if first.endswith("*"):
        return [""] if any(name.startswith(first[:-1]) for name in names) else []
    return [
        prefix
        for name in names
        if name.endswith(first) and (name == first or name[-len(first) - 1] == ".")
        for prefix in [name[: -len(first)]]
        if all(prefix + other in names for other in others)
        and not any(prefix + other in names for other in layout.without)
    ]
