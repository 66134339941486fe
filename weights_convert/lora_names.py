"""LoRAs by the names of their tensors: what is one, which tool wrote it, for which network."""

from __future__ import annotations

import re
from collections.abc import Mapping

SPELLINGS: tuple[tuple[str, str], ...] = (
    (r"lycoris_.*|.*\.(?:lokr|hada|oft|boft)_.*", "LyCORIS"),
    (r"lora_unet__.*", "VideoX-Fun"),
    (r"lora_unet_blocks_\d+_(?:self|cross)_attn_.*", "musubi-tuner"),
    (r"lora_(?:unet|te\d?|transformer)_.*", "kohya"),
    (r".*\.lora_[AB]\.default\.weight", "DiffSynth or peft"),
    (r".*\.processor\..*_lora\..*", "diffusers' attention processors"),
    (r"base_model\.model\..*", "peft"),
    (r"(?:transformer|transformer_2|unet|text_encoder)\..*\.lora_[AB]\.weight", "diffusers"),
    (r"(?:model\.)?diffusion_model\..*\.lora_(?:down|up)\.weight", "ComfyUI"),
    (r"(?:model\.)?diffusion_model\..*\.lora_[AB]\.weight", "ai-toolkit or diffusion-pipe"),
    (r".*", "unknown trainer"),
)
"""Spellings of LoRAs, by the name of any tensor; the first that matches counts."""
_LORA = re.compile(
    r"lora_(?:A|B|down|up|mid|magnitude)|_lora\.|(?:^|\.)lora\.|lokr_w|hada_w|lora_linear_layer|"
    r"\.(?:diff|diff_b|diff_m)$|oft_blocks|oft_diag"
)
LORA = re.compile(rf"{_LORA.pattern}|\.(?:alpha|dora_scale|w_norm|b_norm|reshape_weight)$")
"""Tensors of a LoRA."""
_WAN_MARKS = re.compile(r"(?:self|cross)_attn[._](?:q|k|v|o|k_img|v_img)[._]|blocks[._]\d+[._]ffn")
_UNET_MARKS = re.compile(r"(?:down|up|input|output)_blocks[._]|mid_block|motion_modules")
_TEXT_MARKS = re.compile(r"^(?:lora_te|text_encoder)")


def is_lora(names: Mapping[str, object]) -> bool:
    """Whether these are the tensors of a LoRA and nothing else."""
    return any(_LORA.search(name) for name in names) and all(map(LORA.search, names))


def has_lora(names: Mapping[str, object]) -> bool:
    """Whether tensors of a LoRA stand among others."""
    return any(_LORA.search(name) or ".base_layer." in name for name in names)


def spelling(names: Mapping[str, object]) -> str:
    """Which tool's spelling the names of a LoRA follow."""
    return next(
        tool
        for pattern, tool in SPELLINGS
        if any(re.fullmatch(pattern, name) for name in names if not name.endswith(".alpha"))
    )


def network_family(names: Mapping[str, object]) -> str:
    """For which networks a LoRA seems to be, in words."""
    kinds = {
        "Wan": any(map(_WAN_MARKS.search, names)),
        "a UNet": any(map(_UNET_MARKS.search, names)),
        "a text encoder": any(map(_TEXT_MARKS.search, names)),
    }
    return " and ".join(kind for kind, on in kinds.items() if on) or "a transformer"
