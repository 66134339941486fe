"""Tiny random networks of Wan's with the names that people's files have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import save_file
from test_wan_convert import original_transformer, original_vae
from transformers import UMT5Config, UMT5EncoderModel

STATISTICS = np.linspace(-1.0, 1.0, 48)


def seeded(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 25
        values = torch.randn(parameter.shape, generator=generator) * 0.9 / fan**0.5
        if name.endswith("gamma") or "norm" in name and name.endswith("weight"):
            values = values + 1
        parameter.data = values
    return module.eval()


def transformer(seed=0, channels=16, **changes):
    """A head of 128 features, as every Wan has: files do not say."""
    return seeded(
        WanTransformer3DModel(
            in_channels=channels,
            out_channels=16 if channels == 36 else channels,
            num_layers=2,
            num_attention_heads=1,
            attention_head_dim=128,
            ffn_dim=64,
            text_dim=32,
            freq_dim=32,
            rope_max_seq_len=64,
            **changes,
        ),
        seed,
    )


def autoencoder(seed=1):
    return seeded(AutoencoderKLWan(base_dim=4, dim_mult=[1, 2, 4, 4], num_res_blocks=1), seed)


def autoencoder_22(seed=1):
    """As Wan2.2-TI2V-5B's, with 48 channels and levels that have shortcuts around them."""
    return seeded(
        AutoencoderKLWan(
            base_dim=4,
            decoder_base_dim=8,
            z_dim=48,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            is_residual=True,
            in_channels=12,
            out_channels=12,
            patch_size=2,
            latents_mean=STATISTICS.tolist(),
            latents_std=(STATISTICS + 2).tolist(),
            scale_factor_spatial=16,
        ),
        seed,
    )


def text_encoder(seed=2):
    return seeded(
        UMT5EncoderModel(
            UMT5Config(
                vocab_size=20,
                d_model=32,
                d_kv=8,
                d_ff=48,
                num_layers=2,
                num_heads=4,
                dense_act_fn="gelu_new",
                feed_forward_proj="gated-gelu",
            )
        ),
        seed,
    )


def own_transformer(module, prefix=""):
    state = original_transformer(module.state_dict())
    return {prefix + name: tensor.clone() for name, tensor in state.items()}


def own_vae(module):
    blocks = module.config.num_res_blocks
    return {k: v.clone() for k, v in original_vae(module.state_dict(), blocks).items()}


_RESIDUAL = {
    "norm1": "residual.0",
    "conv1": "residual.2",
    "norm2": "residual.3",
    "conv2": "residual.6",
    "conv_shortcut": "shortcut",
}


def own_vae_22(module):
    """Names of ``Wan2.2_VAE.pth``: blocks numbered within each level."""
    blocks, renamed = module.config.num_res_blocks, {}
    for key, value in module.state_dict().items():
        side, *rest = key.split(".")
        if side in ("quant_conv", "post_quant_conv"):
            name = ["conv1" if side == "quant_conv" else "conv2", *rest]
        elif rest[0] in ("conv_in", "norm_out", "conv_out"):
            outer = {"conv_in": "conv1", "norm_out": "head.0", "conv_out": "head.2"}
            name = [side, outer[rest[0]], *rest[1:]]
        elif rest[0] == "mid_block":
            place = {"resnets.0": "0", "attentions.0": "1", "resnets.1": "2"}[".".join(rest[1:3])]
            name = [side, "middle", place, *(_RESIDUAL.get(n, n) for n in rest[3:])]
        else:
            samples = "downsamples" if rest[0] == "down_blocks" else "upsamples"
            inside = rest[3] if rest[2] == "resnets" else str(blocks + (samples == "upsamples"))
            last = rest[4:] if rest[2] == "resnets" else rest[3:]
            last = [_RESIDUAL.get(n, n) for n in last]
            name = [side, samples, rest[1], samples, inside, *last]
        renamed[".".join(name)] = value.clone()
    return renamed


