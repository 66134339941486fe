"""A network at full size with random weights: conversion, memory, one forward against diffusers."""

import json
import struct
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from test_convert_full_size import command, measured, randomise, report

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


def convert_and_compare(title, name, build, *, count, inputs, reference, memory):
    """Holds what is converted to diffusers' network, within 1e-4 of its size.

    Args:
        title, name: of the model, and of its network.
        build: makes diffusers' network.
        count: its parameters, as the command prints them.
        inputs: arrays of the forward.
        reference: program that runs it in diffusers; arguments as of `OURS`.
        memory: GiB that the conversion takes at most.
    """
    with tempfile.TemporaryDirectory() as place:  # pytest would keep gigabytes
        folder = Path(place)
        source = folder / "source" / name
        write_random(source, build)
        output, *figures = command(
            "convert", folder / "source", "--out", folder / "ours", "--only", name
        )
        report(f"conversion of {title}'s {name}, float32", *figures)
        assert f"{name} {count} parameters" in output
        assert figures[-1] < memory
        given = folder / "given.npz"
        np.savez(given, **inputs)
        found = {}
        for what, code, place in (
            ("diffusers", reference, source),
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
