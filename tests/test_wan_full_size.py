"""Wan2.1-T2V-1.3B's transformer and autoencoder at full size, random weights: conversion, memory,
one forward against diffusers.

Run alone, with what is measured: ``pytest -s tests/test_wan_full_size.py``. Needs 13 GB of disk and
8 GB of memory.
"""

import numpy as np
import pytest
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from full_size import convert_and_compare

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("memory_to_itself")]

SIZES = {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}
NETWORKS = {
    "transformer": lambda: WanTransformer3DModel(**SIZES),
    "vae": lambda: AutoencoderKLWan(),
}
COUNTS = {"transformer": "1,418,996,800", "vae": "126,892,531"}

REFERENCE = """
import sys, numpy as np, torch
from pathlib import Path
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from safetensors.torch import load_file
name, folder, given, out = sys.argv[1], *map(Path, sys.argv[2:])
kind = {"transformer": WanTransformer3DModel, "vae": AutoencoderKLWan}[name]
if name == "vae":
    model = kind.from_config(kind.load_config(folder))
else:  # its rotary tables are buffers, which a meta device would not fill
    with torch.device("meta"):
        model = kind.from_config(kind.load_config(folder))
    config = model.config
    model.rope = type(model.rope)(config.attention_head_dim, config.patch_size, 1024)
weights = load_file(folder / "diffusion_pytorch_model.safetensors")
model.load_state_dict(weights, assign=True)
data = {k: torch.from_numpy(v) for k, v in np.load(given).items()}
x = data["x"].permute(0, 4, 1, 2, 3)
with torch.no_grad():
    if name == "vae":
        frames = model.eval().decode(x).sample
        outputs = {"y": frames, "mean": model.encode(frames).latent_dist.mean}
    else:
        outputs = {"y": model.eval()(x, data["t"], data["text"]).sample}
np.savez(out, **{k: y.permute(0, 2, 3, 4, 1).numpy() for k, y in outputs.items()})
"""


def inputs(name):
    rng = np.random.default_rng(1)
    if name == "vae":
        return {"x": rng.standard_normal((1, 3, 4, 6, 16), np.float32)}
    return {
        "x": rng.standard_normal((1, 3, 8, 12, 16), np.float32),
        "t": np.asarray([500.0], np.float32),
        "text": rng.standard_normal((1, 64, 4096), np.float32),
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_conversion_and_a_forward(name):
    convert_and_compare(
        "Wan2.1-T2V-1.3B",
        name,
        NETWORKS[name],
        count=COUNTS[name],
        inputs=inputs(name),
        reference=REFERENCE,
        memory=7.5 if name == "transformer" else 3.0,
    )
