"""The layers of a LoRA: which layer and part each of its tensors is, in any trainer's spelling."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError

PARTS: tuple[tuple[str, str], ...] = (
    (r"\.lora_A(?:\.\w+)?(?:\.weight)?", "down"),
    (r"\.lora_B(?:\.\w+)?\.bias", "up_b"),
    (r"\.lora_B(?:\.\w+)?(?:\.weight)?", "up"),
    (r"\.lora(?:_linear_layer)?[_.]down(?:\.weight)?", "down"),
    (r"\.lora(?:_linear_layer)?[_.]up(?:\.weight)?", "up"),
    (r"\.lora[_.]up\.bias", "up_b"),
    (r"\.lora_mid(?:\.weight)?", "mid"),
    (r"\.alpha", "alpha"),
    (r"\.diff|\.w_norm", "diff"),
    (r"\.diff_b|\.b_norm", "diff_b"),
    (r"\.diff_m", "diff_m"),
    *((rf"\.lokr_{part}", f"lokr_{part}") for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b")),
    (r"\.lokr_t2", "lokr_t2"),
    *((rf"\.hada_{part}", f"hada_{part}") for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
)
"""Ends of names, and which part of a change the tensor is."""
_REWRITES: tuple[tuple[str, Any], ...] = (
    (r"\.processor\.(to_[qkv]|to_out)_lora\.", r".\1.lora_"),  # diffusers' attention processors
    (r"\.(to_[qkv]|to_out)_lora\.", r".\1.lora_"),
    (r"\.to_out\.(?=lora)", ".to_out.0."),
    (r"\.temporal_transformer\.", "."),  # AnimateDiff's own names
    (r"\.attention_blocks\.([01])\.", lambda m: f".attn{int(m[1]) + 1}."),
)
_PREFIXES = (
    r"base_model\.model\.",
    r"model\.diffusion_model\.",
    r"diffusion_model\.",
    r"pipe\.dit\.",
    r"module\.",
    r"lora_unet__?",
    r"lora_transformer_",
    r"lycoris_",
    r"unet\.",
)
_TEXT_ENCODER = r"(?:text_encoder|lora_te1?|te1?)[._]+"
_OF_NETWORK = {
    "text_encoder": _TEXT_ENCODER,
    "transformer_2": r"transformer_2\.",
    "transformer": r"transformer\.",
    "unet": r"unet\.|lora_unet_",
}
"""What stands before names that belong to one network and no other."""
IMAGE_LAYERS = re.compile(
    r"k_img|v_img|img_emb|add_[kv]_proj|norm_added_k|image_embedder|ref_conv|\.o_img"
)
"""Layers that only image-to-video networks have."""
REFUSED = {
    r"\.lora_magnitude_vector|\.dora_scale|\.magnitude": "DoRA",
    r"oft_blocks|oft_diag|\.oft_[a-zA-Z]": "OFT",
    r"\.boft_": "BOFT",
    r"lora_te2_|text_encoder_2\.": "a LoRA for Stable Diffusion XL",
    r"\.glora|\.a1\.weight|\.b2\.weight": "GLoRA",
}
"""Kinds that are not merged, by names of their tensors."""


def network_of(name: str) -> str:
    """The network that a tensor's name says it is for; "" for a denoiser."""
    if re.match(_TEXT_ENCODER, name):
        return "text_encoder"
    return "transformer_2" if name.startswith("transformer_2.") else ""


def refuse_kinds(path: Path, names: Iterable[str]) -> None:
    """InputError where tensors are of a kind that cannot be merged."""
    for name in names:
        for pattern, kind in REFUSED.items():
            if re.search(pattern, name):
                raise InputError(
                    f"LoRA {path}: is {kind} ({name}), which cannot be merged here; merge it with "
                    "the program that trained it"
                )


def layers_of(
    tensors: Mapping[str, Any], network: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Tensors by layer and part, of one network; and the names that are no part of a LoRA."""
    layers: dict[str, dict[str, Any]] = {}
    problems = []
    marked = any(network_of(key) == network for key in tensors)
    for key, tensor in tensors.items():
        owner = network_of(key)
        if owner != network and (owner or marked):
            continue
        name = key
        for pattern, replacement in _REWRITES:
            name = re.sub(pattern, replacement, name)
        for pattern, part in PARTS:
            match = re.fullmatch(rf"(.+?)(?:{pattern})", name)
            if match:
                held = layers.setdefault(bare_name(match[1], network), {})
                if part in held:
                    problems.append(f"double {key}")
                held[part] = tensor
                break
        else:
            problems.append(f"unknown {key}")
    return layers, problems


def bare_name(name: str, network: str) -> str:
    """A layer's name without what tells its network."""
    prefixes = (*_PREFIXES, _OF_NETWORK.get(network, rf"{network}\."))
    before = None
    while before != name:
        before = name
        for prefix in prefixes:
            name = re.sub(rf"^(?:{prefix})", "", name)
    return name
