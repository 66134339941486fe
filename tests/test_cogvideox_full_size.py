"""CogVideoX-2B's transformer and autoencoder at full size, with random weights: conversion, memory,
one forward against diffusers.

Run alone, with what is measured: ``pytest -s tests/test_cogvideox_full_size.py``. Needs 16 GB of
disk and 9 GB of memory.
"""

import json
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from test_convert_full_size import command, measured, randomise, report

pytestmark = pytest.mark.slow

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

OURS = """
import resource, sys, numpy as np, jax, jax.numpy as jnp
from pathlib import Path
from flax import nnx
from syncos_jax.models import saved
from syncos_jax.pipeline.load import placement
name, folder, given, out = sys.argv[1], *map(Path, sys.argv[2:])
config, _ = saved.read_config(folder)
graph, weights = nnx.split(saved.read_network(folder, name, config, "float32", placement(None)))
print(f"after loading: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
data = {k: jnp.asarray(v) for k, v in np.load(given).items()}
run = lambda function: jax.jit(lambda weights, *a: function(nnx.merge(graph, weights), *a))
if name == "vae":
    y = run(lambda model, x: model.decode(x))(weights, data["x"])
    outputs = {"y": y, "mean": run(lambda model, y: model.encode(y)[0])(weights, y)}
else:
    forward = run(lambda model, *a: model(*a))
    outputs = {"y": forward(weights, data["x"], data["t"], data["text"])}
np.savez(out, **outputs)
"""


def write_random(folder, build):
    """A network's folder as diffusers saves it, without ever holding it."""
    folder.mkdir(parents=True)
    with torch.device("meta"):
        model = build()
    model.save_config(folder)
    header, offset = {}, 0
    for key, value in model.state_dict().items():
        size = 4 * value.numel()
        places = [offset, offset + size]
        header[key] = {"dtype": "F32", "shape": tuple(value.shape), "data_offsets": places}
        offset += size
    text = json.dumps(header).encode()
    path = folder / "diffusion_pytorch_model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + offset)
    randomise(path)


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
    with tempfile.TemporaryDirectory() as place:  # pytest would keep gigabytes
        folder = Path(place)
        source = folder / "source" / name
        write_random(source, NETWORKS[name])
        output, *figures = command(
            "convert", folder / "source", "--out", folder / "ours", "--only", name
        )
        report(f"conversion of CogVideoX-2B's {name}, float32", *figures)
        assert f"{name} {COUNTS[name]} parameters" in output
        assert figures[-1] < (8.5 if name == "transformer" else 3.0)
        given = folder / "given.npz"
        np.savez(given, **inputs(name))
        found = {}
        for what, code, place in (
            ("diffusers", REFERENCE, source),
            ("ours", OURS, folder / "ours"),
        ):
            path = folder / f"{what}.npz"
            run = [sys.executable, "-c", code, name, *map(str, (place, given, path))]
            output, *figures = measured(run)
            report(f"{what}: load and forward; {output.strip()}", *figures)
            found[what] = dict(np.load(path))
        for key, wanted in found["diffusers"].items():
            error = np.linalg.norm(found["ours"][key] - wanted) / np.linalg.norm(wanted)
            print(f"{name} {key} {wanted.shape}: relative {error:.2e}, std {wanted.std():.3f}")
            assert wanted.std() > 0.05 and error <= 1e-4
