"""The original single file of LTX-2: its networks under diffusers' names, and their sizes.

Sizes that the tensors do not show (heads, where there are no gates; the number of features of the
text encoder) are those of every published file.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncos_jax.errors import InputError
from syncos_jax.weights_convert.stored import Tensors

_PREFIX = "model.diffusion_model."
_HEAD_SIZE, _TEXT_FEATURES = 128, 3840
_CONNECTORS = ("video_embeddings_connector.", "audio_embeddings_connector.")
_RENAMES = {
    "transformer": (
        (r"^patchify_proj\.", "proj_in."),
        (r"^adaln_single\.", "time_embed."),
        (r"^prompt_adaln_single\.", "prompt_adaln."),
        (r"\.q_norm\.", ".norm_q."),
        (r"\.k_norm\.", ".norm_k."),
    ),
    "connectors": (
        (r"^video_embeddings_connector\.", "video_connector."),
        (r"transformer_1d_blocks", "transformer_blocks"),
        (r"^text_embedding_projection\.video_aggregate_embed\.", "video_text_proj_in."),
        (r"^text_embedding_projection\.aggregate_embed\.", "text_proj_in."),
        (r"\.q_norm\.", ".norm_q."),
        (r"\.k_norm\.", ".norm_k."),
    ),
    "vae": (
        (r"^per_channel_statistics\.mean-of-means$", "latents_mean"),
        (r"^per_channel_statistics\.std-of-means$", "latents_std"),
        (r"res_blocks", "resnets"),
        (r"last_time_embedder", "time_embedder"),
        (r"last_scale_shift_table", "scale_shift_table"),
    ),
}
_SOUND = re.compile(r"audio_vae\..*|vocoder\..*")
_DOWN = re.compile(r"encoder\.down_blocks\.(\d+)\.")


def recognises(tensors: Mapping[str, Any]) -> bool:
    """Whether these are tensors of LTX-2 in the original layout, of some of its networks."""
    names = {key.removeprefix(_PREFIX) for key in tensors}
    return (
        {"patchify_proj.weight", "audio_patchify_proj.weight"} <= names
        or "video_embeddings_connector.learnable_registers" in names
        or "vae.per_channel_statistics.mean-of-means" in names
    )


def metadata(path: Path) -> dict[str, Any]:
    """The configuration in a safetensors file's metadata; empty where it has none."""
    with path.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    found = header.get("__metadata__", {})
    try:
        config = json.loads(found.get("config", "{}"))
    except ValueError as error:
        raise InputError(f"{path}: its metadata cannot be read: {error}") from error
    return config if isinstance(config, dict) else {}


def split(
    tensors: Tensors, config: Mapping[str, Any]
) -> tuple[dict[str, tuple[dict[str, Any], Tensors]], int]:
    """The networks in a file: settings and tensors as diffusers has them, by name; and how many
    tensors belong to networks of sound alone.

    Args:
        tensors: of the file.
        config: of its metadata.
    """
    parts: dict[str, Tensors] = {"transformer": {}, "connectors": {}, "vae": {}}
    sound = 0
    for key, tensor in tensors.items():
        name = key.removeprefix(_PREFIX)
        if _SOUND.fullmatch(name):
            sound += 1
        elif name.startswith("vae."):
            parts["vae"][name.removeprefix("vae.")] = tensor
        elif name.startswith((*_CONNECTORS, "text_embedding_projection.")):
            parts["connectors"][name] = tensor
        else:
            parts["transformer"][name] = tensor
    of_transformer = config.get("transformer", {})
    found: dict[str, tuple[dict[str, Any], Tensors]] = {}
    newer = any(".to_gate_logits." in key for key in tensors)
    for name, own in parts.items():
        last = max((int(m[1]) for k in own if (m := _DOWN.match(k))), default=0)
        renamed = {_renamed(key, name, last): tensor for key, tensor in own.items()}
        if name == "transformer" and "proj_in.weight" in renamed:
            found[name] = _transformer(renamed, of_transformer), renamed
        elif name == "connectors" and "video_connector.learnable_registers" in renamed:
            found[name] = _connectors(renamed, of_transformer), renamed
        elif name == "vae" and own:
            kept = {k: v for k, v in renamed.items() if not k.startswith("per_channel_")}
            settings = _vae(kept, config.get("vae", {}), newer)
            found[name] = settings, kept
    return found, sound


def _renamed(key: str, network: str, last: int) -> str:
    """diffusers' name of a tensor; `last`: number of the encoder's last level, its middle."""
    if network == "vae":
        key = re.sub(rf"^encoder\.down_blocks\.{last}\.", "encoder.mid_block.", key)
        key = re.sub(r"^((?:en|de)coder\.(?:down|up)_blocks)\.(\d+)", _level, key)
    for pattern, replacement in _RENAMES[network]:
        key = re.sub(pattern, replacement, key)
    return key


def _level(match: re.Match[str]) -> str:
    """Levels and changes of size are numbered through: diffusers' name of one."""
    kind, number = match[1], int(match[2])
    if kind.endswith("down_blocks"):
        return f"{kind}.{number // 2}" + (".downsamplers.0" if number % 2 else "")
    if number == 0:
        return kind.replace("up_blocks", "mid_block")
    return f"{kind}.{(number - 1) // 2}" + (".upsamplers.0" if number % 2 else "")


def _count(tensors: Mapping[str, Any], pattern: str) -> int:
    return len({match[1] for key in tensors if (match := re.match(pattern, key))})


