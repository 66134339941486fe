"""LTX-2's networks against diffusers' and transformers' at random weights."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from ltx_folders import (
    CONNECTORS,
    GEMMA,
    TRANSFORMER,
    VAE,
    torch_connectors,
    torch_gemma,
    torch_transformer,
    torch_vae,
)

from syncos_jax.errors import InputError
from syncos_jax.models.gemma3 import Gemma3Config, Gemma3Encoder
from syncos_jax.models.layers import AbstractRngs
from syncos_jax.models.ltx.config import (
    LTXConnectorConfig,
    LTXTransformerConfig,
    LTXVAEConfig,
    RotaryConfig,
)
from syncos_jax.models.ltx.connectors import LTXConnectors
from syncos_jax.models.ltx.transformer import LTXTransformer
from syncos_jax.models.ltx.vae import LTXVAE
from syncos_jax.weights_convert import ltx_tables
from syncos_jax.weights_convert.table import fill, leaves

OLDER = dataclasses.replace(
    TRANSFORMER,
    gated=False,
    text_modulated=False,
    text_projection=20,
    heads=3,
    head_size=10,
    text_features=30,
    rotary=RotaryConfig(split=False),
    bias=False,
    eps=1e-4,
    layers=1,
)
NEWER = dataclasses.replace(TRANSFORMER, text_by_time=False, inner_bias=False, span=(7, 99, 500))


def relative(ours, theirs):
    theirs = np.asarray(theirs)
    return np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()


def port(kind, config, table, reference, dtype=jnp.float32):
    state = {k: v.float().numpy() for k, v in reference.state_dict().items()}
    network = nnx.eval_shape(lambda: kind(config, dtype=dtype, rngs=AbstractRngs()))
    return fill(network, table, state, state.__getitem__, what="reference")


def run(network, *arguments, **named):
    graph, weights = nnx.split(network)
    method = named.pop("method", "__call__")
    arrays = jax.tree.map(jnp.asarray, arguments)
    call = jax.jit(lambda w, *a: getattr(nnx.merge(graph, w), method)(*a, **named))
    return jax.tree.map(np.asarray, call(weights, *arrays))


def transformer_inputs(config, f, h, w, b=2):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(b, f, h, w, config.in_channels)).astype(np.float32)
    features = config.text_projection or config.text_features
    text = rng.normal(size=(b, 7, features)).astype(np.float32)
    return x, np.array([975.0, 37.5], np.float32)[:b], text


def run_torch(model, x, t, text, fps=24.0, perturbed=None, blocks=None):
    b, f, h, w, _ = x.shape
    audio = torch.zeros(b, 2, model.config.audio_in_channels)
    sigma = torch.from_numpy(t if t.ndim == 1 else t.max(axis=1))
    tokens = t if t.ndim == 1 else np.repeat(t, h * w, axis=1)
    words = torch.from_numpy(text)
    with torch.no_grad():
        out = model(
            torch.from_numpy(x.reshape(b, f * h * w, -1)),
            audio,
            words,
            torch.zeros(b, text.shape[1], text.shape[2]),
            timestep=torch.from_numpy(tokens),
            audio_timestep=sigma,
            sigma=sigma,
            num_frames=f,
            height=h,
            width=w,
            fps=fps,
            audio_num_frames=2,
            isolate_modalities=True,
            spatio_temporal_guidance_blocks=blocks,
            perturbation_mask=None if perturbed is None else torch.from_numpy(perturbed),
        ).sample
    return out.numpy().reshape(x.shape)


@pytest.mark.parametrize(
    ("config", "size", "fps"),
    [
        (TRANSFORMER, (3, 4, 6), 24.0),
        (TRANSFORMER, (1, 2, 2), 25.0),
        (OLDER, (4, 3, 4), 30.0),
        (NEWER, (5, 2, 3), 23.976),
    ],
)
def test_transformer(config, size, fps):
    reference = torch_transformer(config)
    given = transformer_inputs(config, *size)
    network = port(LTXTransformer, config, ltx_tables.TRANSFORMER, reference)
    found = run(network, *given, np.float32(fps))
    assert relative(found, run_torch(reference, *given, fps)) < 1e-5


def test_full_size_angles_are_rounded_as_in_training():
    """At 4,096 features the highest angle is 15,000: its cosine is off by 1e-3 where the product is
    not rounded to float32."""
    from diffusers.models.transformers.transformer_ltx2 import LTX2AudioVideoRotaryPosEmbed

    from syncos_jax.models.ltx.positions import video_rotation

    rope = LTX2AudioVideoRotaryPosEmbed(4096, scale_factors=(8, 32, 32), rope_type="split")
    size, config = (16, 3, 5), LTXTransformerConfig()
    for fps in (24.0, 30.0):
        wanted = rope(rope.prepare_video_coords(1, *size, "cpu", fps))
        found = jax.jit(partial(video_rotation, config, size))(jnp.float32(fps))
        for ours, theirs in zip(found, wanted, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy().swapaxes(1, 2), atol=1e-6)


def test_transformer_with_a_time_per_frame():
    reference = torch_transformer(TRANSFORMER)
    x, _, text = transformer_inputs(TRANSFORMER, 3, 2, 4)
    t = np.array([[0.0, 500.0, 900.0], [10.0, 20.0, 30.0]], np.float32)
    network = port(LTXTransformer, TRANSFORMER, ltx_tables.TRANSFORMER, reference)
    assert relative(run(network, x, t, text), run_torch(reference, x, t, text)) < 1e-5


def test_perturbed_samples():
    """Spatio-temporal guidance: in one block, some samples' tokens keep their own values."""
    reference = torch_transformer(TRANSFORMER, perturbed=True)
    given = transformer_inputs(TRANSFORMER, 3, 2, 4)
    network = port(LTXTransformer, TRANSFORMER, ltx_tables.TRANSFORMER, reference)
    found = run(network, *given, perturbed=jnp.asarray([False, True]), perturbed_blocks=(1,))
    kept = np.array([1.0, 0.0], np.float32)
    assert relative(found, run_torch(reference, *given, perturbed=kept, blocks=[1])) < 1e-5
    plain = run(network, *given)
    np.testing.assert_array_equal(found[0], plain[0])
    assert relative(found[1], plain[1]) > 1e-3


