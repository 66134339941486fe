"""CogVideoX-2B's transformer and autoencoder at full size, with random weights: conversion, memory,
one forward against diffusers.

Run alone, with what is measured: ``pytest -s tests/test_cogvideox_full_size.py``. Needs 16 GB of
disk and 9 GB of memory.
"""

import numpy as np
import pytest
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from full_size import convert_and_compare

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("memory_to_itself")]

LEVELS = {f"{way.lower()}_block_types": (f"CogVideoX{way}Block3D",) * 4 for way in ("Down", "Up")}
NETWORKS = {
    "transformer": lambda: CogVideoXTransformer3DModel(),
    "vae": lambda: AutoencoderKLCogVideoX(**LEVELS, block_out_channels=(128, 256, 256, 512)),
}
COUNTS = {"transformer": "1,693,783,872", "vae": "215,583,907"}

REFERENCE = """
import sys, numpy as np, torch
from pathlib import Path
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from safetensors.torch import load_file
name, folder, given, out = sys.argv[1], *map(Path, sys.argv[2:])
kind = {"transformer": CogVideoXTransformer3DModel, "vae": AutoencoderKLCogVideoX}[name]
with torch.device("meta"):
    model = kind.from_config(kind.load_config(folder))
model.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"), assign=True)
data = {k: torch.from_numpy(v) for k, v in np.load(given).items()}
x = data["x"]
with torch.no_grad():
    if name == "vae":
        frames = model.eval().decode(x.permute(0, 4, 1, 2, 3)).sample
        mean = model.encode(frames).latent_dist.mean
        outputs = {k: y.permute(0, 2, 3, 4, 1) for k, y in (("y", frames), ("mean", mean))}
    else:
        y = model.eval()(x.permute(0, 1, 4, 2, 3), data["text"], data["t"]).sample
        outputs = {"y": y.permute(0, 1, 3, 4, 2)}
np.savez(out, **{k: y.numpy() for k, y in outputs.items()})
"""


def inputs(name):
    rng = np.random.default_rng(1)
    if name == "vae":
        return {"x": rng.standard_normal((1, 5, 4, 6, 16), np.float32)}
    return {
        "x": rng.standard_normal((1, 3, 8, 12, 16), np.float32),
        "t": np.asarray([500.0], np.float32),
        "text": rng.standard_normal((1, 226, 4096), np.float32),
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_conversion_and_a_forward(name):
    convert_and_compare(
        "CogVideoX-2B",
        name,
        NETWORKS[name],
        count=COUNTS[name],
        inputs=inputs(name),
        reference=REFERENCE,
        memory=8.5 if name == "transformer" else 3.0,
    )
