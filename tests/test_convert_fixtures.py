"""Weights and activations of the original VideoCrafter2 code, through ``syncos convert``."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import (
    DATA,
    channels_first,
    channels_last,
    config_file,
    convert,
    io,
    save_ckpt,
    save_safetensors,
    syncos,
    weights,
)
from flax import nnx

from syncos_jax.models.clip_text import CLIPTextEncoder
from syncos_jax.models.unet_clip.unet3d import UNet3D
from syncos_jax.models.unet_clip.vae import AutoencoderKL
from syncos_jax.pipeline.load import load_model
from syncos_jax.sampling import CoDenoising, sample
from syncos_jax.sampling.windows import WindowLayout

FIXTURES = {"unet": "vc2_tiny_a", "vae": "vc2_vae_tiny", "text_encoder": "openclip_text_tiny"}


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Each network of the fixtures, saved as a .ckpt, converted alone and loaded."""
    folder = tmp_path_factory.mktemp("converted")
    models = {}
    for network, name in FIXTURES.items():
        source = save_ckpt(folder / f"{network}.ckpt", weights(name), epoch=3, global_step=9)
        out = folder / network
        convert(source, out, "--config", DATA / f"{name}.json", "--only", network)
        models[network] = load_model(out)
    return models


_call_unet = nnx.jit(UNet3D.__call__)


def run_unet(model, x, timesteps, context, fps):
    t = jnp.asarray(timesteps, jnp.float32)
    fps = jnp.asarray(fps, jnp.float32)
    return channels_first(
        _call_unet(model.unet, channels_last(x), t, jnp.asarray(context), fps=fps)
    )


def for_each_frame(timesteps, frames):
    """``[b]`` -> ``[b, F]``: one compiled program for the tests of either."""
    return np.repeat(timesteps[:, None], frames, axis=1)


def agrees(actual, expected, bound, name):
    error = float(np.abs(np.asarray(actual, np.float64) - expected).max())
    print(f"{name}: max abs {error:.2e}, allowed {bound:.0e}")
    assert actual.shape == expected.shape and error <= bound


def test_unet(converted):
    data = io("vc2_tiny_a_io")
    times = for_each_frame(data["timesteps"], 4)
    actual = run_unet(converted["unet"], data["x"], times, data["context"], data["fps"])
    agrees(actual, data["out"], 1e-5, "unet")


@pytest.mark.slow
def test_unet_with_more_frames(converted):
    data = io("vc2_tiny_a_io")
    given = [data[f"case2_{name}"] for name in ("x", "timesteps", "context", "fps")]
    agrees(run_unet(converted["unet"], *given), data["case2_out"], 1e-5, "unet case2")


def test_unet_with_small_weights_shows_every_epsilon(tmp_path):
    data = io("vc2_tiny_a_io")
    scale = data["case3_weight_scale"]
    given = weights("vc2_tiny_a")
    norms = {key.rpartition(".")[0] for key, v in given.items() if v.ndim == 1 and "weight" in key}
    state = {k: v if k.rpartition(".")[0] in norms else v * scale for k, v in given.items()}
    source = save_safetensors(tmp_path / "small.safetensors", state)
    out = tmp_path / "out"
    convert(source, out, "--config", DATA / "vc2_tiny_a.json", "--only", "unet")
    times = for_each_frame(data["timesteps"], 4)
    actual = run_unet(load_model(out), data["x"], times, data["context"], data["fps"])
    agrees(actual, data["case3_out"], 2e-6, "unet case3")


def test_a_timestep_for_each_frame(converted):
    """Activations of FIFO-Diffusion's own UNet; `sampling.fifo` calls the network like this."""
    data = io("vc2_tiny_a_fifo_io")
    twice = [np.concatenate([data[name]] * 2) for name in ("x", "context", "fps")]
    times = np.stack([data["timesteps"]] * 2)
    actual = run_unet(converted["unet"], twice[0], times, *twice[1:])
    agrees(actual, np.concatenate([data["out"]] * 2), 1e-5, "per-frame timesteps")


