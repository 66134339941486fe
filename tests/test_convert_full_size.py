"""Checkpoints of the published sizes, with random weights: conversion, memory, one forward.

Run alone, with what is measured: ``pytest -s tests/test_convert_full_size.py``. Needs 16 GB of disk
and 10 GB of memory.
"""

import ast
import functools
import json
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import DATA
from diffusers import UNet3DConditionModel

from syncos_jax.weights_convert.weight_files import open_file

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("memory_to_itself")]
EXCERPT = DATA / "openclip_vocabulary"


def randomise(path):
    """Fills the tensors of a checkpoint in place; norms about 1, matrices by their fan-in."""
    block = np.random.default_rng(0).standard_normal(2**22, np.float32)
    with path.open("r+b") as file:
        for index, (key, tensor) in enumerate(sorted(open_file(path).items())):
            count = int(np.prod(tensor.shape))
            fan_in = int(np.prod(tensor.shape[1:]))
            values = np.resize(np.roll(block, 101 * index), count) * np.float32(0.8 * fan_in**-0.5)
            if len(tensor.shape) < 2:
                values *= np.float32(0.1)
                values += np.float32(key.endswith(".weight"))  # a norm's
            file.seek(tensor.offset)
            values.astype(np.float32).tofile(file)


@pytest.fixture(scope="module")
def folder():
    """Removed afterwards: pytest would keep gigabytes."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def checkpoint(folder):
    """VideoCrafter2's 2,039 tensors, as its trainer saves them."""
    path = folder / "model.ckpt"
    lines = (DATA / "vc2_ckpt_all_keys.txt").read_text().splitlines()
    shapes = {key: ast.literal_eval(shape) for key, shape in (x.split("\t") for x in lines)}
    assert len(shapes) == 2039
    # Never touched, so that they take no memory; the file gets its values afterwards.
    tensors = {key: torch.empty(shape) for key, shape in shapes.items()}
    with torch.serialization.skip_data():
        torch.save({"state_dict": tensors, "epoch": 0, "global_step": 0}, path)
    del tensors
    randomise(path)
    return path


def command(*arguments):
    """Runs ``syncos`` in a process of its own; its output, seconds and peak memory in GiB."""
    code = "from syncos_jax.cli import main; main()"
    return measured([sys.executable, "-c", code, *map(str, arguments)])


# A process counts what the one that started it had in memory, and the tests' own has gigabytes.
BETWEEN = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20, file=open(sys.argv[1], "w"))
sys.exit(code)
"""


def measured(run):
    with tempfile.NamedTemporaryFile("r") as figures:
        before = time.perf_counter()
        start = [sys.executable, "-c", BETWEEN, figures.name, *run]
        child = subprocess.run(start, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - before
        assert child.returncode == 0, child.stdout
        cpu, memory = map(float, figures.read().split())
    return child.stdout, seconds, cpu, memory


def report(what, seconds, cpu, peak):
    print(f"{what}: {seconds:.0f} s ({cpu:.0f} s of CPU), peak memory {peak:.2f} GiB")


COUNTS = "unet 1,413,284,420, vae 83,653,863, text_encoder 340,387,840 parameters"


@pytest.fixture(scope="module")
def converted(checkpoint):
    """By dtype: the folder, what the command said, its seconds and memory; each converted once."""

    @functools.cache
    def convert(dtype):
        out = checkpoint.parent / dtype
        said = command(
            "convert", checkpoint, "--out", out, "--dtype", dtype, "--tokenizer", EXCERPT
        )
        return out, *said

    return convert


@pytest.mark.parametrize(
    ("dtype", "size", "most"), [("float32", 6.84, 6.2), ("bfloat16", 3.42, 3.6)]
)
def test_conversion_of_videocrafter2(converted, dtype, size, most):
    """The peak is the largest network (5.26 GiB in float32) and what the program itself takes."""
    _, output, *figures = converted(dtype)
    report(f"VideoCrafter2, 2,039 tensors, to {dtype}", *figures)
    assert COUNTS in output and f"{size:.2f} GiB" in output
    assert figures[-1] < most


FORWARD = """
import resource, sys, numpy as np, jax, jax.numpy as jnp
from flax import nnx
from syncos_jax.models import saved
from syncos_jax.pipeline.load import placement
from pathlib import Path
folder, given, out = map(Path, sys.argv[1:])
config, _ = saved.read_config(folder)
unet = saved.read_network(folder, "unet", config, "float32", placement(None))
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(f"after loading: peak memory {peak():.2f} GiB")
data = np.load(given)
x = jnp.moveaxis(jnp.asarray(data["x"]), 1, -1)
t, fps = (jnp.asarray(data[k], jnp.float32) for k in ("t", "fps"))
graph, weights = nnx.split(unet)
forward = jax.jit(lambda weights, *a, fps: nnx.merge(graph, weights)(*a, fps=fps))
y = forward(weights, x, t, jnp.asarray(data["text"]), fps=fps)
np.save(out, np.moveaxis(np.asarray(y), -1, 1))
"""

REFERENCE = """
import sys, numpy as np, torch
from diffusers import UNet3DConditionModel
from diffusers.models.embeddings import get_timestep_embedding
from syncos_jax.weights_convert.weight_files import open_file
from pathlib import Path
checkpoint, given, out, names = map(Path, sys.argv[1:])
with torch.device("meta"):
    model = UNet3DConditionModel()