def _heads(tensors: Mapping[str, Any], prefix: str, width: int) -> int:
    gates = tensors.get(f"{prefix}.attn1.to_gate_logits.weight")
    return max(1, width // _HEAD_SIZE) if gates is None else gates.shape[0]


def _rotary(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rope_type": config.get("rope_type", "split"),
        "rope_double_precision": True,
        "rope_theta": config.get("positional_embedding_theta", 10000.0),
    }


def _transformer(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    width, channels = tensors["proj_in.weight"].shape
    heads = _heads(tensors, "transformer_blocks.0", width)
    modulated = "transformer_blocks.0.prompt_scale_shift_table" in tensors
    text = tensors.get("caption_projection.linear_1.weight")
    span = config.get("positional_embedding_max_pos", [20, 2048, 2048])
    return {
        "_class_name": "LTX2VideoTransformer3DModel",
        "in_channels": channels,
        "out_channels": tensors["proj_out.weight"].shape[0],
        "num_attention_heads": heads,
        "attention_head_dim": width // heads,
        "cross_attention_dim": tensors["transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "pos_embed_max_pos": span[0],
        "base_height": span[1],
        "base_width": span[2],
        "gated_attn": "transformer_blocks.0.attn1.to_gate_logits.weight" in tensors,
        "cross_attn_mod": modulated,
        "audio_cross_attn_mod": modulated,
        "num_layers": _count(tensors, r"transformer_blocks\.(\d+)\.attn1\."),
        "norm_eps": config.get("norm_eps", 1e-6),
        "caption_channels": None if text is None else text.shape[1],
        "use_prompt_embeddings": text is not None,
        "use_prompt_adaln_single": "prompt_adaln.linear.weight" in tensors,
        "ff_bias": "transformer_blocks.0.ff.net.0.proj.bias" in tensors,
        **_rotary(config),
    }


def _connectors(tensors: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    registers, width = tensors["video_connector.learnable_registers"].shape
    block = "video_connector.transformer_blocks.0"
    heads = _heads(tensors, block, width)
    per_token = "video_text_proj_in.weight" in tensors
    name = "video_text_proj_in" if per_token else "text_proj_in"
    if f"{name}.weight" not in tensors:
        raise InputError("text_embedding_projection is missing: it is part of the connectors")
    features = config.get("caption_channels", _TEXT_FEATURES)
    return {
        "_class_name": "LTX2TextConnectors",
        "caption_channels": features,
        "text_proj_in_factor": tensors[f"{name}.weight"].shape[1] // features,
        "video_hidden_dim": width,
        "per_modality_projections": per_token,
        "proj_bias": f"{name}.bias" in tensors,
        "video_connector_num_layers": _count(
            tensors, r"video_connector\.transformer_blocks\.(\d+)"
        ),
        "video_connector_num_attention_heads": heads,
        "video_connector_attention_head_dim": width // heads,
        "video_gated_attn": f"{block}.attn1.to_gate_logits.weight" in tensors,
        "video_connector_num_learnable_registers": registers,
        "connector_rope_base_seq_len": (
            config.get("connector_positional_embedding_max_pos") or [4096]
        )[0],
        **_rotary(config),
    }


_KINDS = {1: "", 2: "temporal", 4: "spatial", 8: "spatiotemporal"}
"""Changes of size by the cells that become one."""


def _vae(tensors: Mapping[str, Any], config: Mapping[str, Any], newer: bool) -> dict[str, Any]:
    def out(key: str) -> int:
        return int(tensors[f"{key}.conv.weight"].shape[0])

    levels = _count(tensors, r"encoder\.down_blocks\.(\d+)\.downsamplers")
    widths = [
        int(tensors[f"encoder.down_blocks.{i + 1}.resnets.0.conv1.conv.weight"].shape[1])
        for i in range(levels - 1)
    ]
    widths.append(int(tensors["encoder.conv_out.conv.weight"].shape[1]))
    down = [
        _KINDS[width // out(f"encoder.down_blocks.{i}.downsamplers.0.conv")]
        for i, width in enumerate(widths)
    ]
    ups = _count(tensors, r"decoder\.up_blocks\.(\d+)\.upsamplers")
    coarsest = out("decoder.conv_in")
    before, up, factors, decoder = coarsest, [], [], []
    for i in range(ups):
        width = int(tensors[f"decoder.up_blocks.{i}.resnets.0.conv1.conv.weight"].shape[1])
        up.append(_KINDS[out(f"decoder.up_blocks.{i}.upsamplers.0.conv") // width])
        factors.append(before // width)
        decoder.append(before)
        before = width
    depths = [_count(tensors, rf"decoder\.up_blocks\.{i}\.resnets\.(\d+)") for i in range(ups)]
    older = not newer and ups == 3  # LTX-2.0
    return {
        "_class_name": "AutoencoderKLLTX2Video",
        "latent_channels": tensors["decoder.conv_in.conv.weight"].shape[1],
        "block_out_channels": widths,
        "layers_per_block": [
            *(
                _count(tensors, rf"encoder\.down_blocks\.{i}\.resnets\.(\d+)")
                for i in range(levels)
            ),
            _count(tensors, r"encoder\.mid_block\.resnets\.(\d+)"),
        ],
        "downsample_type": down,
        "decoder_block_out_channels": decoder[::-1],
        "decoder_layers_per_block": [
            *depths[::-1],
            _count(tensors, r"decoder\.mid_block\.resnets\.(\d+)"),
        ],
        "upsample_type": up,
        "upsample_factor": factors[::-1],
        "upsample_residual": older,
        "decoder_causal": config.get("causal_decoder", False),
        "decoder_spatial_padding_mode": config.get(
            "decoder_spatial_padding_mode", "reflect" if older else "zeros"
        ),
        "timestep_conditioning": "decoder.timestep_scale_multiplier" in tensors,
        "patch_size": config.get("patch_size", 4),
    }
