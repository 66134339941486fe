"""CogVideoX's autoencoder against diffusers' at random weights, whole and in pieces."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from flax import nnx
from networks import quickly

from syncos_jax.errors import InputError
from syncos_jax.models.cogvideox.config import CogVideoXVAEConfig
from syncos_jax.models.cogvideox.vae import CogVideoXVAE, pieces
from syncos_jax.models.layers import AbstractRngs
from syncos_jax.models.weights import leaves
from syncos_jax.weights_convert.cogvideox_config import vae_config
from syncos_jax.weights_convert.cogvideox_tables import VAE
from syncos_jax.weights_convert.table import fill, match

SETTINGS = {
    "small": {
        "block_out_channels": (8, 8, 16),
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
    "two levels": {
        "block_out_channels": (6, 12),
        "latent_channels": 3,
        "layers_per_block": 2,
        "norm_num_groups": 3,
        "norm_eps": 1e-3,
        "temporal_compression_ratio": 2,
        "in_channels": 2,
        "out_channels": 2,
    },
}


def torch_vae(settings, random=True):
    """diffusers' network with random weights, none of them zero or one."""
    levels = len(settings["block_out_channels"])
    torch.manual_seed(0)
    model = AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * levels,
        up_block_types=("CogVideoXUpBlock3D",) * levels,
        **settings,
    )
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters() if random else ():
        scale = 1.0 / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.1
        centre = 1.0 if p.ndim == 1 and float(p.detach().mean()) == 1.0 else 0.0
        p.data = centre + scale * torch.randn(p.shape, generator=generator)
    return model.eval()


def build(config, dtype=jnp.float32):
    return nnx.eval_shape(lambda: CogVideoXVAE(config, dtype=dtype, rngs=AbstractRngs()))


def port(model, dtype=jnp.float32):
    config = vae_config(dict(model.config))
    state = {k: v.numpy() for k, v in model.state_dict().items()}
    return fill(build(config, dtype), VAE, state, state.__getitem__, what="reference")


@pytest.fixture(scope="module")
def networks():
    models = {name: torch_vae(settings) for name, settings in SETTINGS.items()}
    return {name: (model, port(model)) for name, model in models.items()}


def random(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def last(x):
    return np.moveaxis(x.numpy(), 1, -1)


def first(x):
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy())


def assert_close(found, wanted, tolerance=1e-5):
    assert found.shape == wanted.shape
    largest = np.abs(wanted).max()
    assert largest > 0.1
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * largest)


@pytest.mark.parametrize(
    ("name", "frames"),
    [("small", 1), ("small", 6), ("small", 7), ("two levels", 3)],
)
def test_decode(networks, name, frames):
    model, ours = networks[name]
    z = random(2, frames, 4, 6, ours.config.latent_channels)
    with torch.no_grad():
        wanted = last(model.decode(first(z)).sample)
    assert wanted.shape[1] == (ours.config.frames(frames) if frames > 1 else 1)
    assert_close(quickly(CogVideoXVAE.decode)(ours, jnp.asarray(z)), wanted)


@pytest.mark.parametrize(("name", "frames"), [("small", 1), ("small", 17), ("two levels", 8)])
def test_encode(networks, name, frames):
    model, ours = networks[name]
    video = random(2, frames, 8, 12, ours.config.image_channels)
    with torch.no_grad():
        wanted = model.encode(first(video)).latent_dist
    mean, logvar = quickly(CogVideoXVAE.encode)(ours, jnp.asarray(video))
    assert_close(mean, last(wanted.mean))
    assert_close(logvar, last(wanted.logvar))


def test_bfloat16_is_close():
    model = torch_vae(SETTINGS["two levels"], random=False)
    z = random(1, 4, 4, 6, 3)
    with torch.no_grad():
        wanted = last(model.decode(first(z)).sample)
    found = quickly(CogVideoXVAE.decode)(port(model, jnp.bfloat16), jnp.asarray(z))
    assert found.dtype == jnp.float32
    assert np.linalg.norm(found - wanted) < 2e-2 * np.linalg.norm(wanted)


@pytest.mark.parametrize("frames", [4, 5])
def test_a_stream_of_pieces_is_the_whole(networks, frames):
    ours = networks["two levels"][1]
    z = jnp.asarray(random(1, frames, 4, 6, 3))
    whole = quickly(CogVideoXVAE.decode)(ours, z)
    step, kept, parts = quickly(CogVideoXVAE.decode_piece), None, []
    for start, stop in pieces(frames):
        part, kept = step(ours, z[:, start:stop], kept)
        parts.append(part)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole, rtol=0, atol=5e-6)


def test_pieces():
    assert pieces(1) == [(0, 1)]
    assert pieces(13) == [(0, 3), (3, 5), (5, 7), (7, 9), (9, 11), (11, 13)]
    assert pieces(12)[:2] == [(0, 2), (2, 4)]
    assert pieces(5, 8) == [(0, 5)]
    assert pieces(49, 8)[:2] == [(0, 9), (9, 17)]


def test_full_size_and_missing_tensors():
    config = CogVideoXVAEConfig()
    assert (config.factor, config.frames(13), config.frames(12)) == (8, 49, 48)
    expected = leaves(build(config))
    assert sum(leaf.size for leaf in expected.values()) == 215_583_907
    _, problems = match(expected, VAE, {"decoder.x.weight": jnp.zeros(2)})
    assert problems[0] == "unknown decoder.x.weight"
    with torch.device("meta"):
        names = AutoencoderKLCogVideoX(
            **{
                f"{kind.lower()}_block_types": (f"CogVideoX{kind}Block3D",) * 4
                for kind in ("Down", "Up")
            },
            block_out_channels=(128, 256, 256, 512),
        ).state_dict()
    assert {p.removeprefix("missing ") for p in problems[1:]} == set(names)
    _, problems = match(expected, VAE, {k: np.empty(v.shape, "f4") for k, v in names.items()})
    assert not problems


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_factor": 3}, "power of two"),
        ({"time_factor": 16}, "cannot shorten"),
        ({"norm_groups": 48}, "groups"),
    ],
)
def test_settings_are_checked(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CogVideoXVAEConfig(), **change)
