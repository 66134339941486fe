"""The model that the package ships: what it shows, and that diffusers reads it too."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet3DConditionModel
from flax import nnx
from transformers import CLIPTextModel, CLIPTokenizer

from demo_model.diffusion import velocity_error
from demo_model.evaluate import autoencoder_right, clips_right, open_colour_scenario
from demo_model.world import LARGE_SUBJECTS, prompt, render, sample_scene
from syncos_jax.errors import InputError
from syncos_jax.metrics.world.tracker import read, track
from syncos_jax.models import Model
from syncos_jax.models.unet_clip.unet3d import UNet3D
from syncos_jax.models.unet_clip.vae import AutoencoderKL as OurVAE
from syncos_jax.pipeline import Pipeline
from syncos_jax.pipeline.load import load_model, model_folder
from syncos_jax.sampling import SynCoS
from syncos_jax.weights_convert.diffusers_folder import read_config

PROMPTS = ["a red ball on a green meadow, the ball rolls to the left", "a star at night, it grows"]


@pytest.fixture(scope="module")
def folder() -> Path:
    return model_folder("demo")


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("demo")


@pytest.fixture(scope="module")
def pipeline(model: Model) -> Pipeline:
    return Pipeline(model)


def test_the_package_data_is_small(folder):
    assert sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) < 20 * 2**20


def test_denoising_step_agrees_with_diffusers(folder, model):
    """Tokens, text, a guided prediction and one DDIM step, all through the other libraries."""
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    ids = tokenizer(PROMPTS, padding="max_length", max_length=model.config.text.tokens)
    np.testing.assert_array_equal(np.asarray(ids["input_ids"]), model.tokenizer(PROMPTS))

    text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder").float().eval()
    unet = UNet3DConditionModel.from_pretrained(folder / "unet").float().eval()
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(50)
    x = torch.randn(2, 4, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    t = scheduler.timesteps[10]
    with torch.no_grad():
        text = text_encoder(torch.tensor(ids["input_ids"])).last_hidden_state
        prediction = unet(x, t, text).sample
        stepped = scheduler.step(prediction, t, x).prev_sample

    our_text = model.text_encoder(jnp.asarray(model.tokenizer(PROMPTS)))
    np.testing.assert_allclose(our_text, text.numpy(), rtol=0, atol=1e-4)
    ours = jnp.asarray(np.moveaxis(x.numpy(), 1, -1))
    times = jnp.full((2,), int(t), jnp.int32)
    our_prediction = nnx.jit(UNet3D.__call__)(model.unet, ours, times, our_text)
    expected = np.moveaxis(prediction.numpy(), 1, -1)
    np.testing.assert_allclose(our_prediction, expected, rtol=0, atol=1e-4)

    steps = model.schedule.steps(50)
    assert int(steps.t[10]) == int(t)
    a, b = np.float32(steps.a[10]), np.float32(steps.b[10])
    x0, eps = a * ours - b * our_prediction, b * ours + a * our_prediction
    our_step = np.float32(steps.a_next[10]) * x0 + np.float32(steps.b_next[10]) * eps
    np.testing.assert_allclose(our_step, np.moveaxis(stepped.numpy(), 1, -1), rtol=0, atol=1e-4)


def test_autoencoder_agrees_with_diffusers(folder, model):
    reference = AutoencoderKL.from_pretrained(folder / "vae").float().eval()
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference.decode(latents).sample.permute(0, 2, 3, 1)
    actual = nnx.jit(OurVAE.decode)(model.vae, jnp.asarray(latents.permute(0, 2, 3, 1).numpy()))
    np.testing.assert_allclose(actual, expected.numpy(), rtol=0, atol=1e-4)


def test_autoencoder_keeps_what_the_tracker_reads(model):
    rng = np.random.default_rng(5)
    scenes = [sample_scene(rng, LARGE_SUBJECTS) for _ in range(8)]
    clips = render(scenes)
    images = jnp.asarray(clips.reshape(-1, 64, 64, 3), jnp.float32) / 127.5 - 1
    mean, _ = nnx.jit(OurVAE.encode)(model.vae, images)
    decoded = np.asarray(nnx.jit(OurVAE.decode)(model.vae, mean))
    error = np.sqrt(np.mean((decoded - np.asarray(images)) ** 2))
    assert error < 0.05  # of a range of 2
    frames = np.clip((decoded + 1) * 127.5, 0, 255).astype(np.uint8).reshape(clips.shape)
    for clip, scene in zip(frames, scenes, strict=True):
        seen = read(track(clip))
        told = scene.colour, scene.background, scene.shape
        assert (seen["colour"], seen["background"], seen["shape"]) == told


def test_shapes_survive_the_autoencoder(pipeline):
    right = autoencoder_right(pipeline, clips=24, seed=5)
    assert right["shape"] >= 0.95 and min(right["colour"], right["background"]) == 1


def test_a_known_first_frame_tells_the_others(model):
    """At timestep 970 the clip is nearly noise: the loss is a third with its first frame given."""
    assert model.known_rule == "timestep"
    rng = np.random.default_rng(6)
    scenes = [sample_scene(rng, LARGE_SUBJECTS) for _ in range(8)]
    images = jnp.asarray(render(scenes).reshape(-1, 64, 64, 3), jnp.float32) / 127.5 - 1
    x0 = nnx.jit(OurVAE.encode)(model.vae, images)[0].reshape(8, 8, 16, 16, 4)
    ids = jnp.asarray(model.tokenizer([prompt(scene) for scene in scenes]))
    text, t = model.text_encoder(ids), jnp.full((8, 8), 970)
    first = jnp.zeros((8, 8)).at[:, 0].set(1)
    unet = nnx.jit(UNet3D.__call__)

    def error(known):
        call = lambda *arguments: unet(model.unet, *arguments)  # noqa: E731
        return float(velocity_error(call, x0, t, text, jax.random.key(0), known).mean())

    assert error(first) < 0.4 * error(jnp.zeros_like(first))


def test_how_known_frames_enter_is_kept_with_the_model(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "demo")
    path = tmp_path / "demo" / "syncos.json"
    for rule, found in (("replace", "replace"), (None, "replace"), ("timestep", "timestep")):
        values = json.loads(path.read_text())
        values.pop("known_rule", None)
        path.write_text(json.dumps(values if rule is None else values | {"known_rule": rule}))
        assert read_config(tmp_path / "demo").known_rule == found
    path.write_text(json.dumps(values | {"known_rule": "never"}))
    with pytest.raises(InputError, match="known_rule: is 'never'; expected replace or timestep"):
        read_config(tmp_path / "demo")


@pytest.mark.slow
def test_clips_show_what_the_prompt_says(pipeline):
    """Chance is 1/6 and 1/4; what 256 clips show stands in docs/models.md."""
    right = clips_right(pipeline, clips=16, guidance=3.0, steps=20, seed=1)
    assert min(right["colour"], right["background"], right["shape"]) >= 0.9
    assert right["motion"] >= 0.85


@pytest.mark.slow
def test_a_long_video_of_several_events(pipeline):
    scenario = open_colour_scenario(3)
    settings = SynCoS(steps=3, guidance=3.0, iterations=2)
    video = pipeline(scenario, sampler=settings, seed=0)
    assert video.frames.shape == (32, 64, 64, 3)
    again = pipeline(scenario, sampler=settings, seed=0)
    np.testing.assert_array_equal(video.frames, again.frames)
    other = pipeline(scenario, sampler=settings, seed=1)
    assert np.abs(video.frames.astype(int) - other.frames).mean() > 1
