"""What the tests of ``syncos convert`` share: fixtures as checkpoint files, and the command."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import torch
from safetensors.numpy import save_file
from typer.testing import CliRunner

from syncos_jax.cli import app

DATA = Path(__file__).parent / "data"


def weights(name):
    """A fixture's state dict: int8 codes, 128ths of the weights."""
    with np.load(DATA / f"{name}.npz") as file:
        return {key: file[key].astype(np.float32) / 128 for key in file}


def io(name):
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def save_ckpt(path, state, **extra):
    """As VideoCrafter's trainer saves it."""
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    torch.save({"state_dict": tensors, **extra}, path)
    return path


def save_safetensors(path, state):
    save_file({key: np.ascontiguousarray(value) for key, value in state.items()}, path)
    return path


def syncos(*arguments):
    """The real command; an unforeseen exception is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def convert(source, out, *arguments):
    result = syncos("convert", source, "--out", out, *arguments)
    assert result.exit_code == 0, result.output
    return result


def config_file(path, *names):
    """One JSON file with the configurations of several fixtures."""
    merged = {}
    for name in names:
        values = json.loads((DATA / f"{name}.json").read_text())
        wanted = ("unet_config", "ddconfig", "text_cfg", "layer", "scale_factor")
        merged |= {key: values[key] for key in wanted if key in values}
    path.write_text(json.dumps(merged))
    return path


def channels_last(x):
    return jnp.asarray(np.moveaxis(np.asarray(x), 1, -1))


def channels_first(x):
    return np.moveaxis(np.asarray(x), -1, 1)
