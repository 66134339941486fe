"""Tiny networks of Open-Sora Plan v1.3: sizes, weights by rule, and what the original code computes
with them (`data/open_sora_plan_tiny.npz`: names and shapes of its tensors, and outputs)."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import MT5Config, MT5EncoderModel
from wan_folders import tokenizer

RECORDED = Path(__file__).parent / "data" / "open_sora_plan_tiny.npz"

TRANSFORMER = {
    "_class_name": "OpenSoraT2V_v1_3",
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "num_layers": 4,
    "cross_attention_dim": 24,
    "attention_bias": True,
    "patch_size": 2,
    "patch_size_t": 1,
    "activation_fn": "gelu-approximate",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "caption_channels": 20,
    "sparse1d": True,
    "sparse_n": 4,
}
VAE = {
    "_class_name": "WFVAEModel",
    "latent_dim": 4,
    "base_channels": 4,
    "encoder_num_resblocks": 1,
    "encoder_energy_flow_hidden_size": 6,
    "decoder_num_resblocks": 2,
    "decoder_energy_flow_hidden_size": 4,
    "norm_type": "layernorm",
    "t_interpolation": "trilinear",
    "scale": [0.5, 0.4, 0.7, 1.1],
    "shift": [0.1, -0.2, 0.0, 0.3],
}
"""As the original's ``config.json``."""


def tensors(names, shapes):
    """Random weights, each by its name; the wavelets' filters, which nobody reads, are zeros."""
    found = {}
    for name, shape in zip(names, shapes, strict=True):
        shape = tuple(int(n) for n in shape if n)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        scale = 1.0 / max(1, int(np.prod(shape[1:]))) ** 0.5 if len(shape) > 1 else 0.1
        centre = 1.0 if ".norm" in name and name.endswith("weight") and len(shape) == 1 else 0.0
        value = centre + scale * rng.standard_normal(shape)
        found[name] = (0.0 if "wavelet" in name else 1.0) * value.astype(np.float32)
    return found


def inputs():
    """What the recorded outputs are of."""
    rng = np.random.default_rng(5)

    def normal(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    found = {"x": normal(2, 3, 8, 8, 4), "ragged": normal(2, 3, 4, 6, 4), "text": normal(2, 7, 20)}
    found["t"] = np.asarray([999.0, 37.0], np.float32)
    found["mask"] = np.asarray([[1] * 7, [1] * 3 + [0] * 4], np.int32)
    found["video"] = rng.uniform(-1, 1, (1, 9, 16, 24, 3)).astype(np.float32)
    found["latents"] = normal(1, 4, 2, 3, 4)
    return found


def recorded():
    return dict(np.load(RECORDED))


def of_network(name):
    """The weights of ``transformer`` or ``vae``."""
    data = recorded()
    return tensors(data[f"{name}_names"].tolist(), data[f"{name}_shapes"])


def text_encoder():
    config = MT5Config(
        vocab_size=20,
        d_model=20,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=3,
        feed_forward_proj="gated-gelu",
    )
    model = MT5EncoderModel(config)
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        if p.ndim > 1:
            p.data = torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5
    return model.eval()


SETTINGS = {"window": 3, "stride": 2, "fps": 4, "height": 32, "width": 48, "text_tokens": 12}


def save(folder: Path) -> Path:
    """A model as it is published, with the text encoder next to it."""
    for place, name, config in (("any93x640x640", "transformer", TRANSFORMER), ("vae", "vae", VAE)):
        (folder / place).mkdir(parents=True)
        (folder / place / "config.json").write_text(json.dumps(config))
        save_file(of_network(name), folder / place / "diffusion_pytorch_model.safetensors")
    text_encoder().save_pretrained(folder / "text_encoder")
    tokenizer().save_pretrained(folder / "tokenizer")
    (folder / "syncos.json").write_text(json.dumps(SETTINGS))
    return folder
