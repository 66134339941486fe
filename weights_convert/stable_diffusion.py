"""Stable Diffusion 1.5 as one file: names and sizes of its networks, for AnimateDiff."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.models.clip_text import CLIPTextConfig
from syncos_jax.models.unet_clip.vae import VAEConfig
from syncos_jax.weights_convert.stored import Tensors
from syncos_jax.weights_convert.weight_files import open_file

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer."
"""Prefixes of the networks."""
_GROUPS = 32
_HEAD = 64
"""Features of a head of CLIP ViT-L's text encoder."""
_RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OUTER = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}


def networks(path: Path) -> dict[str, Tensors]:
    """The tensors of each network of a checkpoint, the UNet's under diffusers' names.

    Raises:
        InputError: it cannot be read, or is not Stable Diffusion 1.5.
    """
    tensors = open_file(path)
    found: dict[str, Tensors] = {"unet": {}, "vae": {}, "text_encoder": {}}
    for name, prefix in (("unet", UNET), ("vae", VAE), ("text_encoder", TEXT)):
        for key, tensor in tensors.items():
            if key.startswith(prefix):
                found[name][key.removeprefix(prefix)] = tensor
        if not found[name]:
            raise InputError(f"has no {name} ({prefix}…); not Stable Diffusion 1.5", place=path)
    layers = layers_per_level(found["unet"])
    found["unet"] = {diffusers_name(key, layers): t for key, t in found["unet"].items()}
    text = found["text_encoder"]
    found["text_encoder"] = {k: t for k, t in text.items() if not k.endswith("position_ids")}
    return found


def layers_per_level(tensors: Tensors) -> int:
    """Residual blocks of a level on the way down: those before the first change of size."""
    changes = [
        int(match[1])
        for name in tensors
        if (match := re.match(r"input_blocks\.(\d+)\.0\.op\.", name))
    ]
    return min(changes, default=3) - 1


def diffusers_name(name: str, layers: int) -> str:
    """diffusers' name of a tensor of the UNet; itself where it is no such."""
    layer, _, tensor = name.rpartition(".")
    if layer in _OUTER:
        return f"{_OUTER[layer]}.{tensor}"
    match = re.fullmatch(r"(input_blocks|output_blocks)\.(\d+)\.(\d)\.(.+)", layer)
    if match:
        side, number, part, rest = match[1], int(match[2]), match[3], match[4]
        level, index = divmod(number - (side == "input_blocks"), layers + 1)
        direction = "down" if side == "input_blocks" else "up"
        place = f"{direction}_blocks.{level}"
        if rest in ("op", "conv") and (part != "0" or rest == "op"):
            return f"{place}.{direction}samplers.0.conv.{tensor}"
        kind = "resnets" if part == "0" else "attentions"
        return f"{place}.{kind}.{index}.{_RESNET.get(rest, rest)}.{tensor}"
    match = re.fullmatch(r"middle_block\.([012])\.(.+)", layer)
    if match:
        return f"mid_block.{_MIDDLE[match[1]]}.{_RESNET.get(match[2], match[2])}.{tensor}"
    return name


def unet_settings(tensors: Tensors, where: str) -> dict[str, Any]:
    """The entries of ``unet/config.json`` that a UNet under diffusers' names implies."""
    widths = _levels(tensors, r"down_blocks\.(\d+)\.resnets\.0\.conv1\.weight", where)
    attention = [f"down_blocks.{i}.attentions.0.norm.weight" in tensors for i in range(len(widths))]
    layers = len(
        [k for k in tensors if re.fullmatch(r"down_blocks\.0\.resnets\.\d+\.conv1\.weight", k)]
    )
    text = next((t for k, t in tensors.items() if k.endswith("attn2.to_k.weight")), None)
    if text is None:
        raise InputError("its UNet reads no text", place=where)
    return {
        "_class_name": "UNet2DConditionModel",
        "in_channels": int(tensors["conv_in.weight"].shape[1]),
        "out_channels": int(tensors["conv_out.weight"].shape[0]),
        "block_out_channels": widths,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attention[::-1]],
        "layers_per_block": layers,
        "cross_attention_dim": int(text.shape[1]),
        "norm_num_groups": _GROUPS,
        "attention_head_dim": 8,
        "sample_size": 64,
    }


def vae_sizes(tensors: Tensors, where: str) -> VAEConfig:
    """Sizes of the autoencoder, from the shapes of its tensors."""
    widths = _levels(tensors, r"encoder\.down\.(\d+)\.block\.0\.conv1\.weight", where)
    blocks = [k for k in tensors if re.fullmatch(r"encoder\.down\.0\.block\.\d+\.conv1\.weight", k)]
    return VAEConfig(
        image_channels=_shape(tensors, "encoder.conv_in.weight", where)[1],
        latent_channels=_shape(tensors, "post_quant_conv.weight", where)[0],
        block_out_channels=tuple(widths),
        layers_per_block=len(blocks),
        norm_groups=_GROUPS,
    )


def text_sizes(tensors: Tensors, where: str) -> CLIPTextConfig:
    """Sizes of the text encoder (CLIP ViT-L's architecture), from the shapes of its tensors."""
    vocabulary, features = _shape(tensors, "text_model.embeddings.token_embedding.weight", where)[
        :2
    ]
    layer = "text_model.encoder.layers"
    layers = [int(m[1]) for k in tensors if (m := re.match(rf"{layer}\.(\d+)\.", k))]
    return CLIPTextConfig(
        vocabulary=vocabulary,
        tokens=_shape(tensors, "text_model.embeddings.position_embedding.weight", where)[0],
        features=features,
        inner=_shape(tensors, f"{layer}.0.mlp.fc1.weight", where)[0],
        layers=1 + max(layers, default=0),
        heads=max(1, features // _HEAD),
        activation="quick_gelu",
    )


def _levels(tensors: Tensors, pattern: str, where: str) -> list[int]:
    """Channels of each level."""
    found = {
        int(match[1]): int(tensor.shape[0])
        for name, tensor in tensors.items()
        if (match := re.fullmatch(pattern, name))
    }
    if sorted(found) != list(range(len(found))) or not found:
        raise InputError("its levels cannot be told from its tensors", place=where)
    return [found[level] for level in sorted(found)]


def _shape(tensors: Mapping[str, Any], name: str, where: str) -> tuple[int, ...]:
    found = tensors.get(name)
    if found is None or len(found.shape) < 2:
        raise InputError(f"{name} is {'missing' if found is None else 'misshaped'}", place=where)
    return tuple(int(n) for n in found.shape)