def comfy_text(module):
    state = module.state_dict()
    return {k: v.clone() for k, v in state.items() if k != "encoder.embed_tokens.weight"}


def spiece():
    """A SentencePiece model of whole words, encoded by hand: (piece, score, kind)."""

    def varint(n):
        out = b""
        while True:
            n, byte = n >> 7, n & 127
            if not n:
                return out + bytes([byte])
            out += bytes([byte | 128])

    def block(field, data):
        return varint(field << 3 | 2) + varint(len(data)) + data

    words = "a cat in kitchen sleeps wakes up drinks milk rain".split()
    pieces = [("<pad>", 0.0, 3), ("</s>", 0.0, 3), ("<unk>", 0.0, 2)]
    pieces += [(f"▁{word}", -2.0, 1) for word in words]
    out = b""
    for piece, score, kind in pieces:
        inner = block(1, piece.encode()) + varint(2 << 3 | 5) + np.float32(score).tobytes()
        out += block(1, inner + varint(3 << 3) + varint(kind))
    return out


def save(tensors, path: Path, dtype=None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: (v if dtype is None else v.to(dtype)).contiguous() for k, v in tensors.items()}, path
    )
    return path


def scaled(tensors, name="scale_weight", channels=False, kind=torch.float8_e4m3fn):
    """Weights of the blocks in float8 with a scale, as ComfyUI stores them."""
    out = {"scaled_fp8": torch.empty(0, dtype=kind)} if name == "scale_weight" else {}
    for key, value in tensors.items():
        if value.ndim != 2 or not key.startswith(("blocks.", "encoder.block")) or "bias" in key:
            out[key] = value
            continue
        largest = value.abs().amax(1, keepdim=True) if channels else value.abs().max()
        scale = (largest / 448).float()
        out[key] = (value / scale).to(kind)
        out[f"{key.removesuffix('.weight')}.{name}"] = scale
    return out


def tokenizer_folder(folder: Path) -> Path:
    from syncos_jax.weights_convert import packed_tokenizer

    folder.parent.mkdir(parents=True, exist_ok=True)
    packed_tokenizer.write(packed_tokenizer.from_spiece(spiece(), "spiece"), folder)
    return folder


def own_folder(folder: Path, experts=False, channels=16, vae22=False) -> Path:
    """A folder as Wan publishes it."""
    config = {"_class_name": "WanModel", "num_heads": 1, "num_layers": 2, "eps": 1e-6}
    names = ("high_noise_model", "low_noise_model") if experts else ("",)
    for seed, name in enumerate(names):
        place = folder / name
        tensors = own_transformer(transformer(seed, channels))
        save(tensors, place / "diffusion_pytorch_model.safetensors")
        (place / "config.json").write_text(json.dumps(config))
    vae = own_vae_22(autoencoder_22()) if vae22 else own_vae(autoencoder())
    torch.save(vae, folder / ("Wan2.2_VAE.pth" if vae22 else "Wan2.1_VAE.pth"))
    text = own_text(text_encoder())
    torch.save(text, folder / "models_t5_umt5-xxl-enc-bf16.pth")
    tokenizer_folder(folder / "google" / "umt5-xxl")
    return folder


_TEXT = (
    (r"^shared", "token_embedding"),
    (r"^encoder\.block\.(\d+)\.layer\.0\.layer_norm", r"blocks.\1.norm1"),
    (r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.([qkvo])\b", r"blocks.\1.attn.\2"),
    (
        r"^encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias",
        r"blocks.\1.pos_embedding.embedding",
    ),
    (r"^encoder\.block\.(\d+)\.layer\.1\.layer_norm", r"blocks.\1.norm2"),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_0", r"blocks.\1.ffn.gate.0"),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_1", r"blocks.\1.ffn.fc1"),
    (r"^encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo", r"blocks.\1.ffn.fc2"),
    (r"^encoder\.final_layer_norm", "norm"),
)


def own_text(module):
    renamed = {}
    for key, value in comfy_text(module).items():
        for pattern, replacement in _TEXT:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    return renamed