def test_bfloat16_is_close():
    reference = torch_transformer(TRANSFORMER)
    given = transformer_inputs(TRANSFORMER, 3, 4, 6)
    network = port(LTXTransformer, TRANSFORMER, ltx_tables.TRANSFORMER, reference, jnp.bfloat16)
    assert 1e-4 < relative(run(network, *given), run_torch(reference, *given)) < 3e-2


@pytest.mark.parametrize("per_token", [True, False])
def test_connectors(per_token):
    config = dataclasses.replace(CONNECTORS, per_token=per_token, bias=per_token, gated=per_token)
    if not per_token:
        config = dataclasses.replace(config, features=32, rotary=RotaryConfig(split=False))
    reference = torch_connectors(config)
    rng = np.random.default_rng(2)
    states = rng.normal(size=(config.states, 2, 8, config.features)).astype(np.float32)
    mask = np.array([[0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1]], np.int64)
    with torch.no_grad():
        stacked = torch.from_numpy(states).permute(1, 2, 3, 0).flatten(2, 3)
        expected = reference(stacked, torch.from_numpy(mask))[0].numpy()
    table = ltx_tables.connector_table(config)
    network = port(LTXConnectors, config, table, reference)
    assert relative(run(network, states, mask), expected) < 1e-5
    with pytest.raises(InputError, match="7 tokens are not a multiple of the 4 registers"):
        network(jnp.asarray(states[:, :, :7]), jnp.asarray(mask[:, :7]))


@pytest.mark.parametrize("window", [4, 100])
def test_gemma(window):
    config = dataclasses.replace(GEMMA, window=window)
    reference = torch_gemma(config)
    ids = np.random.default_rng(3).integers(3, 20, (2, 9)).astype(np.int32)
    mask = np.array([[1] * 9, [0] * 4 + [1] * 5], np.int32)
    with torch.no_grad():
        states = reference(
            torch.from_numpy(ids).long(),
            attention_mask=torch.from_numpy(mask),
            output_hidden_states=True,
        ).hidden_states
    network = port(Gemma3Encoder, config, ltx_tables.GEMMA3, reference)
    found = run(network, ids, mask)
    assert found.shape == (config.states, 2, 9, config.features)
    for ours, theirs in zip(found, states, strict=True):
        on = mask.astype(bool)
        assert relative(ours[on], theirs.numpy()[on]) < 1e-5


def vae_of(config):
    reference = torch_vae(config)
    return reference, port(LTXVAE, config, ltx_tables.VAE, reference)


