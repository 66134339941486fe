"""Wan's autoencoder against diffusers' at random weights, whole and as a stream."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan
from flax import nnx

from syncos_jax.errors import InputError
from syncos_jax.models.layers import AbstractRngs
from syncos_jax.models.wan.config import WanVAEConfig
from syncos_jax.models.wan.vae import WanVAE
from syncos_jax.weights_convert import wan_tables
from syncos_jax.weights_convert.table import fill, leaves

CONFIG = WanVAEConfig(
    base=8,
    latent_channels=4,
    multipliers=(1, 2),
    blocks=1,
    time_halved=(True,),
    latents_mean=(0.0,) * 4,
    latents_std=(1.0,) * 4,
)
# Three levels of change, the finest in space alone, as in the published one.
DEEPER = dataclasses.replace(
    CONFIG, base=4, decoder_base=8, multipliers=(1, 2, 4, 4), time_halved=(False, True, True)
)
WAN_2_2 = dataclasses.replace(
    CONFIG,
    decoder_base=12,
    multipliers=(1, 2, 2),
    time_halved=(True, True),
    residual=True,
    patch=2,
)


def torch_vae(config: WanVAEConfig) -> AutoencoderKLWan:
    channels = config.image_channels * config.patch**2
    vae = AutoencoderKLWan(
        base_dim=config.base,
        decoder_base_dim=config.decoder_base,
        z_dim=config.latent_channels,
        dim_mult=list(config.multipliers),
        num_res_blocks=config.blocks,
        temperal_downsample=list(config.time_halved),
        is_residual=config.residual,
        in_channels=channels,
        out_channels=channels,
        patch_size=config.patch if config.patch > 1 else None,
        latents_mean=list(config.latents_mean),
        latents_std=list(config.latents_std),
        scale_factor_spatial=config.factor,
        scale_factor_temporal=config.time_factor,
    )
    generator = torch.Generator().manual_seed(0)
    for name, p in vae.named_parameters():
        scale = 0.7 / max(1, p[0].numel()) ** 0.5 if not name.endswith("gamma") else 0.1
        p.data = float(name.endswith("gamma")) + scale * torch.randn(p.shape, generator=generator)
    return vae.eval()


def build(config: WanVAEConfig, dtype=jnp.float32) -> WanVAE:
    return nnx.eval_shape(lambda: WanVAE(config, dtype=dtype, rngs=AbstractRngs()))


def port(reference, config, dtype=jnp.float32):
    state = {k: v.float().numpy() for k, v in reference.state_dict().items()}
    return fill(
        build(config, dtype), wan_tables.vae_table(), state, state.__getitem__, what="reference"
    )


def latents_of(config, f, n=2, h=3, w=2):
    return np.random.default_rng(f).normal(size=(n, f, h, w, config.latent_channels)).astype("f4")


def channels_first(x):
    return torch.from_numpy(np.moveaxis(np.asarray(x), -1, 1).copy())


def relative(ours, theirs):
    theirs = np.moveaxis(theirs.numpy(), 1, -1)
    assert ours.shape == theirs.shape and np.abs(theirs).max() > 0.05
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


DECODE, ENCODE = nnx.jit(WanVAE.decode), nnx.jit(WanVAE.encode)
DECODE_PIECE, ENCODE_PIECE = nnx.jit(WanVAE.decode_piece), nnx.jit(WanVAE.encode_piece)


@pytest.fixture(scope="module")
def small():
    reference = torch_vae(CONFIG)
    return reference, port(reference, CONFIG)


def in_pieces(function, model, x, size):
    """A stream: the first frame alone, then `size` of them at a time."""
    out, kept = function(model, x[:, :1], None)
    pieces = [out]
    for start in range(1, x.shape[1], size):
        out, kept = function(model, x[:, start : start + size], kept)
        pieces.append(out)
    return jnp.concatenate(pieces, axis=1)


def compare(reference, config, f, decode, encode):
    latents = latents_of(config, f, n=1)
    shape = (1, 3, config.frames(f), 3 * config.factor, 2 * config.factor)
    video = torch.randn(shape, generator=torch.Generator().manual_seed(f))
    with torch.no_grad():
        frames = reference.decode(channels_first(latents)).sample
        expected = reference.encode(video).latent_dist.parameters
    assert relative(decode(jnp.asarray(latents)), frames) < 1e-5
    moments = encode(jnp.asarray(np.moveaxis(video.numpy(), 1, -1)))
    assert relative(moments, expected) < 1e-5  # the log-variances here are within their bounds


@pytest.mark.parametrize("config", [CONFIG, WAN_2_2], ids=["2.1", "2.2"])
def test_equals_diffusers(config):
    reference = torch_vae(config)
    ours = port(reference, config)
    compare(
        reference,
        config,
        3,
        lambda latents: DECODE(ours, latents),
        lambda video: jnp.concatenate(ENCODE(ours, video), axis=-1),
    )


@pytest.mark.slow
def test_streams_equal_diffusers():
    """Of one latent at a time: whatever the length, two programs play it."""
    reference = torch_vae(DEEPER)
    ours = port(reference, DEEPER)
    for f in (1, 2, 3, 5):
        compare(
            reference,
            DEEPER,
            f,
            lambda latents: in_pieces(DECODE_PIECE, ours, latents, 1),
            lambda video: in_pieces(ENCODE_PIECE, ours, video, 4),
        )


def test_bfloat16_is_close(small):
    ours = port(small[0], CONFIG, jnp.bfloat16)
    latents = latents_of(CONFIG, 3, n=1)
    with torch.no_grad():
        frames = small[0].decode(channels_first(latents)).sample
    assert 1e-4 < relative(DECODE(ours, jnp.asarray(latents)), frames) < 2e-2


def test_the_partition_does_not_show(small):
    """Two latents a piece give what the whole gives, one at a time."""
    latents = jnp.asarray(latents_of(CONFIG, 3, n=1))
    expected = DECODE(small[1], latents)
    found = in_pieces(DECODE_PIECE, small[1], latents, 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_the_future_does_not_show(small):
    """Causal: frames do not change with later latents."""
    latents = jnp.asarray(latents_of(CONFIG, 3, n=1))
    changed = latents.at[:, 2].set(1.0)
    before, after = DECODE(small[1], latents), DECODE(small[1], changed)
    np.testing.assert_array_equal(before[:, :3], after[:, :3])
    assert float(jnp.abs(before[:, 3:] - after[:, 3:]).max()) > 1e-2


def test_memory_does_not_grow_with_the_length():
    """All that a longer video needs more is the frames themselves."""
    config, model = CONFIG, build(CONFIG)

    def needed(f):
        latents = jax.ShapeDtypeStruct((1, f, 8, 8, config.latent_channels), jnp.float32)
        memory = DECODE.lower(model, latents).compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.output_size_in_bytes

    frames = 4 * config.time_factor * 16 * (8 * config.factor) ** 2 * 3
    assert needed(19) - needed(3) < 4 * frames


def test_parameters_at_full_size():
    counts = sum(np.prod(leaf.shape) for leaf in leaves(build(WanVAEConfig())).values())
    assert counts == 126_892_531


def test_frames_and_latents():
    config = WanVAEConfig()
    assert [config.frames(f) for f in (1, 2, 21)] == [1, 5, 81]
    assert config.latents(81) == 21 and (config.factor, config.time_factor) == (8, 4)
    with pytest.raises(InputError, match="80 frames do not make whole latents"):
        config.latents(80)


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 4, 8, 8, 3), "4 frames do not make"), ((1, 5, 8, 7, 3), "divisible by 2")],
)
def test_videos_that_do_not_fit(shape, message):
    with pytest.raises(InputError, match=message):
        jax.eval_shape(build(CONFIG).encode, jnp.zeros(shape))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"time_halved": ()}, "1 entries"), ({"latents_mean": ()}, "as many means")],
)
def test_sizes_that_do_not_fit(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CONFIG, **change)