def test_vae(converted):
    data = io("vc2_vae_tiny_io")
    vae = converted["vae"].vae
    mean, logvar = nnx.jit(AutoencoderKL.encode)(vae, channels_last(data["x"]))
    agrees(channels_first(mean), data["enc_mean"], 5e-6, "vae mean")
    agrees(channels_first(logvar), data["enc_logvar"], 5e-6, "vae logvar")
    decoded = nnx.jit(AutoencoderKL.decode)(vae, channels_last(data["z"]))
    agrees(channels_first(decoded), data["dec"], 1e-5, "vae decode")


def test_text(converted):
    data = io("openclip_text_tiny_io")
    tokens = jnp.asarray(data["tokens"], jnp.int32)
    actual = nnx.jit(CLIPTextEncoder.__call__)(converted["text_encoder"].text_encoder, tokens)
    agrees(np.asarray(actual), data["penultimate"], 5e-6, "text penultimate")


def test_the_last_layer_of_the_text_encoder(tmp_path):
    values = json.loads((DATA / "openclip_text_tiny.json").read_text()) | {"layer": "last"}
    (tmp_path / "last.json").write_text(json.dumps(values))
    source = save_ckpt(tmp_path / "text.ckpt", weights("openclip_text_tiny"))
    convert(source, tmp_path / "out", "--config", tmp_path / "last.json", "--only", "text_encoder")
    data = io("openclip_text_tiny_io")
    encode = nnx.jit(CLIPTextEncoder.__call__)
    actual = encode(
        load_model(tmp_path / "out").text_encoder, jnp.asarray(data["tokens"], jnp.int32)
    )
    agrees(np.asarray(actual), data["last"], 5e-6, "text last")


@pytest.mark.slow
def test_five_steps_of_the_original_sampler(converted):
    """eta 1 with given noise, guidance 12, a video of exactly one window."""
    data = io("vc2_tiny_a_ddim5")
    model = converted["unet"]
    graph, params = nnx.split(model.unet)

    def denoise(params, x, t, cond):
        return nnx.merge(graph, params)(x, t, cond["text"], fps=cond["fps"])

    fps = jnp.asarray(data["fps"], jnp.float32)
    out = sample(
        denoise,
        {"text": data["context"], "fps": fps},
        uncond={"text": data["uncond"], "fps": fps},
        params=params,
        layout=WindowLayout(frames=4, window=4, stride=4),
        frame_shape=(8, 8, 4),
        schedule=model.schedule,
        sampler=CoDenoising(steps=5, guidance=12.0, eta=1.0),
        key=jax.random.key(0),
        latents=channels_last(data["x_T"])[0],
        step_noise=np.moveaxis(data["noise"][:, 0], 1, -1),
    )
    agrees(channels_first(out[None]), data["out"], 2e-3, "five steps")


def test_published_sampling_settings(converted):
    config = converted["unet"].config
    assert (config.fps, config.guidance, config.steps, config.window) == (28, 12.0, 50, 4)
    assert config.openclip_tokens and config.latent_scale == 0.18215
    schedule = io("vc2_ddim_schedule")
    signal, noise = converted["unet"].schedule.rates(np.arange(1000))
    scaled = np.sqrt(schedule["alphas_cumprod"]) * schedule["scale_arr"][:1000]
    np.testing.assert_allclose(signal, scaled, rtol=1e-6)
    np.testing.assert_allclose(noise, np.sqrt(1 - schedule["alphas_cumprod"]), rtol=1e-4)


def test_a_model_with_all_networks_from_one_file(tmp_path):
    """All three in one checkpoint; text features do not match, which is said."""
    state = {}
    for name in FIXTURES.values():
        state |= weights(name)
    source = save_ckpt(tmp_path / "model.ckpt", state)
    config = config_file(tmp_path / "all.json", *FIXTURES.values())
    result = syncos("convert", source, "--out", tmp_path / "out", "--config", config)
    assert result.exit_code == 2
    assert "UNet takes 24 text features, the other has 64" in result.stderr