assert sum(p.numel() for p in model.parameters()) == 1_411_233_860
params = dict(model.named_parameters())
stored = open_file(checkpoint)
read = lambda key: torch.from_numpy(np.array(stored["model.diffusion_model." + key]))
state = {}
for line in names.read_text().splitlines():
    theirs, diffusers = line.split("\\t")[:2]
    if not theirs.startswith("fps_"):
        state[diffusers] = read(theirs).reshape(params[diffusers].shape)
data = {k: torch.from_numpy(v) for k, v in np.load(given).items()}
# diffusers has no frame rate: with a constant one, its embedding is a part of the time's bias.
emb = get_timestep_embedding(data["fps"].float(), 320, True, 0)
for layer in (0, 2):
    emb = emb if layer == 0 else torch.nn.functional.silu(emb)
    weight, bias = (read(f"fps_embedding.{layer}.{name}") for name in ("weight", "bias"))
    emb = emb @ weight.T + bias
state["time_embedding.linear_2.bias"] += emb[0]
model.load_state_dict(state, assign=True, strict=True)
with torch.no_grad():
    np.save(out, model.eval()(data["x"], data["t"], data["text"]).sample.numpy())
"""


def test_one_forward_of_videocrafter2(checkpoint, converted, tmp_path):
    """Against diffusers' UNet with the same weights, one after the other."""
    rng = np.random.default_rng(1)
    given = {
        "x": rng.standard_normal((1, 4, 2, 8, 16), np.float32),
        "t": np.asarray([500]),
        "text": rng.standard_normal((1, 77, 1024), np.float32),
        "fps": np.asarray([28]),
    }
    np.savez(tmp_path / "given.npz", **given)
    given = tmp_path / "given.npz"
    ours, theirs = tmp_path / "ours.npy", tmp_path / "theirs.npy"
    names = DATA / "vc2_key_map_full.tsv"
    run = [sys.executable, "-c", REFERENCE, str(checkpoint), str(given), str(theirs), str(names)]
    report("diffusers' forward", *measured(run)[1:])
    folder = converted("float32")[0]
    run = [sys.executable, "-c", FORWARD, str(folder), str(given), str(ours)]
    output, *figures = measured(run)
    print(output.strip())
    report("our load and forward", *figures)
    actual, expected = np.load(ours), np.load(theirs)
    error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
    largest = np.abs(actual - expected).max()
    print(f"relative {error:.2e}, max abs {largest:.2e}, std of the output {expected.std():.3f}")
    assert expected.std() > 0.05 and error <= 1e-4


def test_conversion_of_modelscope(folder):
    """A diffusers folder's UNet, in float16 and two shards."""
    folder = folder / "modelscope"
    unet = folder / "unet"
    unet.mkdir(parents=True)
    with torch.device("meta"):
        model = UNet3DConditionModel()
    model.save_config(unet)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    keys = sorted(shapes)
    placed = {}
    block = np.random.default_rng(0).standard_normal(2**22, np.float32).astype(np.float16)
    for index, part in enumerate((keys[::2], keys[1::2])):
        name = f"diffusion_pytorch_model-0000{index + 1}-of-00002.safetensors"
        header, offset = {}, 0
        for key in part:
            size = 2 * int(np.prod(shapes[key]))
            places = [offset, offset + size]
            header[key] = {"dtype": "F16", "shape": shapes[key], "data_offsets": places}
            offset += size
        text = json.dumps(header).encode()
        with (unet / name).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for key in part:
                np.resize(block, int(np.prod(shapes[key]))).tofile(file)
        placed |= dict.fromkeys(part, name)
    index = unet / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}))
    output, *figures = command("convert", folder, "--out", folder / "out", "--only", "unet")
    report("ModelScope's UNet, float16", *figures)
    assert "unet 1,411,233,860 parameters, 2.63 GiB" in output
    assert figures[-1] < 3.6