RESIDUAL = dataclasses.replace(
    VAE,
    up=("spatiotemporal", "spatiotemporal"),
    down=("spatiotemporal", "spatiotemporal"),
    up_factors=(2, 2),
    up_residual=(True, False),
    decoder_widths=(16, 32),
    decoder_reflect=True,
)
TIMED = dataclasses.replace(VAE, time_conditioned=True)
WIDER = dataclasses.replace(
    VAE, up_factors=(1, 1), decoder_widths=(8, 16), decoder_causal=True, eps=1e-3
)
VAES = {"plain": VAE, "residual": RESIDUAL, "timed": TIMED, "causal, other widths": WIDER}


@pytest.mark.parametrize("name", VAES)
def test_vae(name):
    config = VAES[name]
    reference, network = vae_of(config)
    rng = np.random.default_rng(4)
    F = 2 * config.time_factor + 1
    video = rng.uniform(-1, 1, (1, F, 2 * config.factor, 3 * config.factor, 3)).astype(np.float32)
    latents = rng.normal(size=(2, 3, 2, 3, config.latent_channels)).astype(np.float32)
    time = torch.zeros(2) if config.time_conditioned else None
    with torch.no_grad():
        wanted = reference.encode(torch.from_numpy(np.moveaxis(video, -1, 1))).latent_dist
        frames = reference.decode(torch.from_numpy(np.moveaxis(latents, -1, 1)), time).sample
    mean, logvar = run(network, video, method="encode")
    assert relative(mean, np.moveaxis(wanted.mean.numpy(), 1, -1)) < 1e-5
    assert relative(logvar, np.moveaxis(wanted.logvar.numpy(), 1, -1)) < 1e-5
    found = run(network, latents, method="decode")
    assert relative(found, np.moveaxis(frames.numpy(), 1, -1)) < 1e-5
    if config.time_conditioned:
        with torch.no_grad():
            t = torch.tensor([0.05, 0.4])
            frames = reference.decode(torch.from_numpy(np.moveaxis(latents, -1, 1)), t).sample
        found = run(network, latents, t.numpy(), method="decode")
        assert relative(found, np.moveaxis(frames.numpy(), 1, -1)) < 1e-5


@pytest.mark.parametrize("piece", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", VAES)
def test_a_stream_is_the_whole(name, piece):
    """Frames of a video decoded in pieces are those of the whole, first and last among them."""
    config = VAES[name]
    _, network = vae_of(config)
    graph, weights = nnx.split(network)
    rng = np.random.default_rng(5)
    for length in (1, 5):
        latents = rng.normal(size=(1, length, 2, 2, config.latent_channels)).astype(np.float32)
        whole = run(network, latents, method="decode")
        spare = np.pad(latents, ((0, 0), (0, 40), (0, 0), (0, 0), (0, 0)), constant_values=np.nan)

        @jax.jit
        def step(w, x, start, length, kept):
            return nnx.merge(graph, w).decode_piece(x, start, length, kept)

        kept = jax.eval_shape(step, weights, spare[:, :piece], jnp.int32(0), jnp.int32(1), None)[1]
        kept = jax.tree.map(lambda leaf: jnp.full(leaf.shape, jnp.nan, leaf.dtype), kept)
        found = []
        for start in range(0, length + 40, piece):
            first, count = network.frame_numbers(start, length)
            frames, kept = step(
                weights, spare[:, start : start + piece], jnp.int32(start), jnp.int32(length), kept
            )
            numbers = first + np.arange(frames.shape[1])
            found.append(np.asarray(frames)[:, (numbers >= 0) & (numbers < count)])
            if first + frames.shape[1] >= count:
                break
        assert count == whole.shape[1]
        np.testing.assert_allclose(np.concatenate(found, axis=1), whole, atol=2e-6)


def test_counts_at_full_size():
    """Published sizes, without weights."""

    def count(kind, config):
        network = nnx.eval_shape(lambda: kind(config, dtype=jnp.bfloat16, rngs=AbstractRngs()))
        return sum(int(np.prod(leaf.shape)) for leaf in leaves(network).values())

    assert count(LTXTransformer, LTXTransformerConfig.ltx_2_3()) == 13_124_316_288
    assert count(LTXConnectors, LTXConnectorConfig.ltx_2_3()) == 2_383_253_760
    assert count(LTXVAE, LTXVAEConfig.ltx_2_3()) == 726_105_969
    assert count(LTXVAE, LTXVAEConfig.ltx_2_0()) == 1_222_479_601
    assert count(Gemma3Encoder, Gemma3Config.gemma3_12b()) == 11_766_034_176
